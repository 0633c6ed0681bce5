//! Which file of a crate imports from which other, read from its `use` lines and `crate::` paths.
//!
//! A name that a module passes on (`pub use`) counts as imported from the file that has it. Tests within a
//! file, and comments, do not count. Not seen: imports by macros, and by `use module::*`.

use std::collections::{BTreeMap, BTreeSet};

/// A crate's files by module path (`a::b`; the root is empty), with the modules each imports from.
pub type Imports = BTreeMap<String, BTreeSet<String>>;

/// The text of each file by its path below `src`; returns which file imports from which.
pub fn imports(files: &BTreeMap<String, String>) -> Imports {
    let modules: BTreeMap<String, String> =
        files.iter().map(|(path, text)| (module_of(path), code_of(text))).collect();
    let parents: BTreeSet<String> = files
        .keys()
        .filter(|path| path.ends_with("mod.rs") || *path == "lib.rs")
        .map(|p| module_of(p))
        .collect();
    let named: BTreeMap<&str, Vec<Path>> =
        modules.iter().map(|(module, code)| (module.as_str(), paths_of(module, code, &modules))).collect();
    let passed_on: BTreeMap<(&str, &str), &Path> = named
        .iter()
        .filter(|(module, _)| parents.contains(**module))
        .flat_map(|(module, paths)| paths.iter().map(|path| ((*module, path.last().map_or("", |n| n)), path)))
        .collect();
    let of = |(module, paths): (&&str, &Vec<Path>)| {
        let found = paths.iter().map(|path| resolved(path, &modules, &passed_on));
        let others = found.filter(|other| other != *module && !other.is_empty());
        ((*module).to_owned(), others.collect())
    };
    named.iter().map(of).collect()
}

/// A path from the crate's root.
type Path = Vec<String>;

fn module_of(path: &str) -> String {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { String::new() } else { path.replace('/', "::") }
}

/// The text without comments and tests.
fn code_of(text: &str) -> String {
    let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((text, ""));
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// All paths that a file names in `use` lines and after `crate::`.
fn paths_of(module: &str, code: &str, modules: &BTreeMap<String, String>) -> Vec<Path> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    for piece in code.split_inclusive(';') {
        let line = piece.lines().position(is_use).map(|at| piece.lines().skip(at).collect::<String>());
        match line {
            Some(line) => {
                let (_, tree) = line.split_once("use ").expect("just seen");
                flatten("", tree.trim_end_matches(';'), &mut paths);
            }
            None => rest.push_str(piece),
        }
    }
    for piece in rest.split("crate::").skip(1) {
        let end = piece.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(piece.len());
        paths.push(format!("crate::{}", &piece[..end]));
    }
    paths.iter().filter_map(|path| absolute(module, path, modules)).collect()
}

fn is_use(line: &str) -> bool {
    let line = line.trim_start();
    ["use ", "pub use ", "pub(crate) use ", "pub(super) use "].iter().any(|start| line.starts_with(start))
}

/// Adds the single paths of a `use` tree.
fn flatten(before: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((start, inner)) = tree.split_once('{') else {
        let path = format!("{before}{tree}");
        paths.push(path.split(" as ").next().unwrap_or_default().trim().to_owned());
        return;
    };
    let (before, mut depth, mut from) = (format!("{before}{}", start.trim()), 0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                if !inner[from..at].trim().is_empty() {
                    flatten(&before, &inner[from..at], paths);
                }
                from = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
}

/// The path from the crate's root; `None` for those of other crates.
fn absolute(module: &str, path: &str, modules: &BTreeMap<String, String>) -> Option<Path> {
    let mut names: Vec<String> = path.split("::").filter(|n| !n.is_empty()).map(str::to_owned).collect();
    let mut base: Vec<String> = module.split("::").filter(|n| !n.is_empty()).map(str::to_owned).collect();
    match names.first()?.as_str() {
        "crate" => base.clear(),
        "self" | "super" => {
            while names.first().is_some_and(|name| name == "super") {
                names.remove(0);
                base.pop();
            }
            // Put back for the removal below.
            if names.first().is_none_or(|name| name != "self") {
                names.insert(0, String::new());
            }
        }
        first => {
            let child = if module.is_empty() { first.to_owned() } else { format!("{module}::{first}") };
            if !modules.contains_key(&child) {
                return None;
            }
            names.insert(0, String::new());
        }
    }
    names.remove(0);
    base.extend(names);
    Some(base)
}

/// The module that has what `path` names.
fn resolved(
    path: &Path,
    modules: &BTreeMap<String, String>,
    passed_on: &BTreeMap<(&str, &str), &Path>,
) -> String {
    let mut path = path;
    for _ in 0..8 {
        let known = (0..=path.len()).rev().find(|n| modules.contains_key(&path[..*n].join("::")));
        let length = known.expect("the root is a module");
        let module = path[..length].join("::");
        match path.get(length).and_then(|name| passed_on.get(&(module.as_str(), name.as_str()))) {
            Some(next) if *next != path => path = next,
            _ => return module,
        }
    }
    String::new()
}

/// The circles: sets of files each of which reaches every other one.
pub fn circles(imports: &Imports) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<String>> =
        imports.keys().map(|module| (module, reach(module, imports))).collect();
    let mut circles = BTreeSet::new();
    for (module, there) in &reached {
        let back = |other: &&String| reached.get(other).is_some_and(|theirs| theirs.contains(*module));
        let circle: BTreeSet<String> = there.iter().filter(back).cloned().collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

fn reach(module: &str, imports: &Imports) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![module.to_owned()];
    while let Some(next) = open.pop() {
        for other in imports.get(&next).into_iter().flatten() {
            if reached.insert(other.clone()) {
                open.push(other.clone());
            }
        }
    }
    reached
}

#[test]
fn an_import_is_of_the_file_that_has_the_name_whatever_way_it_is_written() {
    let text = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let files = BTreeMap::from([
        text("lib.rs", "mod a;\nmod b;\npub use b::{inner::Thing, Other};\n"),
        text(
            "a.rs",
            "// use crate::c;\nuse std::fmt;\nuse crate::{Thing,\n b::Other as O};\n#[cfg(test)]\nuse crate::c;",
        ),
        text("b/mod.rs", "mod inner;\npub use inner::Thing;\nstruct Other;\n"),
        text("b/inner.rs", "use super::super::c::{self, X};\nfn f() { crate::a::g() }\n"),
        text("c.rs", "use crate::b::Thing;\n"),
    ]);
    let found = imports(&files);
    let of = |module: &str| found[module].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("a"), ["b", "b::inner"]);
    assert_eq!(of("b"), ["b::inner"]);
    assert_eq!(of("b::inner"), ["a", "c"]);
    assert_eq!(of("c"), ["b::inner"]);
    let circle = ["a", "b", "b::inner", "c"].map(str::to_owned).into();
    assert_eq!(circles(&found), [circle]);
}

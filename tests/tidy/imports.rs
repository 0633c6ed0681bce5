//! Which file of a crate imports from which other, read from its `use` lines and from the paths in its code.
//!
//! A name that a file passes on (`use`) counts as imported from the file that has it. Modules of tests within a
//! file do not count. Not seen: what macros write, what the crate's root itself has, and calls of methods that another
//! file gives to a type, which name no path.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::code_of;

/// A crate's files by module path (`a::b`; the root is empty), with the modules each imports from.
pub type Imports = BTreeMap<String, BTreeSet<String>>;

/// A path from the crate's root.
type Path = Vec<String>;

/// The paths of the crate that one file names.
#[derive(Default)]
struct Named {
    /// All of them.
    paths: Vec<Path>,
    /// Those of its `use` lines, by the names that they have in this file.
    used: BTreeMap<String, Path>,
}

/// The text of each file by its path below `src`; returns which file imports from which.
pub fn imports(files: &BTreeMap<String, String>) -> Imports {
    let codes: BTreeMap<String, String> =
        files.iter().map(|(path, text)| (module_of(path), code_of(text))).collect();
    let modules: BTreeSet<&str> = codes.keys().map(String::as_str).collect();
    let named: BTreeMap<&str, Named> =
        codes.iter().map(|(module, code)| (module.as_str(), named_by(module, code, &modules))).collect();
    let of = |(module, own): (&&str, &Named)| {
        let found = own.paths.iter().map(|path| resolved(path, &named));
        let others = found.filter(|other| other != *module && !other.is_empty());
        ((*module).to_owned(), others.collect())
    };
    named.iter().map(of).collect()
}

fn module_of(path: &str) -> String {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { String::new() } else { path.replace('/', "::") }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn named_by(module: &str, code: &str, modules: &BTreeSet<&str>) -> Named {
    let mut named = Named::default();
    let mut rest = String::new();
    let mut uses = Vec::new();
    for piece in code.split_inclusive(';') {
        let Some((before, tree)) = split_use(piece) else {
            rest.push_str(piece);
            continue;
        };
        rest.push_str(before);
        flatten("", tree.trim_end_matches(';'), &mut uses);
    }
    for (path, name) in uses {
        let path = absolute(module, &path, modules);
        named.paths.extend(path.clone());
        named.used.extend(path.map(|path| (name, path)));
    }
    for path in inline_paths(&rest) {
        let (first, after) = path.split_once("::").expect("a path has two names at least");
        let by_name = named.used.get(first).map(|start| joined(start, after));
        named.paths.extend(by_name.or_else(|| absolute(module, path, modules)));
    }
    named
}

fn joined(start: &Path, after: &str) -> Path {
    start.iter().cloned().chain(after.split("::").map(str::to_owned)).collect()
}

/// What is before the `use` that ends a piece of code, and its tree.
fn split_use(piece: &str) -> Option<(&str, &str)> {
    let at = piece.match_indices("use").map(|(at, _)| at).find(|at| {
        let (before, after) = (&piece[..*at], &piece[at + 3..]);
        !before.ends_with(is_of_name) && after.starts_with(char::is_whitespace)
    })?;
    Some((&piece[..at], &piece[at + 3..]))
}

/// All paths of two names or more in some code.
fn inline_paths(code: &str) -> impl Iterator<Item = &str> {
    let words = code.split(|c: char| !(is_of_name(c) || c == ':'));
    let paths = words.map(|word| word.trim_matches(':'));
    paths.filter(|path| path.contains("::") && !path.contains(":::"))
}

/// Adds the single paths of a `use` tree, each with the name that it gives.
fn flatten(before: &str, tree: &str, paths: &mut Vec<(String, String)>) {
    let tree = tree.trim();
    let Some((start, inner)) = tree.split_once('{') else {
        let path = format!("{before}{tree}");
        let (path, name) = path.split_once(" as ").unwrap_or((&path, ""));
        let path = path.trim().trim_end_matches("::self");
        let name = if name.is_empty() { path.rsplit("::").next().unwrap_or_default() } else { name.trim() };
        paths.push((path.to_owned(), name.to_owned()));
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
fn absolute(module: &str, path: &str, modules: &BTreeSet<&str>) -> Option<Path> {
    // A program's root has the names of a library's.
    let module = if module == "main" { "" } else { module };
    let mut base: Vec<&str> = module.split("::").filter(|n| !n.is_empty()).collect();
    let mut names: &[&str] = &path.split("::").collect::<Vec<_>>();
    match names {
        ["crate", rest @ ..] => (base, names) = (Vec::new(), rest),
        ["self", rest @ ..] => names = rest,
        ["super", ..] => {}
        [first, ..] => {
            let child = base.iter().chain([first]).copied().collect::<Vec<_>>().join("::");
            modules.contains(child.as_str()).then_some(())?;
        }
        [] => return None,
    }
    while let ["super", rest @ ..] = names {
        base.pop();
        names = rest;
    }
    Some(base.into_iter().chain(names.iter().copied()).map(str::to_owned).collect())
}

/// The module that has what `path` names.
fn resolved(path: &Path, named: &BTreeMap<&str, Named>) -> String {
    let mut path = path.clone();
    for _ in 0..8 {
        let known = (0..=path.len()).rev().find(|n| named.contains_key(path[..*n].join("::").as_str()));
        let Some(length) = known else { break };
        let module = path[..length].join("::");
        let passed_on = path.get(length).and_then(|name| named[module.as_str()].used.get(name));
        match passed_on.map(|start| [start, &path[length + 1..]].concat()) {
            Some(next) if next != path => path = next,
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
            "// use crate::c;\nuse std::fmt;\nuse crate::{Thing,\n b::Other as O};\n#[cfg(test)]\nmod t { use crate::c; }",
        ),
        text("b/mod.rs", "mod inner;\nmod own;\npub use inner::Thing;\nstruct Other;\nfn f() { own::g() }\n"),
        text("b/inner.rs", "use super::super::c::{self, X};\nfn f() { crate::a::g() }\n"),
        text("b/own.rs", "fn g() -> super::Thing { if x { super::super::d::h() } }\n"),
        text("c.rs", "use crate::b::Thing;\n"),
        text(
            "d.rs",
            "fn reuse () {}\nuse crate::c::X as _;\nuse crate::a::Y as _;\npub(in crate) use crate::b as new;\n#[cfg(test)] fn t() {}\nfn h() { new::own::g::<u8>() }\n",
        ),
    ]);
    let found = imports(&files);
    let of = |module: &str| found[module].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("a"), ["b", "b::inner"]);
    assert_eq!(of("b"), ["b::inner", "b::own"]);
    assert_eq!(of("b::inner"), ["a", "c"]);
    assert_eq!(of("b::own"), ["b::inner", "d"]);
    assert_eq!(of("c"), ["b::inner"]);
    assert_eq!(of("d"), ["a", "b", "b::own", "c"]);
    let circle = ["a", "b", "b::inner", "b::own", "c", "d"].map(str::to_owned).into();
    assert_eq!(circles(&found), [circle]);
}

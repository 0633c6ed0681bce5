//! The house rules that no lint holds: a test that reads the source tree.

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/imports.rs"]
mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates from the ground up, each with the floors of its `src`, from the ground up: a crate may depend only on those
/// before it, and the folders and files on a floor import only from each other and from the floors before it. The names
/// that a file passes on count as those of the file they come from.
const FLOORS: [(&str, &[&str]); 14] = [
    ("mem", &["segment io_buf buffers pool", "shared"]),
    (
        "ring",
        &[
            "primitive inline lines",
            "call parcel inbox parking sleep static_ref",
            "spsc",
            "express",
            "port",
            "route",
            "outgoing",
        ],
    ),
    (
        "engine",
        &[
            "address engine_error engine_id inherited kind open receive_pool report rng",
            "sim_handle standard_streams system_calls time wall_clock",
            "cpu_set cores os_thread stop_requests",
            "owned",
            "handle",
            "op",
            "driver places",
            "os",
            "sim",
            "bell signals",
            "epoll uring",
            "engine",
        ],
    ),
    (
        "reactor",
        &[
            "error",
            "mode",
            "caught",
            "time",
            "diagnosis",
            "say",
            "shared",
            "task",
            "local",
            "message",
            "thread",
            "reactor",
            "runtime",
        ],
    ),
    ("block", &["terms", "state", "request", "path", "devices", "top"]),
    (
        "format",
        &[
            "bitmap change crc entries ids mask_kind page_layout",
            "error",
            "cluster_map metadata",
            "descriptor",
            "geometry super_block",
            "grow init mask page",
            "chain unload",
            "repair",
            "store",
            "resolve sharing extents",
            "loader",
            "check",
        ],
    ),
    (
        "blob",
        &[
            "ordering",
            "options",
            "error",
            "waiting",
            "map",
            "space",
            "shared",
            "md",
            "data",
            "blob",
            "store replacement transfer",
            "channel",
        ],
    ),
    (
        "bdev",
        &[
            "counter detail error event io_types notify read_only",
            "opened",
            "module bdev claim extents",
            "desc namespace plain_disk statistics report",
            "registry virtual_bdev",
            "blob_device examine registered unregister",
            "modules",
            "load conformance",
        ],
    ),
    (
        "lvol",
        &[
            "error",
            "name",
            "identity store_key",
            "state",
            "copying target",
            "info details extents",
            "disk",
            "external offer",
            "load unload",
            "create",
            "change copy delete parents",
            "lvol store",
            "module",
        ],
    ),
    (
        "nbd",
        &["codec error extents origin overlap", "budget export stats tls", "shared", "connection", "server"],
    ),
    (
        "rpc",
        &[
            "budget errno phase unfinished writer",
            "error number value",
            "request response scan",
            "answers params parser",
            "client table",
            "dispatch",
            "connection",
            "server",
        ],
    ),
    (
        "control",
        &[
            "base64",
            "pattern",
            "outlet",
            "log",
            "spdk",
            "address",
            "values",
            "core_locks",
            "memory_nodes",
            "open_files",
            "start_error",
            "settings",
            "control",
            "methods",
            "reference replay",
            "daemon",
        ],
    ),
    ("command", &["perf", "cli", "main"]),
    (
        "prove",
        &[
            "growing scenario units",
            "content profile",
            "external",
            "op reader seen",
            "failing second_reader",
            "kept model world",
            "context verdict",
            "data look report",
            "workload metadata directed",
            "session",
            "damage",
            "proof detail",
            "fixtures",
            "damaging",
            "main",
        ],
    ),
];

/// What only the command needs: a program that depends on the library compiles none of it.
const OF_THE_COMMAND: [&str; 6] = ["clap", "indicatif", "serde_json", "strsim", "tempfile", "unicode-width"];

/// What a program without the feature `daemon` does not compile either.
const OF_THE_DAEMON: [&str; 4] = ["serde", "spindle-control", "spindle-nbd", "spindle-rpc"];

/// The only crates that may hold `unsafe`.
const MAY_HOLD_UNSAFE: [&str; 3] = ["mem", "ring", "engine"];

/// A file may be longer than this only with a reason here.
const LONGEST_FILE: usize = 800;

/// Files over the limit, each with the reason a reader would accept.
const LONG_FILES: [(&str, &str); 0] = [];

/// The most files of a crate that may import each other in a circle.
const LARGEST_CIRCLE: usize = 4;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != "fixtures" && !name.to_string_lossy().starts_with('.')
        {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// Every Rust file of the project, by its path from the root, with its text.
fn sources() -> Vec<(String, String)> {
    let sources = sources_below(&root());
    assert!(sources.len() > 20, "the walk must have found the tree, not {} files", sources.len());
    sources
}

/// Every Rust file below a folder, by its path from there, with its text.
fn sources_below(folder: &Path) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    files_below(folder, "rs", &mut paths);
    paths.sort();
    let relative = |p: &Path| p.strip_prefix(folder).expect("below it").to_string_lossy().into_owned();
    paths.iter().map(|p| (relative(p), fs::read_to_string(p).expect("source is UTF-8"))).collect()
}

/// Fails with every offence at once, one a line.
fn no_offences(rule: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn files_fit_in_a_readers_head() {
    let excused = |path: &str| LONG_FILES.iter().any(|(long, _)| *long == path);
    let offences =
        sources().into_iter().filter(|(path, text)| text.lines().count() > LONGEST_FILE && !excused(path));
    no_offences(
        "a file has at most 800 lines",
        offences.map(|(path, t)| format!("{path}: {}", t.lines().count())).collect(),
    );
}

#[test]
fn every_module_says_what_it_is() {
    let opens_with_docs =
        |text: &str| text.lines().find(|l| !l.trim().is_empty()).is_some_and(|l| l.starts_with("//!"));
    let offences = sources()
        .into_iter()
        .filter(|(path, text)| !path.contains("compile_fail/") && !opens_with_docs(text));
    no_offences(
        "a file opens with `//!`: what the thing is, what owns it",
        offences.map(|(path, _)| path).collect(),
    );
}

#[test]
fn unsafe_lives_in_the_lowest_crates_only() {
    let mut offences = Vec::new();
    for (path, text) in sources() {
        let krate = path.strip_prefix("crates/").and_then(|p| p.split('/').next()).unwrap_or("spindle");
        let is_library = path.ends_with("src/lib.rs");
        if is_library && !MAY_HOLD_UNSAFE.contains(&krate) && !text.contains("#![forbid(unsafe_code)]") {
            offences.push(format!("{path}: lacks #![forbid(unsafe_code)]"));
        }
    }
    no_offences("unsafe code is forbidden above mem, ring and engine", offences);
}

#[test]
fn send_and_sync_are_promised_by_hand_only_beside_a_model_checked_test() {
    let by_hand =
        |line: &str| line.contains("unsafe impl") && (line.contains("Send") || line.contains("Sync"));
    let allowed = |path: &str| {
        ["crates/mem/", "crates/ring/"].iter().any(|c| path.starts_with(c)) || path == "tests/tidy.rs"
    };
    let offences = sources().into_iter().filter(|(path, text)| !allowed(path) && text.lines().any(by_hand));
    no_offences("`unsafe impl Send/Sync` lives in mem and ring", offences.map(|(path, _)| path).collect());
}

#[test]
fn the_program_in_the_readme_is_the_example_that_compiles() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("it is there");
    let example = read("examples/readme.rs");
    let (_, program) = example.split_once("\n\n").expect("a line that says what it is, then the program");
    let shown = format!("```rust\n{program}```");
    assert!(read("README.md").contains(&shown), "README.md shows examples/readme.rs as it is:\n{shown}");
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX", "dbg!(", "#[ignore]"];
    let mut offences = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| path != "tests/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            offences.extend(
                marks.iter().filter(|m| line.contains(**m)).map(|m| format!("{path}:{}: {m}", number + 1)),
            );
        }
    }
    no_offences("no unfinished work in the tree", offences);
}

#[test]
fn sources_are_plain_ascii() {
    let offences = sources().into_iter().filter(|(_, text)| !text.is_ascii()).map(|(path, _)| path);
    no_offences("sources are ASCII", offences.collect());
}

#[test]
fn imports_run_downwards() {
    let mut offences = Vec::new();
    for (floor, (krate, _)) in FLOORS.iter().enumerate() {
        let Ok(manifest) = fs::read_to_string(root().join("crates").join(krate).join("Cargo.toml")) else {
            continue;
        };
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        let above = FLOORS[floor..].iter().map(|(above, _)| above);
        let above = above.filter(|above| dependencies.contains(&format!("spindle-{above}")));
        offences.extend(above.map(|above| format!("{krate} depends on {above}")));
    }
    no_offences("a crate depends only on crates below it", offences);
}

/// The files of a crate by their paths below its `src`.
fn files_of(krate: &str) -> BTreeMap<String, String> {
    sources_below(&root().join("crates").join(krate).join("src")).into_iter().collect()
}

/// The folder or file in `src` that has a module.
fn top_of(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

/// The number of the floor on which a folder or file stands.
fn floor_of(floors: &[&str], name: &str) -> Option<usize> {
    floors.iter().position(|floor| floor.split(' ').any(|stands| stands == name))
}

#[test]
fn names_are_imported_one_by_one() {
    let mut offences = Vec::new();
    for (krate, _) in FLOORS {
        let files = files_of(krate).into_iter().filter(|(path, _)| !path.ends_with("tests.rs"));
        let all = files.filter(|(_, text)| code::code_of(text).contains("::*"));
        offences.extend(all.map(|(path, _)| format!("crates/{krate}/src/{path}")));
    }
    no_offences("no `use module::*`, which hides from which file a name is", offences);
}

#[test]
fn every_file_stands_on_a_floor_of_its_crate() {
    let mut offences = Vec::new();
    for (krate, floors) in FLOORS {
        let imports = imports::imports(&files_of(krate));
        let there: BTreeSet<&str> = imports.keys().map(|module| top_of(module)).collect();
        let lost = there.iter().filter(|name| !name.is_empty() && floor_of(floors, name).is_none());
        offences.extend(lost.map(|name| format!("{krate}: {name} stands on no floor")));
        let listed = floors.iter().flat_map(|floor| floor.split(' '));
        offences
            .extend(listed.filter(|name| !there.contains(name)).map(|name| format!("{krate} has no {name}")));
    }
    no_offences("tests/tidy.rs has the floors of every crate, from the ground up", offences);
}

#[test]
fn imports_run_downwards_within_a_crate_too() {
    let mut offences = Vec::new();
    for (krate, floors) in FLOORS {
        for (module, others) in imports::imports(&files_of(krate)) {
            // The root passes on what all files have.
            let Some(own) = floor_of(floors, top_of(&module)) else { continue };
            let above = others.iter().filter(|other| floor_of(floors, top_of(other)) > Some(own));
            offences.extend(above.map(|other| format!("{krate}: {module} imports from {other}")));
        }
    }
    no_offences("a folder imports only from its own floor and those below it", offences);
}

#[test]
fn only_few_files_import_each_other_in_a_circle() {
    let mut offences = Vec::new();
    for (krate, _) in FLOORS {
        let circles = imports::circles(&imports::imports(&files_of(krate)));
        let large = circles.into_iter().filter(|circle| circle.len() > LARGEST_CIRCLE);
        offences.extend(large.map(|circle| format!("{krate}: {circle:?}")));
    }
    no_offences("a circle of imports has at most four files", offences);
}

/// The crates that a program compiles if it depends on the library with these features.
fn compiled_with_the_library(features: &[&str]) -> BTreeSet<String> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--package", "spindle", "--edges", "normal", "--prefix", "none", "--offline"]);
    let tree = tree.args(features).current_dir(root()).output().expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("cargo prints text");
    let names: BTreeSet<String> =
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(names.contains("spindle-blob"), "{text}");
    names
}

#[test]
fn a_program_that_depends_on_the_library_compiles_nothing_that_only_the_command_needs() {
    let (all, few) = (compiled_with_the_library(&[]), compiled_with_the_library(&["--no-default-features"]));
    let with_daemon = OF_THE_COMMAND.iter().filter(|name| all.contains(**name));
    let without = OF_THE_COMMAND.iter().chain(&OF_THE_DAEMON).filter(|name| few.contains(**name));
    let offences = with_daemon
        .map(|name| (*name).to_owned())
        .chain(without.map(|name| format!("{name}, without daemon")));
    no_offences("the library is free of", offences.collect());
    assert!(OF_THE_DAEMON.iter().all(|name| all.contains(*name)), "the daemon is there by default: {all:?}");
}

#[test]
fn every_crate_stands_on_a_floor() {
    let crates = fs::read_dir(root().join("crates")).expect("crates/").flatten();
    let names = crates.map(|e| e.file_name().to_string_lossy().into_owned());
    no_offences(
        "tests/tidy.rs knows every crate",
        names.filter(|n| !FLOORS.iter().any(|(krate, _)| krate == n)).collect(),
    );
}

#[test]
fn the_project_names_no_machine() {
    let mut paths = Vec::new();
    for extension in ["rs", "md", "toml", "py", "sh", "yml"] {
        files_below(&root(), extension, &mut paths);
    }
    let private = [concat!("/work", "/"), concat!("/root", "/")];
    let offends = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        private.iter().any(|p| text.contains(p))
    };
    no_offences(
        "no path of one machine",
        paths.iter().filter(|p| offends(p)).map(|p| p.display().to_string()).collect(),
    );
}

/// The words in backquotes of a cell of a table.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn the_functions_that_finding_your_way_names_are_in_the_files_it_names() {
    let page = fs::read_to_string(root().join("docs/finding-your-way.md")).expect("it is there");
    let (followed, _) = page.split_once("## Where to change what").expect("the last part has no functions");
    let mut offences = Vec::new();
    for row in followed.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split('|').collect();
        let (mut folder, mut text) = (PathBuf::new(), String::new());
        for file in quoted(cells[2]) {
            let path = if file.contains('/') { root().join("crates").join(file) } else { folder.join(file) };
            match fs::read_to_string(&path) {
                Ok(source) => text.push_str(&source),
                Err(_) => offences.push(format!("there is no {}", path.display())),
            }
            folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        }
        let functions = quoted(cells[3]).filter_map(|name| name.rsplit("::").next());
        let missing = functions.filter(|name| {
            let declared = |word: &str| text.contains(&format!("{word} {name}"));
            !["fn", "struct", "enum"].into_iter().any(declared)
        });
        offences.extend(missing.map(|name| format!("{name} is not in {}", cells[2].trim())));
    }
    no_offences("docs/finding-your-way.md follows the code", offences);
}

#[test]
fn the_files_that_the_glossary_names_are_there() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    let (_, words) = page.split_once("## Words").expect("the glossary");
    let (words, _) = words.split_once("## Laws").expect("what follows it");
    let mut offences = Vec::new();
    for row in words.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = row.split('|').collect();
        let mut folder = PathBuf::new();
        for file in quoted(cells[3]) {
            let path = match file.split_once('/') {
                Some((krate, rest)) => root().join("crates").join(krate).join("src").join(rest),
                None => folder.join(file),
            };
            offences.extend((!path.is_file()).then(|| format!("{}: {file}", cells[1].trim())));
            folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        }
    }
    no_offences("the glossary names files that are there", offences);
}

//! Which test drove which method by SPDK's own client: the table of methods names it.
//!
//! `crates/control/src/methods/driven` has a method and a test a line. Each test holds it to what it did; with
//! `SPINDLE_WRITE_DRIVEN=1` it writes its lines instead, and `docs/rpc.md` is written again by the tests of
//! `spindle-control` with `SPINDLE_WRITE_REFERENCE=1`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn file() -> PathBuf {
    crate::root().join("crates/control/src/methods/driven")
}

fn read() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(file()).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(method, test)| (method.to_owned(), test.to_owned())).collect()
}

/// The client's commands that are no methods: they call several.
const OTHERS: [&str; 4] = ["save_config", "load_config", "save_subsystem_config", "load_subsystem_config"];

/// The test of that name drove the methods that these commands begin with.
pub fn note(test: &str, commands: &BTreeSet<String>) {
    let methods: BTreeSet<&String> =
        commands.iter().filter(|command| !OTHERS.contains(&command.as_str())).collect();
    let mut listed = read();
    if std::env::var_os("SPINDLE_WRITE_DRIVEN").is_some() {
        listed.retain(|method, by| by != test || methods.contains(method));
        for method in methods {
            listed.entry(method.clone()).or_insert_with(|| test.to_owned());
        }
        let lines: Vec<String> = listed.iter().map(|(method, test)| format!("{method} {test}\n")).collect();
        return std::fs::write(file(), lines.concat()).unwrap();
    }
    let of_this: BTreeSet<&String> =
        listed.iter().filter(|(_, by)| *by == test).map(|(method, _)| method).collect();
    let not_driven: Vec<_> = of_this.difference(&methods).collect();
    let not_listed: Vec<_> = methods.iter().filter(|method| !listed.contains_key(**method)).collect();
    assert!(
        not_driven.is_empty() && not_listed.is_empty(),
        "{}: {test} does not drive {not_driven:?}, and {not_listed:?} are not listed; run it with \
         SPINDLE_WRITE_DRIVEN=1",
        file().display()
    );
}

//! The page of all methods, made from the table: `docs/rpc.md`.

use std::fmt::Write;

use spindle_rpc::{Method, State, Table};

use crate::control::Control;
use crate::methods;
use crate::spdk::{self, Absent};

const BEGINNING: &str = "# RPC methods

All methods of SPDK v26.09, and our own. Made from the table of methods: `crates/control/tests/all` keeps page and
table equal. A method is called before the framework is initialised (S), after that (R), or both.

**Done** names the test in which SPDK's own client (PyPI `spdk`) drove the method; what it answers beside SPDK is
compared by the replay of recorded answers, and [differences](differences.md) lists what is otherwise. **Refused** is
not meant to come. All others may come, and answer \"Method not found\" with the reason: they belong to modules,
protocols and devices that are not here; of what is here every method is done.
";

/// The page.
pub fn reference() -> String {
    let table = methods::table();
    let mut page = String::from(BEGINNING);
    let (mut done, mut refused, mut not_yet) = (0, 0, 0);
    let mut groups = String::new();
    for group in &spdk::GROUPS {
        let _ =
            write!(groups, "\n## {}\n\n| method | when | parameters | |\n|---|---|---|---|\n", group.title);
        for spdk::Method(name) in group.methods() {
            match (find(&table, name), spdk::absence(name)) {
                (Some(method), _) => {
                    done += 1;
                    row(&mut groups, method);
                }
                (None, Absent::Refused(why)) => {
                    refused += 1;
                    let _ = writeln!(groups, "| {name} | | | refused: {why} |");
                }
                (None, Absent::NotYet(why)) => {
                    not_yet += 1;
                    let _ = writeln!(groups, "| {name} | | | not yet: {why} |");
                }
            }
        }
    }
    let own: Vec<&Method<Control>> =
        table.methods().filter(|method| !spdk::is_known(method.name())).collect();
    let _ = writeln!(
        page,
        "\nOf SPDK's {} methods {done} are done, {refused} refused, {not_yet} not there yet; {} are our own.",
        done + refused + not_yet,
        own.len()
    );
    page.push_str(&groups);
    page.push_str("\n## Our own\n\n| method | when | parameters | |\n|---|---|---|---|\n");
    own.into_iter().for_each(|method| row(&mut page, method));
    page
}

fn find<'a>(table: &'a Table<Control>, name: &str) -> Option<&'a Method<Control>> {
    table.methods().find(|method| method.name() == name)
}

fn row(page: &mut String, method: &Method<Control>) {
    let states = method.states();
    let when: String = [(State::Startup, 'S'), (State::Runtime, 'R')]
        .into_iter()
        .filter(|(state, _)| states.contain(*state))
        .map(|(_, letter)| letter)
        .collect();
    let parameters = method.parameters().join(", ");
    let done = match method.driven_by() {
        Some(test) => format!("done: `{test}`"),
        None => "done".to_owned(),
    };
    let _ = writeln!(page, "| {} | {when} | {parameters} | {done} |", method.name());
}

//! The methods, one file for each group.

mod application;
mod bdevs;
mod delay;
mod error;
mod files;
mod framework;
mod iobuf;
mod limits;
pub(crate) mod log;
mod lvols;
mod lvstores;
mod malloc;
mod nbd;
mod notify;
mod null;
mod passthru;
pub(crate) mod scheduler;
mod split;
mod statistics;
mod threads;

use serde::Deserialize;
use spindle_rpc::{NameTaken, Table};

use crate::control::Control;

/// All methods of the daemon. A program that embeds it adds its own.
///
/// # Panics
/// Never: the names are constants, and a test checks that they differ.
pub fn table() -> Table<Control> {
    let mut table = Table::new();
    let add = [
        framework::add,
        scheduler::add,
        log::add,
        iobuf::add,
        threads::add,
        notify::add,
        bdevs::add,
        statistics::add,
        limits::add,
        malloc::add,
        null::add,
        files::add,
        passthru::add,
        delay::add,
        error::add,
        split::add,
        lvstores::add,
        lvols::add,
        nbd::add,
        application::add,
    ];
    add.iter().try_for_each(|add| add(&mut table)).expect("our own methods have names of their own");
    table
}

type Added = Result<(), NameTaken>;

/// Parameters that are a name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_methods_have_names_of_their_own() {
        assert!(super::table().methods().count() > 20);
    }
}

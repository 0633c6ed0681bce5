//! The methods, one file for each group.

mod application;
mod bdev_options;
mod bdevs;
mod common;
mod config;
mod copies;
mod delay;
mod error;
mod files;
mod framework;
mod histograms;
mod iobuf;
mod keyring;
mod limits;
mod log;
mod lvol_params;
mod lvols;
mod lvstores;
mod malloc;
mod metadata;
mod nbd;
mod notify;
mod null;
mod nvme;
mod parents;
mod passthru;
mod scheduler;
mod sock;
mod split;
mod statistics;
mod threads;
mod trace;

use spindle_rpc::Table;

use crate::control::Control;
use crate::spdk;

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
        sock::add,
        trace::add,
        keyring::add,
        notify::add,
        config::add,
        bdev_options::add,
        bdevs::add,
        histograms::add,
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
        parents::add,
        copies::add,
        nbd::add,
        nvme::add,
        application::add,
    ];
    add.iter().try_for_each(|add| add(&mut table)).expect("the names of our methods differ");
    for (method, test) in driven() {
        table.note_test(method, test);
    }
    for absent in spdk::methods().filter_map(spdk::Method::absent) {
        table.note_absent(absent.0, absent.1);
    }
    table
}

/// Whether there is a part of that name in configurations.
pub(crate) fn has_subsystem(name: &str) -> bool {
    config::SUBSYSTEMS.iter().any(|known| known.subsystem == name)
}

/// Methods and the test in which SPDK's client drove them; the test run holds the file to what it did.
pub(crate) fn driven() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("driven").lines().filter_map(|line| line.split_once(' '))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_method_that_exists_and_is_not_allowed_says_so() {
        let all: Vec<&str> = super::table().methods().map(spindle_rpc::Method::name).collect();
        let mut table = super::table();
        table.keep_only(&["rpc_get_methods"]);
        for name in all.into_iter().filter(|name| *name != "rpc_get_methods") {
            assert!(table.states_of(name).is_none() && table.is_forbidden(name), "{name}");
            let why = table.why_absent(name);
            assert!(why.contains("--rpcs-allowed"), "{name}: {why}");
        }
        for absent in ["bdev_nvme_attach_controller", "nope"] {
            assert!(!table.is_forbidden(absent) && !table.why_absent(absent).contains("allowed"), "{absent}");
        }
    }

    #[test]
    fn no_method_that_exists_has_a_reason_not_to() {
        let table = super::table();
        for method in table.methods() {
            assert_eq!(table.why_absent(method.name()), table.why_absent("nope"), "{}", method.name());
        }
    }

    #[test]
    fn the_methods_have_names_of_their_own() {
        assert!(super::table().methods().count() > 20);
    }
}

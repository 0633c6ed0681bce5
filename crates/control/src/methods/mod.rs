//! The methods, one file for each group.

mod application;
mod framework;
mod threads;

use spindle_rpc::{NameTaken, Table};

use crate::control::Control;

/// All methods of the daemon. A program that embeds it adds its own.
///
/// # Panics
/// Never: the names are ours, and a test holds them apart.
pub fn table() -> Table<Control> {
    let mut table = Table::new();
    let add = [framework::add, threads::add, application::add];
    add.iter().try_for_each(|add| add(&mut table)).expect("our own methods have names of their own");
    table
}

type Added = Result<(), NameTaken>;

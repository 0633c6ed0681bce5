//! `spindle blob` as its users and their scripts meet it: the real binary on stores that SPDK wrote.

mod changes;
mod check;
mod command;
mod damage;
mod export;
mod fixtures;
mod import;
mod in_use;
mod init;
mod loops;
mod lvolstore;
mod made;
mod names;
mod stale;
mod streams;
pub mod support;
mod undone;
mod unharmed;
mod words;
mod writing;

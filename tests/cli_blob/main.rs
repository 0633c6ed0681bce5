//! `spindle blob` as its users and their scripts meet it: the real binary on stores that SPDK wrote.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod changes;
mod check;
mod command;
mod damage;
mod export;
mod fixtures;
mod import;
mod init;
mod lvolstore;
mod made;
mod names;
mod streams;
mod support;
mod undone;
mod unharmed;
mod writing;

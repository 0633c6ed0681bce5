//! `spindle blob` as its users and their scripts meet it: the real binary on stores that SPDK wrote.

mod command;
mod damage;
mod export;
mod fixtures;
mod names;
mod support;

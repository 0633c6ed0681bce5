//! The library as programs have it: its examples, what must not compile, and a process that is killed.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod compile_fail;
mod examples;
mod kill;
mod story;

//! The tests of JSON-RPC: the parser, parameters, a server and its clients.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod params;
mod parser;
mod server;
mod writer;

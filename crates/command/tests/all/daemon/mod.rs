//! The daemon as its users have it: the real binary, SPDK's own client, signals, the folder of the quickstart.

mod bad_input;
mod clients;
mod config;
mod driven;
mod hostile;
mod idle;
mod image;
mod kills;
mod leftovers;
mod logs;
mod many;
mod model;
mod open_files;
mod quickstart;
mod serve;
mod spdk_client;
mod start;
mod support;
#[path = "../../../../control/tests/all/volumes.rs"]
mod volumes;

//! JSON-RPC 2.0 as SPDK speaks it, on a Unix socket.
//!
//! [`Parser`] turns bytes into [`Value`]s and knows no sockets: values follow each other without newlines.
//! [`to_json`] turns values into text. `params` decodes parameters by SPDK's rules into plain structs. A [`Table`] holds the [`Method`]s;
//! dispatching, listing and refusing use it, and a program that embeds the server adds its own. A [`Server`]
//! has one task per connection on its thread, and one per request, so that a waiting method delays no other.
//! [`Client`] is the other end.
//!
//! Not promised: an order of the answers (each is sent when its method ends), and delivery to a client that
//! has gone: the method still runs to its end, once.

#![forbid(unsafe_code)]

mod answers;
mod budget;
mod client;
mod connection;
mod dispatch;
mod errno;
mod error;
mod number;
mod params;
mod parser;
mod phase;
mod request;
mod response;
mod scan;
mod server;
mod table;
mod unfinished;
mod value;
mod writer;

pub use client::{Client, ClientError};
pub use dispatch::Dispatcher;
pub use errno::Errno;
pub use error::RpcError;
pub use number::{NotAnInteger, Number};
pub use params::{ParamError, from_value, names};
pub use parser::{Limits, ParseError, Parsed, Parser};
pub use phase::{Phase, State, States};
pub use request::{Call, Message};
pub use server::{Bound, Server, ServerOptions};
pub use table::{BadParams, Method, NameTaken, Table};
pub use value::Value;
pub use writer::{NotJson, to_json, to_json_indented};

//! A client: one connection, one call at a time.

use std::io;
use std::path::Path;

use spindle_engine::{Address, Op, Output, Socket};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::op;

use crate::error::RpcError;
use crate::parser::{Limits, ParseError, Parsed, Parser};
use crate::value::Value;
use crate::writer::to_json;

/// Limits for an answer: a server may list thousands of volumes.
const LIMITS: Limits = Limits { bytes: 1 << 30, values: 1 << 26, depth: 64 };

const PART: usize = 64 << 10;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server cannot be reached.
    #[error(transparent)]
    Connect(io::Error),
    /// The connection broke.
    #[error("the connection to the server broke: {0}")]
    Broken(io::Error),
    /// The server closed the connection without an answer.
    #[error("the server closed the connection without an answer")]
    Closed,
    /// The received value is not an answer.
    #[error("the server's answer is not JSON-RPC: {0}")]
    NotAnAnswer(String),
    /// The server answered an error.
    #[error(transparent)]
    Answer(RpcError),
}

/// A connection to a server. On the thread that made it; dropping it closes the connection.
pub struct Client {
    socket: Socket,
    parser: Parser,
    /// Received and not parsed yet.
    rest: Vec<u8>,
    next: u64,
}

impl Client {
    /// Connects to the server at a Unix path.
    ///
    /// # Errors
    /// [`ClientError::Connect`] with the path and the system's error.
    pub async fn connect(path: &Path) -> Result<Client, ClientError> {
        let address = Box::new(Address::Unix(path.to_owned()));
        match op(Op::Connect { address }).await.0 {
            Ok(Output::Socket(socket)) => {
                Ok(Client { socket, parser: Parser::new(LIMITS), rest: Vec::new(), next: 1 })
            }
            Ok(other) => Err(ClientError::NotAnAnswer(format!("the engine gave {other:?}"))),
            Err(error) => Err(ClientError::Connect(error)),
        }
    }

    /// Calls a method and waits for its result. `params` is JSON, sent as it is. Dropping the future leaves
    /// the connection in the middle of an answer: drop the client, too.
    ///
    /// # Errors
    /// [`ClientError::Answer`] is the server's error; the others are about the connection.
    pub async fn call(&mut self, method: &str, params: Option<&str>) -> Result<Value, ClientError> {
        let id = self.next;
        self.next += 1;
        let method = to_json(method).expect("a string is JSON");
        let params = params.map_or_else(String::new, |params| format!(r#","params":{params}"#));
        self.send(&format!(r#"{{"jsonrpc":"2.0","method":{method},"id":{id}{params}}}"#)).await?;
        loop {
            let answer = self.receive().await?;
            if let Some(outcome) = outcome_of(answer, id)? {
                return outcome.map_err(ClientError::Answer);
            }
        }
    }

    async fn send(&self, text: &str) -> Result<(), ClientError> {
        let buffers = IoBuf::copy_from(text.as_bytes()).into();
        let sent = op(Op::Send { socket: self.socket.clone(), buffers }).await.0;
        sent.map(drop).map_err(ClientError::Broken)
    }

    /// The next value received.
    async fn receive(&mut self) -> Result<Value, ClientError> {
        loop {
            let not_json = |error: ParseError| ClientError::NotAnAnswer(error.to_string());
            let (parsed, used) = self.parser.push(&self.rest).map_err(not_json)?;
            self.rest.drain(..used);
            match parsed {
                Some(Parsed::Value(value)) => return Ok(value),
                Some(Parsed::TooLarge { what, .. }) => return Err(ClientError::NotAnAnswer(what)),
                None => {}
            }
            let buffers = IoBuf::zeroed(PART).into();
            let (received, done) = op(Op::Recv { socket: self.socket.clone(), buffers }).await;
            let count = received.map_err(ClientError::Broken)?.bytes();
            if count == 0 {
                return Err(ClientError::Closed);
            }
            if let Buffers::One(buffer) = done.into_buffers() {
                self.rest.extend_from_slice(&buffer[..count]);
            }
        }
    }
}

/// The result in an answer to call `id`; none if it answers another call. An error without an id belongs to
/// the only call there is.
fn outcome_of(answer: Value, id: u64) -> Result<Option<Result<Value, RpcError>>, ClientError> {
    let bad = |answer: &Value| ClientError::NotAnAnswer(format!("it is {}", answer.kind()));
    let ours = match answer.get("id") {
        Some(Value::Number(number)) => number.as_u64() == Ok(id),
        Some(Value::Null) => true,
        _ => return Err(bad(&answer)),
    };
    if !ours {
        return Ok(None);
    }
    if let Some(error) = answer.get("error") {
        let code = match error.get("code") {
            Some(Value::Number(code)) => code.as_i64().ok().and_then(|code| i32::try_from(code).ok()),
            _ => None,
        };
        let (Some(code), Some(Value::String(message))) = (code, error.get("message")) else {
            return Err(bad(error));
        };
        return Ok(Some(Err(RpcError::new(code, message.clone()))));
    }
    match answer {
        Value::Object(mut members) => {
            let result = members.iter().position(|(name, _)| name == "result");
            let result = result.ok_or_else(|| ClientError::NotAnAnswer("it has no result".to_owned()))?;
            Ok(Some(Ok(members.swap_remove(result).1)))
        }
        other => Err(bad(&other)),
    }
}

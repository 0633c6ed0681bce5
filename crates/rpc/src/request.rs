//! Decodes a message: one call, several, or an invalid request.

use crate::error::RpcError;
use crate::value::Value;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The method's name.
    pub method: String,
    /// An object or array; none if absent or null.
    pub params: Option<Value>,
    /// A string or number, returned verbatim; none for a notification, which is answered by errors only.
    pub id: Option<Value>,
}

/// The contents of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// One request.
    Single(Result<Call, Refused>),
    /// Several, answered together.
    Batch(Vec<Result<Call, Refused>>),
}

/// An invalid request: the error, and the id to send it to, if any.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The member `id`.
    pub id: Option<Value>,
    /// The reason.
    pub error: RpcError,
}

impl Refused {
    pub(crate) fn new(id: Option<Value>, what: impl std::fmt::Display) -> Refused {
        Refused { id, error: RpcError::new(RpcError::INVALID_REQUEST, format!("Invalid request: {what}")) }
    }
}

impl Message {
    /// Decodes a message.
    pub fn from_value(value: Value) -> Message {
        match value {
            Value::Array(elements) if elements.is_empty() => {
                Message::Single(Err(Refused::new(None, "a batch without a request")))
            }
            Value::Array(elements) => Message::Batch(elements.into_iter().map(Call::from_value).collect()),
            value => Message::Single(Call::from_value(value)),
        }
    }
}

impl Call {
    /// Decodes one request. An unknown or duplicate member, or one of the wrong type, is answered without an
    /// id, as in SPDK; parameters of the wrong type with it.
    fn from_value(value: Value) -> Result<Call, Refused> {
        let Value::Object(members) = value else {
            return Err(Refused::new(None, format!("a request is an object, not {}", value.kind())));
        };
        let mut read = Members::default();
        for (name, value) in members {
            read.take(&name, value).map_err(|what| Refused::new(None, what))?;
        }
        let Some(method) = read.method else { return Err(Refused::new(None, "it has no member 'method'")) };
        let id = read.id.filter(|id| *id != Value::Null);
        let params = match read.params {
            None | Some(Value::Null) => None,
            Some(params @ (Value::Object(_) | Value::Array(_))) => Some(params),
            Some(other) => {
                let what = format!("'params' of {method} is {}, not an object", other.kind());
                return Err(Refused::new(id, what));
            }
        };
        Ok(Call { method, params, id })
    }
}

#[derive(Default)]
struct Members {
    version: bool,
    method: Option<String>,
    params: Option<Value>,
    id: Option<Value>,
}

impl Members {
    fn take(&mut self, name: &str, value: Value) -> Result<(), String> {
        let twice = match name {
            "jsonrpc" => std::mem::replace(&mut self.version, true),
            "method" => self.method.is_some(),
            "params" => self.params.is_some(),
            "id" => self.id.is_some(),
            _ => return Err(format!("it has an unknown member '{}'", shown(name))),
        };
        if twice {
            return Err(format!("it has the member '{name}' twice"));
        }
        match (name, value) {
            ("jsonrpc", Value::String(version)) if version == "2.0" => {}
            ("jsonrpc", _) => return Err("'jsonrpc' is not \"2.0\"".to_owned()),
            ("method", Value::String(method)) => self.method = Some(method),
            ("method", other) => return Err(format!("'method' is {}, not a string", other.kind())),
            ("params", params) => self.params = Some(params),
            (_, id @ (Value::String(_) | Value::Number(_) | Value::Null)) => self.id = Some(id),
            (_, other) => return Err(format!("'id' is {}, not a string or number", other.kind())),
        }
        Ok(())
    }
}

/// A name from outside, shortened for a message.
pub(crate) fn shown(name: &str) -> String {
    const MOST: usize = 64;
    match name.char_indices().nth(MOST) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}...", &name[..end]),
    }
}

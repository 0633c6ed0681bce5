//! Answers as text: compact, members in SPDK's order.

use serde::Serialize;

use crate::error::RpcError;
use crate::value::Value;
use crate::writer::to_json;

#[derive(Serialize)]
struct ErrorAnswer<'a> {
    jsonrpc: &'static str,
    id: Option<&'a Value>,
    error: ErrorMember<'a>,
}

#[derive(Serialize)]
struct ErrorMember<'a> {
    code: i32,
    message: &'a str,
}

/// The answer to a call, without the line feed; none for a successful notification. `result` is JSON.
pub(crate) fn answer(id: Option<&Value>, outcome: Result<String, RpcError>) -> Option<String> {
    match outcome {
        Ok(result) => id.map(|id| format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, text(id))),
        Err(error) => {
            let error = ErrorMember { code: error.code, message: &error.message };
            Some(text(&ErrorAnswer { jsonrpc: "2.0", id, error }))
        }
    }
}

/// A value as JSON.
fn text(value: &impl Serialize) -> String {
    to_json(value).expect("strings, numbers in JSON's own form and objects with string keys")
}

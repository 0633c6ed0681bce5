//! `spindle rpc`: one call of a method of a daemon, this project's or SPDK's.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use spindle_reactor::Runtime;
use spindle_rpc::{Client, ClientError, Limits, Parsed, Parser, Value, to_json, to_json_indented};

use super::failure::{Failure, shown};
use super::output::{Output, tell};
use super::serve::DEFAULT_SOCKET;

/// The longest answer that an error repeats: a name, an id, a UUID.
const LONGEST: usize = 128;

/// What to call, and where.
#[derive(Args)]
pub(crate) struct Command {
    /// The daemon's RPC socket
    #[arg(short = 's', long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// The method, as rpc_get_methods lists them
    method: String,
    /// Its parameters: a JSON object
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    params: Option<String>,
}

/// Calls, and prints the result: a string verbatim, anything else as JSON.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    if let Some(params) = &command.params {
        check(params)?;
    }
    // A watchdog's advice is for programmers, not for callers.
    let builder = Runtime::builder().reactors(1).watchdog(None);
    let runtime = builder.build().map_err(|error| Failure::Engine(error.to_string()))?;
    let method = command.method.clone();
    let result = runtime.run(async move || call(command).await);
    let result = result.map_err(|error| Failure::Engine(error.to_string()))??;
    let print = |out: &mut Output| match &result {
        Value::String(text) => Ok(writeln!(out, "{text}")?),
        other => Ok(writeln!(out, "{}", to_json_indented(other).map_err(io::Error::other)?)?),
    };
    tell(|| done(&method, &result), print)
}

/// What is said if the answer cannot be printed: the name of what may have been made, but no long answer.
fn done(method: &str, result: &Value) -> String {
    let text = to_json(result).unwrap_or_default();
    match text.len() {
        0..=LONGEST => format!("{method} is done, its answer is {text}"),
        length => format!("{method} is done, its answer of {length} bytes is lost"),
    }
}

async fn call(command: Command) -> Result<Value, Failure> {
    let Command { socket, method, params } = command;
    let mut client = Client::connect(&socket).await.map_err(|error| match error {
        ClientError::Connect(error) => Failure::Refused(format!(
            "no daemon answers at {}: {error}; start one with 'spindle serve -r PATH', or name its socket with -s",
            shown(&socket)
        )),
        other => Failure::Refused(other.to_string()),
    })?;
    client
        .call(&method, params.as_deref())
        .await
        .map_err(|error| Failure::Refused(format!("{method}: {error}")))
}

/// The daemon would close the connection at invalid JSON, and knows parameters by their names only.
fn check(params: &str) -> Result<(), Failure> {
    let wrong = |what: String| Failure::Usage(format!("the parameters are not a JSON object: {what}"));
    if params.trim().is_empty() {
        return Err(wrong("they are empty; leave them out for none".to_owned()));
    }
    // A line feed ends a number that stands alone.
    let text = format!("{params}\n");
    let mut parser = Parser::new(Limits::default());
    let (parsed, used) = parser.push(text.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    match parsed {
        Some(Parsed::Value(_)) if !text[used..].trim().is_empty() => {
            Err(wrong("more follows the first value".to_owned()))
        }
        Some(Parsed::Value(Value::Object(_))) => Ok(()),
        Some(Parsed::Value(other)) => Err(wrong(format!("they are {}", other.kind()))),
        Some(Parsed::TooLarge { what, .. }) => Err(wrong(what)),
        None => Err(wrong("they end in the middle".to_owned())),
    }
}

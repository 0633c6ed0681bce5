//! A configuration file: calls that are made when the application starts, in the form that SPDK's `save_config`
//! writes.
//!
//! Twice over the file: once for methods that may be called before the framework is initialised, then for the
//! others. In the second pass a call that names an object that does not exist yet is repeated after the following
//! calls, so their order does not matter; when a round of calls achieves nothing, the start fails and names the
//! call.

use spindle_lvol::Lvols;
use spindle_rpc::{Call, Dispatcher, Limits, Parsed, Parser, RpcError, State, Value, to_json};

use crate::control::Control;
use crate::log::Log;
use crate::methods;
use crate::spdk;

/// How large a configuration may be; 10,000 bdevs fit.
const LIMITS: Limits = Limits { bytes: ConfigFile::MOST_BYTES, values: 4 << 20, depth: 64 };

/// Its part in the log.
const PART: &str = "config";

/// Methods that would wait for the end of the replay itself.
const FRAMEWORK: [&str; 2] = ["framework_start_init", "framework_wait_init"];

/// A configuration file that was read.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// The file, for messages.
    pub name: String,
    /// Its contents: JSON, possibly with comments.
    pub text: String,
    /// True to continue when a call fails.
    pub ignore_errors: bool,
}

impl ConfigFile {
    /// The longest text of a configuration.
    pub const MOST_BYTES: usize = 64 << 20;
}

/// The calls of a configuration.
pub(crate) struct Replay {
    name: String,
    ignore_errors: bool,
    calls: Vec<Call>,
    dispatcher: Dispatcher<Control>,
    lvols: Lvols,
    log: Log,
}

impl Replay {
    /// Reads the calls without checking them. The error names the file and what is wrong with it.
    pub(crate) fn read(
        file: ConfigFile,
        dispatcher: Dispatcher<Control>,
        (lvols, log): (Lvols, Log),
    ) -> Result<Replay, String> {
        let ConfigFile { name, text, ignore_errors } = file;
        let calls = calls(&text, &log).map_err(|what| format!("{name}: {what}"))?;
        Ok(Replay { name, ignore_errors, calls, dispatcher, lvols, log })
    }

    /// Makes the calls of one pass, except those about the framework's start, which the daemon makes itself.
    pub(crate) async fn run(&self, pass: State) -> Result<(), String> {
        let mut left: Vec<&Call> = Vec::new();
        for call in self.calls.iter().filter(|call| !FRAMEWORK.contains(&call.method.as_str())) {
            match self.dispatcher.table().states_of(&call.method) {
                Some(states) => {
                    let now = if states.contain(State::Startup) { State::Startup } else { State::Runtime };
                    left.extend((now == pass).then_some(call));
                }
                None if pass == State::Startup => self.unknown(call)?,
                None => {}
            }
        }
        loop {
            let before = left.len();
            let mut waiting = Vec::new();
            for call in left {
                let Err(error) = self.dispatcher.call_in(pass, call.clone()).await else { continue };
                if pass == State::Runtime && error.misses_object() {
                    waiting.push((call, error));
                } else {
                    self.failed(call, &error)?;
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if waiting.len() == before {
                return waiting.iter().try_for_each(|(call, error)| self.failed(call, error));
            }
            left = waiting.into_iter().map(|(call, _)| call).collect();
        }
    }

    /// Handles a call of a method that does not exist. One that sets options of a missing module is skipped.
    fn unknown(&self, call: &Call) -> Result<(), String> {
        let method = &call.method;
        let table = self.dispatcher.table();
        if spdk::is_known(method) && method.ends_with("_options") && !table.is_forbidden(method) {
            self.log.warning(
                PART,
                &format!("{}: {method} is skipped: the module whose options it sets is not here", self.name),
            );
            return Ok(());
        }
        let why = table.why_absent(method);
        let error = RpcError::new(RpcError::METHOD_NOT_FOUND, format!("no such method; {why}"));
        self.failed(call, &error)
    }

    fn failed(&self, call: &Call, error: &RpcError) -> Result<(), String> {
        let params = call.params.as_ref().and_then(|params| to_json(params).ok());
        let params = params.map(|params| format!(" {params}")).unwrap_or_default();
        let mut what = format!("{}: {}{params}: {}", self.name, call.method, error.message);
        if error.misses_object() {
            self.lvols.problems().iter().for_each(|problem| what = format!("{what}; {problem}"));
        }
        if self.ignore_errors {
            self.log.warning(PART, &what);
            return Ok(());
        }
        Err(format!("{what}; correct the configuration, or start with --json-ignore-init-errors"))
    }
}

/// The calls of a configuration, batches taken apart.
fn calls(text: &str, log: &Log) -> Result<Vec<Call>, String> {
    let root = parse(text)?;
    let Value::Object(_) = root else { return Err(format!("it is {}, not an object", root.kind())) };
    let Some(subsystems) = root.get("subsystems") else {
        log.warning(PART, "the configuration has no member 'subsystems', and nothing to do");
        return Ok(Vec::new());
    };
    let mut calls = Vec::new();
    for subsystem in elements(subsystems, "'subsystems'")? {
        let Some(Value::String(name)) = subsystem.get("subsystem") else {
            return Err("an element of 'subsystems' has no name 'subsystem'".to_owned());
        };
        let entries = match subsystem.get("config") {
            None | Some(Value::Null) => continue,
            Some(entries) => elements(entries, &format!("'config' of {name}"))?,
        };
        if !methods::has_subsystem(name) {
            if !entries.is_empty() {
                let what =
                    format!("the configuration of '{name}' is skipped: there is no such subsystem here");
                log.warning(PART, &what);
            }
            continue;
        }
        for entry in entries {
            match entry {
                Value::Array(batch) => {
                    batch.iter().try_for_each(|entry| call(entry, name).map(|call| calls.push(call)))?;
                }
                entry => calls.push(call(entry, name)?),
            }
        }
    }
    Ok(calls)
}

fn elements<'a>(value: &'a Value, what: &str) -> Result<&'a [Value], String> {
    match value {
        Value::Array(elements) => Ok(elements),
        other => Err(format!("{what} is {}, not an array", other.kind())),
    }
}

fn call(entry: &Value, subsystem: &str) -> Result<Call, String> {
    let Some(Value::String(method)) = entry.get("method") else {
        return Err(format!("an entry of '{subsystem}' has no member 'method'"));
    };
    let params = entry.get("params").filter(|params| **params != Value::Null).cloned();
    Ok(Call { method: method.clone(), params, id: None })
}

fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser::new(LIMITS);
    // A line feed ends a number that stands alone.
    let text = format!("{}\n", without_comments(text));
    match parser.push(text.as_bytes()) {
        Ok((Some(Parsed::Value(value)), used)) if text[used..].trim().is_empty() => Ok(value),
        Ok((Some(Parsed::Value(_)), _)) => Err("more data follows the end of the configuration".to_owned()),
        Ok((Some(Parsed::TooLarge { what, .. }), _)) => Err(what),
        Ok((None, _)) => Err("the configuration ends in the middle".to_owned()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

/// The text with blanks for `/* */` and `//` comments, which SPDK takes in configurations.
fn without_comments(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        let comment = match rest {
            _ if in_string => None,
            _ if rest.starts_with("/*") => Some(rest.find("*/").map_or(rest.len(), |end| end + 2)),
            _ if rest.starts_with("//") => Some(rest.find('\n').unwrap_or(rest.len())),
            _ => None,
        };
        if let Some(length) = comment {
            clean.extend(rest[..length].chars().map(|skipped| if skipped == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
            continue;
        }
        let length = match next {
            '\\' if in_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            next => next.len_utf8(),
        };
        in_string ^= next == '"';
        clean.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        calls(text, &Log::default()).map(|calls| calls.into_iter().map(|call| call.method).collect())
    }

    #[test]
    fn calls_come_in_order_and_batches_are_taken_apart() {
        let text = r#"{"other": 1, "subsystems": [
            {"subsystem": "bdev", "config": [{"method": "a"}, [{"method": "b", "params": {}}, {"method": "c"}], []]},
            {"subsystem": "iobuf", "config": null},
            {"subsystem": "accel", "config": [{"method": "passed_over"}]}]}"#;
        assert_eq!(names(text).as_deref(), Ok(&["a", "b", "c"].map(str::to_owned)[..]));
    }

    #[test]
    fn comments_are_blanks_but_not_within_strings() {
        let text = "{ // \"subsystems\": 1\n \"subsystems\": /* [1] \n */ [{\"subsystem\": \"bdev\", \
                    \"config\": [{\"method\": \"a//b/*\\\"c\"}]}] } // end";
        assert_eq!(names(text).as_deref(), Ok(&["a//b/*\"c".to_owned()][..]));
        assert_eq!(without_comments("a /* b\nc */ d"), "a     \n     d");
    }

    #[test]
    fn what_is_no_configuration_is_named() {
        for (text, says) in [
            ("[]", "not an object"),
            ("", "ends in the middle"),
            ("{", "ends in the middle"),
            ("{} {}", "more data follows"),
            ("{'a': 1}", "not JSON"),
            (r#"{"subsystems": {}}"#, "not an array"),
            (r#"{"subsystems": [{}]}"#, "'subsystem'"),
            (r#"{"subsystems": [{"subsystem": "bdev", "config": [1]}]}"#, "'method'"),
        ] {
            let said = names(text);
            assert!(said.as_ref().is_err_and(|said| said.contains(says)), "{text}: {said:?}");
        }
        assert_eq!(names("{}").as_deref(), Ok(&[][..]));
    }
}

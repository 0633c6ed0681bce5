//! Steps that are no calls: bytes as they are, the daemon's life, files.

use std::fs;

use rustix::process::Signal;
use spindle_rpc::Value;

use super::compare::{Compared, json};
use super::daemon::{Connection, Daemon};
use super::differences::Instead;
use super::fixture::{list, number, text};
use super::replay::Replay;

/// What our bdevs of a kind have otherwise than SPDK's, see docs/differences.md ("Requests that bdevs support").
pub fn bdev_as_here(mut bdev: Value) -> Value {
    let product = text(&bdev, "product_name");
    let kind = match product.as_deref() {
        Some("passthru" | "delay" | "Error Injection Disk" | "Split Disk" | "GPT Disk") => kind_below(&bdev),
        other => other,
    };
    let supported: &[(&str, bool)] = match kind {
        Some("Malloc disk") => &[("zcopy", false)],
        Some("Null disk") => &[("unmap", true), ("flush", true), ("compare", true)],
        Some("Logical Volume") => &[("flush", true), ("abort", true), ("reset", false)],
        Some("AIO disk") => {
            &[("unmap", true), ("abort", true), ("reset", false), ("seek_hole", true), ("seek_data", true)]
        }
        _ => &[],
    };
    if let Value::Object(members) = &mut bdev {
        members.retain(|(name, _)| name != "memory_domains");
    }
    if let Value::Object(members) = &mut bdev
        && let Some((_, Value::Object(types))) =
            members.iter_mut().find(|(name, _)| name == "supported_io_types")
    {
        for (name, value) in types {
            if let Some((_, here)) = supported.iter().find(|(supported, _)| supported == name) {
                *value = Value::Bool(*here);
            }
        }
    }
    bdev
}

/// What a virtual bdev stands on in the end, told by what SPDK says that it supports.
fn kind_below(bdev: &Value) -> Option<&'static str> {
    let types = bdev.get("supported_io_types")?;
    let does = |name| types.get(name) == Some(&Value::Bool(true));
    Some(match (does("zcopy"), does("seek_data"), does("flush")) {
        (true, _, _) => "Malloc disk",
        (_, true, _) => "Logical Volume",
        (_, _, true) => "AIO disk",
        _ => "Null disk",
    })
}

/// What a raw step gave.
struct Exchange {
    responses: Vec<Value>,
    closed: bool,
}

impl Replay<'_> {
    pub fn other_step(&mut self, what: &str, step: &Value, number: u64) -> Compared {
        match what {
            "raw" => self.raw(step, number),
            "split" => self.split(step),
            "bytes" => self.bytes(step),
            "connections" => self.connections(step, number),
            "kill" => self.end(step, number, Signal::KILL),
            "term" => match text(step, "signal").as_deref() {
                Some("SIGINT") => self.end(step, number, Signal::INT),
                _ => self.end(step, number, Signal::TERM),
            },
            "exits" => self.exits(step),
            "second" => self.second(step),
            "restart" => self.restarted(step, number),
            "truncate" => {
                let file =
                    fs::File::options().write(true).open(self.folder().join(text(step, "file").unwrap()));
                file.unwrap().set_len(super::fixture::number(step, "size").unwrap()).unwrap();
                Ok(())
            }
            other => Err(format!("the step '{other}' is not known")),
        }
    }

    fn socket(&self) -> Connection {
        self.daemon.as_ref().unwrap().connect()
    }

    fn raw(&mut self, step: &Value, number: u64) -> Compared {
        let expected = match self.differences.instead(&self.scenario.name, number) {
            Instead::Answer(answer) => answer.clone(),
            _ => step.get("answer").unwrap().clone(),
        };
        let found = self.exchange(step, list(&expected, "responses").len());
        let anything = matches!(self.differences.instead(&self.scenario.name, number), Instead::Anything);
        if anything {
            return Ok(());
        }
        let mut responses = found.responses.clone();
        let closed = expected.get("closed") == Some(&Value::Bool(true));
        // What is no JSON is told why before the connection ends.
        if closed && responses.last().is_some_and(is_parse_error) {
            responses.pop();
        }
        let answered = list(&expected, "responses").len();
        // A fault in the stream does not take back the answers to what came before it.
        let good_before = closed && answered == 0 && responses.iter().all(|r| r.get("result").is_some());
        if closed != found.closed || (answered != responses.len() && !good_before) {
            return Err(format!(
                "{} (closed: {}), not {}",
                json(&Value::Array(found.responses)),
                found.closed,
                json(&expected)
            ));
        }
        list(&expected, "responses")
            .iter()
            .zip(&responses)
            .try_for_each(|(wanted, got)| self.response(wanted, got))
    }

    fn response(&mut self, wanted: &Value, got: &Value) -> Compared {
        match (wanted, got) {
            (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
                wanted.iter().zip(got).try_for_each(|(wanted, got)| self.response(wanted, got))
            }
            (Value::Object(members), got) if wanted.get("error").is_some() => {
                let id = members.iter().find(|(name, _)| name == "id").map(|(_, id)| id.clone());
                let same = match (&id, got.get("id")) {
                    (Some(id), Some(got)) => self.bindings.compare(id, got),
                    _ => Err(format!("no id: {}", json(got))),
                };
                let error = got.get("error").ok_or_else(|| format!("{}, not {}", json(got), json(wanted)))?;
                same.and_then(|()| self.bindings.compare_error(wanted.get("error").unwrap(), error))
            }
            (Value::Object(members), got) => {
                let as_here = members.iter().cloned().map(|(name, value)| match (name.as_str(), value) {
                    ("result", Value::Array(list)) => {
                        (name, Value::Array(list.into_iter().map(bdev_as_here).collect()))
                    }
                    (_, value) => (name, value),
                });
                self.bindings.compare(&Value::Object(as_here.collect()), got)
            }
            (wanted, got) => self.bindings.compare(wanted, got),
        }
    }

    /// Sends the parts of a step and takes what comes, at least `count` answers where the connection stays open.
    fn exchange(&mut self, step: &Value, count: usize) -> Exchange {
        let mut connection = self.socket();
        let mut ended = false;
        for part in list(step, "send") {
            match &part {
                Value::String(text) => connection.send(&bytes_of(&self.bindings.fill(text))),
                _ if part.get("half_close").is_some() => {
                    connection.half_close();
                    ended = true;
                }
                _ if part.get("close").is_some() => return Exchange { responses: Vec::new(), closed: false },
                _ => match (text(&part, "repeat"), super::fixture::number(&part, "times")) {
                    (Some(text), Some(times)) => connection.send(&bytes_of(&text.repeat(times as usize))),
                    // A pause: here the next part goes when the first was taken.
                    _ => std::thread::yield_now(),
                },
            }
        }
        let mut responses = Vec::new();
        while responses.len() < count
            && let Some(response) = connection.receive()
        {
            responses.push(response);
        }
        let closed = !ended && connection.is_closed();
        if !ended {
            connection.half_close();
        }
        while let Some(response) = connection.receive() {
            responses.push(response);
        }
        // The server says so when it closes.
        let closed = closed || responses.last().is_some_and(is_parse_error);
        Exchange { responses, closed }
    }

    fn split(&mut self, step: &Value) -> Compared {
        let request = bytes_of(&first_text(step));
        for cut in 1..request.len() {
            let mut connection = self.socket();
            connection.send(&request[..cut]);
            std::thread::yield_now();
            connection.send(&request[cut..]);
            let response = connection.receive().ok_or_else(|| format!("closed after a cut at {cut}"))?;
            self.response(step.get("want").unwrap(), &response)?;
        }
        Ok(())
    }

    fn bytes(&mut self, step: &Value) -> Compared {
        let mut connection = self.socket();
        for byte in bytes_of(&first_text(step)) {
            connection.send(&[byte]);
        }
        let response = connection.receive().ok_or("closed")?;
        self.response(step.get("answer").unwrap().get("response").unwrap(), &response)
    }

    fn connections(&mut self, step: &Value, number: u64) -> Compared {
        let expected = match self.differences.instead(&self.scenario.name, number) {
            Instead::Answer(answer) => answer.clone(),
            _ => step.get("answer").unwrap().clone(),
        };
        let count = number_of(step, "count");
        let mut open: Vec<Connection> = (0..count).map(|_| self.socket()).collect();
        let request = br#"{"jsonrpc":"2.0","id":1,"method":"spdk_get_version"}"#;
        open.iter_mut().for_each(|connection| connection.send(request));
        let answered = open.iter_mut().filter_map(Connection::receive).count() as u64;
        if answered == number_of(&expected, "answered") {
            Ok(())
        } else {
            Err(format!("{answered} answered"))
        }
    }

    fn end(&mut self, step: &Value, number: u64, signal: Signal) -> Compared {
        let status = self.daemon.as_mut().unwrap().end(signal);
        let left = self.left();
        let expected = match self.differences.instead(&self.scenario.name, number) {
            Instead::Answer(answer) => answer.clone(),
            _ => step.get("answer").unwrap().clone(),
        };
        if list(&expected, "left") != left {
            return Err(format!("left {left:?}"));
        }
        if let Some(Value::Number(exit)) = expected.get("exit")
            && exit.as_i64().ok() != status.code().map(i64::from)
        {
            return Err(format!("it ended with {status}"));
        }
        if self.restart(None) { Ok(()) } else { Err("it does not start again".to_owned()) }
    }

    fn exits(&mut self, step: &Value) -> Compared {
        let status = self.daemon.as_mut().unwrap().wait();
        let exit = step.get("answer").and_then(|answer| super::fixture::number(answer, "exit"));
        let left = self.left();
        let same = status.code().map(|code| code as u64) == exit && left.is_empty();
        if same { Ok(()) } else { Err(format!("it ended with {status} and left {left:?}")) }
    }

    fn left(&self) -> Vec<Value> {
        let names = ["rpc.sock", "rpc.sock.lock"];
        let left = names.iter().filter(|name| self.folder().join(name).exists());
        left.map(|name| Value::String((*name).to_owned())).collect()
    }

    fn second(&mut self, _step: &Value) -> Compared {
        let daemon: &Daemon = self.daemon.as_ref().unwrap();
        if !daemon.refuses_a_second(self.args()) {
            return Err("a second daemon is not refused by the name of the first".to_owned());
        }
        Ok(())
    }

    fn restarted(&mut self, step: &Value, number: u64) -> Compared {
        let args = list(step, "args");
        let args = args.into_iter().map(|arg| match arg {
            Value::String(arg) => arg,
            other => panic!("{other:?}"),
        });
        let args: Vec<String> = args.collect();
        let started = self.restart(step.get("args").map(|_| args));
        let expected = match self.differences.instead(&self.scenario.name, number) {
            Instead::Answer(answer) => answer.clone(),
            _ => step.get("answer").unwrap().clone(),
        };
        let wanted = expected.get("started") == Some(&Value::Bool(true));
        if started == wanted { Ok(()) } else { Err(format!("started: {started}")) }
    }
}

fn is_parse_error(response: &Value) -> bool {
    let code = response.get("error").and_then(|error| error.get("code"));
    matches!(code, Some(Value::Number(code)) if code.text() == "-32700")
}

fn first_text(step: &Value) -> String {
    match list(step, "send").into_iter().next() {
        Some(Value::String(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn number_of(value: &Value, name: &str) -> u64 {
    number(value, name).unwrap()
}

/// Each character is one byte.
fn bytes_of(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
}

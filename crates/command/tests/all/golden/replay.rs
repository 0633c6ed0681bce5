//! One scenario against one daemon.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use spindle_rpc::{Value, to_json};

use super::compare::{Bindings, Compared, compare_shape, json};
use super::daemon::{self, Connection, Daemon};
use super::differences::{Differences, Instead};
use super::fixture::{self, Scenario, list, text};

/// The lists that are looked at after a step: the method, the member of the recorded state, the member that names an
/// element.
const OBSERVED: [(&str, &str, &str); 3] = [
    ("bdev_get_bdevs", "bdevs", "name"),
    ("bdev_lvol_get_lvstores", "lvstores", "uuid"),
    ("bdev_lvol_get_lvols", "lvols", "uuid"),
];

pub struct Replay<'a> {
    pub scenario: &'a Scenario,
    pub differences: &'a Differences,
    methods: BTreeSet<String>,
    pub bindings: Bindings,
    folder: tempfile::TempDir,
    args: Vec<String>,
    pub daemon: Option<Daemon>,
    /// All calls go over it.
    connection: Option<Connection>,
    next_id: u64,
    /// The state as it was last recorded, by list.
    state: [Vec<Value>; 3],
}

impl<'a> Replay<'a> {
    /// Replays; what did not come out as recorded.
    pub fn run(scenario: &'a Scenario, differences: &'a Differences) -> Vec<String> {
        let mut replay = Replay::new(scenario, differences);
        let mut wrong = Vec::new();
        if replay.daemon.is_none() && list(&scenario.head, "args").is_empty() {
            wrong.push(format!("{}: the daemon does not start: {}", scenario.name, replay.log()));
            return wrong;
        }
        for step in &scenario.steps {
            let number = fixture::number(step, "step").unwrap();
            let method = text(step, "method");
            if differences.is_partial(&scenario.name)
                && method.as_ref().is_some_and(|method| !replay.methods.contains(method))
            {
                replay.note_state(step);
                continue;
            }
            if asks_for_a_node_of_this_machine(step) {
                replay.note_state(step);
                continue;
            }
            let answered = replay.step(step, number);
            replay.note_state(step);
            let outcome = answered.and_then(|()| replay.observe(step));
            if let Err(what) = outcome {
                wrong.push(format!("{} {number} {}: {what}", scenario.name, method.unwrap_or_default()));
            }
            // SPDK ended there.
            if step.get("answer").is_some_and(|answer| answer.get("crashed").is_some()) {
                break;
            }
        }
        wrong
    }

    fn new(scenario: &'a Scenario, differences: &'a Differences) -> Replay<'a> {
        let folder = tempfile::tempdir().unwrap();
        let mut bindings = Bindings::default();
        for name in ["NOFILE0", "NOFILE1"] {
            bindings.files.insert(name.to_owned(), path(folder.path(), name));
        }
        let files = match scenario.head.get("files") {
            Some(Value::Object(files)) => files.clone(),
            _ => Vec::new(),
        };
        for (name, _) in &files {
            bindings.files.insert(name.clone(), path(folder.path(), name));
        }
        for (name, what) in &files {
            make_file(&folder.path().join(name), what, &bindings);
        }
        let args = list(&scenario.head, "args");
        let args = args.iter().map(|arg| match arg {
            Value::String(arg) => bindings.fill(arg),
            other => panic!("{other:?}"),
        });
        let args: Vec<String> = args.collect();
        let daemon = Daemon::start(folder.path(), &args);
        let connection = daemon.as_ref().map(Daemon::connect);
        let (methods, next_id, state) = (daemon::methods(), 0, Default::default());
        Replay { scenario, differences, methods, bindings, folder, args, daemon, connection, next_id, state }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// Starts the daemon again, with other arguments if there are some; whether it did.
    pub fn restart(&mut self, args: Option<Vec<String>>) -> bool {
        self.connection = None;
        self.daemon = None;
        if let Some(args) = args {
            self.args = args.iter().map(|arg| self.bindings.fill(arg)).collect();
        }
        self.daemon = Daemon::start(self.folder.path(), &self.args);
        self.connection = self.daemon.as_ref().map(Daemon::connect);
        self.daemon.is_some()
    }

    /// The answer to a call on the one connection, as an object with `result`, `error` or `closed`.
    pub fn call(&mut self, method: &str, params: Option<&str>) -> Value {
        self.next_id += 1;
        let params = params.map_or_else(String::new, |params| format!(",\"params\":{params}"));
        let method = serde_json::to_string(method).unwrap();
        let request = format!("{{\"jsonrpc\":\"2.0\",\"method\":{method},\"id\":{}{params}}}", self.next_id);
        let Some(connection) = &mut self.connection else {
            return Value::Object(vec![("closed".to_owned(), Value::Bool(true))]);
        };
        connection.send(request.as_bytes());
        match connection.receive() {
            // An error without an id ends the connection: another one is made, as a client does.
            Some(answer) if answer.get("id") != Some(&Value::Null) => answer_of(answer),
            other => {
                let closed = match other {
                    Some(error) => answer_of(error),
                    None => Value::Object(vec![("closed".to_owned(), Value::Bool(true))]),
                };
                if connection.receive().is_none() {
                    self.connection = self.daemon.as_ref().map(Daemon::connect);
                }
                closed
            }
        }
    }

    fn step(&mut self, step: &Value, number: u64) -> Compared {
        match text(step, "do").unwrap().as_str() {
            "call" | "poll" => self.call_step(step, number),
            other => self.other_step(other, step, number),
        }
    }

    fn call_step(&mut self, step: &Value, number: u64) -> Compared {
        let method = self.bindings.fill(&text(step, "method").unwrap());
        let params = match (step.get("params"), text(step, "params_text")) {
            (_, Some(text)) => Some(self.bindings.fill(&text)),
            (Some(params), None) => Some(to_json(&self.bindings.fill_value(params)).unwrap()),
            (None, None) => None,
        };
        let mut found = self.call(&method, params.as_deref());
        if text(step, "do").as_deref() == Some("poll") {
            let under_way = |found: &Value| {
                found.get("result").and_then(|r| text(r, "state")).as_deref() == Some("in progress")
            };
            while under_way(&found) {
                found = self.call(&method, params.as_deref());
            }
        }
        let expected = match self.differences.instead(&self.scenario.name, number) {
            Instead::Anything => return Ok(()),
            Instead::Answer(answer) => answer.clone(),
            Instead::Nothing => step.get("answer").unwrap().clone(),
        };
        let found = self.differences.without_more(&method, found);
        self.compare_answer(step, &method, &expected, &found)
    }

    fn compare_answer(&mut self, step: &Value, method: &str, expected: &Value, found: &Value) -> Compared {
        let unlike = || Err(format!("{}, not {}", json(found), json(expected)));
        if expected.get("closed").is_some() {
            // What is no JSON is told why before the connection ends.
            let parse_error = found.get("error").is_some_and(
                |error| matches!(error.get("code"), Some(Value::Number(code)) if code.text() == "-32700"),
            );
            return if parse_error { Ok(()) } else { unlike() };
        }
        if let Some(error) = expected.get("error") {
            return found.get("error").map_or_else(unlike, |found| self.bindings.compare_error(error, found));
        }
        let Some(result) = found.get("result") else { return unlike() };
        if let Some(shape) = expected.get("shape") {
            return compare_shape(shape, result);
        }
        if expected.get("contains").is_some() {
            let all = list(found, "result");
            let names = list(step, "contains").into_iter().filter(|name| match name {
                Value::String(name) => self.methods.contains(name),
                _ => false,
            });
            let unlike = |name: &Value| all.contains(name) != list(expected, "contains").contains(name);
            let unlike: Vec<Value> = names.filter(unlike).collect();
            return if unlike.is_empty() { Ok(()) } else { Err(json(&Value::Array(unlike))) };
        }
        let Some(wanted) = expected.get("result") else { return unlike() };
        let mut result = result.clone();
        let selected = list(step, "select");
        if !selected.is_empty() {
            let named = |name: &Value| match name {
                Value::String(name) => result.get(name).map(|value| (name.clone(), value.clone())),
                _ => None,
            };
            result = Value::Object(selected.iter().filter_map(named).collect());
        }
        match (OBSERVED.iter().position(|(observed, ..)| *observed == method), wanted, &result) {
            (Some(which), Value::Array(wanted), Value::Array(found)) => {
                let wanted = self.as_here(which, wanted);
                self.bindings.compare_unordered(&wanted, found)
            }
            _ => self.bindings.compare(wanted, &result),
        }
    }

    /// Elements of a list as they are expected here.
    fn as_here(&self, which: usize, elements: &[Value]) -> Vec<Value> {
        let scenario = &self.scenario.name;
        let there = |value: &&Value| {
            let bdev = text(value, "name").unwrap_or_default();
            !self.differences.is_absent(scenario, &super::compare::named(value))
                && !self.differences.is_absent(scenario, &bdev)
        };
        let expected = elements.iter().filter(there).cloned();
        expected.map(|value| if which == 0 { super::steps::bdev_as_here(value) } else { value }).collect()
    }

    /// Keeps the recorded state, whole: what is the same as before stands for itself there.
    fn note_state(&mut self, step: &Value) {
        if let Some(state @ Value::Object(_)) = step.get("state") {
            for (which, (_, list_name, member)) in OBSERVED.iter().enumerate() {
                let elements = list(state, list_name);
                let whole = elements.into_iter().map(|element| match &element {
                    Value::String(name) => {
                        let mut before = self.state[which].iter();
                        before.find(|value| text(value, member).as_ref() == Some(name)).unwrap().clone()
                    }
                    _ => element,
                });
                self.state[which] = whole.collect();
            }
        }
    }

    fn observe(&mut self, step: &Value) -> Compared {
        let number = fixture::number(step, "step").unwrap();
        let as_recorded = matches!(self.differences.instead(&self.scenario.name, number), Instead::Nothing);
        let other = self.differences.is_other_state(&self.scenario.name, number);
        if step.get("state").is_none() || !as_recorded || other {
            return Ok(());
        }
        for (which, (method, ..)) in OBSERVED.iter().enumerate() {
            if !self.methods.contains(*method) {
                continue;
            }
            let found = self.call(method, None);
            let wanted = self.as_here(which, &self.state[which].clone());
            let Some(Value::Array(found)) = found.get("result") else {
                return Err(format!("{method}: {}", json(&found)));
            };
            let here = |value: &&Value| {
                let name = super::compare::named(value);
                !self.differences.is_present(&self.scenario.name, &name)
            };
            let found: Vec<Value> = found.iter().filter(here).cloned().collect();
            self.bindings.compare_unordered(&wanted, &found).map_err(|what| format!("state: {what}"))?;
        }
        Ok(())
    }
}

/// Whether a memory node is asked for that is here, while SPDK's machine had node 0 only.
fn asks_for_a_node_of_this_machine(step: &Value) -> bool {
    let params =
        step.get("params").and_then(|params| to_json(params).ok()).or_else(|| text(step, "params_text"));
    let node = || -> Option<u16> {
        let rest = params.as_ref()?.split_once("\"numa_id\":")?.1;
        rest.trim_start().split(['.', ',', '}']).next()?.parse().ok()
    };
    node().is_some_and(|node| node > 0 && Path::new(&format!("/sys/devices/system/node/node{node}")).exists())
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

fn make_file(path: &Path, what: &Value, bindings: &Bindings) {
    if what.get("dir").is_some() {
        return fs::create_dir(path).unwrap();
    }
    if let Some(text) = text(what, "text") {
        return fs::write(path, bindings.fill(&text)).unwrap();
    }
    let file = fs::File::create(path).unwrap();
    file.set_len(fixture::number(what, "size").unwrap()).unwrap();
    for part in list(what, "data") {
        let Value::Array(part) = part else { panic!("{part:?}") };
        let (Value::Number(offset), Value::String(base64)) = (&part[0], &part[1]) else { panic!("{part:?}") };
        std::os::unix::fs::FileExt::write_all_at(&file, &decode(base64), offset.as_u64().unwrap()).unwrap();
    }
}

/// Base64 with padding.
fn decode(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> = text
        .bytes()
        .filter(|byte| *byte != b'=')
        .map(|byte| DIGITS.iter().position(|digit| *digit == byte).unwrap() as u32)
        .collect();
    digits
        .chunks(4)
        .flat_map(|chunk| {
            let word = chunk.iter().fold(0, |word, digit| word << 6 | digit) << (6 * (4 - chunk.len()));
            word.to_be_bytes()[1..chunk.len()].to_vec()
        })
        .collect()
}

/// An answer without what every answer has.
fn answer_of(answer: Value) -> Value {
    match answer {
        Value::Object(mut members) => {
            members.retain(|(name, _)| name != "jsonrpc" && name != "id");
            Value::Object(members)
        }
        other => other,
    }
}

//! The recorded scenarios.

use std::collections::BTreeSet;
use std::io::Read;

use spindle_rpc::{Limits, Parsed, Parser, Value};

/// A fresh daemon, fresh files, and what is done.
pub struct Scenario {
    pub name: String,
    pub head: Value,
    pub steps: Vec<Value>,
}

impl Scenario {
    /// The methods that it calls and that `methods` lacks.
    pub fn missing(&self, methods: &BTreeSet<String>) -> Vec<String> {
        let called =
            self.steps.iter().filter(|step| is_answered(step)).filter_map(|step| text(step, "method"));
        let missing: BTreeSet<_> = called.filter(|method| !methods.contains(method)).collect();
        missing.into_iter().collect()
    }
}

/// Whether SPDK knew the method.
fn is_answered(step: &Value) -> bool {
    let error = step.get("answer").and_then(|answer| answer.get("error"));
    !matches!(error.and_then(|error| error.get("code")), Some(Value::Number(code)) if code.text() == "-32601")
}

/// The member of that name as text.
pub fn text(value: &Value, name: &str) -> Option<String> {
    match value.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

/// The member of that name as a number.
pub fn number(value: &Value, name: &str) -> Option<u64> {
    match value.get(name) {
        Some(Value::Number(number)) => number.as_u64().ok(),
        _ => None,
    }
}

/// The member of that name as a list; empty if there is none.
pub fn list(value: &Value, name: &str) -> Vec<Value> {
    match value.get(name) {
        Some(Value::Array(list)) => list.clone(),
        _ => Vec::new(),
    }
}

/// One JSON value.
pub fn parse(text: &str) -> Value {
    let limits = Limits { bytes: 1 << 30, values: 1 << 20, depth: 64 };
    match Parser::new(limits).push(text.as_bytes()) {
        Ok((Some(Parsed::Value(value)), _)) => value,
        other => panic!("{other:?}: {text}"),
    }
}

pub fn scenarios() -> Vec<Scenario> {
    let packed = include_bytes!("../../../../../tests/fixtures/rpc-golden.jsonl.zst");
    let mut lines = String::new();
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(&packed[..]).unwrap();
    decoder.read_to_string(&mut lines).unwrap();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for line in lines.lines() {
        let value = parse(line);
        let name = text(&value, "scenario").unwrap();
        match (value.get("step"), scenarios.last_mut()) {
            (None, _) => scenarios.push(Scenario { name, head: value, steps: Vec::new() }),
            (Some(_), Some(scenario)) => scenario.steps.push(value),
            (Some(_), None) => panic!("a step before its head: {line}"),
        }
    }
    scenarios
}

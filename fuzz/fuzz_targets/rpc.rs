//! A stream of JSON-RPC, cut in two ways: the result is the same, within the limits, and a value is one for
//! serde_json too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spindle_rpc::{Limits, Message, Parsed, Parser, Value, from_value};

const LIMITS: Limits = Limits { bytes: 4096, values: 256, depth: 16 };

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Params {
    name: Option<String>,
    num_blocks: u64,
    block_size: Option<u32>,
    level: Option<i32>,
    read_only: Option<bool>,
    names: Option<Vec<String>>,
}

/// The values of the stream in parts of that length; none after an error.
fn parse(input: &[u8], length: usize) -> (Vec<Parsed>, bool) {
    let mut parser = Parser::new(LIMITS);
    let mut all = Vec::new();
    for part in input.chunks(length) {
        let mut rest = part;
        while !rest.is_empty() {
            let Ok((parsed, used)) = parser.push(rest) else { return (all, false) };
            assert!(used > 0 || parsed.is_some(), "it goes on");
            assert!(parser.held() <= LIMITS.bytes + length);
            all.extend(parsed);
            rest = &rest[used..];
        }
    }
    all.extend(parser.pause());
    (all, true)
}

fuzz_target!(|input: &[u8]| {
    let Some((&length, input)) = input.split_first() else { return };
    let whole = parse(input, input.len().max(1));
    assert_eq!(parse(input, usize::from(length).max(1)), whole);
    for parsed in whole.0 {
        let Parsed::Value(value) = parsed else { continue };
        let text = spindle_rpc::to_json(&value).expect("a value is JSON");
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
        if let Value::Number(number) = &value {
            let _ = (number.as_u64(), number.as_i64());
        }
        let _ = from_value::<Params>(&value);
        if let Message::Single(Ok(call)) = Message::from_value(value)
            && let Some(params) = &call.params
        {
            let _ = from_value::<Params>(params);
        }
    }
});

//! Parameters: SPDK's rules for what is missing, unknown, twice, null or of another type.

use std::path::PathBuf;

use serde::Deserialize;
use spindle_rpc::{Limits, Parsed, Parser, Value, from_value, names};

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Create {
    name: Option<String>,
    num_blocks: u64,
    block_size: Option<u32>,
    read_only: Option<bool>,
    names: Option<Vec<String>>,
    level: Option<Level>,
    shift: Option<i32>,
    pair: Option<(u8, u8)>,
    path: Option<PathBuf>,
    inner: Option<Inner>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Inner {
    depth: u16,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Level {
    #[serde(rename = "ERROR")]
    Error,
    #[serde(rename = "INFO")]
    Info,
}

fn value(text: &str) -> Value {
    match Parser::new(Limits::default()).push(text.as_bytes()).unwrap() {
        (Some(Parsed::Value(value)), _) => value,
        other => panic!("{other:?}"),
    }
}

fn decode(text: &str) -> Result<Create, String> {
    from_value(&value(text)).map_err(|error| error.to_string())
}

#[test]
fn what_is_right_is_decoded() {
    let text = r#"{"num_blocks":1e3,"name":"M0","block_size":512.0,"read_only":true,"names":["a"],"level":"INFO","shift":-1}"#;
    let expected = Create {
        name: Some("M0".to_owned()),
        num_blocks: 1000,
        block_size: Some(512),
        read_only: Some(true),
        names: Some(vec!["a".to_owned()]),
        level: Some(Level::Info),
        shift: Some(-1),
        pair: None,
        path: None,
        inner: None,
    };
    assert_eq!(decode(text), Ok(expected));
    assert_eq!(decode(r#"{"num_blocks":8}"#).unwrap().name, None);
}

#[test]
fn what_is_wrong_is_refused_in_plain_words_with_the_member_what_it_is_and_what_it_should_be() {
    const KNOWN: &str = "name, num_blocks, block_size, read_only, names, level, shift, pair, path, inner";
    let unknown = |name: &str| format!("no parameter is called '{name}'; known: {KNOWN}");
    let not = |given: &str, expected: &str| format!("{given}, not {expected}");
    let (u64s, u32s) = ("an integer from 0 to 18446744073709551615", "an integer from 0 to 4294967295");
    let i32s = "an integer from -2147483648 to 2147483647";
    for (text, said) in [
        (r#"{}"#, "'num_blocks' is missing".to_owned()),
        (r#"[]"#, not("'params' is an array", "an object")),
        (r#""x""#, not("'params' is \"x\"", "an object")),
        (r#"{"num_blocks":8,"nope":1}"#, unknown("nope")),
        (r#"{"num_blocks":8,"NAME":"x"}"#, unknown("NAME")),
        (r#"{"num_blocks":8,"num_blocks":8}"#, "'num_blocks' is given twice; give it once".to_owned()),
        (r#"{"num_blocks":"8"}"#, not("'num_blocks' is \"8\"", u64s)),
        (r#"{"num_blocks":null}"#, not("'num_blocks' is null", u64s)),
        (r#"{"num_blocks":true}"#, not("'num_blocks' is true", u64s)),
        (r#"{"num_blocks":[8]}"#, not("'num_blocks' is an array", u64s)),
        (r#"{"num_blocks":{}}"#, not("'num_blocks' is an object", u64s)),
        (r#"{"num_blocks":8.5}"#, not("'num_blocks' is 8.5", u64s)),
        (r#"{"num_blocks":-8}"#, not("'num_blocks' is -8", u64s)),
        (r#"{"num_blocks":18446744073709551616}"#, not("'num_blocks' is 18446744073709551616", u64s)),
        (r#"{"num_blocks":8,"block_size":4294967296}"#, not("'block_size' is 4294967296", u32s)),
        (r#"{"num_blocks":8,"block_size":"512"}"#, not("'block_size' is \"512\"", u32s)),
        (r#"{"num_blocks":8,"shift":2147483648}"#, not("'shift' is 2147483648", i32s)),
        (r#"{"num_blocks":8,"shift":-2147483649}"#, not("'shift' is -2147483649", i32s)),
        (r#"{"num_blocks":8,"shift":false}"#, not("'shift' is false", i32s)),
        (r#"{"num_blocks":8,"name":null}"#, not("'name' is null", "a string")),
        (r#"{"num_blocks":8,"name":5}"#, not("'name' is 5", "a string")),
        (r#"{"num_blocks":8,"path":5}"#, not("'path' is 5", "a string")),
        (
            r#"{"num_blocks":8,"name":"a\u0000b"}"#,
            "'name' has a NUL character in it; leave that out".to_owned(),
        ),
        (r#"{"num_blocks":8,"read_only":1}"#, not("'read_only' is 1", "true or false")),
        (r#"{"num_blocks":8,"read_only":-1.5}"#, not("'read_only' is -1.5", "true or false")),
        (r#"{"num_blocks":8,"read_only":null}"#, not("'read_only' is null", "true or false")),
        (r#"{"num_blocks":8,"read_only":"true"}"#, not("'read_only' is \"true\"", "true or false")),
        (r#"{"num_blocks":8,"read_only":[]}"#, not("'read_only' is an array", "true or false")),
        (r#"{"num_blocks":8,"read_only":{}}"#, not("'read_only' is an object", "true or false")),
        (r#"{"num_blocks":8,"names":["a",1]}"#, not("'names[1]' is 1", "a string")),
        (r#"{"num_blocks":8,"names":"a"}"#, not("'names' is \"a\"", "an array")),
        (r#"{"num_blocks":8,"names":{}}"#, not("'names' is an object", "an array")),
        (r#"{"num_blocks":8,"level":"info"}"#, not("'level' is \"info\"", "one of ERROR, INFO")),
        (r#"{"num_blocks":8,"level":5}"#, not("'level' is 5", "one of ERROR, INFO")),
        (r#"{"num_blocks":8,"pair":[1]}"#, not("'pair' is an array of 1", "an array of 2")),
        (r#"{"num_blocks":8,"pair":5}"#, not("'pair' is 5", "an array of 2")),
        (r#"{"num_blocks":8,"pair":[1,256]}"#, not("'pair[1]' is 256", "an integer from 0 to 255")),
        (r#"{"num_blocks":8,"inner":5}"#, not("'inner' is 5", "an object")),
        (r#"{"num_blocks":8,"inner":{}}"#, "'inner.depth' is missing".to_owned()),
        (
            r#"{"num_blocks":8,"inner":{"width":1}}"#,
            "in 'inner' no parameter is called 'width'; known: depth".to_owned(),
        ),
        (
            r#"{"num_blocks":8,"inner":{"depth":"a\nb"}}"#,
            not("'inner.depth' is \"a\\nb\"", "an integer from 0 to 65535"),
        ),
    ] {
        assert_eq!(decode(text), Err(said), "{text}");
    }
}

#[test]
fn the_names_of_parameters_are_known_without_a_value() {
    assert_eq!(
        names::<Create>(),
        ["name", "num_blocks", "block_size", "read_only", "names", "level", "shift", "pair", "path", "inner"]
    );
    assert!(names::<Vec<String>>().is_empty());
}

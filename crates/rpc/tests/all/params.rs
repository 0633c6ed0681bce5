//! Parameters: SPDK's rules for what is missing, unknown, twice, null or of another type.

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
    };
    assert_eq!(decode(text), Ok(expected));
    assert_eq!(decode(r#"{"num_blocks":8}"#).unwrap().name, None);
}

#[test]
fn what_is_wrong_is_refused_with_the_member_and_the_reason() {
    let cases = [
        (r#"{}"#, "'num_blocks' is missing"),
        (r#"[]"#, "is an array, not an object"),
        (r#"{"num_blocks":8,"nope":1}"#, "no parameter is called 'nope'; known: name, num_blocks"),
        (r#"{"num_blocks":8,"num_blocks":8}"#, "'num_blocks' is given twice"),
        (r#"{"num_blocks":8,"NAME":"x"}"#, "'NAME'"),
        (r#"{"num_blocks":"8"}"#, "'num_blocks' is a string, not u64"),
        (r#"{"num_blocks":null}"#, "'num_blocks' is null"),
        (r#"{"num_blocks":8.5}"#, "'num_blocks' 8.5: is not an integer"),
        (r#"{"num_blocks":-8}"#, "'num_blocks' -8: is negative"),
        (
            r#"{"num_blocks":8,"block_size":4294967296}"#,
            "'block_size' is 4294967296, not a number from 0 to 4294967295",
        ),
        (r#"{"num_blocks":8,"name":null}"#, "'name' is null, not a string"),
        (r#"{"num_blocks":8,"name":5}"#, "'name' is a number, not a string"),
        (r#"{"num_blocks":8,"name":"a\u0000b"}"#, "'name' has a NUL character in it"),
        (r#"{"num_blocks":8,"read_only":1}"#, "'read_only'"),
        (r#"{"num_blocks":8,"read_only":"true"}"#, "'read_only' is a string, not a boolean"),
        (r#"{"num_blocks":8,"names":["a",1]}"#, "'names[1]' is a number, not a string"),
        (r#"{"num_blocks":8,"names":"a"}"#, "'names' is a string, not a sequence"),
        (r#"{"num_blocks":8,"level":"info"}"#, "'level' is \"info\", not one of ERROR, INFO"),
        (r#"{"num_blocks":8,"shift":2147483648}"#, "'shift'"),
    ];
    for (text, said) in cases {
        let error = decode(text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn the_names_of_parameters_are_known_without_a_value() {
    assert_eq!(
        names::<Create>(),
        ["name", "num_blocks", "block_size", "read_only", "names", "level", "shift"]
    );
    assert!(names::<Vec<String>>().is_empty());
}

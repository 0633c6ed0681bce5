//! The parser: what is JSON, wherever it is cut, and what is not.

use proptest::prelude::*;
use spindle_rpc::{Limits, ParseError, Parsed, Parser, Value, to_json};

/// All values of a stream that arrives in these parts.
fn parse_parts(parts: &[&[u8]]) -> Result<Vec<Parsed>, ParseError> {
    let mut parser = Parser::new(Limits::default());
    let mut all = Vec::new();
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let (parsed, used) = parser.push(rest)?;
            all.extend(parsed);
            rest = &rest[used..];
        }
    }
    all.extend(parser.pause());
    Ok(all)
}

fn parse(text: &[u8]) -> Result<Vec<Parsed>, ParseError> {
    parse_parts(&[text])
}

fn value(text: &str) -> Value {
    match parse(text.as_bytes()).unwrap().pop().unwrap() {
        Parsed::Value(value) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_stand_back_to_back_with_nothing_or_white_space_between() {
    let parsed = parse(b" \n{\"a\":1}[2,3]\"x\" null\ttrue 4 5").unwrap();
    let texts: Vec<String> = parsed
        .iter()
        .map(|parsed| match parsed {
            Parsed::Value(value) => to_json(value).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, ["{\"a\":1}", "[2,3]", "\"x\"", "null", "true", "4", "5"]);
}

#[test]
fn a_number_keeps_its_text_and_members_come_as_often_as_they_were_sent() {
    assert_eq!(to_json(&value("[1e3,1.0,-0,8E+0]")).unwrap(), "[1e3,1.0,-0,8E+0]");
    let Value::Object(members) = value(r#"{"a":1,"a":2}"#) else { panic!() };
    assert_eq!(members.len(), 2);
}

#[test]
fn what_is_no_json_is_refused_by_its_place() {
    let cases: &[(&[u8], &str)] = &[
        (b"{}\0{}", "NUL"),
        (b"{}\xef\xbb\xbf{}", "byte order mark"),
        (b"{},{}", "','"),
        (b"}", "'}'"),
        (b"[1,]", "value"),
        (b"{\"a\":1,}", "name"),
        (b"{\"a\" 1}", "':'"),
        (b"{a:1}", "name"),
        (b"[1}", "',' or ']'"),
        (b"08", ""),
        (b"[08]", "',' or ']'"),
        (b"[+8]", "value"),
        (b"[8.]", "breaks off"),
        (b"[0x8]", "',' or ']'"),
        (b"nulx", "word"),
        (b"True", "value"),
        (b"'a'", "value"),
        (b"\"\\x\"", "escape"),
        (b"\"\\u12g4\"", "hex"),
        (b"\"\\ud800\"", "surrogate"),
        (b"\"\\ud800\\n\"", "surrogate"),
        (b"\"\\udc00\"", "surrogate"),
        (b"\"a\nb\"", "control character"),
        (b"\"\xff\"", "UTF-8"),
        (b"\"\xed\xa0\x80\"", "UTF-8"),
        (b"/* c */1", "value"),
    ];
    for (text, said) in cases.iter().filter(|(_, said)| !said.is_empty()) {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(said), "{}: {error}", String::from_utf8_lossy(text));
    }
}

#[test]
fn escapes_give_the_characters_that_they_mean() {
    let text = value(r#""\"\\\/\b\f\n\r\t\u0041\u00fc\ud83d\ude00\u0000""#);
    assert_eq!(text, Value::String("\"\\/\u{8}\u{c}\n\r\tA\u{fc}\u{1f600}\0".to_owned()));
}

#[test]
fn sixty_four_levels_are_read_and_one_more_is_refused() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(parse(nested(64).as_bytes()).unwrap().len(), 1);
    assert!(parse(nested(65).as_bytes()).unwrap_err().what.contains("64 deep"));
}

#[test]
fn a_message_over_a_limit_is_passed_over_and_the_next_is_read() {
    let limits = Limits { bytes: 100, values: 10, depth: 64 };
    let long = format!("{{\"id\":7,\"x\":\"{}\"}}", "y".repeat(200));
    let many = format!("[{}1]", "1,".repeat(20));
    let number = format!("[{}]", "1".repeat(300));
    for (text, id) in [(long, Some("7")), (many, None), (number, None)] {
        let stream = format!("{text} {{}}");
        let mut parser = Parser::new(limits);
        let mut rest = stream.as_bytes();
        let mut all = Vec::new();
        while !rest.is_empty() {
            // Small parts, so that the limit is met in the middle of a token.
            let part = &rest[..rest.len().min(7)];
            let (parsed, used) = parser.push(part).unwrap();
            all.extend(parsed);
            rest = &rest[used..];
            assert!(parser.held() <= limits.bytes + 7);
        }
        let Parsed::TooLarge { id: found, what } = &all[0] else { panic!("{all:?}") };
        assert_eq!(found.as_ref().map(|id| to_json(id).unwrap()).as_deref(), id);
        assert!(what.contains("send it in parts"), "{what}");
        assert_eq!(all[1], Parsed::Value(Value::Object(Vec::new())));
    }
}

#[test]
fn white_space_between_messages_counts_for_nothing() {
    let mut parser = Parser::new(Limits { bytes: 10, values: 10, depth: 64 });
    for _ in 0..1000 {
        assert_eq!(parser.push(b"   \n   ").unwrap(), (None, 7));
    }
    assert_eq!(parser.held(), 0);
}

/// JSON text of any shape.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("finite", |n| n.is_finite())
            .prop_map(|n| serde_json::to_string(&n).unwrap()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let named = (any::<String>().prop_map(|name| serde_json::to_string(&name).unwrap()), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(named.prop_map(|(name, value)| format!("{name} : {value}")), 0..6)
                .prop_map(|all| format!("{{{}}}", all.join(", "))),
        ]
    })
}

#[test]
fn a_value_that_another_one_follows_is_returned_and_the_other_waits() {
    for unfinished in ["0\"", "0[", "null{\"a\""] {
        assert_eq!(parse(unfinished.as_bytes()).unwrap().len(), 1, "{unfinished}");
    }
}

proptest! {
    #[test]
    fn a_stream_means_the_same_wherever_it_is_cut(text in json(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let stream = format!("{text} {text}\n");
        let bytes = stream.as_bytes();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        places.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for place in places {
            parts.push(&bytes[from..place]);
            from = place;
        }
        parts.push(&bytes[from..]);
        prop_assert_eq!(parse_parts(&parts), parse(bytes));
        prop_assert_eq!(parse(bytes).unwrap().len(), 2);
    }

    #[test]
    fn what_serde_json_takes_is_taken_and_what_it_refuses_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), text in json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut spoilt = text.into_bytes();
        let at = at.index(spoilt.len());
        spoilt[at] = byte;
        for text in [bytes, spoilt] {
            // One value, as one document: without an unfinished value after it, which would include what follows.
            let values = |text: &[u8]| parse(text).map_or(0, |parsed| parsed.len());
            let ours = values(&text) == 1 && values(&[&text, &b" 1"[..]].concat()) == 2;
            let theirs = serde_json::from_slice::<serde_json::Value>(&text);
            let taken = theirs.is_ok();
            // A number out of the range of f64 is a number nevertheless, and an unfinished one waits.
            let out_of_range = theirs.err().is_some_and(|error| error.to_string().contains("out of range"));
            prop_assert!(ours == taken || out_of_range, "{}", String::from_utf8_lossy(&text));
        }
    }
}

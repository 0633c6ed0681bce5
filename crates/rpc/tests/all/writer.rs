//! Values as JSON text: what another writer of JSON writes, and numbers as they came.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;
use spindle_rpc::{Limits, Parsed, Parser, to_json, to_json_indented};

/// One of each thing that a value can be for a serialiser.
#[derive(Serialize)]
enum Each {
    Unit,
    Newtype(Option<u8>),
    Tuple(i64, char),
    Struct { text: String, list: Vec<f64>, map: BTreeMap<i32, ()>, bytes: [u8; 2] },
}

#[derive(Serialize)]
struct Nothing;

#[derive(Serialize)]
struct Pair(u128, Nothing);

fn written_alike(value: &impl Serialize) {
    assert_eq!(to_json(value).unwrap(), serde_json::to_string(value).unwrap());
    assert_eq!(to_json_indented(value).unwrap(), serde_json::to_string_pretty(value).unwrap());
}

#[test]
fn whatever_a_serialiser_may_be_given_is_written_as_another_writer_does() {
    let list = vec![0.0, -0.5, f64::NAN];
    let map = BTreeMap::from([(-1, ()), (7, ())]);
    let text: String = (0..0x90).filter_map(char::from_u32).collect();
    written_alike(&[Each::Unit, Each::Newtype(None), Each::Newtype(Some(1)), Each::Tuple(i64::MIN, '"')]);
    written_alike(&Each::Struct { text, list, map, bytes: *b"ab" });
    written_alike(&(
        Pair(u128::MAX, Nothing),
        BTreeMap::from([('"', false)]),
        BTreeMap::from([(true, 1.5_f32)]),
    ));
    written_alike(&(Vec::<u8>::new(), BTreeMap::<String, u8>::new()));
}

#[test]
fn a_map_whose_keys_are_lists_is_refused() {
    assert!(to_json(&BTreeMap::from([(vec![1], 1)])).is_err());
    assert!(to_json(&BTreeMap::from([((), 1)])).is_err());
}

#[test]
fn a_number_is_written_as_it_came_and_is_an_integer_for_other_writers_if_it_is_written_as_one() {
    let text = "[1e3,1.0,-0,8E+0,18446744073709551615,-9223372036854775808,123456789012345678901234567890]";
    let parsed = Parser::new(Limits::default()).push(text.as_bytes()).unwrap().0;
    let Some(Parsed::Value(value)) = parsed else { panic!("{parsed:?}") };
    assert_eq!(to_json(&value).unwrap(), text);
    let others: serde_json::Value = serde_json::to_value(&value).unwrap();
    let integers: Vec<bool> = others.as_array().unwrap().iter().map(|number| number.is_number()).collect();
    assert_eq!(integers, [false, false, false, false, true, true, false]);
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_written_as_another_writer_does_and_is_read_back(value in any_value()) {
        written_alike(&value);
        for text in [to_json(&value).unwrap(), to_json_indented(&value).unwrap()] {
            let mut parser = Parser::new(Limits::default());
            let parsed = parser.push(text.as_bytes()).unwrap().0.or_else(|| parser.pause());
            let same = matches!(&parsed, Some(Parsed::Value(read)) if to_json(read) == to_json(&value));
            prop_assert!(same, "{text}: {parsed:?}");
        }
    }

    #[test]
    fn a_number_with_a_fraction_is_read_back_as_the_same(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
        prop_assert_eq!(to_json(&number).unwrap().parse::<f64>(), Ok(number));
    }
}

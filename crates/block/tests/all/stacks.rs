//! How deep devices may lie on each other is checked when they are made.

use std::sync::Arc;

use spindle_block::load::Empty;
use spindle_block::{Device, Faulty, MAX_DEPTH, Null, Offset, OpenError, check_base, check_stack};

use crate::common::geometry;

#[test]
fn a_device_that_would_be_too_deep_is_not_made_and_the_error_has_the_numbers() {
    let mut device: Arc<dyn Device> = Null::new("null", geometry(1000));
    for deep in 0..MAX_DEPTH as u64 {
        check_stack("next", std::slice::from_ref(&device)).unwrap();
        device = Offset::new("part", device, 1, 100 - deep).unwrap();
    }
    let error = Offset::new("too much", device.clone(), 1, 10).err().unwrap();
    assert!(matches!(error, OpenError::TooDeep { depth, max: MAX_DEPTH, .. } if depth == MAX_DEPTH + 1));
    let said = error.to_string();
    for part in ["too much", &MAX_DEPTH.to_string(), &(MAX_DEPTH + 1).to_string()] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_base_that_lies_on_the_device_or_makes_it_too_deep_is_refused() {
    let null: Arc<dyn Device> = Null::new("null", geometry(1000));
    let low: Arc<dyn Device> = Faulty::new("low", null.clone());
    let high = Empty::layers(low.clone(), 3);
    let circle = check_base(&low, 0, &high).unwrap_err().to_string();
    assert!(circle.contains("low") && circle.contains("lie on itself"), "{circle}");
    assert!(check_base(&low, 0, &low).is_err());
    check_base(&low, 3, &Empty::layers(null.clone(), MAX_DEPTH - 4)).unwrap();
    let deep = check_base(&low, 3, &Empty::layers(null, MAX_DEPTH - 3)).unwrap_err();
    assert!(matches!(deep, OpenError::TooDeep { depth, .. } if depth == MAX_DEPTH + 1), "{deep}");
}

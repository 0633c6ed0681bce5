//! Claims: which writers exclude each other, on a device and on its parts.

use std::num::NonZeroU64;
use std::sync::Arc;

use spindle_block::{ClaimKind, Claimed, Device, Faulty, Malloc, Offset, OpenError};

use crate::common::geometry;

fn key(n: u64) -> ClaimKind {
    ClaimKind::ReadManyWriteShared(NonZeroU64::new(n).unwrap())
}

fn kinds() -> [ClaimKind; 6] {
    use ClaimKind::{Exclusive, ReadManyWriteNone, ReadManyWriteOne, Writer};
    [Writer, Exclusive, ReadManyWriteOne, ReadManyWriteNone, key(1), key(2)]
}

#[test]
fn each_kind_keeps_out_what_it_must() {
    use ClaimKind::{Exclusive, ReadManyWriteNone, Writer};
    let device: Arc<dyn Device> = Malloc::new("Malloc0", 512, 8).unwrap();
    for first in kinds() {
        for second in kinds() {
            let held = Claimed::take_as(device.clone(), first, "the first").unwrap();
            let taken = Claimed::take_as(device.clone(), second, "the second");
            let expected = match (first, second) {
                (Writer, Writer | Exclusive) | (ReadManyWriteNone, ReadManyWriteNone) => true,
                (one, two) => one == two && matches!(one, ClaimKind::ReadManyWriteShared(_)),
            };
            assert_eq!(taken.is_ok(), expected, "{first:?} and then {second:?}");
            if let Err(error) = &taken {
                assert!(matches!(error, OpenError::Busy { .. }));
                let said = error.to_string();
                assert!(said.contains("Malloc0") && said.contains("the first"), "{said}");
            }
            drop((held, taken));
            assert!(Claimed::holders(&device).is_empty());
        }
    }
}

#[test]
fn a_part_and_the_whole_and_parts_that_overlap_are_not_both_claimed_for_writing() {
    let whole: Arc<dyn Device> = Malloc::new("Malloc0", 512, 100).unwrap();
    let part = |name: &str, from, blocks| -> Arc<dyn Device> {
        Offset::new(name, whole.clone(), from, blocks).unwrap()
    };
    let (first, overlaps, last) = (part("first", 0, 50), part("overlaps", 49, 2), part("last", 51, 49));
    let within: Arc<dyn Device> = Offset::new("within", last.clone(), 10, 5).unwrap();
    let take = |device: &Arc<dyn Device>, holder: &str| {
        Claimed::take_as(device.clone(), ClaimKind::ReadManyWriteOne, holder)
    };
    let held = take(&first, "a store").unwrap();
    let error = take(&whole, "another").unwrap_err().to_string();
    assert!(error.contains("a store") && error.contains("first"), "{error}");
    assert!(take(&overlaps, "another").is_err());
    let beside = take(&last, "another").unwrap();
    assert!(take(&within, "a third").is_err(), "a part of a part is a part of the whole");
    drop((held, beside));
    let inner = take(&within, "a third").unwrap();
    for device in [&whole, &last] {
        assert!(take(device, "another").is_err());
    }
    take(&first, "another").unwrap();
    drop(inner);
    let readers: Vec<Claimed> = [&whole, &first, &within]
        .map(|device| Claimed::take_as(device.clone(), ClaimKind::ReadManyWriteNone, "a reader").unwrap())
        .into();
    assert!(take(&overlaps, "a writer").is_err());
    assert_eq!(Claimed::holders(&first).len(), 2);
    drop(readers);
    take(&overlaps, "a writer").unwrap();
}

#[test]
fn a_layer_that_is_its_base_as_it_is_has_its_bases_claims() {
    let malloc: Arc<dyn Device> = Malloc::with_geometry("Malloc0", geometry(8)).unwrap();
    let layer: Arc<dyn Device> = Faulty::new("faulty", malloc.clone());
    let held = Claimed::take(layer).unwrap();
    assert!(Claimed::take(malloc.clone()).is_err());
    drop(held);
    Claimed::take(malloc).unwrap();
}

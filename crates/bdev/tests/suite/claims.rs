//! What a claim demands of others.

use std::collections::BTreeMap;

use spindle_bdev::{Bdev, BdevError, BlobDevice, ClaimType, Desc, DescOptions};
use spindle_block::{Device, IoErrorKind, Operation};
use spindle_mem::IoBuf;

use crate::support::{malloc, simulated};

const EXCLUSIVE: ClaimType = ClaimType::Exclusive;
const ONE: ClaimType = ClaimType::ReadManyWriteOne;
const NONE: ClaimType = ClaimType::ReadManyWriteNone;
const SHARED: ClaimType = ClaimType::ReadManyWriteShared(7);

fn reader() -> Desc {
    DescOptions::new().open("M0").unwrap()
}

fn claim(kind: ClaimType) -> Result<Desc, BdevError> {
    let desc = reader();
    desc.claim(kind, "a test", "test").map(|()| desc)
}

#[test]
fn those_who_keep_a_user_out_are_named() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let open = |holder: &str| bdev.descriptor(DescOptions::new().write(true).holder(holder)).unwrap();
        let writers = ["export b", "export a", "export b"].map(open);
        let refused = bdev.check_claim(ClaimType::ReadManyWriteNone).unwrap_err();
        assert!(refused.to_string().contains("export a, export b has it open for writing"), "{refused}");
        let more = ["c", "d", "e"].map(open);
        assert_eq!(bdev.holders(), "c, d, e and 2 more");
        drop((writers, more));
        bdev.check_claim(ClaimType::ReadManyWriteNone).unwrap();
        let reader = bdev.descriptor(DescOptions::new()).unwrap();
        reader.claim(ClaimType::ReadManyWriteOne, "a store", "lvol").unwrap();
        reader.claimed_by("store \"s\"");
        let refused = Bdev::open("M0").unwrap_err();
        assert!(refused.to_string().contains("by store \"s\""), "{refused}");
        assert_eq!(bdev.holders(), "store \"s\"");
    });
}

#[test]
fn claims_go_together_as_in_spdk_and_end_with_their_descriptor() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let kinds = [EXCLUSIVE, ONE, NONE, SHARED, ClaimType::ReadManyWriteShared(8)];
        for first in kinds {
            for second in kinds {
                let held = claim(first).unwrap();
                let together = first == second && [NONE, SHARED, kinds[4]].contains(&first);
                let other = claim(second);
                assert_eq!(other.is_ok(), together, "{first:?}, then {second:?}");
                if let Err(refused) = &other {
                    assert_eq!(refused.errno(), 1);
                    assert!(refused.to_string().contains("a test"), "names the holder: {refused}");
                }
                drop((held, other));
                assert!(bdev.info().claim.is_none());
            }
        }
        assert_eq!(claim(ClaimType::ReadManyWriteShared(0)).unwrap_err().errno(), 22);
    });
}

#[test]
fn a_claim_keeps_writers_out_and_lets_readers_in() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        for kind in [EXCLUSIVE, ONE, NONE, SHARED] {
            let held = claim(kind).unwrap();
            assert_eq!(held.is_writable(), kind != NONE, "{kind:?}");
            let refused = Bdev::open("M0").unwrap_err();
            assert_eq!(refused.errno(), 1, "{kind:?}: {refused}");
            assert!(!reader().is_writable());
        }
        drop(Bdev::open("M0").unwrap());
    });
}

#[test]
fn a_claim_is_refused_while_another_writes() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        let writer = Bdev::open("M0").unwrap();
        for kind in [EXCLUSIVE, ONE, NONE, SHARED] {
            let refused = claim(kind).unwrap_err();
            assert_eq!(refused.errno(), 1, "{refused}");
        }
        assert_eq!(
            writer.claim(NONE, "a test", "").unwrap_err().errno(),
            22,
            "a writing descriptor claims that no descriptor writes"
        );
        writer.claim(ONE, "a test", "").unwrap();
    });
}

#[test]
fn a_descriptor_for_reading_cannot_write() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        let desc = reader();
        assert!(!desc.geometry().writable());
        let channel = desc.channel().unwrap();
        let (written, _) = channel.write(0, IoBuf::copy_from(&[1; 512])).await;
        assert_eq!(written.unwrap_err().kind, IoErrorKind::ReadOnly);
        assert_eq!(channel.unmap(0, 512).await.unwrap_err().kind, IoErrorKind::ReadOnly);
        let (read, buffers) = channel.read(0, IoBuf::copy_from(&[1; 512])).await;
        read.unwrap();
        assert_eq!(buffers.to_vec(), [0; 512]);

        let mut pair = desc.queue_pair().unwrap();
        assert!(!pair.geometry().writable());
        let operations = [Operation::Write, Operation::Unmap, Operation::WriteZeroes, Operation::Read];
        let ends = BTreeMap::from(operations.map(|operation| (operation, operation != Operation::Read)));
        for operation in operations {
            let io = pair.request(operation, 0, 1, IoBuf::copy_from(&[1; 512]));
            pair.submit(io);
        }
        let mut refused = BTreeMap::new();
        while pair.outstanding() > 0 {
            pair.wait().await;
            pair.reap(|io, status| {
                refused.insert(io.operation(), status == Err(IoErrorKind::ReadOnly));
            });
        }
        assert_eq!(refused, ends);
    });
}

#[test]
fn a_store_has_its_bdev_to_itself_and_snapshots_outside_share_theirs() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        let base = BlobDevice::open("M0", |_| {}).unwrap();
        assert_eq!(base.desc().bdev().info().claim.unwrap().kind, ONE);
        assert_eq!(BlobDevice::open("M0", |_| {}).map(drop).unwrap_err().errno(), 1);
        drop(base);
        let outside = [(); 2].map(|()| BlobDevice::open_read_only("M0", |_| {}).unwrap());
        assert!(!outside[0].geometry().writable());
        assert_eq!(BlobDevice::open("M0", |_| {}).map(drop).unwrap_err().errno(), 1);
    });
}

#[test]
fn every_call_on_a_bdev_that_was_removed_says_that_it_is_gone() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let desc = reader();
        registry.unregister(&bdev).await.unwrap();
        let claimed = desc.claim(EXCLUSIVE, "a test", "test");
        let opened = bdev.descriptor(DescOptions::new()).map(drop);
        let again = registry.unregister(&bdev).await;
        let named = [bdev.add_alias("A0"), bdev.rename_alias("A0", "A1")];
        for outcome in [claimed, bdev.check_claim(NONE), opened, again].into_iter().chain(named) {
            let error = outcome.unwrap_err();
            assert!(error.to_string().contains("bdev \"M0\" is gone"), "{error}");
            assert_eq!(error.errno(), 19);
        }
    });
}

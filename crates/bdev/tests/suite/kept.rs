//! Removals of bdevs in stacks in which a bdev further down keeps the requests.

use spindle_bdev::conformance::{self, Contents};
use spindle_bdev::modules::delay::{self, DelaySpec};
use spindle_bdev::modules::error::{self, Effect, ErrorSpec, Injection, Target};
use spindle_bdev::modules::passthru::{self, PassthruSpec};
use spindle_bdev::modules::split::{self, SplitSpec};
use spindle_bdev::{Bdev, Registry};
use spindle_block::{IoErrorKind, LaneTable, Limits, Operation, QueuePair};
use spindle_mem::IoBuf;

use crate::stacks::awkward;
use crate::support::{malloc, simulated};
use crate::teardown::{each_ends_once, nothing_is_left, pair, some_turns};

/// Requests that are kept: more than a lane with little room takes.
const KEPT: u64 = 16;

/// A RAM disk and an error bdev on it that keeps all that comes.
async fn keeper(registry: &Registry) -> Vec<Bdev> {
    let base = malloc(registry, "M0").await;
    let spec = ErrorSpec { base: "M0".into(), uuid: None };
    let keeper = error::create(registry, spec).await.unwrap().unwrap();
    let injection = Injection { effect: Effect::Pending, count: u32::MAX, queue_depth: 0 };
    error::inject(registry, "EE_M0", Target::All, injection).unwrap();
    vec![base, keeper]
}

/// A bdev of one of four modules.
async fn on(registry: &Registry, base: &Bdev, module: usize) -> Bdev {
    let base = base.name().to_owned();
    match module % 4 {
        0 => {
            let spec = PassthruSpec { name: format!("P_{base}"), base, uuid: None };
            passthru::create(registry, spec).await.unwrap().unwrap()
        }
        1 => {
            let latencies = [3_600_000_000; 4];
            let spec = DelaySpec { name: format!("D_{base}"), base, uuid: None, latencies };
            delay::create(registry, spec).await.unwrap().unwrap()
        }
        2 => {
            let spec = SplitSpec { base, count: 2, size_mib: 0 };
            split::create(registry, spec).await.unwrap().swap_remove(0)
        }
        _ => awkward::create(registry, &format!("A_{base}"), &base).await.0,
    }
}

fn submit(pair: &mut QueuePair) {
    for tag in 0..KEPT {
        let operation = if tag % 2 == 0 { Operation::Write } else { Operation::Read };
        let mut io = pair.request(operation, tag, 8, IoBuf::zeroed(8 * 512));
        io.set_tag(tag);
        pair.submit(io);
    }
    LaneTable::current().unwrap().step();
}

#[test]
fn a_removal_at_any_place_of_a_stack_and_a_shutdown_end_the_requests_that_a_bdev_below_keeps() {
    for height in 1..=4 {
        for first in 0..4 {
            // The last is no place: a shutdown.
            for place in 0..height + 3 {
                simulated(async move |registry| {
                    let mut all = keeper(&registry).await;
                    for module in first..first + height {
                        let made = on(&registry, all.last().unwrap(), module).await;
                        all.push(made);
                    }
                    let mut pair = pair(all.last().unwrap());
                    submit(&mut pair);
                    some_turns().await;
                    assert_eq!(pair.outstanding() as u64, KEPT);
                    match all.get(place) {
                        Some(bdev) => registry.unregister(bdev).await.unwrap(),
                        None => registry.shutdown().await.unwrap(),
                    }
                    each_ends_once(&mut pair, KEPT).await;
                    drop(pair);
                    nothing_is_left().await;
                });
            }
        }
    }
}

#[test]
fn a_removal_leaves_the_requests_of_others_with_the_bdev_that_keeps_them() {
    simulated(async |registry| {
        let all = keeper(&registry).await;
        let spec = SplitSpec { base: "EE_M0".into(), count: 2, size_mib: 0 };
        let parts = split::create(&registry, spec).await.unwrap();
        let (mut one, mut other) = (pair(&parts[0]), pair(&parts[1]));
        submit(&mut one);
        submit(&mut other);
        some_turns().await;
        registry.unregister(&parts[0]).await.unwrap();
        each_ends_once(&mut one, KEPT).await;
        some_turns().await;
        assert_eq!(other.outstanding() as u64, KEPT, "they are not the removed bdev's");
        error::resume(&registry, all[1].name()).await.unwrap();
        let mut ended = 0;
        while other.outstanding() > 0 {
            other.wait().await;
            ended += other.reap(|_, status| status.unwrap());
        }
        assert_eq!(ended as u64, KEPT);
        drop((one, other));
        nothing_is_left().await;
    });
}

#[test]
fn a_removal_ends_the_requests_that_wait_in_front_of_a_bdev_below() {
    for waits_for_a_limit in [true, false] {
        simulated(async move |registry| {
            let base = malloc(&registry, "M0").await;
            let top = on(&registry, &base, 0).await;
            let device = base.disk().device();
            let state = device.state().unwrap();
            let frozen = match waits_for_a_limit {
                true => {
                    state.set_limits(Limits { operations: Some(1), ..Limits::default() }).await;
                    None
                }
                false => Some(state.freeze().await),
            };
            let mut pair = pair(&top);
            submit(&mut pair);
            some_turns().await;
            assert!(pair.outstanding() as u64 >= KEPT / 2, "only the run-up of a limit goes");
            registry.unregister(&top).await.unwrap();
            let mut ended = 0;
            while pair.outstanding() > 0 {
                pair.wait().await;
                pair.reap(|_, status| {
                    ended += u64::from(status == Err(IoErrorKind::Aborted));
                });
            }
            assert!(ended >= KEPT / 2, "{ended} ended early");
            drop((frozen, pair));
            nothing_is_left().await;
        });
    }
}

#[test]
fn a_bdev_that_keeps_requests_breaks_a_rule_of_all_bdevs_and_the_check_ends() {
    simulated(async |registry| {
        let all = keeper(&registry).await;
        let violation = conformance::check(&all[1], Contents::Kept).await.unwrap_err();
        assert!(violation.what.contains("has not ended"), "{violation}");
        registry.shutdown().await.unwrap();
    });
}

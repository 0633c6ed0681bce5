//! Every ordering point of the store is needed: without it the proof fails, within a stated number of crash
//! points; with it the same crash points hold.

use std::ops::ControlFlow;

use spindle_blob::ordering::{Order, Point};
use spindle_prove::proof::{Task, prove};
use spindle_prove::scenario::Scenario;

/// The first violation within so many crash points: how many it took, and its seed.
fn first_violation(order: Order, scenario: Scenario, most: u64) -> Option<(u64, u64)> {
    let task = Task { order, scenario: Some(scenario), ..Task::default() };
    let mut points = 0;
    for seed in 1.. {
        let report = prove(seed, &task, &mut |_| {
            points += 1;
            if points > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if !report.violations.is_empty() {
            return Some((points, seed));
        }
        if points > most {
            return None;
        }
    }
    None
}

/// Leaving the point out must be found within so many crash points of a scenario.
fn is_needed(point: Point, scenario: Scenario, most: u64) {
    let found = first_violation(Order::leaving_out(point), scenario, most);
    let (points, _) = found.unwrap_or_else(|| panic!("{most} crash points held without {point:?}"));
    println!("{point:?}: {points} crash points");
    let strict = first_violation(Order::STRICT, scenario, points);
    assert_eq!(strict, None, "it fails with every point kept: that says nothing about {point:?}");
}

#[test]
fn a_replaced_blob_needs_its_fill_before_its_map() {
    is_needed(Point::FillBeforeMap, Scenario::Replacements, 30_000);
}

#[test]
fn a_replaced_blob_needs_its_pages_before_its_root() {
    is_needed(Point::PagesBeforeRoot, Scenario::Replacements, 200_000);
}

macro_rules! needed {
    ($($name:ident: $point:ident, $scenario:ident, $most:literal;)*) => {
        $(#[test]
        fn $name() {
            is_needed(Point::$point, Scenario::$scenario, $most);
        })*

        #[test]
        fn no_point_is_forgotten() {
            assert_eq!([$(Point::$point),*], Point::ALL);
        }
    };
}

needed! {
    clearing_comes_before_the_super_block: ClearedBeforeSuper, Reloads, 30_000;
    the_dirty_mark_comes_before_a_change: DirtyBeforeChange, Reloads, 30_000;
    the_fill_comes_before_the_map: FillBeforeMap, Everything, 30_000;
    pages_come_before_the_root: PagesBeforeRoot, Everything, 200_000;
    the_copy_comes_before_the_place: CopyBeforePlace, Everything, 30_000;
    the_place_comes_before_its_copy_goes: PlaceBeforeForget, Everything, 200_000;
    the_unmap_comes_before_the_next_use: UnmapBeforeFree, LateIo, 30_000;
    readers_end_before_the_next_use: ReadersBeforeFree, LateIo, 30_000;
    the_root_goes_before_the_rest: RootBeforeRest, Everything, 30_000;
    the_mark_comes_before_the_clone: MarkBeforeClone, Chains, 30_000;
    the_clone_comes_before_the_mark_goes: CloneBeforeUnmark, Chains, 30_000;
    sector_comes_after_sector: SectorBySector, Everything, 200_000;
    repairs_take_turns: RepairStep, Everything, 30_000;
    masks_come_before_clean: MasksBeforeClean, Reloads, 30_000;
    new_clusters_are_zeroed: ZeroNewCluster, Everything, 30_000;
    what_is_acknowledged_is_durable: DurableBeforeAck, Everything, 30_000;
    a_failed_flush_lasts: FailedFlushLasts, FailedFlushes, 30_000;
    what_is_found_comes_before_a_change: FoundBeforeChange, Everything, 1_000_000;
}

//! Damaged stores, from a few seeds: nothing that could be read is lost, and what cannot be read is named.

use std::ops::ControlFlow;

use spindle_prove::damage::{Task, judge};

/// Damages so many images of some seeds of the workload.
fn judged(seeds: std::ops::Range<u64>, images: u64) {
    let task = Task { images: Some(images), ..Task::default() };
    let mut count = 0;
    for seed in seeds {
        let report = judge(seed, &task, &mut || ControlFlow::Continue(()));
        assert!(report.violations.is_empty(), "{}", report.violations[0]);
        count += report.images;
    }
    assert!(count > images, "only {count} images were damaged");
}

#[test]
fn a_command_makes_nothing_unreadable_and_what_cannot_be_read_is_named() {
    judged(1..25, 40);
}

#[test]
fn the_same_seed_damages_the_same_images() {
    let task = Task { images: Some(10), ..Task::default() };
    let told = |_| {
        let report = judge(3, &task, &mut || ControlFlow::Continue(()));
        (report.images, report.kinds)
    };
    assert_eq!(told(1), told(2));
}

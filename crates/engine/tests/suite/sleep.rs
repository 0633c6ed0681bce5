//! Time, sleeping and waking.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spindle_engine::{Bell, Driver, Unparker, spawn_pinned};

use super::Bench;

pub fn a_sleep_ends_at_its_deadline_and_not_before(bench: &mut Bench) {
    let deadline = bench.driver.now() + Duration::from_millis(20);
    let mut turns = 0;
    while bench.driver.now() < deadline {
        bench.driver.park(Some(deadline));
        turns += 1;
        assert!(turns < 10, "park returned early again and again");
    }
}

pub fn a_deadline_in_the_past_does_not_sleep(bench: &mut Bench) {
    let now = bench.driver.now();
    bench.driver.park(Some(now));
    bench.driver.park(Some(spindle_engine::Time(0)));
}

pub fn time_never_runs_backwards(bench: &mut Bench) {
    let mut last = bench.driver.now();
    for _ in 0..1000 {
        let now = bench.driver.now();
        assert!(now >= last);
        last = now;
    }
}

pub fn an_unpark_before_the_sleep_is_not_lost(bench: &mut Bench) {
    let far = bench.driver.now() + Duration::from_secs(3600);
    for _ in 0..100 {
        bench.driver.unparker().unpark();
        bench.driver.park(Some(far));
    }
    assert!(bench.driver.now() < far, "each sleep ended by its unpark, none by the deadline");
}

pub fn an_unpark_from_another_thread_ends_the_sleep(bench: &mut Bench) {
    if bench.engine.world().is_some() {
        return; // The world's own wait for outside is tested with the simulation.
    }
    let far = bench.driver.now() + Duration::from_secs(3600);
    for _ in 0..20 {
        let unparker = bench.driver.unparker();
        let other = spawn_pinned("other", None, move || unparker.unpark()).unwrap();
        bench.driver.park(Some(far));
        other.join().unwrap();
        // Used up or not, the next turn starts clean.
        bench.driver.unparker().unpark();
        bench.driver.park(Some(far));
    }
    assert!(bench.driver.now() < far);
}

pub fn a_driver_that_was_woken_with_nothing_in_flight_sleeps_again(bench: &mut Bench) {
    if bench.engine.world().is_some() {
        return; // Nothing outside wakes it.
    }
    let unparker = bench.driver.unparker();
    let other = spawn_pinned("other", None, move || {
        // Until the driver is surely asleep: only then is there something to be written, and read.
        Bell::new().unwrap().wait(Some(Duration::from_millis(20)));
        unparker.unpark();
    });
    bench.driver.park(None);
    other.unwrap().join().unwrap();
    // No poll is needed: nothing is in flight.
    a_sleep_ends_at_its_deadline_and_not_before(bench);
}

pub fn drivers_of_one_engine_share_the_zero_of_time(bench: &mut Bench) {
    let mut second = bench.engine.driver(1).unwrap();
    let (a, b, c) = (bench.driver.now(), second.now(), bench.driver.now());
    assert!(a <= b && b <= c);
}

pub fn two_sleepers_wake_each_other_without_losing_one_wake(bench: &mut Bench) {
    const ROUNDS: u64 = 1000;
    if bench.engine.world().is_some() {
        return; // Both would have to be on this OS thread.
    }
    let far = bench.driver.now() + Duration::from_secs(60);
    let turn = Arc::new(AtomicU64::new(0));
    let play = move |driver: &mut dyn Driver, turn: &AtomicU64, odd: u64, other: &Unparker| {
        while turn.load(Ordering::SeqCst) < ROUNDS {
            if turn.load(Ordering::SeqCst) % 2 == odd {
                turn.fetch_add(1, Ordering::SeqCst);
                other.unpark();
            } else {
                driver.park(Some(far));
                assert!(driver.now() < far, "a wake was lost");
            }
        }
    };
    let (tell, told) = std::sync::mpsc::channel();
    let (engine, mine, its_turn) = (bench.engine.clone(), bench.driver.unparker(), Arc::clone(&turn));
    let other = spawn_pinned("other", None, move || {
        let mut driver = engine.driver(1).unwrap();
        tell.send(driver.unparker()).unwrap();
        play(&mut *driver, &its_turn, 1, &mine);
    });
    let theirs = told.recv().unwrap();
    play(&mut *bench.driver, &turn, 0, &theirs);
    theirs.unpark();
    other.unwrap().join().unwrap();
}

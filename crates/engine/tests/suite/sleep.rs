//! Time, sleeping and waking.

use std::time::Duration;

use super::Bench;

pub fn a_sleep_ends_at_its_deadline_and_not_before(bench: &mut Bench) {
    let deadline = bench.driver.now() + Duration::from_millis(20);
    let mut turns = 0;
    while bench.driver.now() < deadline {
        bench.driver.park(Some(deadline));
        turns += 1;
        assert!(turns < 100, "park returned early again and again");
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
        let other = spindle_engine::spawn_pinned("other", None, move || unparker.unpark()).unwrap();
        bench.driver.park(Some(far));
        other.join().unwrap();
        // Used up or not, the next turn starts clean.
        bench.driver.unparker().unpark();
        bench.driver.park(Some(far));
    }
    assert!(bench.driver.now() < far);
}

pub fn drivers_of_one_engine_share_the_zero_of_time(bench: &mut Bench) {
    let mut second = bench.engine.driver(1).unwrap();
    let (a, b, c) = (bench.driver.now(), second.now(), bench.driver.now());
    assert!(a <= b && b <= c);
}

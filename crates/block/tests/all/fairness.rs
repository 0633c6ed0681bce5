//! Limits among users: none gets over twice what another gets in 100 ms while both have work, whatever the number and
//! the size of their requests, on one thread or on several.

use std::sync::Arc;
use std::time::Duration;

use spindle_block::{Device, DeviceState, LaneTable, Limits, Null, Operation, QueuePair};
use spindle_mem::IoBuf;

use crate::common::geometry;
use crate::common::model::Random;

/// How often threads look at their lanes.
const TURN: Duration = Duration::from_micros(20);

/// Turns in 100 ms.
const WINDOW: usize = 5000;

/// One that always has work: so many requests at once, each of so many blocks.
struct User {
    pair: QueuePair,
    blocks: u64,
    operation: Operation,
    /// Requests since the window began.
    done: u64,
}

impl User {
    fn new(
        table: &LaneTable,
        device: &Arc<dyn Device>,
        depth: u64,
        blocks: u64,
        operation: Operation,
    ) -> User {
        let mut pair = table.queue_pair(device).unwrap();
        for _ in 0..depth {
            let io = pair.request(operation, 0, blocks, IoBuf::zeroed(blocks as usize * 512));
            pair.submit(io);
        }
        User { pair, blocks, operation, done: 0 }
    }

    fn turn(&mut self) {
        // What ends at once is renewed at once.
        for _ in 0..32 {
            let done = self.pair.cycle(|io, status| {
                status.unwrap();
                Some(io)
            });
            self.done += done as u64;
            if done == 0 {
                break;
            }
        }
    }
}

/// Threads with their users.
struct Threads(Vec<(LaneTable, Vec<User>)>);

impl Threads {
    /// One turn of each thread, in any order.
    fn turn(&mut self, random: &mut Random) {
        let first = random.below(self.0.len() as u64) as usize;
        for n in 0..self.0.len() {
            let at = (first + n) % self.0.len();
            let (table, users) = &mut self.0[at];
            table.advance(TURN);
            table.step();
            users.iter_mut().for_each(User::turn);
        }
    }

    /// What each user had in the next 100 ms, as `share` counts it.
    fn window(&mut self, random: &mut Random, share: &dyn Fn(&User) -> u64) -> Vec<u64> {
        self.0.iter_mut().flat_map(|(_, users)| users).for_each(|user| user.done = 0);
        (0..WINDOW).for_each(|_| self.turn(random));
        self.0.iter().flat_map(|(_, users)| users).map(share).collect()
    }
}

fn disk(limits: Limits) -> (Arc<dyn Device>, DeviceState) {
    let null = Null::new("null", geometry(1 << 20));
    let state = null.state().unwrap().clone();
    drop(state.set_limits(limits));
    (null, state)
}

fn fair(windows: &[Vec<u64>], what: &str) {
    for shares in windows {
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(*least > 0 && most <= &(2 * least), "{what}: {shares:?}");
    }
}

/// Users by thread: depth and blocks of each.
type Plan<'a> = &'a [&'a [(u64, u64)]];

fn users(device: &Arc<dyn Device>, plan: Plan<'_>, operation: impl Fn(usize) -> Operation) -> Threads {
    let threads = plan.iter().map(|users| {
        let table = LaneTable::default();
        let users = users.iter().enumerate();
        let users =
            users.map(|(n, (depth, blocks))| User::new(&table, device, *depth, *blocks, operation(n)));
        (table.clone(), users.collect())
    });
    Threads(threads.collect())
}

const PLANS: [Plan<'_>; 5] = [
    // On one thread, and each on its own thread.
    &[&[(1, 8), (128, 8), (4, 8)]],
    &[&[(1, 8)], &[(128, 8)], &[(32, 8)]],
    // Several on one thread and one on another.
    &[&[(1, 8), (64, 8), (2, 8)], &[(128, 8)]],
    // Large requests beside small ones.
    &[&[(1, 1)], &[(16, 128)], &[(4, 16)]],
    &[&[(1, 8), (32, 256)], &[(128, 1), (2, 64)]],
];

#[test]
fn none_gets_over_twice_the_requests_of_another_in_100_ms() {
    for seed in 0..5 {
        for plan in PLANS {
            let random = &mut Random(seed);
            let (device, _state) = disk(Limits { operations: Some(10_000), ..Limits::default() });
            let mut threads = users(&device, plan, |_| Operation::Read);
            let windows: Vec<_> = (0..4).map(|_| threads.window(random, &|user| user.done)).collect();
            fair(&windows, &format!("{plan:?}, seed {seed}"));
            let sum: u64 = windows.iter().flatten().sum();
            assert!((3900..=4200).contains(&sum), "{plan:?}: {sum} of 4000 in 400 ms");
        }
    }
}

#[test]
fn none_gets_over_twice_the_bytes_of_another_in_100_ms_whatever_the_sizes() {
    for seed in 0..5 {
        for plan in PLANS {
            let random = &mut Random(seed);
            let (device, _state) = disk(Limits { bytes: Some(64 << 20), ..Limits::default() });
            let mut threads = users(&device, plan, |_| Operation::Write);
            threads.window(random, &|user| user.done);
            let bytes = |user: &User| user.done * user.blocks * 512;
            let windows: Vec<_> = (0..4).map(|_| threads.window(random, &bytes)).collect();
            fair(&windows, &format!("{plan:?}, seed {seed}"));
            let (sum, right) = (windows.iter().flatten().sum::<u64>(), (64 << 20) * 4 / 10);
            assert!(sum.abs_diff(right) <= right / 20, "{plan:?}: {sum} of {right} bytes in 400 ms");
        }
    }
}

#[test]
fn one_that_reads_and_writes_gets_no_more_than_one_that_reads() {
    let random = &mut Random(1);
    let (device, _state) = disk(Limits { operations: Some(10_000), ..Limits::default() });
    let (mixing, reading) = (LaneTable::default(), LaneTable::default());
    let mut both = User::new(&mixing, &device, 16, 8, Operation::Read);
    for _ in 0..16 {
        let io = both.pair.request(Operation::Write, 0, 8, IoBuf::zeroed(8 * 512));
        both.pair.submit(io);
    }
    let one = User::new(&reading, &device, 16, 8, Operation::Read);
    let mut threads = Threads(vec![(mixing, vec![both]), (reading, vec![one])]);
    let shares = threads.window(random, &|user| user.done);
    assert!(shares[0].abs_diff(shares[1]) <= 20, "{shares:?}");
}

#[test]
fn reads_and_writes_with_limits_of_their_own_do_not_wait_for_each_other() {
    let random = &mut Random(1);
    let limits = Limits { read_bytes: Some(8 << 20), written_bytes: Some(1 << 20), ..Limits::default() };
    let (device, _state) = disk(limits);
    let kinds = |n: usize| if n.is_multiple_of(2) { Operation::Read } else { Operation::Write };
    let mut threads = users(&device, &[&[(8, 8), (8, 8)], &[(8, 8), (8, 8)]], kinds);
    threads.window(random, &|user| user.done);
    let shares = threads.window(random, &|user| user.done * user.blocks * 512);
    for (share, user) in shares.iter().zip(threads.0.iter().flat_map(|(_, users)| users)) {
        let right = if user.operation == Operation::Read { 4 << 20 } else { 1 << 19 } / 10;
        assert!(share.abs_diff(right) <= right / 8, "{share} of {right} bytes: {shares:?}");
    }
}

#[test]
fn a_request_larger_than_its_share_goes_at_once_and_its_debt_is_paid_beside_others() {
    let random = &mut Random(1);
    let (device, _state) = disk(Limits { bytes: Some(10 << 20), ..Limits::default() });
    let (small, large) = (LaneTable::default(), LaneTable::default());
    let mut threads = Threads(vec![(small.clone(), vec![User::new(&small, &device, 1, 8, Operation::Read)])]);
    threads.window(random, &|user| user.done);
    // 100 ms of the limit at once.
    large.advance(Duration::from_millis(100));
    let mut pair = large.queue_pair(&device).unwrap();
    let io = pair.request(Operation::Read, 0, 2048, IoBuf::zeroed(1 << 20));
    pair.submit(io);
    for _ in 0..100 {
        threads.turn(random);
        large.advance(TURN);
        large.step();
    }
    assert_eq!(pair.reap(|_, status| status.unwrap()), 1, "there was credit");
    threads.0.push((large, Vec::new()));
    // While the debt is paid, both have a half; then the other has all.
    let shares: Vec<u64> = (0..4).map(|_| threads.window(random, &|user| user.done * 4096)[0]).collect();
    for (share, right) in shares.iter().zip([1 << 19, 1 << 19, 1 << 20, 1 << 20]) {
        assert!(share.abs_diff(right) <= right / 8, "{share} of {right}: {shares:?}");
    }
    assert_eq!(threads.0[1].0.stats().timers, 0, "what is paid needs no timer");
}

#[test]
fn a_limit_set_again_at_once_or_under_load_gives_nothing_away() {
    let random = &mut Random(7);
    let limits = |operations| Limits { operations: Some(operations), ..Limits::default() };
    let (device, state) = disk(limits(10_000));
    let mut threads = users(&device, &[&[(64, 8)], &[(64, 8)]], |_| Operation::Read);
    threads.window(random, &|user| user.done);
    threads.0.iter_mut().flat_map(|(_, users)| users).for_each(|user| user.done = 0);
    for turn in 0..WINDOW {
        // The same, and another that differs by little, in turns.
        drop(state.set_limits(limits(10_000)));
        drop(state.set_limits(limits(10_000 + turn as u64 % 3)));
        threads.turn(random);
    }
    let sum: u64 = threads.0.iter().flat_map(|(_, users)| users).map(|user| user.done).sum();
    assert!((950..=1050).contains(&sum), "{sum} of 1000");
    // From a very low one, where each owes seconds, to a high one.
    drop(state.set_limits(limits(1)));
    threads.window(random, &|user| user.done);
    drop(state.set_limits(limits(10_000)));
    let sum: u64 = threads.window(random, &|user| user.done).iter().sum();
    assert!((950..=1050).contains(&sum), "{sum} of 1000 behind a limit of one a second");
    drop(state.set_limits(Limits::default()));
    threads.turn(random);
    let rest: u64 = threads.window(random, &|user| user.done).iter().sum();
    assert!(rest > 10_000, "{rest} without a limit");
}

#[test]
fn users_that_come_and_go_leave_nothing_in_front_of_the_lane() {
    let (device, _state) = disk(Limits { bytes: Some(1 << 20), ..Limits::default() });
    let table = LaneTable::default();
    for _ in 0..1000 {
        let mut user = User::new(&table, &device, 2, 8, Operation::Read);
        for _ in 0..1000 {
            table.advance(TURN);
            table.step();
            user.pair.reap(|_, status| status.unwrap());
        }
        assert_eq!(user.pair.outstanding(), 0);
    }
    table.step();
    let left = table.stats();
    assert_eq!((left.lanes, left.in_flight, left.timers), (0, 0, 0));
}

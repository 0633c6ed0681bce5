//! Stacks of bdevs chosen at random, used by several threads at once while errors are injected, times and sizes
//! change, devices are frozen and reset, and in the end the base is removed under load: no completion is lost or
//! doubled, no data is wrong, and nothing is left.

pub mod awkward;
mod every_nth;
mod model;
mod points;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use spindle_bdev::modules::delay::{self, DelaySpec, Latency};
use spindle_bdev::modules::error::{self, Effect, ErrorSpec, Injection, Target};
use spindle_bdev::modules::passthru::{self, PassthruSpec};
use spindle_bdev::modules::split::{self, SplitSpec};
use spindle_bdev::{Bdev, Registry};
use spindle_block::{HistogramOptions, LaneTable, Limits, Operation};
use spindle_reactor::EngineKind;

use crate::support::{on, thread};
use awkward::Awkward;
use model::{Random, Stripe};
use worker::Worker;

/// Users of the top bdev, on as many threads.
const WORKERS: u64 = 4;

/// Requests of each.
const REQUESTS: u64 = 80;

/// Unused blocks at the end, so that they may go and come back.
const SPARE: u64 = 8;

/// A stack, and what can be done to it.
struct Stack {
    top: Bdev,
    all: Vec<Bdev>,
    errors: Vec<String>,
    delays: Vec<String>,
    awkward: Vec<(Bdev, Arc<Awkward>)>,
}

/// Makes a RAM disk and one to six bdevs on it; the lowest of them fails every n-th request if so many are given.
async fn build(registry: &Registry, random: &mut Random, fails_every: Option<u64>) -> Stack {
    let spec = spindle_bdev::modules::malloc::MallocSpec {
        name: Some("M0".into()),
        block_size: 512,
        num_blocks: 256,
        ..Default::default()
    };
    let mut top = spindle_bdev::modules::malloc::create(registry, spec).await.unwrap();
    let mut stack =
        Stack { top: top.clone(), all: vec![top.clone()], errors: vec![], delays: vec![], awkward: vec![] };
    if let Some(n) = fails_every {
        top = every_nth::create(registry, n, top.name()).await;
        stack.all.push(top.clone());
    }
    for number in 0..1 + random.below(6) {
        let base = top.name().to_owned();
        top = match random.below(6) {
            0 => {
                let spec = PassthruSpec { name: format!("P{number}"), base, uuid: None };
                passthru::create(registry, spec).await.unwrap().unwrap()
            }
            1 => {
                let latencies = [random.below(50), 500, random.below(50), 900];
                let spec = DelaySpec { name: format!("D{number}"), base, uuid: None, latencies };
                let made = delay::create(registry, spec).await.unwrap().unwrap();
                stack.delays.push(made.name().to_owned());
                made
            }
            2 => {
                let made = error::create(registry, ErrorSpec { base, uuid: None }).await.unwrap().unwrap();
                stack.errors.push(made.name().to_owned());
                made
            }
            3 if top.num_blocks() >= 128 => {
                let spec = SplitSpec { base, count: 2, size_mib: 0 };
                split::create(registry, spec).await.unwrap().swap_remove(random.below(2) as usize)
            }
            _ => {
                let (made, device) = awkward::create(registry, &format!("A{number}"), &base).await;
                stack.awkward.push((made.clone(), device));
                made
            }
        };
        stack.all.push(top.clone());
    }
    stack.top = top;
    stack
}

/// Disturbs the stack until the workers have ended, or for so many rounds.
async fn disturb(registry: &Registry, stack: &Stack, random: &mut Random, rounds: u64, ended: &AtomicBool) {
    for _ in 0..rounds {
        if ended.load(Ordering::Acquire) {
            break;
        }
        spindle_reactor::sleep(Duration::from_micros(random.below(400))).await;
        let any = stack.all[random.below(stack.all.len() as u64) as usize].clone();
        let device = any.disk().device();
        let state = device.state().unwrap();
        match random.below(9) {
            0 => drop(state.keep_statistics(random.below(2) == 0)),
            1 => {
                let operations = Some(20_000 + random.below(1_000_000)).filter(|_| random.below(2) == 0);
                drop(state.set_limits(Limits { operations, ..Limits::default() }));
            }
            2 => {
                let frozen = state.freeze().await;
                spindle_reactor::sleep(Duration::from_micros(random.below(100))).await;
                drop(frozen);
            }
            3 => {
                drop(state.keep_histogram(Some(HistogramOptions::default()).filter(|_| random.below(2) == 0)))
            }
            4 if !stack.delays.is_empty() => {
                let name = &stack.delays[random.below(stack.delays.len() as u64) as usize];
                let which = if random.below(2) == 0 { Latency::AvgRead } else { Latency::AvgWrite };
                delay::update(registry, name, which, random.below(100)).unwrap();
            }
            5 | 6 if !stack.errors.is_empty() => {
                let name = &stack.errors[random.below(stack.errors.len() as u64) as usize];
                let effect = match random.below(3) {
                    0 => Effect::Failure,
                    1 => Effect::Pending,
                    _ => Effect::NoMemory,
                };
                let target = match random.below(3) {
                    0 => Target::One(Operation::Read),
                    1 => Target::One(Operation::Write),
                    _ => Target::All,
                };
                let injection = Injection { effect, count: 1 + random.below(3) as u32, queue_depth: 0 };
                error::inject(registry, name, target, injection).unwrap();
                spindle_reactor::sleep(Duration::from_micros(random.below(300))).await;
                error::resume(registry, name).await.unwrap();
            }
            7 if !stack.awkward.is_empty() => {
                let (bdev, device) = &stack.awkward[random.below(stack.awkward.len() as u64) as usize];
                device.resize(bdev, 1 + random.below(SPARE), random.below(2) == 0).await;
            }
            _ => {}
        }
    }
}

/// Lets the workers go on undisturbed.
async fn calm(registry: &Registry, stack: &Stack) {
    for name in &stack.errors {
        error::clear(registry, name).unwrap();
        error::resume(registry, name).await.unwrap();
    }
}

/// Counts the requests that succeeded.
fn story(seed: u64, requests: u64, fails_every: Option<u64>, all_succeeded: &Arc<AtomicU64>) {
    let all_succeeded = all_succeeded.clone();
    on(EngineKind::Sim(seed), async move |registry| {
        let mut random = Random(seed);
        let stack = build(&registry, &mut random, fails_every).await;
        let depth = stack.all.len() - 1;
        let each = (stack.top.num_blocks() - SPARE * (stack.awkward.len() as u64 + 1)) / WORKERS;
        let ended = Arc::new(AtomicBool::new(false));
        let (mut threads, mut tasks) = (Vec::new(), Vec::new());
        for number in 0..WORKERS {
            let (thread, bdev) = (thread(&format!("worker {number}")), stack.top.clone());
            threads.push(thread.clone());
            let worker = Worker {
                stripe: Stripe::new(number + 1, number * each, each),
                random: Random(random.next()),
                requests,
                succeeded: 0,
            };
            let outcome = async move {
                let there = thread.clone();
                let outcome = there.run(async move || {
                    let outcome = worker.run(bdev).await;
                    // What was given up ends too.
                    while LaneTable::current().unwrap().stats().in_flight > 0 && outcome.is_ok() {
                        spindle_reactor::sleep(Duration::from_micros(50)).await;
                    }
                    (outcome, LaneTable::current().unwrap().stats())
                });
                outcome.await.unwrap()
            };
            tasks.push(spindle_reactor::spawn_local(outcome));
        }
        // Half of the stacks lose their base under load, at any moment; the others when all is done.
        let early = random.below(2) == 0;
        let rounds = if early { random.below(40) } else { 60 };
        disturb(&registry, &stack, &mut random, rounds, &ended).await;
        if early {
            registry.unregister(&stack.all[0]).await.unwrap();
            assert!(registry.bdevs().is_empty(), "seed {seed}: the base takes all above it along");
        } else {
            calm(&registry, &stack).await;
        }
        for task in tasks {
            let (outcome, stats) = task.await.unwrap();
            match outcome {
                Ok(succeeded) => all_succeeded.fetch_add(succeeded, Ordering::Relaxed),
                Err(wrong) => {
                    let names: Vec<&str> = stack.all.iter().map(Bdev::name).collect();
                    panic!("seed {seed}, depth {depth}, {}: {wrong}", names.join(" < "))
                }
            };
            assert_eq!(stats.in_flight, 0, "seed {seed}");
        }
        ended.store(true, Ordering::Release);
        threads.iter().for_each(spindle_reactor::Thread::exit);
        if !early {
            registry.unregister(&stack.all[0]).await.unwrap();
        }
    });
}

fn stories(seeds: std::ops::Range<u64>) {
    let (count, succeeded) = (seeds.end - seeds.start, Arc::default());
    seeds.for_each(|seed| story(seed, REQUESTS, None, &succeeded));
    // Otherwise the stories would tell little.
    let succeeded = succeeded.load(Ordering::Relaxed);
    assert!(succeeded > count * WORKERS * REQUESTS / 4, "{succeeded} requests succeeded");
}

#[test]
fn a_stack_of_any_modules_keeps_its_data_and_ends_every_request_once() {
    stories(1..121);
}

#[test]
fn so_do_stacks_that_the_commit_chooses() {
    let first = std::env::var("SPINDLE_TEST_SEED").map_or(5000, |seed| seed.parse().unwrap());
    stories(first..first + 60);
}

#[test]
fn so_do_stacks_on_a_device_that_fails_every_nth_request_for_every_n() {
    // Some 100 requests of the lowest device in each.
    let succeeded = Arc::default();
    for n in 1..=100 {
        story(9000 + n, 12, Some(n), &succeeded);
    }
    assert!(succeeded.load(Ordering::Relaxed) > 1000, "{succeeded:?} requests succeeded");
}

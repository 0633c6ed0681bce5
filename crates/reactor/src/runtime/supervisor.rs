//! The OS thread beside a runtime's reactors: it handles signals, watches for calls that hold a reactor too
//! long, prints dumps, and reports what a stop waits for.
//!
//! It is the caller of [`Runtime::run`](crate::Runtime::run), or one made by
//! [`Runtime::start`](crate::Runtime::start), and sleeps most of the time; it works even when every reactor
//! hangs. A simulated runtime has none: there nothing takes time.
//!
//! Not promised: that a call of less than twice the limit is seen. The supervisor looks at the reactors once
//! per limit, ten times less often while all of them sleep.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use spindle_engine::{Bell, OsThreadTimes, Signal, Signals, StopRequest, StopRequests, Time, Unparker};

use crate::diagnosis::activity::{Activity, Sample};
use crate::diagnosis::stall::Stall;
use crate::runtime::pending_dump::PendingDump;
use crate::say::ReportLevel;
use crate::shared::Shared;

/// Shorter intervals between looks would take a whole core.
const SHORTEST_LIMIT: Duration = Duration::from_millis(1);

/// Factor for the interval while all reactors sleep.
const IDLE_FACTOR: u32 = 10;

/// How long a reactor has to answer a dump before it is described from outside.
const DUMP_PATIENCE: Duration = Duration::from_millis(100);

/// How long a stop may take before its waits are reported, and the interval of further reports.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Watches one runtime.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    bell: Bell,
    signals: Option<Signals>,
    stop_requests: StopRequests,
    /// How long one call may hold a reactor; `None`: not watched.
    limit: Option<Duration>,
    /// By reactor.
    watches: Vec<Watch>,
}

/// What was seen of one reactor.
#[derive(Default)]
struct Watch {
    call: Option<Sample>,
    since: Time,
    /// The times of its OS thread at that moment.
    times: Option<OsThreadTimes>,
    /// The duration at the last report; the next is due at ten times that.
    reported: Option<Duration>,
}

/// A waker that rings the supervisor's bell.
struct Ring(Unparker);

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Supervisor {
    /// For a runtime whose reactors are about to start. With `signals`, SIGINT, SIGTERM, SIGHUP and SIGUSR1
    /// belong to this runtime, unless another has taken them.
    pub(crate) fn new(shared: Arc<Shared>, signals: bool) -> io::Result<Supervisor> {
        let bell = Bell::new()?;
        let take = || {
            let all = [Signal::Interrupt, Signal::Terminate, Signal::Hangup, Signal::User1];
            // The first runtime that asks holds them; this one then runs without.
            Signals::take("a runtime", &all, bell.unparker()).ok()
        };
        let signals = if signals { take() } else { None };
        shared.supervised_by(bell.unparker());
        let watches = shared.ports.iter().map(|_| Watch::default()).collect();
        let limit = shared.watchdog.map(|limit| limit.max(SHORTEST_LIMIT));
        if limit.is_some() {
            crate::runtime::panic_hook::set();
        }
        Ok(Supervisor { shared, bell, signals, stop_requests: StopRequests::default(), limit, watches })
    }

    /// Supervises until `main` has ended.
    pub(crate) fn until<T>(&mut self, main: impl Future<Output = T>) -> T {
        let waker = Waker::from(Arc::new(Ring(self.bell.unparker())));
        let mut main = pin!(main);
        let mut say_at = None;
        loop {
            if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                return value;
            }
            let stopping = self.shared.stop().is_some().then(|| self.have_patience(&mut say_at));
            self.look_and_wait(stopping);
        }
    }

    /// Reports from time to time what a stop waits for; returns how long to wait until then.
    fn have_patience(&self, say_at: &mut Option<Time>) -> Duration {
        let now = self.bell.now();
        if *say_at.get_or_insert(now + STOP_PATIENCE) <= now {
            self.explain_stop();
            *say_at = Some(self.bell.now() + STOP_PATIENCE * 10);
        }
        STOP_PATIENCE
    }

    /// Supervises until every reactor has ended. Once the runtime stops, reports from time to time what that
    /// waits for.
    pub(crate) fn until_stopped(&mut self, os_threads: Vec<JoinHandle<()>>) {
        let mut say_at = None;
        while !os_threads.iter().all(JoinHandle::is_finished) {
            let mut wait = None;
            if self.shared.is_shutting_down() {
                let patience = self.have_patience(&mut say_at);
                // An OS thread rings just before its end, not at it.
                wait =
                    Some(if self.shared.all_reactors_ended() { Duration::from_micros(50) } else { patience });
            }
            self.look_and_wait(wait);
        }
        for os_thread in os_threads {
            // A reactor catches the panics of tasks; one of its own has been reported.
            let _ = os_thread.join();
        }
    }

    fn look_and_wait(&mut self, limit: Option<Duration>) {
        self.obey();
        let pause =
            self.limit.map(|limit| if self.look(limit) { limit } else { limit.saturating_mul(IDLE_FACTOR) });
        self.bell.wait(pause.into_iter().chain(limit).min());
    }

    /// The first signal asks for an orderly stop, unless it is a SIGHUP that main takes; a second request ends the process, with
    /// the code of the stop; SIGUSR1 asks for a dump.
    fn obey(&mut self) {
        let Some(signals) = &self.signals else { return };
        let stops = [
            (Signal::Interrupt, "SIGINT", 130),
            (Signal::Terminate, "SIGTERM", 143),
            (Signal::Hangup, "SIGHUP", 129),
        ];
        for (signal, name, code) in stops {
            for _ in 0..signals.arrived(signal) {
                if signal == Signal::Hangup && self.shared.hangup.arrived() {
                    continue;
                }
                self.shared.request_stop(name, code);
                if self.stop_requests.came(self.bell.now()) == StopRequest::Again {
                    self.shared
                        .reports
                        .say(ReportLevel::Warning, format_args!("second signal: ending at once"));
                    let code = self.shared.stop().map_or(code, |stop| stop.code);
                    std::process::exit(i32::from(code));
                }
            }
        }
        if signals.arrived(Signal::User1) > 0 {
            let dump = PendingDump::ask(&self.shared).wait(DUMP_PATIENCE);
            self.shared.reports.dump(&dump.to_string());
        }
    }

    /// Looks at every reactor; true if one of them was awake.
    fn look(&mut self, limit: Duration) -> bool {
        let now = self.bell.now();
        let mut awake = false;
        for (index, watch) in self.watches.iter_mut().enumerate() {
            let activity = &self.shared.ports[index].activity;
            let call = activity.sample();
            if watch.call != Some(call) {
                awake = true;
                let times = if call.is_nothing() { None } else { times(activity) };
                *watch = Watch { call: Some(call), since: now, times, reported: None };
                continue;
            }
            if call.is_nothing() {
                continue;
            }
            awake = true;
            let due = watch.reported.map_or(limit, |reported| reported * 10);
            if now - watch.since < due {
                continue;
            }
            let held = held(now - watch.since, watch.times, times(activity));
            if held >= due {
                watch.reported = Some(held);
                self.shared.note_stall(stall_of(&self.shared, index, call, held));
            }
        }
        awake
    }

    fn explain_stop(&self) {
        let dump = PendingDump::ask(&self.shared).wait(DUMP_PATIENCE);
        let what = dump.held_up();
        if !what.is_empty() {
            let what = what.join("; ");
            let said = format_args!("the stop waits for {what}; a second signal ends at once");
            self.shared.reports.say(ReportLevel::Warning, said);
        }
    }
}

fn times(activity: &Activity) -> Option<OsThreadTimes> {
    activity.os_thread()?.times()
}

/// The part of `span` for which a call is responsible: without the time that its core was given to others.
fn held(span: Duration, before: Option<OsThreadTimes>, now: Option<OsThreadTimes>) -> Duration {
    let (Some(before), Some(now)) = (before, now) else { return span };
    match now.runnable {
        // It may be waiting for its core right now, which the kernel has not counted yet.
        true => now.on_core.saturating_sub(before.on_core).min(span),
        false => span.saturating_sub(now.waiting.saturating_sub(before.waiting)),
    }
}

/// A call that has held a reactor for `held`.
fn stall_of(shared: &Shared, reactor: usize, call: Sample, held: Duration) -> Stall {
    let name = shared.thread(call.thread);
    Stall {
        reactor,
        reactor_name: shared.names[reactor].clone(),
        core: shared.cores[reactor],
        thread: (call.thread, name.map(|thread| thread.name.to_string())),
        call: match shared.lock_waits.describe(reactor) {
            Some(wait) => format!("{call}, in which {wait},"),
            None => call.to_string(),
        },
        held,
        times: 1,
    }
}

//! What a runtime is doing, as a value and as text: every thread, task, poller and channel, and what each
//! waits for.
//!
//! Taken by the reactors themselves between turns; nothing is stopped for it. Times come from one clock
//! reading per turn: a turn's time is divided among the threads that had work in it, by the number of their
//! calls. Of poller calls only some are measured, and represent the others.

use std::fmt;
use std::time::Duration;

use spindle_engine::{OsThread, SystemCalls};

use crate::mode::Mode;

/// The state of some reactors.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// One for each reactor that has not ended.
    pub reactors: Vec<ReactorDump>,
}

/// The state of one reactor.
#[derive(Clone, Debug)]
pub struct ReactorDump {
    /// Its number, from 0.
    pub index: usize,
    /// Its name, and that of its OS thread: `reactor_N` on core N, `reactor_N.1` where several share it.
    pub name: String,
    /// The core it runs on.
    pub core: usize,
    /// Its OS thread; none in simulation, and before it starts.
    pub os_thread: Option<OsThread>,
    /// What it does when it has nothing to do.
    pub mode: Mode,
    /// Turns with work and without.
    pub turns: (u64, u64),
    /// Total time of the turns with work: what [`reactor_loads`](crate::reactor_loads) adds up for the last second.
    pub busy: Duration,
    /// The busy share of the last second, 0 to 1, as [`reactor_loads`](crate::reactor_loads) gives it.
    pub load: f64,
    /// Number of times it went to sleep.
    pub sleeps: u64,
    /// Operations of the engine in flight: submitted, and their completion not handled yet.
    pub operations: usize,
    /// The system calls of its engine.
    pub system_calls: SystemCalls,
    /// Its threads; none if the reactor could not answer.
    pub threads: Vec<ThreadDump>,
    /// The call that keeps it from answering.
    pub held_by: Option<String>,
}

/// The state of one thread.
#[derive(Clone, Debug)]
pub struct ThreadDump {
    /// Its number, from 1.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Turns with work and without.
    pub turns: (u64, u64),
    /// How long its reactor has had it.
    pub age: Duration,
    /// Its share of its reactor's busy time.
    pub busy: Duration,
    /// True if exit was asked for.
    pub exiting: bool,
    /// What an exit would wait for.
    pub waits_for: Vec<String>,
    /// Its tasks.
    pub tasks: Vec<TaskDump>,
    /// Its pollers.
    pub pollers: Vec<PollerInfo>,
    /// Its channels.
    pub channels: Vec<ChannelDump>,
    /// The pollers that keep the reactor awake, each with the place where it was made.
    pub keeps_awake: Vec<String>,
}

/// A poller's description, for a dump.
#[derive(Clone, Debug)]
pub struct PollerInfo {
    /// Its name.
    pub name: String,
    /// Where it was made.
    pub made_at: String,
    /// "active" or "timed".
    pub kind: &'static str,
    /// What wakes its thread for it: the name of its event, "nothing, it spins", "a timer every 1s".
    pub woken_by: String,
    /// Its period, if timed.
    pub period: Option<Duration>,
    /// Paused.
    pub paused: bool,
    /// Calls, and calls that found work.
    pub runs: (u64, u64),
    /// The time of all calls, and of those that found work: see [`Poller::times`](crate::Poller::times).
    pub times: (Duration, Duration),
}

/// The channels of one thread to one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelDump {
    /// The device's name.
    pub device: String,
    /// Number of handles.
    pub handles: usize,
}

/// The state of one task.
#[derive(Clone, Debug)]
pub struct TaskDump {
    /// Where it was spawned.
    pub spawned_at: String,
    /// How long ago.
    pub age: Duration,
    /// True: woken and waiting for its turn. False: waiting to be woken.
    pub ready: bool,
    /// What it waits for, if its future says so: "a timer", "a call to thread 3".
    pub waits_for: String,
    /// How long ago it was last polled.
    pub waits_since: Duration,
}

impl Dump {
    /// What a stop waits for, one line each.
    pub(crate) fn held_up(&self) -> Vec<String> {
        self.reactors.iter().flat_map(ReactorDump::held_up).collect()
    }
}

impl ReactorDump {
    fn held_up(&self) -> Vec<String> {
        let place = format!("{} on core {}", self.name, self.core);
        if let Some(held_by) = &self.held_by {
            return vec![format!("{place}, which is held by {held_by}")];
        }
        let mut lines: Vec<String> = Vec::new();
        if self.operations > 0 {
            lines.push(format!("{} operations in the kernel of {place}", self.operations));
        }
        for thread in self.threads.iter().filter(|thread| !thread.waits_for.is_empty()) {
            lines.push(format!("thread {} ({}): {}", thread.id, thread.name, thread.waits_for.join(", ")));
        }
        lines
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reactors.iter().try_for_each(|reactor| reactor.fmt(f))
    }
}

impl fmt::Display for ReactorDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on core {}, {}: ", self.name, self.core, self.mode)?;
        if let Some(held_by) = &self.held_by {
            return writeln!(f, "does not answer, held by {held_by}");
        }
        let (busy, idle) = self.turns;
        writeln!(
            f,
            "{busy} busy turns in {:?}, {idle} idle, {:.0} % busy in the last second, {} sleeps, {} operations in flight",
            self.busy,
            self.load * 100.0,
            self.sleeps,
            self.operations
        )?;
        writeln!(f, "  system calls: {}", self.system_calls)?;
        for thread in &self.threads {
            for culprit in &thread.keeps_awake {
                writeln!(f, "  kept awake by thread {} {}: {culprit}", thread.id, thread.name)?;
            }
        }
        self.threads.iter().try_for_each(|thread| thread.fmt(f))
    }
}

impl fmt::Display for ThreadDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (busy, idle) = self.turns;
        write!(f, "  thread {} {}: {busy} busy turns in {:?}, {idle} idle", self.id, self.name, self.busy)?;
        match (self.waits_for.is_empty(), self.exiting) {
            (true, _) => writeln!(f)?,
            (false, false) => writeln!(f, "; holds {}", self.waits_for.join(", "))?,
            (false, true) => writeln!(f, "; its exit waits for {}", self.waits_for.join(", "))?,
        }
        self.tasks.iter().try_for_each(|task| task.fmt(f))?;
        for poller in &self.pollers {
            let paused = if poller.paused { ", paused" } else { "" };
            let ((runs, busy), (time, busy_time)) = (poller.runs, poller.times);
            writeln!(
                f,
                "    poller {} ({}, woken by {}{paused}), made at {}: {runs} runs in {time:?}, {busy} busy in {busy_time:?}",
                poller.name, poller.kind, poller.woken_by, poller.made_at
            )?;
        }
        for ChannelDump { device, handles } in &self.channels {
            writeln!(f, "    channel of device {device}, {handles} handles")?;
        }
        Ok(())
    }
}

impl fmt::Display for TaskDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "    task spawned at {}, {:?} ago: ", self.spawned_at, self.age)?;
        match self.ready {
            true => writeln!(f, "ready"),
            false => writeln!(f, "waits for {} since {:?}", self.waits_for, self.waits_since),
        }
    }
}

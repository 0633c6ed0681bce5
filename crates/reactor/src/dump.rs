//! What a runtime is doing, as a value and as text: every thread, task and poller, and what each waits for.
//!
//! Taken by the reactors themselves between turns; nothing is stopped for it.

use std::fmt;
use std::time::Duration;

use crate::core::ThreadCore;
use crate::poller::PollerInfo;
use crate::reactor::Reactor;

/// What some reactors are doing.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// One for each reactor.
    pub reactors: Vec<ReactorDump>,
}

/// What one reactor is doing.
#[derive(Clone, Debug)]
pub struct ReactorDump {
    /// Its number, from 0, and its core.
    pub index: usize,
    /// The core it runs on.
    pub core: usize,
    /// Operations of the engine in flight.
    pub operations: usize,
    /// Its threads.
    pub threads: Vec<ThreadDump>,
}

/// What one thread is doing.
#[derive(Clone, Debug)]
pub struct ThreadDump {
    /// Its number, from 1.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Turns with work and without.
    pub turns: (u64, u64),
    /// What an exit would wait for.
    pub waits_for: Vec<String>,
    /// Its tasks.
    pub tasks: Vec<TaskDump>,
    /// Its pollers.
    pub pollers: Vec<PollerInfo>,
    /// Those that keep the reactor awake, by name.
    pub keeps_awake: Vec<String>,
}

/// What one task is doing.
#[derive(Clone, Debug)]
pub struct TaskDump {
    /// Where it was spawned.
    pub spawned_at: String,
    /// How long ago.
    pub age: Duration,
    /// Woken and waiting for its turn, or waiting to be woken.
    pub ready: bool,
}

impl Dump {
    pub(crate) fn of<'a>(reactors: impl Iterator<Item = &'a Reactor>) -> Dump {
        Dump { reactors: reactors.map(dump_reactor).collect() }
    }
}

fn dump_reactor(reactor: &Reactor) -> ReactorDump {
    let local = &reactor.local;
    ReactorDump {
        index: local.index,
        core: local.shared.cores[local.index],
        operations: local.driver.borrow().in_flight(),
        threads: local.cores().iter().map(|core| dump_thread(core)).collect(),
    }
}

fn dump_thread(core: &ThreadCore) -> ThreadDump {
    let now = core.local.now.get();
    let tasks = core.tasks.infos().into_iter().map(|task| TaskDump {
        spawned_at: task.spawned_at.to_string(),
        age: now - task.spawned,
        ready: task.ready,
    });
    ThreadDump {
        id: core.shared.id,
        name: core.shared.name.clone(),
        turns: (core.busy_turns.get(), core.idle_turns.get()),
        waits_for: core.waits_for(),
        tasks: tasks.collect(),
        pollers: core.pollers.infos(),
        keeps_awake: core.pollers.spinning(),
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reactor in &self.reactors {
            writeln!(
                f,
                "reactor {} on core {}: {} operations in flight",
                reactor.index, reactor.core, reactor.operations
            )?;
            reactor.threads.iter().try_for_each(|thread| thread.fmt(f))?;
        }
        Ok(())
    }
}

impl fmt::Display for ThreadDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (busy, idle) = self.turns;
        write!(f, "  thread {} {}: {busy} busy turns, {idle} idle", self.id, self.name)?;
        match self.waits_for.is_empty() {
            true => writeln!(f)?,
            false => writeln!(f, "; holds {}", self.waits_for.join(", "))?,
        }
        if !self.keeps_awake.is_empty() {
            writeln!(f, "    keeps its core awake: {}", self.keeps_awake.join(", "))?;
        }
        for task in &self.tasks {
            let state = if task.ready { "ready" } else { "waits to be woken" };
            writeln!(f, "    task spawned at {}, {:?} ago: {state}", task.spawned_at, task.age)?;
        }
        for poller in &self.pollers {
            let paused = if poller.paused { ", paused" } else { "" };
            let (runs, busy) = poller.runs;
            writeln!(f, "    poller {} ({}{paused}): {runs} runs, {busy} busy", poller.name, poller.kind)?;
        }
        Ok(())
    }
}

//! Describes a reactor and its threads, between two turns.

use std::time::Duration;

use crate::diagnosis::dump::{ChannelDump, Dump, ReactorDump, TaskDump, ThreadDump};
use crate::local::Local;
use crate::local::thread_core::ThreadCore;
use crate::reactor::Reactor;

impl Dump {
    pub(crate) fn of<'a>(reactors: impl Iterator<Item = &'a Reactor>) -> Dump {
        Dump { reactors: reactors.map(|reactor| ReactorDump::of(&reactor.local)).collect() }
    }
}

impl ReactorDump {
    /// Described by the reactor itself.
    pub(crate) fn of(local: &Local) -> ReactorDump {
        let port = &local.shared.ports[local.index];
        ReactorDump {
            index: local.index,
            name: local.shared.names[local.index].clone(),
            core: local.shared.cores[local.index],
            os_thread: port.activity.os_thread(),
            mode: port.mode(),
            turns: local.turns.get(),
            busy: Duration::from_nanos(local.busy_ns.get()),
            load: port.load.share(local.now.get()),
            sleeps: local.sleeps.get(),
            operations: local.ops.len(),
            system_calls: local.driver.borrow().system_calls(),
            threads: local.cores().iter().map(|core| dump_thread(core)).collect(),
            held_by: None,
        }
    }
}

fn dump_thread(core: &ThreadCore) -> ThreadDump {
    let now = core.local.now.get();
    let tasks = core.tasks.infos().into_iter().map(|task| TaskDump {
        spawned_at: task.spawned_at.to_string(),
        age: now - task.spawned,
        ready: task.ready,
        waits_for: task.wait.to_string(),
        waits_since: now - task.polled,
    });
    let channels = core.holds.borrow();
    let channels = channels.iter();
    ThreadDump {
        id: core.shared.id,
        name: core.shared.name.to_string(),
        turns: core.turns.get(),
        age: now - core.since,
        busy: Duration::from_nanos(core.busy_ns.get()),
        exiting: core.shared.is_exiting(),
        waits_for: core.waits_for(),
        tasks: tasks.collect(),
        pollers: core.pollers.infos(),
        channels: channels
            .map(|(device, &handles)| ChannelDump { device: device.to_string(), handles })
            .collect(),
        keeps_awake: core.pollers.culprits(),
    }
}

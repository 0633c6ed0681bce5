//! Creates OS threads: the only module that does.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Starts an OS thread named `name` (the kernel keeps 15 bytes) and runs `f` on it, pinned to `core` if one
/// is given; otherwise it may run where the caller may. Returns once the thread is pinned, or with the
/// kernel's error; then `f` does not run.
pub fn spawn_pinned<T: Send + 'static>(
    name: &str,
    core: Option<usize>,
    f: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let builder = Builder::new().name(name.to_owned());
    let Some(core) = core else { return builder.spawn(f) };
    let (tell, told) = mpsc::sync_channel(1);
    let thread = builder.spawn(move || {
        let pinned = pin(core);
        let refused = pinned.is_err();
        // The starter waits for exactly this message.
        let _ = tell.send(pinned);
        if refused {
            // Ends the thread without a value and without a report: the starter has the error.
            std::panic::resume_unwind(Box::new("not pinned"));
        }
        f()
    })?;
    match told.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => {
            let message = format!("cannot pin thread {name} to core {core}: {error}");
            Err(io::Error::new(error.kind(), message))
        }
        Err(_) => Err(io::Error::other(format!("thread {name} ended before it was pinned"))),
    }
}

fn pin(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such core"));
    }
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Lets the calling OS thread run on any of `cores` and no other; if the process may use none of them, it stays
/// where it is.
pub fn run_on(cores: &crate::CpuSet) {
    let mut set = CpuSet::new();
    cores.iter().filter(|core| *core < CpuSet::MAX_CPU).for_each(|core| set.set(core));
    // A core may have been taken from the process meanwhile.
    let _ = sched_setaffinity(None, &set);
}

/// The kernel's identifier of an OS thread of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsThread(u32);

impl OsThread {
    /// The calling OS thread.
    pub fn current() -> OsThread {
        OsThread(rustix::thread::gettid().as_raw_nonzero().get() as u32)
    }

    /// From [`id`](Self::id).
    pub fn from_id(id: u32) -> OsThread {
        OsThread(id)
    }

    /// Its number in /proc/self/task.
    pub fn id(self) -> u32 {
        self.0
    }

    /// Its scheduling times so far; none if the kernel does not tell, or the OS thread is gone
    /// (/proc/PID/task/TID/schedstat and stat).
    pub fn times(self) -> Option<OsThreadTimes> {
        let read = |file| std::fs::read_to_string(format!("/proc/self/task/{}/{file}", self.0)).ok();
        let times = read("schedstat")?;
        let mut times = times.split_ascii_whitespace().map(|number| number.parse().map(Duration::from_nanos));
        let (on_core, waiting) = (times.next()?.ok()?, times.next()?.ok()?);
        // The state follows the name, which is in parentheses and may hold anything.
        let stat = read("stat")?;
        let runnable = stat.rsplit_once(") ")?.1.starts_with('R');
        Some(OsThreadTimes { on_core, waiting, runnable })
    }
}

/// Scheduling times of an OS thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsThreadTimes {
    /// Time on a core; the current stretch is counted at the kernel's ticks only.
    pub on_core: Duration,
    /// Time ready to run without a core; the current wait is not counted yet.
    pub waiting: Duration,
    /// True if it is running or ready to run now.
    pub runnable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::available_cores;

    #[test]
    fn a_pinned_thread_runs_on_its_core_under_its_name() {
        let core = available_cores().affinity.iter().last().expect("we run somewhere");
        let thread = spawn_pinned("reactor_7", Some(core), || {
            (rustix::thread::sched_getcpu(), std::thread::current().name().map(str::to_owned))
        });
        assert_eq!(thread.unwrap().join().unwrap(), (core, Some("reactor_7".to_owned())));
    }

    #[test]
    fn an_os_thread_is_known_to_the_kernel_by_its_id() {
        let here = OsThread::current();
        assert_eq!(here, OsThread::from_id(here.id()));
        assert!(std::path::Path::new(&format!("/proc/self/task/{}", here.id())).exists());
        assert!(here.times().is_some_and(|times| times.runnable), "the kernel says, and it runs this");
        assert_eq!(OsThread::from_id(u32::MAX).times(), None, "no such thread");
    }

    #[test]
    fn a_core_that_does_not_exist_is_an_error_that_names_it() {
        let error = spawn_pinned("reactor_1", Some(1_000), || ()).map(|_| ()).expect_err("no such core");
        assert!(error.to_string().contains("core 1000"), "{error}");
    }
}

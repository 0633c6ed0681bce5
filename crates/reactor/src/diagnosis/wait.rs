//! What a task waits for, as noted by its innermost future, for a dump.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use spindle_engine::Time;

/// What a task waits for. Small, because it is noted at every wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not noted.
    #[default]
    Unknown,
    /// A time.
    Timer(Time),
    /// The result of a call, by the id of the thread that was called.
    Call(u64),
    /// Another task, by where that was spawned.
    Task(&'static Location<'static>),
    /// The end of a thread, by its id.
    Exit(u64),
    /// A name given by a layer above.
    Named(&'static str),
    /// A name with particulars, given by a layer above.
    Described(Rc<str>),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Unknown => f.write_str("a waker"),
            Wait::Timer(time) => write!(f, "a timer at {:?}", Duration::from_nanos(time.0)),
            Wait::Call(thread) => write!(f, "a call to thread {thread}"),
            Wait::Task(spawned_at) => write!(f, "the task spawned at {spawned_at}"),
            Wait::Exit(thread) => write!(f, "the end of thread {thread}"),
            Wait::Named(what) => f.write_str(what),
            Wait::Described(what) => f.write_str(what),
        }
    }
}

//! A requested dump: the reactors answer it one by one, between two turns.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::caught::call_caught;
use crate::diagnosis::dump::{Dump, ReactorDump};
use crate::message::thread::Thread;
use crate::shared::Shared;
use crate::thread::context::waits_for;

/// The future of [`Handle::dump`](crate::Handle::dump): ready when every reactor has answered or ended. A
/// reactor that is held up answers when that is over; [`wait`](Self::wait) does not wait for it. Dropping
/// this does not undo the request.
#[must_use = "await it, or wait for it"]
pub struct PendingDump {
    shared: Arc<Shared>,
    answers: Arc<Answers>,
}

/// The answers so far.
struct Answers {
    state: Mutex<State>,
    complete: Condvar,
}

struct State {
    /// By reactor.
    reactors: Vec<Known>,
    missing: usize,
    waker: Option<Waker>,
}

/// The answer of a reactor.
#[derive(Clone)]
enum Known {
    /// It has not answered.
    Nothing,
    Ended,
    Answer(ReactorDump),
}

/// One reactor's obligation to answer; if it is dropped without an answer, the reactor has ended.
struct Answer {
    answers: Arc<Answers>,
    index: usize,
    dump: Option<ReactorDump>,
}

impl Answer {
    fn give(mut self, dump: ReactorDump) {
        self.dump = Some(dump);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut state = self.answers.state();
        state.reactors[self.index] = self.dump.take().map_or(Known::Ended, Known::Answer);
        state.missing -= 1;
        if state.missing == 0 {
            let waker = state.waker.take();
            drop(state);
            self.answers.complete.notify_all();
            waker.into_iter().for_each(|waker| call_caught(|| waker.wake()));
        }
    }
}

impl Answers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingDump {
    /// Asks every reactor.
    pub(crate) fn ask(shared: &Arc<Shared>) -> PendingDump {
        let missing = shared.ports.len();
        let state = State { reactors: vec![Known::Nothing; missing], missing, waker: None };
        let answers = Arc::new(Answers { state: Mutex::new(state), complete: Condvar::new() });
        for (index, port) in shared.ports.iter().enumerate() {
            let answer = Answer { answers: answers.clone(), index, dump: None };
            port.ask(Box::new(move |dump| answer.give(dump)));
        }
        PendingDump { shared: shared.clone(), answers }
    }

    /// Blocks the OS thread until every reactor has answered, or `limit` has passed. A reactor that has not
    /// answered by then is described by the one call that holds it.
    ///
    /// # Panics
    /// On a Spindle thread: it would block its reactor. Await the dump there.
    pub fn wait(self, limit: Duration) -> Dump {
        assert!(Thread::current().is_none(), "PendingDump::wait blocks a reactor; await the dump instead");
        let state = self.answers.state();
        let waited = self.answers.complete.wait_timeout_while(state, limit, |state| state.missing > 0);
        let reactors = waited.unwrap_or_else(PoisonError::into_inner).0.reactors.clone();
        let describe = |(index, known): (usize, Known)| match known {
            Known::Nothing => Some(from_outside(&self.shared, index)),
            Known::Ended => None,
            Known::Answer(dump) => Some(dump),
        };
        Dump { reactors: reactors.into_iter().enumerate().filter_map(describe).collect() }
    }
}

impl Future for PendingDump {
    type Output = Dump;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Dump> {
        let mut state = self.answers.state();
        if state.missing > 0 {
            state.waker = Some(cx.waker().clone());
            waits_for("the answers of the reactors to a dump");
            return Poll::Pending;
        }
        let answer = |known: &Known| match known {
            Known::Answer(dump) => Some(dump.clone()),
            Known::Nothing | Known::Ended => None,
        };
        Poll::Ready(Dump { reactors: state.reactors.iter().filter_map(answer).collect() })
    }
}

impl fmt::Debug for PendingDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingDump({} reactors to answer)", self.answers.state().missing)
    }
}

/// A reactor that does not answer, described from outside.
fn from_outside(shared: &Shared, index: usize) -> ReactorDump {
    let call = shared.ports[index].activity.sample();
    let name = shared.thread(call.thread);
    let name = name.map_or_else(|| "gone by now".to_owned(), |thread| thread.name.to_string());
    ReactorDump {
        index,
        name: shared.names[index].clone(),
        core: shared.cores[index],
        os_thread: shared.ports[index].activity.os_thread(),
        mode: shared.ports[index].mode(),
        turns: (0, 0),
        busy: Duration::ZERO,
        load: 1.0,
        sleeps: 0,
        operations: 0,
        system_calls: spindle_engine::SystemCalls::default(),
        threads: Vec::new(),
        held_by: (!call.is_nothing()).then(|| {
            let wait = shared.lock_waits.describe(index).map_or_else(String::new, |wait| format!("; {wait}"));
            format!("{call} on thread {} ({name}){wait}", call.thread)
        }),
    }
}

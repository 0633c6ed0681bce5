//! Listening: one task per address, on the thread that called `listen`.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use spindle_engine::{Address, Completion, Listener, Op, Output, Peer, Socket};
use spindle_reactor::{
    FailedAccepts, OpSink, Thread, WaitList, cancel_op, now, op, sleep, spawn_local, submit_op,
};

use super::Shared;
use super::shared::Accepting;
use super::visits::Turn;
use crate::origin::Origin;
use crate::{ListenError, Tls};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// How long a TCP client may be silent before the system probes it.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Ends a listener, and reports that it has ended.
#[derive(Default)]
pub(crate) struct End {
    asked: AtomicBool,
    over: AtomicBool,
    raising: WaitList,
}

impl End {
    fn raise(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Release);
        self.raising.wake_all();
    }

    async fn raised(&self, flag: &AtomicBool) {
        self.raising.until(|| flag.load(Ordering::Acquire).then_some(())).await;
    }
}

/// Reports the end of the listener, also when its task is dropped.
struct Over(Arc<End>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.raise(&self.0.over);
    }
}

pub(crate) async fn listen(
    server: &Arc<Shared>,
    address: Address,
    tls: Option<Tls>,
) -> Result<Address, ListenError> {
    if server.is_stopping() {
        return Err(ListenError::Stopping(address));
    }
    if server.addresses().contains(&address) {
        return Err(ListenError::Exists(address));
    }
    let listen = match &address {
        Address::Unix(path) => Op::ListenAlone { path: Box::new(path.clone()), backlog: BACKLOG },
        Address::Tcp(_) => Op::Listen { address: Box::new(address.clone()), backlog: BACKLOG },
    };
    let (made, _) = op(listen).await;
    let Output::Listener(listener) = made? else {
        return Err(std::io::Error::other(format!("{address}: the engine gave no listener")).into());
    };
    let address = listener.address().clone();
    let end = Arc::<End>::default();
    let thread =
        Thread::current().ok_or_else(|| std::io::Error::other("listening takes a Spindle thread"))?;
    let accepting = Accepting { address: address.clone(), tls: tls.clone(), end: end.clone() };
    if !server.add_listener(accepting) {
        return Err(ListenError::Stopping(address));
    }
    let server = server.clone();
    let over = Over(end.clone());
    drop(thread.spawn(async move || {
        let _over = over;
        accept(&server, listener, tls, &end).await;
    }));
    Ok(address)
}

/// The result of the accept that is under way.
#[derive(Default)]
struct Accepted {
    completion: RefCell<Option<Completion>>,
    task: RefCell<Option<Waker>>,
}

impl OpSink for Accepted {
    fn complete(&self, _key: u64, completion: Completion) {
        *self.completion.borrow_mut() = Some(completion);
        let task = self.task.take();
        task.into_iter().for_each(Waker::wake);
    }
}

impl Accepted {
    async fn next(&self) -> io::Result<Output> {
        poll_fn(|cx| match self.completion.take() {
            Some(completion) => Poll::Ready(completion.result),
            None => {
                self.task.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

/// Accepts until told to end. By then the engine has returned the listener, so that its address is free when
/// the task is over.
async fn accept(server: &Arc<Shared>, listener: Listener, tls: Option<Tls>, end: &End) {
    let accepted = Rc::<Accepted>::default();
    let sink: Rc<dyn OpSink> = accepted.clone();
    let mut failed = FailedAccepts::of("nbd");
    loop {
        let id = submit_op(Op::Accept { listener: listener.clone() }, &sink, 0);
        let (result, ended) = {
            let mut next = pin!(accepted.next());
            let mut ended = pin!(end.raised(&end.asked));
            let first = poll_fn(|cx| match ended.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => next.as_mut().poll(cx).map(Some),
            });
            match first.await {
                Some(result) => (result, false),
                None => {
                    cancel_op(id);
                    (next.await, true)
                }
            }
        };
        match result {
            Ok(Output::Socket(socket)) => {
                let peer = socket.peer();
                match server.visits.begin(Origin::from(peer), now()) {
                    Turn::Now => serve(server, socket, peer, tls.clone()),
                    // Without a place to wait it is closed without a word.
                    Turn::After(wait) => {
                        if let Some(place) = server.waiting.enter() {
                            let (server, tls) = (server.clone(), tls.clone());
                            drop(spawn_local(async move {
                                sleep(wait).await;
                                drop(place);
                                serve(&server, socket, peer, tls);
                            }));
                        }
                    }
                    Turn::Never => {}
                }
            }
            _ if ended => return,
            Ok(_) => {}
            Err(error) => failed.note(listener.address(), &error).await,
        }
        if ended {
            return;
        }
    }
}

/// Serves an accepted connection.
fn serve(server: &Arc<Shared>, socket: Socket, peer: Peer, tls: Option<Tls>) {
    // A client whose host was switched off would otherwise stay forever; best effort.
    let _ = socket.keep_alive(KEEP_ALIVE);
    server.place(socket, peer.to_string(), tls);
}

pub(crate) async fn stop(server: &Arc<Shared>, address: &Address) -> Result<(), ListenError> {
    let accepting = server.take_listener(address).ok_or_else(|| ListenError::Unknown(address.clone()))?;
    stop_all(vec![accepting]).await;
    Ok(())
}

pub(crate) async fn stop_all(listeners: Vec<Accepting>) {
    listeners.iter().for_each(|accepting| accepting.end.raise(&accepting.end.asked));
    for accepting in listeners {
        accepting.end.raised(&accepting.end.over).await;
    }
}

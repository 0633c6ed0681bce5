//! The server on a Unix socket: sole owner of its path, with a task that accepts, and tasks per connection.
//!
//! Everything runs on the server's thread. Dropping the server ends its connections immediately; calls under
//! way run to their end.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;
use spindle_engine::{Listener, Op, Output, Socket};
use spindle_reactor::{FailedAccepts, JoinHandle, WaitList, op, spawn_local, timeout};

use crate::answers::Answers;
use crate::budget::Budget;
use crate::connection;
use crate::dispatch::Dispatcher;
use crate::parser::Limits;
use crate::unfinished::Unfinished;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 512;

/// How long a closing server waits for calls under way, and for clients to take their answers.
const GRACE: Duration = Duration::from_secs(1);

/// Limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// The largest message.
    pub message: Limits,
    /// Connections served concurrently; further ones wait in the kernel.
    pub connections: usize,
    /// Bytes of unfinished requests of all connections together. Beyond it the connection is closed that has sent nothing
    /// for longest.
    pub unfinished: usize,
    /// Bytes of unsent answers of all connections together.
    pub unsent: usize,
}

impl Default for ServerOptions {
    /// 4,096 connections, 64 MiB of unfinished requests, 256 MiB of unsent answers.
    fn default() -> ServerOptions {
        ServerOptions {
            message: Limits::default(),
            connections: 4096,
            unfinished: 64 << 20,
            unsent: 256 << 20,
        }
    }
}

/// A socket to which clients may already connect, though they are not served yet.
pub struct Bound(Listener);

impl Bound {
    /// Takes the path, with its lock file, as [`Op::ListenAlone`] does.
    ///
    /// # Errors
    /// The path is in use, too long, or cannot be made; the error names the reason and the remedy.
    pub async fn bind(path: &Path) -> io::Result<Bound> {
        match op(Op::ListenAlone { path: Box::new(path.to_owned()), backlog: BACKLOG }).await {
            (Ok(Output::Listener(listener)), _) => Ok(Bound(listener)),
            (Ok(other), _) => Err(io::Error::other(format!("the engine listened and gave {other:?}"))),
            (Err(error), _) => Err(error),
        }
    }

    /// Serves waiting and new clients.
    pub fn serve<C: Clone + 'static>(self, dispatcher: Dispatcher<C>, options: ServerOptions) -> Server {
        let connections = Connections::default();
        let accept = Accept {
            listener: self.0,
            dispatcher,
            options,
            connections: connections.clone(),
            input: Unfinished::new(options.unfinished),
            output: Budget::new(options.unsent),
        };
        Server { accepting: Some(spawn_local(accept.run()).cancel_on_drop()), connections }
    }
}

/// A running server.
pub struct Server {
    accepting: Option<JoinHandle<()>>,
    connections: Connections,
}

impl Server {
    /// How many clients are connected.
    pub fn connections(&self) -> usize {
        self.connections.count()
    }

    /// Stops accepting and reading, and sends the answers of calls that have ended or end now, for at most a second.
    /// Returns the number of connections.
    pub async fn close(mut self) -> usize {
        self.accepting = None;
        let open = self.connections.count();
        self.connections.each(Answers::begin_close);
        let _ = timeout(GRACE, self.connections.below(1)).await;
        open
    }
}

struct Accept<C> {
    listener: Listener,
    dispatcher: Dispatcher<C>,
    options: ServerOptions,
    connections: Connections,
    input: Unfinished,
    output: Budget,
}

impl<C: Clone + 'static> Accept<C> {
    async fn run(self) {
        let mut failed = FailedAccepts::of("rpc");
        loop {
            self.connections.below(self.options.connections).await;
            match op(Op::Accept { listener: self.listener.clone() }).await.0 {
                Ok(Output::Socket(socket)) => self.begin(socket),
                Ok(_) => {}
                Err(error) => failed.note(self.listener.address(), &error).await,
            }
        }
    }

    fn begin(&self, socket: Socket) {
        let answers = Answers::new(self.output.share());
        let here = self.connections.enter(answers.clone());
        let (dispatcher, message) = (self.dispatcher.clone(), self.options.message);
        let input = self.input.enter();
        drop(spawn_local(async move {
            connection::serve(socket, dispatcher, message, answers, input).await;
            drop(here);
        }));
    }
}

/// The open connections. A handle.
#[derive(Clone, Default)]
struct Connections(Rc<Open>);

#[derive(Default)]
struct Open {
    answers: RefCell<Slab<Rc<Answers>>>,
    closing: WaitList,
}

/// A connection's place among the open ones, until dropped.
struct Here {
    connections: Connections,
    place: usize,
}

impl Connections {
    fn count(&self) -> usize {
        self.0.answers.borrow().len()
    }

    fn enter(&self, answers: Rc<Answers>) -> Here {
        let place = self.0.answers.borrow_mut().insert(answers);
        Here { connections: self.clone(), place }
    }

    fn each(&self, told: fn(&Answers)) {
        let open: Vec<_> = self.0.answers.borrow().iter().map(|(_, answers)| answers.clone()).collect();
        open.iter().for_each(|answers| told(answers));
    }

    /// Waits until fewer than `most` are open.
    async fn below(&self, most: usize) {
        self.0.closing.until(|| (self.count() < most).then_some(())).await;
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let open = &self.connections.0;
        let answers = open.answers.borrow_mut().remove(self.place);
        drop(answers);
        open.closing.wake_all();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.connections.each(Answers::close);
    }
}

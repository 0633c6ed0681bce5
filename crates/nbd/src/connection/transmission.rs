//! The transmission phase of one connection: requests in, replies out.
//!
//! One future of the connection's task. Each poll takes what has arrived, starts what can be started, and
//! sends all finished replies at once. A request's memory counts from its header until its reply was sent;
//! while the budget is spent nothing more is read, so that a client that does not read replies holds only the
//! memory of its requests.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use spindle_reactor::{Sleep, now, sleep, timeout};

use super::grace::Grace;
use super::input::Input;
use super::outbox::Outbox;
use super::perform::{Body, Failure, Reply, Work, perform};
use super::session::Session;
use super::slots::{MAX_REQUESTS, Slots};
use super::stream::Stream;
use super::{Control, Stop, buffer};
use crate::budget::Lease;
use crate::codec::{Checked, Command, ErrorCode, Request, Violation, reply};
use crate::origin::Origin;
use crate::server::Shared;

/// Bytes that a connection may use outside the budget, for small requests.
const ALLOWANCE: usize = 256 << 10;

/// The most bytes of one connection, except for a single request.
pub(crate) const CONNECTION_LIMIT: usize = 64 << 20;

/// Bytes taken from the budget at a time.
const GRAIN: usize = 1 << 20;

/// After this time without input a client counts as silent.
const QUIET: Duration = Duration::from_secs(5);

/// Bytes of reads begun in one poll, and of replies that were not sent, beyond which further reads wait if the
/// device ends them at once, as memory does. So data goes into the stream while it is still in the caches, which 32
/// reads of 128 KiB would otherwise leave before the first is sent. A disk, which works on many at a time, gets
/// all.
const BURST: usize = 256 << 10;

/// The most bytes of reads begun in one poll in any case, except for a single one, as the reactor serves other
/// connections too.
const IN_ONE_POLL: usize = 4 << 20;

/// After so many refusals in a row, nothing is read from a client for a while: a client has no use for more of them
/// in so short a time, and answering them would take the reactor from other connections.
const REFUSALS: u32 = 16;
const REFUSED: Duration = Duration::from_millis(10);

/// The meaning of the client's next bytes.
enum Expect {
    Header,
    /// A request waits for memory or for others to end.
    Room {
        cookie: u64,
        command: Command,
    },
    /// The payload of a write.
    Payload {
        cookie: u64,
        command: Command,
        cost: usize,
    },
    /// Bytes to skip before a request is refused.
    Skip {
        cookie: u64,
        left: u32,
        failure: Failure,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Requests are answered with an error; ends when all are answered.
    Refusing,
    /// Nothing more is read.
    Finishing,
    /// Nothing more is sent either.
    Broken,
}

/// A number of replies and their cost.
#[derive(Clone, Copy, Default)]
struct Batch {
    requests: usize,
    cost: usize,
}

struct Transmission<'a, F> {
    stream: &'a mut Stream,
    session: Rc<Session>,
    control: Arc<Control>,
    server: Arc<Shared>,
    start: fn(Rc<Session>, Work) -> F,
    input: Input,
    outbox: Outbox,
    slots: Slots<F>,
    expect: Expect,
    phase: Phase,
    violation: Option<Violation>,
    /// Bytes of requests whose replies were not sent.
    used: usize,
    lease: Lease,
    waiting: Option<Pin<Box<dyn Future<Output = Lease>>>>,
    queued: Batch,
    out: Batch,
    /// The send under way is a quiet one.
    sends_quietly: bool,
    /// Number of receives so far, and when `quiet` began.
    receives: u64,
    receives_before: u64,
    /// The same when it was last noted that the client owes a payload.
    owed_at: Option<u64>,
    /// Set while there is memory to free after a silence.
    quiet: Option<Pin<Box<Sleep>>>,
    /// Bytes of reads begun in this poll.
    begun: usize,
    /// What was begun in the last poll that began reads had ended by the next one.
    ends_at_once: bool,
    /// Requests refused since the last one that was not.
    refusals: u32,
    /// Set while nothing is taken from a client whose requests are all refused.
    pause: Option<Pin<Box<Sleep>>>,
    /// The receive under way was cancelled for a smaller window.
    resizing: bool,
    grace: Grace,
    /// Kept for their capacity.
    ended: Vec<Reply>,
    text: Vec<u8>,
}

/// Serves a client until the client or the server ends it, and all of its requests have ended. `early` came
/// with the handshake.
pub(crate) async fn transmit(
    stream: &mut Stream,
    session: Rc<Session>,
    server: Arc<Shared>,
    early: &[u8],
) -> Option<Violation> {
    let pool = session.pool.clone();
    let lease = Lease::none(&server.budget, session.control.origin);
    let boxed: fn(Rc<Session>, Work) -> _ = perform;
    let grace = Grace::new(server.options.grace);
    let mut transmission = Transmission {
        stream,
        control: session.control.clone(),
        session,
        start: boxed,
        input: Input::new(pool.clone(), early),
        outbox: Outbox::new(pool),
        slots: Slots::new(),
        expect: Expect::Header,
        phase: Phase::Serving,
        violation: None,
        used: 0,
        lease,
        server,
        waiting: None,
        queued: Batch::default(),
        out: Batch::default(),
        sends_quietly: false,
        receives: 0,
        receives_before: 0,
        owed_at: None,
        quiet: None,
        begun: 0,
        ends_at_once: true,
        refusals: 0,
        pause: None,
        resizing: false,
        grace,
        ended: Vec::new(),
        text: Vec::new(),
    };
    poll_fn(|cx| transmission.poll(cx)).await;
    transmission.violation
}

impl<F: Future<Output = Reply>> Transmission<'_, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.slots.belong_to(cx);
        self.stream.belong_to(cx);
        self.obey();
        self.watch_kept(cx);
        self.take_sent();
        self.take_replies();
        if std::mem::take(&mut self.begun) > 0 {
            self.ends_at_once = self.slots.len() == 0;
        }
        self.take_received();
        if matches!(self.phase, Phase::Serving | Phase::Refusing) {
            self.advance(cx);
        }
        self.send();
        self.receive();
        self.watch_quiet(cx);
        self.watch_send();
        self.watch_payload();
        self.watch_last_replies(cx);
        match self.is_over() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn obey(&mut self) {
        match self.control.told() {
            Stop::No => {}
            Stop::Gently if self.phase == Phase::Serving => {
                self.phase = Phase::Refusing;
                self.waiting = None;
                if let Expect::Room { cookie, command } = self.expect {
                    self.expect = refused(cookie, payload_of(&command));
                }
            }
            Stop::Gently => {}
            Stop::AtOnce => self.break_off(),
        }
    }

    /// The client is gone: waits only for requests under way.
    fn break_off(&mut self) {
        if self.phase != Phase::Broken {
            self.phase = Phase::Broken;
            self.waiting = None;
            self.stream.cancel();
        }
    }

    /// Gives up requests that the device has kept for too long since the connection was told to end.
    fn watch_kept(&mut self, cx: &mut Context<'_>) {
        if self.session.is_kept_too_long(self.slots.len() > 0, cx) && !self.session.has_given_up() {
            self.session.give_up();
            self.slots.wake_all();
        }
    }

    /// Number of requests that were not answered, or whose answers were not sent.
    fn in_flight(&self) -> usize {
        self.slots.len() + self.queued.requests + self.out.requests
    }

    fn is_over(&self) -> bool {
        let answered = self.slots.len() == 0;
        let sent = self.outbox.is_empty() && !self.stream.is_sending();
        match self.phase {
            Phase::Serving => false,
            Phase::Refusing => answered && sent && !self.input.has_more(),
            Phase::Finishing => answered && sent,
            Phase::Broken => answered,
        }
    }

    fn take_sent(&mut self) {
        let Some((result, buffers)) = self.stream.take_sent() else { return };
        self.control.sending(None);
        self.outbox.give_back(buffers);
        let batch = std::mem::take(&mut self.out);
        self.release(batch.cost);
        if result.is_err() {
            self.break_off();
        }
    }

    fn release(&mut self, cost: usize) {
        self.used -= cost;
        if self.server.budget.is_wanted() || self.used == 0 {
            self.lease.shrink(self.used.saturating_sub(ALLOWANCE));
        }
    }

    fn take_replies(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        self.slots.poll_woken(|reply| ended.push(reply));
        ended.drain(..).for_each(|reply| self.answer(reply));
        self.ended = ended;
    }

    fn take_received(&mut self) {
        let Some((result, buffers)) = self.stream.take_received() else { return };
        let bytes = *result.as_ref().unwrap_or(&0);
        self.input.received(buffers, bytes);
        self.receives += 1;
        let resizing = std::mem::take(&mut self.resizing);
        match (result, self.phase) {
            (Ok(1..), _) | (_, Phase::Broken) => {}
            (Err(error), _) if resizing && error.kind() == ErrorKind::Interrupted => {}
            (Ok(_), _) => self.phase = Phase::Finishing,
            (Err(_), _) => self.break_off(),
        }
    }

    /// Starts what has arrived, as far as there is room.
    fn advance(&mut self, cx: &mut Context<'_>) {
        while !self.pauses(cx) && self.step(cx) && self.phase != Phase::Finishing {}
    }

    /// True while nothing is taken from the client.
    fn pauses(&mut self, cx: &mut Context<'_>) -> bool {
        if self.refusals < REFUSALS || self.phase != Phase::Serving {
            return false;
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(REFUSED)));
        let goes_on = pause.as_mut().poll(cx).is_pending();
        if !goes_on {
            self.pause = None;
            self.refusals = 0;
        }
        goes_on
    }

    /// Takes the client's next item; false if it has not come, or there is no room for it.
    fn step(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.expect {
            Expect::Header => self.in_flight() < MAX_REQUESTS && self.take_header(),
            Expect::Room { cookie, command } => {
                let (cookie, command) = (*cookie, *command);
                let enough = self.is_in_turn(&command, cx) && self.has_room(cost_of(&command), cx);
                if enough {
                    self.admit(cookie, command);
                }
                enough
            }
            Expect::Payload { cookie, command, cost } => {
                let Some(payload) = self.input.payload() else { return false };
                let work = Work { cookie: *cookie, command: *command, payload: Some(payload), cost: *cost };
                self.expect = Expect::Header;
                self.carry_out(work);
                true
            }
            Expect::Skip { left, .. } => {
                *left -= self.input.skip(*left as usize) as u32;
                *left == 0 && self.refuse_skipped()
            }
        }
    }

    fn take_header(&mut self) -> bool {
        match self.input.header().map(|bytes| Request::parse(&bytes)) {
            None => return false,
            Some(Ok(request)) => self.begin(&request),
            Some(Err(violation)) => {
                self.violation = Some(violation);
                self.phase = Phase::Finishing;
            }
        }
        true
    }

    /// Handles a header.
    fn begin(&mut self, request: &Request) {
        let cookie = request.cookie;
        self.expect = match self.session.rules.check(request) {
            Checked::Command(Command::Disconnect) => {
                self.control.leaves_properly();
                self.phase = Phase::Finishing;
                Expect::Header
            }
            Checked::Command(command) if self.phase == Phase::Refusing => {
                refused(cookie, payload_of(&command))
            }
            Checked::Command(command) => Expect::Room { cookie, command },
            Checked::Refused { code, reason, payload } => {
                let failure = Failure { code, text: reason.to_owned() };
                Expect::Skip { cookie, left: payload, failure }
            }
        };
    }

    /// False while a read must wait for those before it; the task is woken when they have been sent, or have begun.
    /// Writes do not wait: a client may send one and read no reply before.
    fn is_in_turn(&self, command: &Command, cx: &Context<'_>) -> bool {
        let Command::Read { len, .. } = *command else { return true };
        if self.ends_at_once && self.queued.cost + self.out.cost >= BURST {
            // The end of the send wakes.
            return false;
        }
        let most = if self.ends_at_once { BURST } else { IN_ONE_POLL };
        let in_turn = self.begun == 0 || self.begun + len as usize <= most;
        if !in_turn {
            cx.waker().wake_by_ref();
        }
        in_turn
    }

    /// True if a request of that many bytes may begin; otherwise the task is woken when it may.
    fn has_room(&mut self, cost: usize, cx: &mut Context<'_>) -> bool {
        let (used, wanted) = (self.used, self.used + cost);
        if used > 0 && wanted > CONNECTION_LIMIT {
            // Sent replies make room.
            self.waiting = None;
            return false;
        }
        loop {
            let more = wanted.saturating_sub(ALLOWANCE).saturating_sub(self.lease.bytes());
            if more == 0 {
                self.waiting = None;
                return true;
            }
            let more = more.next_multiple_of(GRAIN);
            if self.waiting.is_none() {
                if let Some(lease) = self.server.budget.try_take(self.control.origin, more) {
                    self.lease.join(lease);
                    continue;
                }
                // A waiting connection keeps only what is in use, so that the first in the queue gets the
                // rest.
                self.lease.shrink(used.saturating_sub(ALLOWANCE));
            }
            let (server, origin) = (&self.server, self.control.origin);
            let waiting =
                self.waiting.get_or_insert_with(|| Box::pin(wait_for(server.clone(), origin, more)));
            match waiting.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(lease) => {
                    self.waiting = None;
                    self.lease.join(lease);
                }
            }
        }
    }

    /// Starts a request for which there is room.
    fn admit(&mut self, cookie: u64, command: Command) {
        let cost = cost_of(&command);
        self.used += cost;
        if let Command::Read { .. } = command {
            self.begun += cost;
        }
        if let Command::Write { len: 1.., .. } = command {
            self.input.begin_payload(buffer(&self.session.pool, cost));
            self.expect = Expect::Payload { cookie, command, cost };
        } else {
            self.expect = Expect::Header;
            self.carry_out(Work { cookie, command, payload: None, cost });
        }
    }

    fn carry_out(&mut self, work: Work) {
        self.refusals = 0;
        self.control.counters.request(&work.command);
        let future = (self.start)(self.session.clone(), work);
        if let Some(reply) = self.slots.start(future) {
            self.answer(reply);
        }
    }

    fn refuse_skipped(&mut self) -> bool {
        if let Expect::Skip { cookie, failure, .. } = std::mem::replace(&mut self.expect, Expect::Header) {
            self.control.counters.refused();
            self.refusals += 1;
            self.add(cookie, 0, Err(failure));
        }
        true
    }

    fn answer(&mut self, reply: Reply) {
        if reply.body.is_err() {
            self.control.counters.failed();
        }
        self.add(reply.cookie, reply.cost, reply.body);
    }

    /// Queues a reply.
    fn add(&mut self, cookie: u64, cost: usize, body: Result<Body, Failure>) {
        if self.phase == Phase::Broken {
            return self.release(cost);
        }
        self.queued.requests += 1;
        self.queued.cost += cost;
        let structured = self.session.rules.structured;
        match body {
            Ok(Body::Nothing) => self.outbox.put(reply::success(cookie).as_ref()),
            Ok(Body::Data { offset, data }) => {
                self.outbox.put(reply::read(structured, cookie, offset, data.len() as u32).as_ref());
                if !data.is_empty() {
                    self.outbox.put_data(data);
                }
            }
            Ok(Body::Status(bytes)) => self.outbox.put(&bytes),
            Err(Failure { code, text }) => {
                self.text.clear();
                reply::error(&mut self.text, structured, cookie, code, &text);
                self.outbox.put(&self.text);
            }
        }
    }

    fn send(&mut self) {
        if self.phase == Phase::Broken || self.stream.is_sending() || self.outbox.is_empty() {
            return;
        }
        self.out = std::mem::take(&mut self.queued);
        self.sends_quietly = self.waits_only_for_the_client();
        match self.sends_quietly {
            true => self.stream.send_quietly(self.outbox.take()),
            false => {
                self.control.sending(Some(now()));
                self.stream.send(self.outbox.take());
            }
        }
    }

    /// True if the end of a send changes nothing here before the client's next request comes.
    fn waits_only_for_the_client(&self) -> bool {
        let nothing_else = self.slots.len() == 0 && self.lease.bytes() == 0 && self.waiting.is_none();
        let next = matches!(self.expect, Expect::Header) && !self.input.has_more();
        self.phase == Phase::Serving && next && nothing_else
    }

    /// Hurries a quiet send if more has come.
    fn watch_send(&mut self) {
        if !self.sends_quietly || !self.stream.is_sending() {
            return;
        }
        // Without a receive under way, what has been sent is what makes room for the next request.
        let is_needed = !self.stream.is_receiving() || !self.outbox.is_empty();
        if is_needed || !self.waits_only_for_the_client() {
            self.sends_quietly = false;
            self.control.sending(Some(now()));
            self.stream.hurry();
        }
    }

    /// Notes how long the client has sent nothing of a payload for which memory is held.
    fn watch_payload(&mut self) {
        let owes = matches!(self.expect, Expect::Payload { .. }) && self.lease.bytes() > 0;
        let seen = owes.then_some(self.receives);
        if seen != self.owed_at {
            self.owed_at = seen;
            self.control.owing(owes.then(now));
        }
    }

    /// Breaks off when a client that was told to end has had its time to read its last replies.
    fn watch_last_replies(&mut self, cx: &mut Context<'_>) {
        let ends = matches!(self.phase, Phase::Refusing | Phase::Finishing);
        if !ends || self.control.told() != Stop::Gently {
            return;
        }
        if self.grace.is_over(self.stream.is_sending(), cx) {
            self.break_off();
        }
    }

    fn receive(&mut self) {
        let reads = matches!(self.phase, Phase::Serving | Phase::Refusing);
        let full = matches!(self.expect, Expect::Room { .. }) || self.in_flight() >= MAX_REQUESTS;
        if !reads || full || self.stream.is_receiving() || self.input.has_more() {
            return;
        }
        self.stream.receive(self.input.room());
    }
}

impl<F: Future<Output = Reply>> Transmission<'_, F> {
    /// Frees the memory of a client that was busy and is silent now.
    fn watch_quiet(&mut self, cx: &mut Context<'_>) {
        while self.phase == Phase::Serving && (self.input.is_large() || self.outbox.has_room()) {
            let quiet = self.quiet.get_or_insert_with(|| {
                self.receives_before = self.receives;
                Box::pin(sleep(QUIET))
            });
            if quiet.as_mut().poll(cx).is_pending() {
                return;
            }
            self.quiet = None;
            if self.receives == self.receives_before && self.in_flight() == 0 && self.stream.is_receiving() {
                self.slots.rest();
                self.outbox.rest();
                if self.input.is_large() {
                    self.input.rest();
                    self.resizing = true;
                    self.stream.cancel_receive();
                }
                // Busy connections take what they need again, and keep it.
                self.session.pool.trim();
            }
        }
    }
}

/// Waits for memory, and closes clients that hold some and neither read nor send.
async fn wait_for(server: Arc<Shared>, origin: Origin, bytes: usize) -> Lease {
    let mut lease = pin!(server.budget.take(origin, bytes));
    loop {
        match timeout(server.patience(), lease.as_mut()).await {
            Ok(lease) => return lease,
            Err(_) => server.close_stuck(now()),
        }
    }
}

/// Bytes of memory that a request needs until it is answered.
fn cost_of(command: &Command) -> usize {
    match *command {
        Command::Read { len, .. } | Command::Write { len, .. } => len as usize,
        _ => 0,
    }
}

fn payload_of(command: &Command) -> u32 {
    if let Command::Write { len, .. } = *command { len } else { 0 }
}

/// The next state after a request that comes too late.
fn refused(cookie: u64, payload: u32) -> Expect {
    let text = "the export is going away".to_owned();
    Expect::Skip { cookie, left: payload, failure: Failure { code: ErrorCode::ShuttingDown, text } }
}

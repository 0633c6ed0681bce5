//! One connection: a task that sends answers, one that reads requests, and one per call.
//!
//! On the server's thread. Only these tasks have the socket, which closes when the last of them ends.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use spindle_engine::{Op, Output, Shutdown, Socket};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::{op, spawn_local, timeout};

use crate::answers::{Answers, Batch};
use crate::dispatch::Dispatcher;
use crate::error::RpcError;
use crate::parser::{Limits, Parsed, Parser};
use crate::request::{Call, Message, Refused};
use crate::unfinished::Place;

/// Bytes to receive at once between messages, and within one.
const FIRST_PART: usize = 4 << 10;
const NEXT_PART: usize = 64 << 10;

/// What a client may still send after the error that ends its connection, and for how long: it may read the
/// answer only after it has sent everything.
const LINGER_BYTES: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// Serves one client until it leaves, or the server closes.
pub(crate) async fn serve<C: Clone + 'static>(
    socket: Socket,
    dispatcher: Dispatcher<C>,
    limits: Limits,
    answers: Rc<Answers>,
    input: Place,
) {
    let reader = Reader { socket: socket.clone(), dispatcher, answers: answers.clone(), input };
    let reader = spawn_local(reader.run(limits)).cancel_on_drop();
    while let Some(bytes) = answers.next().await {
        let sent = op(Op::Send { socket: socket.clone(), buffers: IoBuf::copy_from(&bytes).into() }).await;
        if sent.0.is_err() {
            answers.break_off();
        }
    }
    let over = answers.is_over();
    // No effect if the client has gone.
    let _ = op(Op::Shutdown { socket, how: Shutdown::Write }).await;
    if !over {
        // It may still have to receive what the client sends after a fault. A panic in it has been reported.
        let _ = reader.await;
    }
}

struct Reader<C> {
    socket: Socket,
    dispatcher: Dispatcher<C>,
    answers: Rc<Answers>,
    input: Place,
}

impl<C: Clone + 'static> Reader<C> {
    async fn run(self, limits: Limits) {
        let outcome = self.read(Parser::new(limits)).await;
        self.input.set(0);
        if let Err(error) = outcome {
            // The error goes out last, except for calls that take long.
            let _ = timeout(LINGER, self.answers.idle()).await;
            self.answers.refuse(None, error);
            self.answers.end();
            // Data after a fault is ignored.
            let _ = timeout(LINGER, self.discard()).await;
        }
        self.answers.end();
    }

    /// Reads requests until the client sends no more.
    async fn read(&self, mut parser: Parser) -> Result<(), RpcError> {
        let mut buffer = IoBuf::zeroed(FIRST_PART);
        while self.answers.room().await {
            let Some((received, part)) = self.input.unless_given_up(receive(&self.socket, buffer)).await
            else {
                return Err(self.given_up());
            };
            let count = received.unwrap_or(0);
            if count == 0 || self.answers.is_over() {
                break;
            }
            self.take(&mut parser, &part[..count]).await?;
            self.input.set(parser.held());
            let wanted = if parser.is_within() { NEXT_PART } else { FIRST_PART };
            buffer = if part.len() == wanted { part } else { IoBuf::zeroed(wanted) };
        }
        Ok(())
    }

    /// Starts the calls that a received part completes.
    async fn take(&self, parser: &mut Parser, mut part: &[u8]) -> Result<(), RpcError> {
        while !part.is_empty() {
            let parsed = parser.push(part);
            let (parsed, used) = parsed.map_err(|error| {
                RpcError::new(RpcError::PARSE, format!("Parse error: {error}; the connection is closed"))
            })?;
            part = &part[used..];
            if let Some(parsed) = parsed {
                self.start(parsed);
                // So only one message exceeds the limits, not a whole buffer of them.
                if !self.answers.room().await {
                    return Ok(());
                }
            }
        }
        if let Some(parsed) = parser.pause() {
            self.start(parsed);
        }
        Ok(())
    }

    /// The error of a client whose unfinished request gave way to those of others.
    fn given_up(&self) -> RpcError {
        let message = format!(
            "Internal error: unfinished requests of all clients take more than {} bytes, and nothing more came of this \
             one for longest; the connection is closed, connect and send it again",
            self.input.most()
        );
        RpcError::new(RpcError::INTERNAL, message)
    }

    fn start(&self, parsed: Parsed) {
        match parsed {
            Parsed::Value(value) => match Message::from_value(value) {
                Message::Single(call) => self.begin(None, call),
                Message::Batch(calls) => self.begin_batch(calls),
            },
            Parsed::TooLarge { id, what } => self.begin(None, Err(Refused::new(id, what))),
        }
    }

    fn begin_batch(&self, calls: Vec<Result<Call, Refused>>) {
        let batch = Rc::<Batch>::default();
        // Keeps the batch open until all its calls have begun; a successful notification leaves nothing.
        let whole = self.answers.begin(Some(batch.clone()), "", None);
        calls.into_iter().for_each(|call| self.begin(Some(batch.clone()), call));
        whole.answer(Ok(String::new()));
    }

    /// Runs a call in its own task, to its end whether the client stays or leaves. A refused one gets a task
    /// too, so that calls that do not wait are answered in the order of arrival.
    fn begin(&self, batch: Option<Rc<Batch>>, call: Result<Call, Refused>) {
        let (method, id) = match &call {
            Ok(call) => (call.method.as_str(), call.id.clone()),
            Err(refused) => ("", refused.id.clone()),
        };
        let owed = self.answers.begin(batch, method, id);
        let dispatcher = self.dispatcher.clone();
        drop(spawn_local(async move {
            owed.answer(match call {
                Ok(call) => dispatcher.call(call).await,
                Err(refused) => Err(refused.error),
            });
        }));
    }

    async fn discard(&self) {
        let mut left = LINGER_BYTES;
        let mut buffer = IoBuf::zeroed(NEXT_PART);
        while left > 0 && !self.answers.is_over() {
            let (received, part) = receive(&self.socket, buffer).await;
            match received {
                Ok(count) if count > 0 => left = left.saturating_sub(count),
                _ => break,
            }
            buffer = part;
        }
    }
}

/// Receives into `buffer`; how many bytes came, 0 at the end of the stream.
async fn receive(socket: &Socket, buffer: IoBuf) -> (io::Result<usize>, IoBuf) {
    let (result, done) = op(Op::Recv { socket: socket.clone(), buffers: buffer.into() }).await;
    let buffer = match done.into_buffers() {
        Buffers::One(buffer) => buffer,
        _ => IoBuf::zeroed(FIRST_PART),
    };
    (result.map(|output: Output| output.bytes()), buffer)
}

//! A connection from its first byte to its last.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use spindle_block::Channel;
use spindle_engine::Socket;
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::timeout;

use super::departure::Departure;
use super::session::Session;
use super::stream::Stream;
use super::transmission::transmit;
use super::{Control, Stop, buffer};
use crate::codec::{Advance, Agreed, Encryption, Negotiation, Query, Refusal, shortened};
use crate::server::{Exported, Shared};
use crate::tls::Tls;

/// Bytes received at a time.
const RECEIVED: usize = 4096;

/// How long a client has to receive the last replies before its connection is closed with unread bytes: TCP
/// then discards those replies.
const LINGER: Duration = Duration::from_millis(100);

/// The result of a handshake that selected an export.
struct Served {
    agreed: Agreed,
    exported: Arc<Exported>,
    channel: Channel,
    /// Bytes received after the handshake.
    early: Vec<u8>,
}

/// Serves one client, from the greeting to the last reply.
pub(crate) async fn run(server: Arc<Shared>, control: Arc<Control>, socket: Socket, tls: Option<Tls>) {
    let mut stream = Stream::new(socket);
    let limit = server.options.handshake;
    let mut left = if tls.is_some() { Departure::Plain } else { Departure::Gone };
    let shaken = {
        let handshake = handshake(&server, &control, &mut stream, tls, &mut left);
        timeout(limit, unless_stopped(&control, handshake)).await
    };
    let name = control.id;
    let served = match shaken {
        Ok(Some(Some(served))) => Ok(served),
        Ok(Some(None)) => Err(left),
        Ok(None) => Err(Departure::Told),
        Err(_) => Err(Departure::Late(limit)),
    };
    let Served { agreed, exported, channel, early } = match served {
        Ok(served) => served,
        Err(left) => {
            spindle_reactor::tell("nbd", || format!("client {name} has left without an export: {left}"));
            return;
        }
    };
    spindle_reactor::tell("nbd", || {
        format!("client {name} uses export {:?}", shortened(&exported.export.name))
    });
    let (pool, patience) = (server.pool.clone(), server.options.patience);
    let session = Session::new(channel, exported, agreed.rules, pool, control.clone(), patience);
    let violation = transmit(&mut stream, session.clone(), server.clone(), &early).await;
    // The client is gone, so a failure is only counted.
    if session.dirty.get() && !session.flush_at_end().await {
        server.flush_failed(&session.exported);
    }
    // Its last bytes, too, wait for a client that does not read.
    let _ = timeout(server.options.grace, stream.end()).await;
    spindle_reactor::tell("nbd", || {
        let why = violation.map(|violation| format!(": {violation}")).unwrap_or_default();
        format!("client {name} of export {:?} has ended{why}", shortened(&session.exported.export.name))
    });
    if violation.is_some() || control.told() == Stop::Gently {
        let _ = timeout(LINGER, drain(&mut stream)).await;
    }
}

/// Runs `future` until the connection is stopped.
async fn unless_stopped<T>(control: &Control, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        control.belong_to(cx);
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if control.told() != Stop::No => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The handshake; `None` if the client left, selected nothing or broke the protocol: `left` says why.
async fn handshake(
    server: &Arc<Shared>,
    control: &Arc<Control>,
    stream: &mut Stream,
    tls: Option<Tls>,
    left: &mut Departure,
) -> Option<Served> {
    let mut out = Vec::new();
    let encryption = if tls.is_some() { Encryption::Required } else { Encryption::None };
    let mut negotiation = Negotiation::with_encryption(encryption, &mut out);
    let mut input = Vec::new();
    let mut room = Buffers::One(buffer(&server.pool, RECEIVED));
    loop {
        let (used, advance) = left.unless_violated(negotiation.advance(&input, &mut out))?;
        input.drain(..used);
        match advance {
            Advance::NeedsInput => {
                send(stream, &mut out).await?;
                let (received, buffers) = stream.received(room).await;
                let bytes = received.ok().filter(|bytes| *bytes > 0)?;
                buffers.iter().for_each(|part| input.extend_from_slice(&part[..bytes]));
                room = buffers;
            }
            Advance::StartTls => {
                send(stream, &mut out).await?;
                let encrypted = stream.encrypt(tls.as_ref()?.config(), &server.pool).await;
                left.unless(encrypted.map_err(Departure::Tls))?;
                *left = Departure::Gone;
                negotiation.encrypted();
                control.encrypted();
            }
            Advance::Aborted => {
                control.leaves_properly();
                send(stream, &mut out).await?;
                return None;
            }
            Advance::Query(Query::List) => {
                let exports = server.list();
                let names = exports.iter().map(|(name, text)| (name.as_str(), text.as_str()));
                negotiation.list(names, &mut out);
            }
            Advance::Query(Query::Export { name, serve: false }) => match server.find(&name) {
                Ok(exported) => {
                    negotiation.offer(&exported.export.offer(), &mut out);
                }
                Err(refusal) => {
                    *left = Departure::refused(&name, &refusal);
                    left.unless_violated(negotiation.refuse(&refusal, &mut out))?;
                }
            },
            Advance::Query(Query::Export { name, serve: true }) => match open(server, control, &name) {
                Ok((exported, channel)) => {
                    let agreed = negotiation.offer(&exported.export.offer(), &mut out)?;
                    send(stream, &mut out).await?;
                    return Some(Served { agreed, exported, channel, early: input });
                }
                Err(refusal) => {
                    *left = Departure::refused(&name, &refusal);
                    left.unless_violated(negotiation.refuse(&refusal, &mut out))?;
                }
            },
        }
    }
}

/// Opens an export for a client, which counts as one of its connections from then on.
fn open(
    server: &Arc<Shared>,
    control: &Arc<Control>,
    name: &str,
) -> Result<(Arc<Exported>, Channel), Refusal> {
    let exported = server.attach(control, name)?;
    match Channel::open(exported.export.device.clone()) {
        Ok(channel) => Ok((exported, channel)),
        Err(error) => {
            server.detach(control);
            Err(Refusal::Failed(error.to_string()))
        }
    }
}

async fn send(stream: &mut Stream, out: &mut Vec<u8>) -> Option<()> {
    if out.is_empty() {
        return Some(());
    }
    let (sent, _) = stream.sent(Buffers::One(IoBuf::copy_from(out))).await;
    out.clear();
    sent.ok().map(|_| ())
}

/// Reads until the client has closed.
async fn drain(stream: &mut Stream) {
    loop {
        if !stream.is_receiving() {
            stream.receive(Buffers::One(IoBuf::zeroed(RECEIVED)));
        }
        if !matches!(stream.next_received().await, (Ok(1..), _)) {
            return;
        }
    }
}

//! A connection's stream of bytes, in both directions at once: plain, or encrypted by TLS.
//!
//! Belongs to the connection's task, which polls it by the two `take_` functions each time it is woken: with
//! TLS they also decrypt, encrypt and move what is due. Dropping it cancels operations under way.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use spindle_engine::Socket;
use spindle_mem::{Buffers, Pool};

use super::tls::TlsStream;
use super::wire::{Moved, Wire};

/// The stream of a connection: at most one receive and one send under way.
pub(crate) struct Stream {
    wire: Wire,
    tls: Option<Box<TlsStream>>,
}

impl Stream {
    pub(crate) fn new(socket: Socket) -> Stream {
        Stream { wire: Wire::new(socket), tls: None }
    }

    /// Begins TLS: from here on all bytes are encrypted. Nothing may be under way.
    ///
    /// # Errors
    /// The client does not speak TLS as required, or does not show a valid certificate: close the connection. An
    /// alert with the reason was sent, if TLS has one.
    pub(crate) async fn encrypt(&mut self, config: Arc<ServerConfig>, pool: &Pool) -> io::Result<()> {
        let mut tls = Box::new(TlsStream::new(config, pool)?);
        while tls.is_handshaking() {
            self.send_own_records(&mut tls).await?;
            let (result, buffers) = self.received(tls.window()).await;
            if let Err(error) = tls.shake(result, buffers) {
                // The alert says why; it need not arrive.
                let _ = self.send_own_records(&mut tls).await;
                return Err(error);
            }
        }
        // Among them tickets, by which a client may come back sooner.
        self.send_own_records(&mut tls).await?;
        self.tls = Some(tls);
        Ok(())
    }

    /// Sends records of TLS itself (handshake, alerts).
    async fn send_own_records(&mut self, tls: &mut TlsStream) -> io::Result<()> {
        while let Some(records) = tls.own_records() {
            let (result, _) = self.sent(records).await;
            result?;
        }
        Ok(())
    }

    /// Sets the task to wake; call it each time the task is polled.
    pub(crate) fn belong_to(&self, cx: &Context<'_>) {
        self.wire.belong_to(cx);
    }

    pub(crate) fn is_receiving(&self) -> bool {
        self.tls.as_ref().map_or_else(|| self.wire.is_receiving(), |tls| tls.is_receiving())
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.tls.as_ref().map_or_else(|| self.wire.is_sending(), |tls| tls.is_sending())
    }

    /// Begins to receive into `buffers`. Only if no receive is under way.
    pub(crate) fn receive(&mut self, buffers: Buffers) {
        match &mut self.tls {
            None => self.wire.receive(buffers),
            Some(tls) => tls.receive(&mut self.wire, buffers),
        }
    }

    /// Begins to send all of `buffers`. Only if no send is under way.
    pub(crate) fn send(&mut self, buffers: Buffers) {
        match &mut self.tls {
            None => self.wire.send(buffers),
            Some(tls) => tls.send(&mut self.wire, buffers),
        }
    }

    /// As [`send`](Self::send), but its end is reported with the next event of the connection, unless it is
    /// [hurried](Self::hurry).
    pub(crate) fn send_quietly(&mut self, buffers: Buffers) {
        match &mut self.tls {
            None => self.wire.send_quietly(buffers),
            Some(tls) => tls.send(&mut self.wire, buffers),
        }
    }

    /// Asks for the end of the send under way to be reported as soon as it has ended.
    pub(crate) fn hurry(&self) {
        self.wire.hurry();
    }

    /// The finished receive, if any: bytes and buffers. 0 bytes are the end of the stream.
    pub(crate) fn take_received(&mut self) -> Option<Moved> {
        match &mut self.tls {
            None => self.wire.take_received(),
            Some(tls) => tls.take_received(&mut self.wire),
        }
    }

    /// The finished send, if any.
    pub(crate) fn take_sent(&mut self) -> Option<Moved> {
        match &mut self.tls {
            None => self.wire.take_sent(),
            Some(tls) => tls.take_sent(&mut self.wire),
        }
    }

    /// Cancels the receive under way, which ends as interrupted unless it ended before, for a client that is
    /// silent: the next one holds less memory.
    pub(crate) fn cancel_receive(&mut self) {
        self.tls.iter_mut().for_each(|tls| tls.rest());
        self.wire.cancel_receive();
    }

    /// Cancels all that is under way, for a client that is gone.
    pub(crate) fn cancel(&mut self) {
        self.wire.cancel();
        if let Some(tls) = &mut self.tls {
            tls.give_up();
        }
    }

    /// Receives; 0 bytes are the end of the stream.
    pub(crate) async fn received(&mut self, buffers: Buffers) -> Moved {
        self.receive(buffers);
        self.next_received().await
    }

    /// The end of the receive under way.
    pub(crate) async fn next_received(&mut self) -> Moved {
        poll_fn(|cx| {
            self.belong_to(cx);
            self.take_received().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Sends all of `buffers`.
    pub(crate) async fn sent(&mut self, buffers: Buffers) -> Moved {
        self.send(buffers);
        poll_fn(|cx| {
            self.belong_to(cx);
            self.take_sent().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Tells the peer that nothing more will be sent. No send may be under way.
    pub(crate) async fn end(&mut self) {
        if let Some(mut tls) = self.tls.take_if(|tls| !tls.is_broken() && !self.wire.is_sending()) {
            tls.close();
            // A peer that is gone need not be told.
            let _ = self.send_own_records(&mut tls).await;
            self.tls = Some(tls);
        }
        self.wire.end().await;
    }
}

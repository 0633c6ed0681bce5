//! TLS between a connection and its wire: plain bytes on one side, records on the other.
//!
//! Belongs to the connection's task. Records are received into one window and decrypted straight into the
//! caller's buffers; what is sent is encrypted into one buffer at a time, so that a connection holds at most
//! [`WINDOW`] bytes of records each way, and what `rustls` keeps. Unlike a plain connection it allocates while
//! it runs. Randomness is the system's, so an encrypted stream is no part of a simulation's history.

use std::io::{self, Cursor, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};
use spindle_mem::{Buffers, IoBuf, Pool};

use super::buffer;
use super::wire::{Moved, Wire};
use crate::tls::explained;

/// Bytes of records received, or sent, at a time: several of up to 16 KiB.
const WINDOW: usize = 64 << 10;

/// Plain bytes encrypted at a time: their records fit a window.
const PLAIN: usize = 60 << 10;

/// Bytes of records received at a time by a connection that is silent.
const SMALL: usize = 4096;

/// The TLS state of a connection.
pub(super) struct TlsStream {
    session: ServerConnection,
    pool: Pool,
    /// Received records that were not decrypted. `None` while the wire has the buffer.
    records: Option<IoBuf>,
    at: usize,
    end: usize,
    /// Bytes of the next window.
    size: usize,
    /// The buffers of the receive under way.
    wanted: Option<Buffers>,
    received: Option<io::Result<usize>>,
    /// The buffers of the send under way, and how many of their bytes were encrypted.
    sending: Option<(Buffers, usize)>,
    sent: Option<io::Result<usize>>,
    broken: bool,
}

impl TlsStream {
    pub(super) fn new(config: Arc<ServerConfig>, pool: &Pool) -> io::Result<TlsStream> {
        let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(PLAIN));
        Ok(TlsStream {
            session,
            pool: pool.clone(),
            records: None,
            at: 0,
            end: 0,
            size: SMALL,
            wanted: None,
            received: None,
            sending: None,
            sent: None,
            broken: false,
        })
    }

    /// True until both sides agree.
    pub(super) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// The next records of TLS itself (handshake, alerts), if any, while no data is on its way.
    pub(super) fn own_records(&mut self) -> Option<Buffers> {
        self.records_to_send(0)
    }

    /// Takes a part of the handshake, received into a [window](Self::window).
    pub(super) fn shake(&mut self, result: io::Result<usize>, buffers: Buffers) -> io::Result<()> {
        if self.take_records(result, buffers)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        while self.at < self.end && self.session.is_handshaking() {
            self.decrypt()?;
        }
        Ok(())
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.wanted.is_some()
    }

    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    pub(super) fn receive(&mut self, wire: &mut Wire, buffers: Buffers) {
        debug_assert!(self.wanted.is_none());
        self.wanted = Some(buffers);
        self.advance_receive(wire);
        if self.received.is_some() {
            wire.wake();
        }
    }

    pub(super) fn send(&mut self, wire: &mut Wire, buffers: Buffers) {
        debug_assert!(self.sending.is_none());
        self.sending = Some((buffers, 0));
        self.advance_send(wire);
        if self.sent.is_some() {
            wire.wake();
        }
    }

    pub(super) fn take_received(&mut self, wire: &mut Wire) -> Option<Moved> {
        if let Some((result, buffers)) = wire.take_received() {
            match self.take_records(result, buffers) {
                // A cancelled receive, or a failure.
                Err(error) => self.received = Some(Err(error)),
                Ok(0) => self.received = Some(Ok(0)),
                Ok(_) => self.advance_receive(wire),
            }
        }
        let result = self.received.take()?;
        Some((result, self.wanted.take().unwrap_or(Buffers::None)))
    }

    pub(super) fn take_sent(&mut self, wire: &mut Wire) -> Option<Moved> {
        if let Some((result, _records)) = wire.take_sent() {
            self.broken |= result.is_err();
            self.advance_send(wire);
        }
        let result = self.sent.take()?;
        let (buffers, _) = self.sending.take()?;
        Some((result, buffers))
    }

    /// The next receive takes a small window again.
    pub(super) fn rest(&mut self) {
        self.size = SMALL;
    }

    /// Nothing more is sent: a record may have gone in part.
    pub(super) fn give_up(&mut self) {
        self.broken = true;
    }

    /// True if a record may have gone in part.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Prepares the alert that ends the stream.
    pub(super) fn close(&mut self) {
        self.session.send_close_notify();
    }

    /// A buffer for the wire to receive into.
    pub(super) fn window(&mut self) -> Buffers {
        let window = self.records.take().filter(|window| window.len() == self.size);
        Buffers::One(window.unwrap_or_else(|| buffer(&self.pool, self.size)))
    }

    /// Takes received records; returns how many bytes.
    fn take_records(&mut self, result: io::Result<usize>, buffers: Buffers) -> io::Result<usize> {
        self.records = buffers.into_one().ok();
        (self.at, self.end) = (0, 0);
        let bytes = result?;
        self.end = bytes;
        if self.records.as_ref().is_some_and(|records| records.len() == bytes) {
            self.size = WINDOW;
        }
        Ok(bytes)
    }

    /// Gives received records to the session, as many as it takes at a time.
    fn decrypt(&mut self) -> io::Result<()> {
        let Some(records) = &self.records else { return Ok(()) };
        let mut rest = &records[self.at..self.end];
        let taken = self.session.read_tls(&mut rest)?;
        self.at += taken;
        match self.session.process_new_packets() {
            Ok(_) if taken > 0 => Ok(()),
            Ok(_) => Err(ErrorKind::InvalidData.into()),
            Err(error) => Err(io::Error::new(ErrorKind::InvalidData, explained(&error))),
        }
    }

    /// Continues the receive under way, if any.
    fn advance_receive(&mut self, wire: &mut Wire) {
        if self.received.is_some() || wire.is_receiving() {
            return;
        }
        let Some(mut wanted) = self.wanted.take() else { return };
        let filled = self.fill(&mut wanted);
        self.wanted = Some(wanted);
        match filled.transpose() {
            Some(result) => self.received = Some(result),
            None => {
                let window = self.window();
                wire.receive(window);
            }
        }
        // What TLS itself answers, such as an alert, does not wait for a reply.
        if self.sending.is_none() && self.session.wants_write() {
            self.advance_send(wire);
        }
    }

    /// Decrypts what has come into `wanted`. `None` if there is nothing; 0 bytes at the end of the stream.
    fn fill(&mut self, wanted: &mut Buffers) -> io::Result<Option<usize>> {
        let mut filled = 0;
        for part in wanted.iter_mut() {
            let mut at = 0;
            while at < part.len() {
                match self.session.reader().read(&mut part[at..]) {
                    Ok(0) => return Ok(Some(filled)),
                    Ok(bytes) => {
                        at += bytes;
                        filled += bytes;
                    }
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                    Err(_) if self.at < self.end => self.decrypt()?,
                    Err(_) => return Ok((filled > 0).then_some(filled)),
                }
            }
        }
        Ok(Some(filled))
    }

    /// Continues the send under way, if any, and sends records of TLS itself.
    fn advance_send(&mut self, wire: &mut Wire) {
        if wire.is_sending() || self.sent.is_some() {
            return;
        }
        if self.broken {
            self.sent = self.sending.as_ref().map(|_| Err(ErrorKind::BrokenPipe.into()));
            return;
        }
        let encrypted = self.encrypt();
        match self.records_to_send(encrypted) {
            Some(records) => wire.send(records),
            None => self.sent = self.sending.as_ref().map(|(_, done)| Ok(*done)),
        }
    }

    /// Encrypts more of the send under way, as much as is sent at a time; returns how many bytes.
    fn encrypt(&mut self) -> usize {
        let Some((buffers, done)) = &mut self.sending else { return 0 };
        let mut skip = *done;
        let mut slices = Vec::with_capacity(buffers.parts().len());
        for part in buffers.iter() {
            let left = &part[skip.min(part.len())..];
            skip -= part.len() - left.len();
            if !left.is_empty() {
                slices.push(IoSlice::new(left));
            }
        }
        // Writing to memory does not fail; what has no room is encrypted next time.
        let bytes = self.session.writer().write_vectored(&slices).unwrap_or(0);
        *done += bytes;
        bytes
    }

    /// The next records to send, if any: those of about `bytes` plain bytes and of TLS itself.
    fn records_to_send(&mut self, bytes: usize) -> Option<Buffers> {
        if !self.session.wants_write() {
            return None;
        }
        let mut records = buffer(&self.pool, (bytes + bytes / 64 + SMALL).min(WINDOW));
        let mut room = Cursor::new(&mut records[..]);
        // 0 means that the buffer is full: the rest goes next time.
        while self.session.wants_write() && self.session.write_tls(&mut room).is_ok_and(|bytes| bytes > 0) {}
        let filled = room.position() as usize;
        records.truncate(filled);
        Some(Buffers::One(records))
    }
}

//! A client's bytes in the transmission phase, cut into headers and payloads.
//!
//! Headers arrive in a reused window. A write's payload is received directly into the buffer for the device,
//! except for the part that arrives with its header. Behind a long payload only the next header is received, so that
//! the payload of a further write does not come into the window, from where it would be copied. Belongs to the
//! connection's task.

use spindle_mem::{Buffers, IoBuf, Pool};

use super::buffer;
use crate::codec::REQUEST_LEN;

/// Bytes of the window of a connection that is silent or only reads.
const SMALL: usize = 4096;
/// Bytes of the window once more than that came at a time.
const LARGE: usize = 64 << 10;
/// Bytes of the window behind a payload of [`LONG`] bytes or more: a copy of so many costs more than a receive.
const NARROW: usize = REQUEST_LEN;
const LONG: usize = 16 << 10;

/// The receiving side of a connection.
pub(crate) struct Input {
    pool: Pool,
    /// `None` while a receive is under way.
    window: Option<IoBuf>,
    /// The unused received part of the window.
    at: usize,
    end: usize,
    /// The beginning of an incomplete header.
    header: [u8; REQUEST_LEN],
    headed: usize,
    /// The payload being received: the filled part, and the rest.
    payload: Option<(IoBuf, IoBuf)>,
    size: usize,
    /// Kept for its capacity.
    list: Vec<IoBuf>,
}

impl Input {
    /// Begins with bytes that came with the handshake.
    pub(crate) fn new(pool: Pool, early: &[u8]) -> Input {
        let mut window = buffer(&pool, early.len().max(SMALL));
        window[..early.len()].copy_from_slice(early);
        Input {
            pool,
            window: Some(window),
            at: 0,
            end: early.len(),
            header: [0; REQUEST_LEN],
            headed: 0,
            payload: None,
            size: SMALL,
            list: Vec::new(),
        }
    }

    /// The next header, if complete.
    pub(crate) fn header(&mut self) -> Option<[u8; REQUEST_LEN]> {
        let window = self.window.as_ref()?;
        let now = (REQUEST_LEN - self.headed).min(self.end - self.at);
        self.header[self.headed..self.headed + now].copy_from_slice(&window[self.at..self.at + now]);
        self.at += now;
        self.headed += now;
        if self.headed < REQUEST_LEN {
            return None;
        }
        self.headed = 0;
        if self.size == NARROW {
            self.size = LARGE;
        }
        Some(self.header)
    }

    /// True if received bytes are unused: they must be used before the next receive.
    pub(crate) fn has_more(&self) -> bool {
        self.at < self.end
    }

    /// Begins to fill `payload`; [`payload`](Self::payload) returns it when it is full.
    pub(crate) fn begin_payload(&mut self, mut payload: IoBuf) {
        let now = payload.len().min(self.end - self.at);
        if let Some(window) = &self.window {
            payload[..now].copy_from_slice(&window[self.at..self.at + now]);
        }
        self.at += now;
        self.size = if payload.len() < LONG { LARGE } else { NARROW };
        let rest = payload.split_off(now);
        self.payload = Some((payload, rest));
    }

    /// The payload, if complete.
    pub(crate) fn payload(&mut self) -> Option<IoBuf> {
        // Its rest is in use while a receive is under way.
        self.window.as_ref()?;
        let (there, rest) = self.payload.take_if(|(_, rest)| rest.is_empty())?;
        Some(there.join(rest).unwrap_or_else(|(there, _)| there))
    }

    /// Skips up to `bytes` received bytes; returns how many.
    pub(crate) fn skip(&mut self, bytes: usize) -> usize {
        let now = bytes.min(self.end - self.at);
        self.at += now;
        now
    }

    /// Buffers to receive into; return them with [`received`](Self::received).
    pub(crate) fn room(&mut self) -> Buffers {
        let window = self.window.take().filter(|window| window.len() == self.size);
        let window = window.unwrap_or_else(|| buffer(&self.pool, self.size));
        match &mut self.payload {
            Some((_, rest)) if !rest.is_empty() => {
                let mut list = std::mem::take(&mut self.list);
                list.push(rest.split_off(0));
                list.push(window);
                Buffers::Many(list)
            }
            _ => Buffers::One(window),
        }
    }

    /// Takes the buffers back; the first `bytes` of them were filled.
    pub(crate) fn received(&mut self, buffers: Buffers, bytes: usize) {
        self.at = 0;
        self.end = bytes;
        match buffers {
            Buffers::Many(mut list) => {
                self.window = list.pop();
                if let (Some(mut rest), Some((there, place))) = (list.pop(), self.payload.take()) {
                    let filled = bytes.min(rest.len());
                    self.end = bytes - filled;
                    let after = rest.split_off(filled);
                    // The empty part that stood for it lies before what was filled.
                    let rest = place.join(rest).unwrap_or_else(|(_, rest)| rest);
                    let there = there.join(rest).unwrap_or_else(|(there, _)| there);
                    self.payload = Some((there, after));
                }
                self.list = list;
            }
            Buffers::One(window) => self.window = Some(window),
            Buffers::None => {}
        }
        if self.window.as_ref().is_some_and(|window| window.len() > NARROW && self.end == window.len()) {
            self.size = LARGE;
        }
    }

    /// True if the next window is a large one.
    pub(crate) fn is_large(&self) -> bool {
        self.size == LARGE
    }

    /// Makes the next window small again, after a silence of the client.
    pub(crate) fn rest(&mut self) {
        self.size = SMALL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `bytes` in pieces of `step`.
    fn feed(input: &mut Input, bytes: &mut &[u8], step: usize) {
        let mut room = input.room();
        let now = step.min(bytes.len()).min(room.len());
        assert_eq!(room.copy_from(0, &bytes[..now]), now);
        *bytes = &bytes[now..];
        input.received(room, now);
    }

    #[test]
    fn only_what_comes_with_the_header_of_the_first_long_write_is_copied() {
        let pool = Pool::new("test", 16 << 20);
        let payload = vec![7; 128 << 10];
        let one = [[1; REQUEST_LEN].as_slice(), &payload].concat();
        let stream = one.repeat(4);
        let mut left = stream.as_slice();
        let mut input = Input::new(pool.clone(), &[]);
        let mut receives = 0;
        for n in 0..4 {
            while input.header().is_none() {
                feed(&mut input, &mut left, usize::MAX);
                receives += 1;
            }
            let copied = input.end - input.at;
            assert!(copied == 0 || n == 0, "{copied} bytes of payload came into the window");
            input.begin_payload(buffer(&pool, payload.len()));
            let came = loop {
                if let Some(came) = input.payload() {
                    break came;
                }
                feed(&mut input, &mut left, usize::MAX);
                receives += 1;
            };
            assert!(*came == *payload);
        }
        assert_eq!(receives, 1 + 4, "each payload comes with the next header");
        // Another kind of request ends it.
        let more = [[2; REQUEST_LEN], [3; REQUEST_LEN]].concat();
        let mut left = more.as_slice();
        feed(&mut input, &mut left, usize::MAX);
        assert!(input.header().is_some());
        assert_eq!(input.room().len(), LARGE);
    }

    #[test]
    fn headers_and_payloads_come_out_as_they_went_in_wherever_the_stream_is_cut() {
        let pool = Pool::new("test", 16 << 20);
        let payload = |n: usize| -> Vec<u8> { (0..n * 4000).map(|i| (i * 7 + n) as u8).collect() };
        let mut stream = Vec::new();
        for n in 0..8 {
            stream.extend([n as u8; REQUEST_LEN]);
            stream.extend(payload(n));
        }
        for step in (1..200).chain([4095, 4096, 4097, 70_000]) {
            let mut input = Input::new(pool.clone(), &stream[..step % 60]);
            let mut left = &stream[step % 60..];
            for n in 0..8 {
                let header = loop {
                    if let Some(header) = input.header() {
                        break header;
                    }
                    assert!(!input.has_more());
                    feed(&mut input, &mut left, step);
                };
                assert_eq!(header, [n as u8; REQUEST_LEN], "step {step}");
                input.begin_payload(buffer(&pool, n * 4000));
                let came = loop {
                    if let Some(came) = input.payload() {
                        break came;
                    }
                    assert!(!input.has_more());
                    feed(&mut input, &mut left, step);
                };
                assert_eq!(*came, *payload(n), "step {step}");
            }
            assert!(left.is_empty() && !input.has_more() && input.header().is_none());
        }
        assert_eq!(pool.lent(), 0);
    }
}

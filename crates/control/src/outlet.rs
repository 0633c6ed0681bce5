//! A way out for texts, such as standard error, that no stuck reader holds up.
//!
//! Shared by all OS threads that write there; its lock is held for writes that do not wait. A text that is not accepted at once
//! stays here until it is. Texts that come meanwhile wait once for it; after a wait in vain they are dropped and counted until
//! something is accepted again. What has not been accepted when the process ends is lost.

use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spindle_engine::{accepts, report_to};

/// The state of one way out.
#[derive(Default)]
pub(crate) struct Outlet(Mutex<State>);

#[derive(Default)]
struct State {
    /// What is left of the last text.
    rest: Vec<u8>,
    /// How many texts came here; the place of the last one.
    taken: u64,
    /// How many were dropped since then.
    lost: u64,
    /// A wait is in vain so far, or was.
    stuck: bool,
}

impl Outlet {
    /// One that goes on from another, of which so many texts were lost.
    pub(crate) fn after(lost: u64) -> Outlet {
        Outlet(Mutex::new(State { lost, ..State::default() }))
    }

    /// The texts that did not get out.
    pub(crate) fn lost(&self) -> u64 {
        let state = self.state();
        state.lost + u64::from(!state.rest.is_empty())
    }

    /// Writes a text, before it what `lost` says of the number of texts that were dropped.
    pub(crate) fn say(&self, out: &impl AsFd, text: &str, patience: Duration, lost: impl Fn(u64) -> String) {
        let mut place = None;
        loop {
            let mut state = self.state();
            state.write_rest(out);
            if place.is_none() && state.rest.is_empty() {
                place = Some(state.take(text, &lost));
                state.write_rest(out);
            }
            if place.is_some_and(|place| state.rest.is_empty() || place < state.taken) {
                return;
            }
            if patience.is_zero() || state.stuck {
                state.lost += u64::from(place.is_none());
                return;
            }
            // Until something is accepted, which no other text need wait for.
            state.stuck = true;
            drop(state);
            accepts(out, patience);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write_rest(&mut self, out: &impl AsFd) {
        let written = report_to(out, &self.rest, Duration::ZERO);
        self.rest.drain(..written);
        self.stuck &= written == 0;
    }

    /// Makes a text the rest; its place.
    fn take(&mut self, text: &str, lost: &impl Fn(u64) -> String) -> u64 {
        if self.lost > 0 {
            self.rest.extend_from_slice(lost(self.lost).as_bytes());
            self.lost = 0;
        }
        self.rest.extend_from_slice(text.as_bytes());
        self.taken += 1;
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, PipeWriter, Read, pipe};

    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    /// A test that waits for it does not end.
    const FOR_EVER: Duration = Duration::from_secs(1 << 30);

    fn lost(lines: u64) -> String {
        format!("{lines} lost\n")
    }

    /// A pipe that takes nothing more, and how many bytes are in it.
    fn full() -> (PipeReader, PipeWriter, usize) {
        let (reader, writer) = pipe().unwrap();
        let mut bytes = 0;
        while report_to(&writer, &[b'x'; 4096], Duration::ZERO) == 4096 {
            bytes += 4096;
        }
        (reader, writer, bytes)
    }

    fn read(reader: &mut PipeReader, bytes: usize) -> String {
        let mut read = vec![0; bytes];
        reader.read_exact(&mut read).unwrap();
        String::from_utf8(read).unwrap()
    }

    #[test]
    fn only_the_first_text_waits_for_a_reader_that_reads_nothing_and_those_that_are_dropped_are_counted() {
        let (mut reader, writer, bytes) = full();
        let outlet = Outlet::default();
        outlet.say(&writer, "first\n", SHORT, lost);
        for _ in 0..3 {
            outlet.say(&writer, "dropped\n", FOR_EVER, lost);
        }
        assert_eq!(outlet.lost(), 4);
        read(&mut reader, bytes);
        outlet.say(&writer, "last\n", FOR_EVER, lost);
        assert_eq!(read(&mut reader, 18), "first\n3 lost\nlast\n");
        // As before.
        outlet.say(&writer, "more\n", FOR_EVER, lost);
        assert_eq!((read(&mut reader, 5), outlet.lost()), ("more\n".to_owned(), 0));
    }

    #[test]
    fn a_text_of_which_a_part_was_accepted_goes_on_where_it_was_cut() {
        let (mut reader, writer, bytes) = full();
        read(&mut reader, 4096);
        let (outlet, text) = (Outlet::default(), "long ".repeat(1600) + "\n");
        outlet.say(&writer, &text, Duration::ZERO, lost);
        outlet.say(&writer, "dropped\n", Duration::ZERO, lost);
        read(&mut reader, bytes - 4096);
        outlet.say(&writer, "last\n", FOR_EVER, lost);
        assert_eq!(read(&mut reader, text.len() + 12), text + "1 lost\nlast\n");
    }

    #[test]
    fn a_text_that_does_not_wait_makes_no_later_one_drop() {
        let (mut reader, writer, bytes) = full();
        let outlet = Outlet::default();
        outlet.say(&writer, "first\n", Duration::ZERO, lost);
        outlet.say(&writer, "dropped\n", Duration::ZERO, lost);
        assert!(!outlet.state().stuck, "the next one may wait");
        read(&mut reader, bytes);
        outlet.say(&writer, "last\n", FOR_EVER, lost);
        assert_eq!(read(&mut reader, 18), "first\n1 lost\nlast\n");
    }

    #[test]
    fn a_reader_that_is_gone_and_a_disk_that_is_full_hold_up_nothing() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let disk = File::options().write(true).open("/dev/full").unwrap();
        let (pipe_end, disk_end) = (Outlet::default(), Outlet::default());
        for _ in 0..3 {
            pipe_end.say(&writer, "to no reader\n", FOR_EVER, lost);
            disk_end.say(&disk, "to no place\n", FOR_EVER, lost);
        }
        assert_eq!((pipe_end.lost(), disk_end.lost()), (3, 3));
    }

    #[test]
    fn one_that_goes_on_from_another_says_what_that_one_lost() {
        let (mut reader, writer) = pipe().unwrap();
        Outlet::after(2).say(&writer, "text\n", FOR_EVER, lost);
        assert_eq!(read(&mut reader, 12), "2 lost\ntext\n");
    }
}

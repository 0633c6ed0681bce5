//! Prints the history of a crash: every run with its operations and the disk's requests between them.

use std::fmt::Write as _;

use crate::op::Event;
use crate::profile::Profile;
use crate::proof::{Cut, Trail};
use crate::seen::Wrong;

/// Formats the whole history of a crash.
pub fn tell(seed: u64, profile: &Profile, trail: &Trail<'_>, wrong: Option<&Wrong>) -> String {
    let mut text = format!("seed {seed}: {profile:?}\n");
    runs(trail, &mut text);
    match wrong {
        None => text.push_str("the store is as it may be\n"),
        Some(wrong) => wrong.iter().for_each(|wrong| {
            let _ = writeln!(text, "WRONG: {wrong}");
        }),
    }
    text
}

fn runs(trail: &Trail<'_>, text: &mut String) {
    if let Some(before) = trail.before {
        runs(before, text);
    }
    let history = &trail.record.history;
    let mut events = history.events.iter().enumerate();
    let mut known = 0;
    let first = trail.record.model.time;
    let event = |(at, event): (usize, &'_ Event)| match event {
        Event::Begin(op) => format!("{}  begins {op:?}", first + at as u32),
        Event::End(from, outcome) => format!("{}  ends {from}: {outcome:?}", first + at as u32),
        Event::Found(seen) => format!("{}  found {seen:?}", first + at as u32),
    };
    for point in history.points.iter().take(trail.number + 1) {
        for one in events.by_ref().take(point.events - known) {
            let _ = writeln!(text, "{}", event(one));
        }
        known = point.events;
        let moment = &point.moment;
        let (what, at, bytes) = (moment.operation, moment.offset, moment.length);
        let page = at / 4096;
        let unflushed = point.state.unflushed();
        let _ =
            writeln!(text, "      {what:?} of {bytes} bytes at {at} (page {page}), {unflushed} not flushed");
    }
    if trail.number >= history.points.len() {
        events.for_each(|one| {
            let _ = writeln!(text, "{}", event(one));
        });
    }
    let _ = match trail.cut {
        Some(Cut::Crash(crash)) => writeln!(text, "CRASH before the last request ({crash:?})"),
        Some(Cut::Kill) => writeln!(text, "KILLED before the last request"),
        None => writeln!(text, "the end of the run"),
    };
}

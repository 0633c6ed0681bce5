//! The accepts of a server's listener that fail, as for want of open files: reported now and then, and followed by a pause.
//!
//! A value of the task that accepts.

use std::io;
use std::time::Duration;

use spindle_engine::{Address, Time};

use crate::say::ReportLevel;
use crate::thread::context::{now, report};
use crate::thread::sleep::sleep;

/// The pause after a failed accept.
const REST: Duration = Duration::from_millis(100);

/// How often failed accepts are reported at most.
const REPORTED: Duration = Duration::from_secs(60);

/// ENFILE and EMFILE: the machine's open files, and this process's.
const TOO_MANY_FILES: [i32; 2] = [23, 24];

/// The failed accepts of one listener.
pub struct FailedAccepts {
    part: &'static str,
    reported: Option<Time>,
}

impl FailedAccepts {
    /// None yet. They are reported as errors of that part, such as "nbd".
    pub fn of(part: &'static str) -> FailedAccepts {
        FailedAccepts { part, reported: None }
    }

    /// Reports a failed accept, with the address and the remedy, unless another one was reported a short while ago; then
    /// waits a moment, in which files may become free.
    pub async fn note(&mut self, address: &Address, error: &io::Error) {
        if self.is_due(now()) {
            report(ReportLevel::Error, self.part, || not_accepted(address, error));
        }
        sleep(REST).await;
    }

    fn is_due(&mut self, now: Time) -> bool {
        let due = self.reported.is_none_or(|before| now.since(before) >= REPORTED);
        if due {
            self.reported = Some(now);
        }
        due
    }
}

fn not_accepted(address: &Address, error: &io::Error) -> String {
    let remedy = match system_error(error) {
        Some(errno) if TOO_MANY_FILES.contains(&errno) => {
            "; clients wait until another one leaves: raise the hard limit of open files (ulimit -Hn, LimitNOFILE=)"
        }
        _ => "",
    };
    format!("a client of {address} cannot be accepted: {error}{remedy}")
}

/// The system's number, also if the error names the listener and has the system's as its source.
fn system_error(error: &io::Error) -> Option<i32> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_accepts_are_reported_once_a_minute_with_the_address_and_the_remedy() {
        let (mut failed, start) = (FailedAccepts::of("nbd"), Time(1_000_000_000));
        let mut due = |after| failed.is_due(start + Duration::from_millis(after));
        assert_eq!([0, 100, 59_999, 60_000, 60_100].map(&mut due), [true, false, false, true, false]);
        let address = Address::Tcp("127.0.0.1:10809".parse().expect("an address"));
        for errno in TOO_MANY_FILES {
            let said = not_accepted(&address, &io::Error::from_raw_os_error(errno));
            assert!(said.contains("127.0.0.1:10809") && said.contains("ulimit -Hn"), "{said}");
        }
        let said = not_accepted(&address, &io::Error::from_raw_os_error(12));
        assert!(said.contains("memory") && !said.contains("ulimit"), "{said}");
    }
}

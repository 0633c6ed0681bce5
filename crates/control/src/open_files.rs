//! The limit of open files of this process (`ulimit -n`), and what of it the NBD server may use.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use spindle_nbd::Options;

use crate::log::{Level, Log};

/// The least and the most that is kept for RPC clients, files and the rings of the kernel.
const RESERVE: (u64, u64) = (24, 1024);

/// Raises the soft limit of open files to the hard one. For a daemon at its start; without effect where the system
/// refuses.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// The limits of the NBD server, cut to the files that this process may open. The log has it if connections are cut.
pub(crate) fn nbd_options(log: &Log) -> Options {
    let whole = Options::default();
    let Some(limit) = getrlimit(Resource::Nofile).current else { return whole };
    let before = whole.connections;
    let cut = whole.within_files(for_connections(limit, open_now()));
    if cut.connections < before {
        let (all, of_one) = (cut.connections, cut.connections_of_one);
        let said = format!(
            "this process may open {limit} files, so that {all} NBD clients are served at once, {of_one} of one host or \
             user: raise the hard limit (ulimit -Hn, LimitNOFILE=) for {before}"
        );
        log.say(Level::Warning, "nbd", &said);
    }
    cut
}

/// What is left of the limit when so many files are open.
fn for_connections(limit: u64, open: u64) -> usize {
    let reserve = (limit / 4).clamp(RESERVE.0, RESERVE.1);
    usize::try_from(limit.saturating_sub(open + reserve)).unwrap_or(usize::MAX)
}

/// The files that are open; 0 if the system does not tell.
fn open_now() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_limit_stays_for_other_files_than_connections() {
        assert_eq!(for_connections(64, 8), 32);
        assert_eq!(for_connections(1024, 10), 758);
        assert_eq!(for_connections(1 << 20, 10), (1 << 20) - 1034);
        assert_eq!(for_connections(16, 10), 0);
        assert_eq!(for_connections(u64::MAX, 10), usize::MAX - 1034);
    }
}

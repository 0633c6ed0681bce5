//! The limit of open files of this process (`ulimit -n`), and what of it the servers may use.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use spindle_nbd::Options;
use spindle_rpc::ServerOptions;

use crate::log::{Level, Log};

/// The least and the most that is kept for RPC clients, files and the rings of the kernel.
const RESERVE: (u64, u64) = (24, 1024);

/// As many RPC clients as SPDK serves at once: a cut that leaves them hurts no client.
const RPC_CLIENTS_OF_SPDK: usize = 64;

/// Raises the soft limit of open files to the hard one. For a daemon at its start; without effect where the system
/// refuses.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// The limits of the servers, cut to the files that this process may open.
pub(crate) struct ServerLimits {
    pub(crate) nbd: Options,
    pub(crate) rpc: ServerOptions,
}

impl ServerLimits {
    /// For this process now. The log has them if clients will miss the connections that are cut.
    pub(crate) fn of_process(log: &Log) -> ServerLimits {
        let (nbd, rpc) = (Options::default(), ServerOptions::default());
        let Some(limit) = getrlimit(Resource::Nofile).current else { return ServerLimits { nbd, rpc } };
        let whole = (nbd.connections, rpc.connections);
        let limits = ServerLimits { nbd, rpc }.within(limit, open_now());
        let cut = (limits.nbd.connections, limits.rpc.connections);
        if cut.0 < whole.0 || cut.1 < RPC_CLIENTS_OF_SPDK {
            let of_one = limits.nbd.connections_of_one;
            let said = format!(
                "this process may open {limit} files, so that {} NBD clients ({of_one} of one host or user) and {} RPC \
                 clients are served at once: raise the hard limit (ulimit -Hn, LimitNOFILE=) for {} and {}",
                cut.0, cut.1, whole.0, whole.1
            );
            log.say(Level::Warning, "app", &said);
        }
        limits
    }

    /// Cut for a process that may open `limit` files, of which so many are open.
    fn within(self, limit: u64, open: u64) -> ServerLimits {
        let wanted = self.nbd.connections + self.nbd.leaving + self.nbd.waiting;
        let for_nbd = for_nbd(limit, open);
        let most = for_rpc(limit, open, for_nbd.saturating_sub(wanted));
        let rpc = ServerOptions { connections: self.rpc.connections.min(most), ..self.rpc };
        ServerLimits { nbd: self.nbd.within_files(for_nbd), rpc }
    }
}

/// What is kept of the limit for other files than connections of NBD clients.
fn reserve(limit: u64) -> u64 {
    (limit / 4).clamp(RESERVE.0, RESERVE.1)
}

/// What is left of the limit for NBD clients when so many files are open.
fn for_nbd(limit: u64, open: u64) -> usize {
    usize::try_from(limit.saturating_sub(open + reserve(limit))).unwrap_or(usize::MAX)
}

/// What RPC clients may take: half of the reserve, and `more`, which the NBD server does not need.
fn for_rpc(limit: u64, open: u64, more: usize) -> usize {
    let half = (reserve(limit) / 2).min(limit.saturating_sub(open) / 2);
    usize::try_from(half).unwrap_or(usize::MAX).saturating_add(more).max(1)
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
        assert_eq!(for_nbd(64, 8), 32);
        assert_eq!(for_nbd(1024, 10), 758);
        assert_eq!(for_nbd(1 << 20, 10), (1 << 20) - 1034);
        assert_eq!(for_nbd(16, 10), 0);
        assert_eq!(for_nbd(u64::MAX, 10), usize::MAX - 1034);
    }

    #[test]
    fn the_connections_of_both_servers_leave_files_whatever_the_limit_is() {
        let limits = |limit, open| {
            let whole = ServerLimits { nbd: Options::default(), rpc: ServerOptions::default() };
            let ServerLimits { nbd, rpc } = whole.within(limit, open);
            [nbd.connections + nbd.leaving + nbd.waiting, rpc.connections]
        };
        assert_eq!(limits(64, 8), [32, 12]);
        assert_eq!(limits(4096, 10), [2686, 512]);
        assert_eq!(limits(8192, 10), [3198, 4096]);
        assert_eq!(limits(1 << 20, 10), [3328, 4096]);
        assert_eq!(limits(u64::MAX, 10), [3328, 4096]);
        for limit in 64..10_000 {
            let [nbd, rpc] = limits(limit, 10);
            let left = limit as usize - 10 - nbd - rpc;
            assert!(left >= 12, "{limit}: {left} files are left");
        }
    }
}

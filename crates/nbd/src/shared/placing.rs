//! Which thread a new connection goes to.

use std::time::Duration;

/// A connection younger than this is not in the load of its reactor yet.
pub(super) const NEW: Duration = Duration::from_secs(1);

/// The load that a new connection is expected to add to its reactor.
const EXPECTED: f64 = 0.125;

/// A thread that could serve a new connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// The busy share of its reactor in the last second, 0 to 1, with all kinds of work.
    pub(super) load: f64,
    /// Its connections.
    pub(super) connections: usize,
    /// Those among them that are [`NEW`].
    pub(super) new: usize,
}

impl Candidate {
    /// The load to expect, in steps: smaller differences are noise.
    fn expected(&self) -> u64 {
        ((self.load + EXPECTED * self.new as f64) / EXPECTED) as u64
    }
}

/// The index of the thread whose reactor has least to do; among equals the one with the fewest connections.
pub(super) fn choose(candidates: &[Candidate]) -> Option<usize> {
    let rank = |index: &usize| (candidates[*index].expected(), candidates[*index].connections);
    (0..candidates.len()).min_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(load: f64, connections: usize, new: usize) -> Candidate {
        Candidate { load, connections, new }
    }

    #[test]
    fn a_connection_goes_where_least_is_done_and_not_where_most_are_silent() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[candidate(0.9, 1, 0), candidate(0.1, 50, 0)]), Some(1));
        assert_eq!(choose(&[candidate(0.02, 3, 0), candidate(0.0, 9, 0)]), Some(0), "so little says nothing");
    }

    #[test]
    fn connections_that_come_at_once_are_spread_although_no_load_shows_them() {
        let mut threads = [candidate(0.4, 0, 0), candidate(0.0, 0, 0), candidate(0.0, 0, 0)];
        for _ in 0..9 {
            let chosen = choose(&threads).expect("there are some");
            threads[chosen].new += 1;
            threads[chosen].connections += 1;
        }
        assert_eq!(threads.map(|thread| thread.connections), [1, 4, 4]);
    }
}

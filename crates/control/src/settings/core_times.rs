//! What the system counts for each core: time in programs, in the kernel, and in interrupts.
//!
//! From `/proc/stat`, whose fields and unit (`USER_HZ`, 100 a second) `proc_stat(5)` names. SPDK reports the same,
//! since its start.

use std::collections::BTreeMap;

/// Where the system has them.
const PROC_STAT: &str = "/proc/stat";

/// The times of one core, in hundredths of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CoreTimes {
    /// In programs.
    pub(crate) user: u64,
    /// In the kernel.
    pub(crate) system: u64,
    /// In interrupts, soft ones included.
    pub(crate) interrupts: u64,
}

/// The times at the start, from which later ones are counted.
pub(crate) struct CoreClock(BTreeMap<usize, CoreTimes>);

impl CoreClock {
    /// Reads them; without the file there are none, and all times stay 0.
    pub(crate) fn start() -> CoreClock {
        CoreClock(read())
    }

    /// The times since the start, by core. A core that came later is counted from 0.
    pub(crate) fn since_start(&self) -> BTreeMap<usize, CoreTimes> {
        let since = |(core, now): (usize, CoreTimes)| {
            let then = self.0.get(&core).copied().unwrap_or_default();
            let times = CoreTimes {
                user: now.user.saturating_sub(then.user),
                system: now.system.saturating_sub(then.system),
                interrupts: now.interrupts.saturating_sub(then.interrupts),
            };
            (core, times)
        };
        read().into_iter().map(since).collect()
    }
}

fn read() -> BTreeMap<usize, CoreTimes> {
    // The kernel makes it in memory: reading it waits for nothing.
    std::fs::read_to_string(PROC_STAT).map(|text| parse(&text)).unwrap_or_default()
}

/// Lines of cores: `cpu3 user nice system idle iowait irq softirq ...`; other lines are passed over.
fn parse(text: &str) -> BTreeMap<usize, CoreTimes> {
    let core = |line: &str| {
        let (core, times) = line.strip_prefix("cpu")?.split_once(' ')?;
        let times: Vec<u64> = times.split_whitespace().map_while(|time| time.parse().ok()).collect();
        let &[user, _nice, system, _idle, _iowait, hard, soft, ..] = &times[..] else { return None };
        Some((core.parse().ok()?, CoreTimes { user, system, interrupts: hard.saturating_add(soft) }))
    };
    text.lines().filter_map(core).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_cores_are_read_by_their_numbers() {
        let text =
            "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 2 30 4 5 6 7 8 0 0\ncpu12 1 0 2 0 0 3 4\nintr 5\ncpu3 1 2\n";
        let times = parse(text);
        let of = |user, system, interrupts| CoreTimes { user, system, interrupts };
        assert_eq!(times, BTreeMap::from([(0, of(100, 30, 13)), (12, of(1, 2, 7))]));
        assert!(parse("").is_empty());
    }

    #[test]
    fn times_are_counted_from_the_start() {
        let (before, none) = (read(), CoreClock(BTreeMap::new()));
        assert!(!before.is_empty());
        let since = none.since_start();
        assert!(before.iter().all(|(core, times)| since[core].user >= times.user), "counted from 0");
        // Times that are ahead of the system's.
        let most = CoreTimes { user: u64::MAX, system: u64::MAX, interrupts: u64::MAX };
        let ahead = CoreClock(before.keys().map(|core| (*core, most)).collect());
        assert!(ahead.since_start().values().all(|times| *times == CoreTimes::default()));
    }
}

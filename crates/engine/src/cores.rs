//! Which cores this process may use: affinity and cgroup quota together.
//!
//! The quota is that of the tightest cgroup from the process's own up to the visible root: `cpu.max` of
//! version 2, `cpu.cfs_quota_us` over `cpu.cfs_period_us` of version 1. A quota of one CPU on a machine with
//! 128 cores gives one reactor: more would only be throttled.

use std::fs;
use std::path::{Path, PathBuf};

use crate::CpuSet;

/// The cores this process may use, and the reasons for the limits.
#[derive(Clone, Debug, PartialEq)]
pub struct AvailableCores {
    /// The default: as many of the affinity's cores, lowest first, as the quota allows; at least one.
    pub set: CpuSet,
    /// Every core the scheduler may put this process on.
    pub affinity: CpuSet,
    /// CPU time per unit of time that the tightest cgroup grants; none without a limit.
    pub quota: Option<f64>,
    /// Sources of the limits, a line each, for an error message.
    pub reasons: Vec<String>,
}

/// Asks the kernel which cores this process may use.
pub fn available_cores() -> AvailableCores {
    available_under(affinity(), Path::new("/"))
}

/// The cores of `affinity` under the cgroups seen from `root`, where `proc` and `sys` are mounted.
fn available_under(affinity: CpuSet, root: &Path) -> AvailableCores {
    let mut reasons = vec![format!("affinity allows {} ({} cores)", affinity.as_list(), affinity.len())];
    let quota = tightest_quota(root);
    let mut count = affinity.len();
    if let Some((cpus, file)) = &quota {
        // A fraction of a CPU still needs a core to run on.
        let paid = (cpus.ceil() as usize).max(1);
        reasons.push(format!("{} grants {cpus} CPUs of time, enough for {paid} cores", file.display()));
        count = count.min(paid);
    }
    let set = affinity.iter().take(count).collect();
    AvailableCores { set, affinity, quota: quota.map(|(cpus, _)| cpus), reasons }
}

fn affinity() -> CpuSet {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        // More cores than the call can report: the current one is certain.
        Err(_) => [rustix::thread::sched_getcpu()].into_iter().collect(),
    }
}

/// The smallest quota between this process's cgroups and their roots, and the file that sets it.
fn tightest_quota(root: &Path) -> Option<(f64, PathBuf)> {
    let memberships = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let quotas = memberships.lines().filter_map(|line| {
        // hierarchy:controllers:path; version 2 is hierarchy 0 without controllers.
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let folder = path.trim_start_matches('/');
        if hierarchy == "0" && controllers.is_empty() {
            return tightest_above(&root.join("sys/fs/cgroup"), folder, quota_v2);
        }
        if !controllers.split(',').any(|c| c == "cpu") {
            return None;
        }
        ["cpu", "cpu,cpuacct", "cpuacct,cpu"]
            .iter()
            .find_map(|mount| tightest_above(&root.join("sys/fs/cgroup").join(mount), folder, quota_v1))
    });
    quotas.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// Reads the quota of a cgroup's folder, and the file it was read from.
type ReadQuota = fn(&Path) -> Option<(f64, PathBuf)>;

/// The tightest quota of `folder` and all folders above it below `mount`. Inside a container the path of
/// the cgroup may be the host's and not exist here; the mount's own root is the container's then.
fn tightest_above(mount: &Path, folder: &str, quota: ReadQuota) -> Option<(f64, PathBuf)> {
    let own = mount.join(folder);
    let folders = own.ancestors().take_while(|above| above.starts_with(mount));
    folders.filter_map(quota).min_by(|a, b| a.0.total_cmp(&b.0))
}

/// `cpu.max`: "max 100000" or "quota period" in microseconds.
fn quota_v2(folder: &Path) -> Option<(f64, PathBuf)> {
    let file = folder.join("cpu.max");
    let text = fs::read_to_string(&file).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota, period).map(|cpus| (cpus, file))
}

/// `cpu.cfs_quota_us`, -1 for none, over `cpu.cfs_period_us`.
fn quota_v1(folder: &Path) -> Option<(f64, PathBuf)> {
    let file = folder.join("cpu.cfs_quota_us");
    let quota = fs::read_to_string(&file).ok()?;
    let period = fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?;
    ratio(quota.trim(), period.trim()).map(|cpus| (cpus, file))
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with the given files under it.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn cores_of(files: &[(&str, &str)]) -> AvailableCores {
        available_under(CpuSet::first(128), root(files).path())
    }

    #[test]
    fn a_quota_of_one_cpu_on_128_cores_is_one_reactor() {
        let v2 = [("proc/self/cgroup", "0::/pod\n"), ("sys/fs/cgroup/pod/cpu.max", "100000 100000\n")];
        let v1 = [
            ("proc/self/cgroup", "4:memory:/x\n1:cpu,cpuacct:/pod\n"),
            ("sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us", "100000\n"),
        ];
        for files in [&v2[..], &v1[..]] {
            let cores = cores_of(files);
            assert_eq!(cores.set, CpuSet::first(1));
            assert_eq!(cores.affinity.len(), 128);
            assert!(cores.reasons.iter().any(|r| r.contains("cgroup/")), "{:?}", cores.reasons);
        }
    }

    #[test]
    fn the_tightest_cgroup_on_the_way_up_decides() {
        let cores = cores_of(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/cpu.max", "250000 100000\n"),
            ("sys/fs/cgroup/cpu.max", "800000 100000\n"),
        ]);
        assert_eq!((cores.quota, cores.set.len()), (Some(2.5), 3));
    }

    #[test]
    fn in_a_container_the_mounts_root_counts_when_the_hosts_path_does_not_exist() {
        let cores = cores_of(&[
            ("proc/self/cgroup", "0::/docker/0123\n"),
            ("sys/fs/cgroup/cpu.max", "200000 100000\n"),
        ]);
        assert_eq!(cores.set.len(), 2);
    }

    #[test]
    fn without_a_limit_all_of_the_affinity_is_available() {
        for files in [
            &[][..],
            &[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "max 100000\n")],
            &[
                ("proc/self/cgroup", "1:cpu:/\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ],
        ] {
            let cores = cores_of(files);
            assert_eq!((cores.set.len(), cores.quota), (128, None));
        }
    }

    #[test]
    fn here_at_least_one_core_is_available_and_it_is_ours() {
        let cores = available_cores();
        assert!(!cores.set.is_empty() && cores.set.is_subset(&cores.affinity));
    }
}

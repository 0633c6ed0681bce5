//! Which cores this process may use: affinity and cgroup quota together.

use crate::CpuSet;

/// The cores this process may use, and why not more.
#[derive(Clone, Debug, PartialEq)]
pub struct AvailableCores {
    /// What to use by default: as many of the affinity's cores, lowest first, as the quota pays for.
    pub set: CpuSet,
    /// Every core the scheduler may put this process on.
    pub affinity: CpuSet,
    /// CPUs' worth of time per unit of time that the tightest cgroup grants; none without a limit.
    pub quota: Option<f64>,
    /// Where the limits come from, a line each, for an error message.
    pub reasons: Vec<String>,
}

/// Asks the kernel which cores this process may use.
pub fn available_cores() -> AvailableCores {
    todo!()
}

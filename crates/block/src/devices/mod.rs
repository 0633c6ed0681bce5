//! Devices and layers that are written once: they use the traits of [`path`](crate::path) as any module does.

pub(crate) mod bounce;
pub(crate) mod emulation;
pub(crate) mod emulation_job;
pub(crate) mod faults;
pub(crate) mod faulty;
pub(crate) mod file;
pub(crate) mod file_lane;
pub(crate) mod malloc;
pub(crate) mod null;
pub(crate) mod offset;
pub(crate) mod sim_disk;

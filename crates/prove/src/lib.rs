//! The proof harness: no crash loses or mixes data.
//!
//! A real store and a [`model`] of it in plain maps run the same seeded random [`workload`] in simulation.
//! The harness keeps the disk at every write, unmap and flush, and crashes it at each of these points
//! ([`proof`]):
//!
//! 1. It loses or tears parts of the data not yet flushed.
//! 2. It loads and checks the image, and compares it with everything that the model allows ([`verdict`]).
//!    A [`second_reader`] judges some images too.
//! 3. From some images the store goes on working and crashes again, at most three times.
//!
//! In some runs the device fails operations before the crash ([`failing`]). Leaving out any ordering point of
//! the store must make the proof fail; `tests/all/leave_out.rs` tests each.
//!
//! [`damage`] is a second harness, for stores that a disk or a program has damaged.
//!
//! Each simulation belongs to one OS thread; the command runs one per core. A seed and a step name the same
//! crash in every run of the same source.
//!
//! Not promised: a seed that finds an error still finds it after the workload has changed.
#![forbid(unsafe_code)]

pub mod content;
pub mod context;
pub mod damage;
pub mod data;
pub mod detail;
pub mod directed;
pub mod external;
pub mod failing;
pub mod growing;
pub mod kept;
pub mod look;
pub mod metadata;
pub mod model;
pub mod op;
pub mod profile;
pub mod proof;
pub mod reader;
pub mod report;
pub mod scenario;
pub mod second_reader;
pub mod seen;
pub mod session;
pub mod units;
pub mod verdict;
pub mod workload;
pub mod world;

//! The proof harness: no crash loses or mixes data.
//!
//! A real store and a [`model`] of it in plain maps go through one seeded random [`workload`] in simulation.
//! The disk is kept at every write, unmap and flush; each of these moments is then a crash ([`proof`]): parts of
//! what was not flushed are lost or torn, the image is loaded and checked and held against everything that
//! the model allows ([`verdict`]), some images are judged by a [`second_reader`], and from some the store goes
//! on working and crashes again, three times at most. In some runs the device fails operations before it crashes
//! ([`failing`]). Leaving out one ordering point of the store must make
//! it fail; `tests/leave_out.rs` does that for each.
//!
//! [`damage`] is another judge: of stores that a disk or a program has damaged.
//!
//! Each simulation belongs to one OS thread; the command runs one for each core. A seed and a step name the
//! same crash in every run of the same source.
//!
//! Not promised: that what one change of the workload left findable stays under the same seed.
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

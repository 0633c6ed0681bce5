//! The proof harness: no crash loses or mixes data.
#![forbid(unsafe_code)]

pub mod content;
pub mod context;
pub mod data;
pub mod detail;
pub mod directed;
pub mod external;
pub mod growing;
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

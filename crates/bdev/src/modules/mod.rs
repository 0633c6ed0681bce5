//! The modules: bdevs made of memory or files, and bdevs that stand on others.

pub mod delay;
pub mod error;
pub mod file;
pub mod gpt;
mod gpt_table;
pub mod malloc;
pub mod null;
pub mod passthru;
pub mod split;

use spindle_block::{Geometry, GeometryError};

/// A geometry whose atomic unit is the physical block that was asked for, and the size to report; 0 is one block.
/// A physical block that is smaller than a block is reported and has no effect, as in SPDK.
fn with_physical_block(geometry: Geometry, asked: u32) -> Result<(Geometry, u32), GeometryError> {
    let is_smaller = asked.is_power_of_two() && (512..geometry.block_size()).contains(&asked);
    match asked {
        0 => Ok((geometry, geometry.atomic_unit())),
        asked if is_smaller => Ok((geometry, asked)),
        asked => Ok((geometry.with_atomic_unit(asked)?, asked)),
    }
}

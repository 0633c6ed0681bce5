//! `bdev_split_*`: a bdev cut into equal parts, each a separate bdev.

use std::sync::Arc;

use spindle_block::Offset;

use crate::{Base, Bdev, BdevError, BdevSpec, Detail, PlainDisk, Recipe, Registry, Virtual};

/// The module's name.
pub const MODULE: &str = "split";

const MIB: u64 = 1 << 20;

/// Parts of one base at most.
const MOST_PARTS: u64 = 16_384;

/// Describes a bdev to split.
#[derive(Clone, Debug)]
pub struct SplitSpec {
    /// The base bdev's name, alias or UUID. The parts are named after this string: `<base>p0`, `<base>p1`.
    pub base: String,
    /// Number of parts; fewer are made if the base has no room for all.
    pub count: u32,
    /// MiB of each part. 0 divides the base equally; the remainder is unused.
    pub size_mib: u64,
}

/// Splits a bdev, now or when it comes. Returns the parts that were created now.
///
/// # Errors
/// No parts, more than 16,384, or more than the base has blocks; parts larger than the base (`EINVAL`); the
/// base is already split (`EEXIST`); otherwise as [`Registry::create_virtual`].
pub async fn create(registry: &Registry, spec: SplitSpec) -> Result<Vec<Bdev>, BdevError> {
    if spec.count == 0 {
        return Err(BdevError::argument(spec.what(), "no parts are asked for; ask for one or more"));
    }
    registry.create_virtual(spec).await
}

/// Deletes the parts of a base, identified by the string it was split under.
///
/// # Errors
/// It is not split (`ENOENT`).
pub async fn delete(registry: &Registry, base: &str) -> Result<(), BdevError> {
    registry.delete_virtual_of_key(MODULE, base).await
}

impl SplitSpec {
    fn what(&self) -> String {
        format!("split of bdev {:?}", self.base)
    }

    /// Returns the blocks of a part and the number of parts.
    fn shape(&self, base: &Base) -> Result<(u64, u64), BdevError> {
        let geometry = base.geometry();
        let (all, count) = (geometry.blocks(), u64::from(self.count));
        let blocks = match self.size_mib {
            0 => all / count,
            mib => mib.saturating_mul(MIB) >> geometry.block_shift(),
        };
        if blocks == 0 || all / blocks == 0 {
            let asked = match self.size_mib {
                0 => format!("{count} parts"),
                mib => format!("parts of {mib} MiB"),
            };
            let why = format!("{all} blocks of {} bytes hold no {asked}", geometry.block_size());
            return Err(BdevError::argument(self.what(), why + "; ask for fewer or smaller ones"));
        }
        let count = count.min(all / blocks);
        if count > MOST_PARTS {
            let why = format!("{count} parts are more than {MOST_PARTS}; ask for fewer");
            return Err(BdevError::argument(self.what(), why));
        }
        Ok((blocks, count))
    }
}

impl Virtual for SplitSpec {
    fn module(&self) -> &'static str {
        MODULE
    }

    fn key(&self) -> &str {
        &self.base
    }

    fn base(&self) -> &str {
        &self.base
    }

    fn comes_back(&self) -> bool {
        false
    }

    fn holder(&self) -> String {
        self.what()
    }

    fn recipe(&self) -> Option<Recipe> {
        let params = vec![
            ("base_bdev", self.base.clone().into()),
            ("split_count", self.count.into()),
            ("split_size_mb", self.size_mib.into()),
        ];
        Some(Recipe { method: "bdev_split_create", params: Detail::Object(params) })
    }

    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let (blocks, count) = self.shape(base)?;
        let part = |number: u64| {
            let (name, start) = (format!("{}p{number}", self.base), number * blocks);
            let device = Offset::new(name.clone(), base.device(), start, blocks)?;
            let below = || ("base_bdev", base.name().into());
            let mut disk =
                PlainDisk::new(device).showing("split", vec![below(), ("offset_blocks", start.into())]);
            // The recipe of the first part makes all parts.
            if let (0, Some(Recipe { method, params: Detail::Object(params) })) = (number, self.recipe()) {
                disk = disk.made_by(method, params);
            }
            let uuid = base.derive_part_uuid(start, blocks);
            Ok(BdevSpec::new(name, "Split Disk", MODULE, Arc::new(disk)).with_uuid(Some(uuid)))
        };
        (0..count).map(part).collect()
    }
}

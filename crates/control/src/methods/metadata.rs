//! Metadata beside the blocks of a bdev: a request for it is refused, with SPDK's code where SPDK refuses it too.

use spindle_rpc::{Errno, RpcError};

use crate::values::not_implemented;

/// Kinds of protection information, 0 for none.
const PROTECTIONS: std::ops::RangeInclusive<i32> = 0..=3;

/// What a request asks for.
#[derive(Clone, Copy)]
pub(super) struct Metadata {
    /// Bytes for each block.
    pub(super) size: u32,
    pub(super) protection: i32,
    /// The format of the protection information.
    pub(super) format: u32,
}

impl Metadata {
    /// An error if SPDK has no metadata of that size.
    pub(super) fn check_size(self) -> Result<(), RpcError> {
        match self.size {
            0 | 8 | 16 | 32 | 64 | 128 => Ok(()),
            other => {
                let what = format!("'md_size' {other} is not one of 0, 8, 16, 32, 64, 128; leave it out");
                Err(RpcError::errno(Errno::INVAL, what))
            }
        }
    }

    /// An error if SPDK cannot put the protection information into the metadata of such blocks.
    pub(super) fn check_protection(self, block_size: u32) -> Result<(), RpcError> {
        let (least, unit) = match self.format {
            _ if self.protection == 0 => return Ok(()),
            0 => (8, 512),
            1 | 2 => (16, 4096),
            _ => (u32::MAX, 1),
        };
        let fits = self.size >= least && block_size > 0 && block_size.is_multiple_of(unit);
        if PROTECTIONS.contains(&self.protection) && fits {
            return Ok(());
        }
        let Metadata { size, protection, format } = self;
        let what = format!(
            "'dif_type' {protection} and 'dif_pi_format' {format} do not go with 'md_size' {size} and 'block_size' \
             {block_size}; leave them out"
        );
        Err(RpcError::errno(Errno::INVAL, what))
    }

    /// An error if any is asked for.
    pub(super) fn check_none(self) -> Result<(), RpcError> {
        match self.size {
            0 => Ok(()),
            _ => Err(not_implemented("md_size", "0, no metadata")),
        }
    }
}

//! The size of a store's clusters, for looking up where an offset lies.
//!
//! A plain value, used by every read and write.

/// The size of a cluster, in bytes or in blocks. Almost always a power of two, where a shift replaces the division.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterSize {
    size: u64,
    /// Set for a power of two.
    shift: Option<u32>,
}

impl ClusterSize {
    pub(crate) fn new(size: u32) -> ClusterSize {
        let shift = size.is_power_of_two().then(|| size.trailing_zeros());
        ClusterSize { size: size.into(), shift }
    }

    #[inline]
    pub(crate) fn get(self) -> u64 {
        self.size
    }

    /// The blob's cluster that holds a byte, or block, and its place there.
    #[inline]
    pub(crate) fn split(self, offset: u64) -> (u64, u64) {
        match self.shift {
            Some(shift) => (offset >> shift, offset & (self.size - 1)),
            None => (offset / self.size, offset % self.size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_split_alike_whether_the_size_is_a_power_of_two_or_not() {
        for bytes in [4096, 12288, 1 << 20, (1 << 20) + 4096] {
            let size = ClusterSize::new(bytes);
            let bytes = u64::from(bytes);
            for offset in [0, 1, bytes - 1, bytes, 7 * bytes + 5, u64::MAX] {
                assert_eq!(size.split(offset), (offset / bytes, offset % bytes), "{offset} by {bytes}");
            }
        }
    }
}

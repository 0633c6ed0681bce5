//! Conversion of a disk's extents to replies to block status.

use spindle_bdev::{Content, Extent};

/// The flags of a content in `base:allocation`. A hole is always reported as reading zeroes too.
pub(crate) fn allocation(content: Content) -> u32 {
    match content {
        Content::Data => 0,
        Content::Zero => 2,
        Content::Hole => 3,
    }
}

/// Prepares extents for a reply: none empty, equal neighbours joined, none after `len` with `one`, and
/// lengths that fit 32 bits and stay multiples of any block. Empty if there is nothing to report.
pub(crate) fn for_reply(
    extents: &[Extent],
    len: u32,
    one: bool,
    word: impl Fn(&Extent) -> u32,
) -> Vec<(u32, u32)> {
    /// Below 2^32 by the largest cluster.
    const LONGEST: u64 = (1 << 32) - (1 << 30);
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let mut described = 0u64;
    for extent in extents.iter().filter(|extent| extent.len > 0) {
        // Only the last extent may reach beyond the request.
        if described >= u64::from(len) {
            break;
        }
        let (word, first) = (word(extent), runs.is_empty());
        let fits = match runs.last_mut() {
            Some((last, same)) if *same == word => {
                let more = extent.len.min(LONGEST - u64::from(*last));
                *last += more as u32;
                described += more;
                more == extent.len
            }
            _ if one && !first => break,
            _ => {
                let first = extent.len.min(LONGEST);
                runs.push((first as u32, word));
                described += first;
                first == extent.len
            }
        };
        if !fits {
            break;
        }
    }
    if one && let Some(only) = runs.first_mut() {
        only.0 = only.0.min(len);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(len: u64, depth: u32) -> Extent {
        Extent { len, content: Content::Data, depth }
    }

    fn depths(extents: &[Extent], len: u32, one: bool) -> Vec<(u32, u32)> {
        for_reply(extents, len, one, |extent| extent.depth)
    }

    #[test]
    fn equal_neighbours_become_one() {
        assert_eq!(depths(&[extent(4, 1), extent(4, 1), extent(4, 2)], 12, false), [(8, 1), (4, 2)]);
    }

    #[test]
    fn the_last_extent_alone_may_reach_beyond_the_request() {
        assert_eq!(depths(&[extent(4, 1), extent(40, 2), extent(4, 1)], 12, false), [(4, 1), (40, 2)]);
    }

    #[test]
    fn one_extent_is_one_and_ends_with_the_request() {
        assert_eq!(depths(&[extent(4, 1), extent(40, 2)], 12, true), [(4, 1)]);
        assert_eq!(depths(&[extent(40, 2)], 12, true), [(12, 2)]);
    }

    #[test]
    fn extents_of_no_bytes_are_not_sent() {
        assert_eq!(depths(&[extent(0, 1), extent(4, 2), extent(0, 3)], 4, false), [(4, 2)]);
        assert_eq!(depths(&[extent(0, 1)], 4, false), []);
    }

    #[test]
    fn lengths_around_the_largest_word_stay_aligned_and_never_wrap() {
        for len in [u64::from(u32::MAX) - 1, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, u64::MAX] {
            let runs = depths(&[extent(len, 1), extent(7, 2)], u32::MAX, false);
            let total: u64 = runs.iter().map(|(len, _)| u64::from(*len)).sum();
            assert!(runs[0].0.is_multiple_of(1 << 30) || u64::from(runs[0].0) == len, "{runs:?}");
            assert!(total > 0 && runs.len() == 1, "what follows a cut extent is not told: {runs:?}");
        }
        let runs = depths(&[extent(3 << 30, 1), extent(3 << 30, 1)], u32::MAX, false);
        assert_eq!(runs, [(3 << 30, 1)]);
    }
}

//! Partition tables (GPT), read as SPDK reads them: the checks, their order and what is left out are SPDK's.
//!
//! Plain functions on bytes from outside; nothing here trusts a number before it has checked it.

use uuid::Uuid;

/// Bytes at the start, or at the end, of a bdev that hold a table and its header.
pub(super) const TABLE_BYTES: u64 = 32 << 10;

/// Most entries of a table.
pub(super) const MOST_ENTRIES: u32 = 128;

/// Bytes of an entry.
const ENTRY: usize = 128;

/// Bytes of a header at least.
const HEADER: usize = 92;

/// The type of partitions that become bdevs.
const OURS: Uuid = Uuid::from_u128(0x6527994e_2c5a_4eec_9613_8f5944074e8b);

/// The earlier type of such partitions; their bdevs are one block short, as in SPDK.
const OURS_BEFORE: Uuid = Uuid::from_u128(0x7c5222bd_8f5d_4087_9c00_bf9843c7b58c);

/// A partition that becomes a bdev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// Its number, from 1.
    pub(super) number: u32,
    pub(super) start: u64,
    pub(super) blocks: u64,
    /// Which table names it.
    pub(super) table: Uuid,
    pub(super) kind: Uuid,
    pub(super) uuid: Uuid,
    pub(super) name: String,
}

/// Which of the two tables some bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// At the start of the bdev.
    Primary,
    /// At its end.
    Secondary,
}

/// The bdev that a table is on.
#[derive(Clone, Copy)]
pub(super) struct Disk {
    pub(super) block_size: usize,
    pub(super) blocks: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn guid_at(bytes: &[u8], at: usize) -> Option<Uuid> {
    bytes.get(at..at + 16)?.try_into().ok().map(Uuid::from_bytes_le)
}

/// True if the first block is a protective MBR: the bdev has a GPT and no other table.
pub(super) fn is_protective(bytes: &[u8], disk: Disk) -> bool {
    let Some(signature) = bytes.get(510..512) else { return false };
    let records = (0..4).map(|number| 446 + 16 * number);
    let protective = records.into_iter().find(|at| bytes[at + 4] == 0xee);
    let (Some(at), [0x55, 0xaa]) = (protective, signature) else { return false };
    // As many blocks as fit into the field: SPDK compares the low 32 bits.
    let size = u32_at(bytes, at + 12);
    let right = size == Some((disk.blocks as u32).wrapping_sub(1)) || size == Some(u32::MAX);
    u32_at(bytes, at + 8) == Some(1) && right
}

/// The partitions that become bdevs, from the first or last [`TABLE_BYTES`] (or one block, if that is more) of
/// the bdev. None if the table is damaged.
pub(super) fn partitions(bytes: &[u8], disk: Disk, copy: Copy) -> Option<Vec<Partition>> {
    let last = disk.blocks.checked_sub(1)?;
    let (at, own) = match copy {
        Copy::Primary => (disk.block_size, 1),
        Copy::Secondary => (bytes.len().checked_sub(disk.block_size)?, last),
    };
    let header = bytes.get(at..at + disk.block_size)?;
    check_header(header, own)?;
    let (first_usable, last_usable) = (u64_at(header, 40)?, u64_at(header, 48)?);
    let reaches_header = first_usable < 1 && 1 < last_usable;
    if last_usable < first_usable || last_usable > last || reaches_header {
        return None;
    }
    let entries = entries(bytes, header, disk, copy)?;
    let table = guid_at(header, 56)?;
    let partition = |(entry, number)| partition(entry, number, table);
    let found = entries.chunks_exact(ENTRY).zip(1..).filter_map(partition);
    Some(
        found
            .filter(|(part, end)| part.start >= first_usable && *end <= last_usable)
            .map(|(part, _)| part)
            .collect(),
    )
}

/// Checks size, checksum, signature and place of a header.
fn check_header(header: &[u8], own: u64) -> Option<()> {
    let size = usize::try_from(u32_at(header, 12)?).ok()?;
    if !(HEADER..=header.len()).contains(&size) {
        return None;
    }
    let mut summed = header[..size].to_vec();
    summed[16..20].fill(0);
    let whole = crc32(&summed) == u32_at(header, 16)?;
    (whole && header.starts_with(b"EFI PART") && u64_at(header, 24)? == own).then_some(())
}

/// The entries that a header names, with their checksum checked.
fn entries<'a>(bytes: &'a [u8], header: &[u8], disk: Disk, copy: Copy) -> Option<&'a [u8]> {
    let (first, count, size) = (u64_at(header, 72)?, u32_at(header, 80)?, u32_at(header, 84)?);
    if count > MOST_ENTRIES || size as usize != ENTRY {
        return None;
    }
    let block = disk.block_size as u64;
    let at = match copy {
        Copy::Primary => first.checked_mul(block)?,
        Copy::Secondary => {
            let from_end = disk.blocks.checked_sub(first)?.checked_mul(block)?;
            (bytes.len() as u64).checked_sub(from_end)?
        }
    };
    let at = usize::try_from(at).ok()?;
    let entries = bytes.get(at..at.checked_add(count as usize * ENTRY)?)?;
    (crc32(entries) == u32_at(header, 88)?).then_some(entries)
}

/// The partition of an entry and its last block, if it is one for a bdev.
fn partition(entry: &[u8], number: u32, table: Uuid) -> Option<(Partition, u64)> {
    let (kind, uuid) = (guid_at(entry, 0)?, guid_at(entry, 16)?);
    let (start, end) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
    let blocks = match kind {
        OURS => end.checked_sub(start)?.checked_add(1)?,
        OURS_BEFORE => end.checked_sub(start)?,
        _ => return None,
    };
    let units = entry[56..].chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let name = char::decode_utf16(units.take_while(|unit| *unit != 0));
    let name = name.map(|found| found.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    (start != 0).then_some((Partition { number, start, blocks, table, kind, uuid, name }, end))
}

/// The checksum of GPT (CRC-32 as in IEEE 802.3). A table has 16 KiB, so bit by bit is fast enough.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_ieee() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let disk = Disk { block_size: 512, blocks: 100 };
        for length in [0, 1, 511, 512, 1023, 1024, 32768] {
            for fill in [0, 0xee, 0xff] {
                let bytes = vec![fill; length];
                assert!(!is_protective(&bytes, disk));
                assert_eq!(partitions(&bytes, disk, Copy::Primary), None);
                assert_eq!(partitions(&bytes, disk, Copy::Secondary), None);
            }
        }
    }
}

//! Partitions of a GPT become bdevs, as in SPDK.

use spindle_bdev::conformance::{self, Contents};
use spindle_bdev::modules::gpt;
use spindle_bdev::modules::malloc::{self, MallocSpec};
use spindle_bdev::{Bdev, Detail, Registry, Uuid};
use spindle_mem::IoBuf;

use crate::support::simulated;

const OURS: u128 = 0x6527994e_2c5a_4eec_9613_8f5944074e8b;
const OURS_BEFORE: u128 = 0x7c5222bd_8f5d_4087_9c00_bf9843c7b58c;
const LINUX: u128 = 0x0fc63daf_8483_4772_8e79_3d69d8477de4;

/// The GUID of tables.
const TABLE: u128 = 0x2000;

const BLOCKS: u64 = 1024;

/// The checksum of GPT.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A table to be written: entry by entry kind, first and last block.
#[derive(Clone)]
struct Table {
    entries: Vec<(u128, u64, u64)>,
    count: u32,
    entry_size: u32,
    usable: (u64, u64),
}

impl Table {
    fn of(entries: &[(u128, u64, u64)]) -> Table {
        Table { entries: entries.to_vec(), count: 128, entry_size: 128, usable: (34, BLOCKS - 34) }
    }

    /// The entries, and the header that stands in block `own` and names block `first` as theirs.
    fn bytes(&self, own: u64, first: u64) -> (Vec<u8>, Vec<u8>) {
        let mut entries = vec![0; (self.count * self.entry_size) as usize];
        for (number, (kind, start, end)) in self.entries.iter().enumerate() {
            let entry = &mut entries[number * 128..][..128];
            entry[..16].copy_from_slice(&Uuid::from_u128(*kind).to_bytes_le());
            entry[16..32].copy_from_slice(&Uuid::from_u128(0x1000 + number as u128).to_bytes_le());
            entry[32..40].copy_from_slice(&start.to_le_bytes());
            entry[40..48].copy_from_slice(&end.to_le_bytes());
            let name: Vec<u8> = format!("part {number}").encode_utf16().flat_map(u16::to_le_bytes).collect();
            entry[56..56 + name.len()].copy_from_slice(&name);
        }
        let mut header = vec![0; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x10000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[24..32].copy_from_slice(&own.to_le_bytes());
        header[40..48].copy_from_slice(&self.usable.0.to_le_bytes());
        header[48..56].copy_from_slice(&self.usable.1.to_le_bytes());
        header[56..72].copy_from_slice(&Uuid::from_u128(TABLE).to_bytes_le());
        header[72..80].copy_from_slice(&first.to_le_bytes());
        header[80..84].copy_from_slice(&self.count.to_le_bytes());
        header[84..88].copy_from_slice(&self.entry_size.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let sum = crc32(&header[..92]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        (entries, header)
    }
}

/// The whole disk with both tables.
fn disk(table: &Table) -> Vec<u8> {
    let mut disk = vec![0; BLOCKS as usize * 512];
    disk[450] = 0xee;
    disk[454..458].copy_from_slice(&1_u32.to_le_bytes());
    disk[458..462].copy_from_slice(&(BLOCKS as u32 - 1).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (own, first) in [(1, 2), (BLOCKS - 1, BLOCKS - 33)] {
        let (entries, header) = table.bytes(own, first);
        disk[own as usize * 512..][..512].copy_from_slice(&header);
        let room = entries.len().min(32 * 512);
        disk[first as usize * 512..][..room].copy_from_slice(&entries[..room]);
    }
    disk
}

/// A RAM disk that holds these bytes, looked at by the module. Returns the partitions' bdevs.
async fn partitions_of(registry: &Registry, bytes: &[u8]) -> Vec<Bdev> {
    let (name, numa_id) = (Some("M0".into()), Some(0));
    let spec = MallocSpec { name, numa_id, block_size: 512, num_blocks: BLOCKS, ..MallocSpec::default() };
    let base = malloc::create(registry, spec).await.unwrap();
    registry.wait_for_examine().await;
    let desc = base.descriptor(spindle_bdev::DescOptions::new().write(true)).unwrap();
    desc.channel().unwrap().write(0, IoBuf::copy_from(bytes)).await.0.unwrap();
    drop(desc);
    gpt::start(registry).await.unwrap();
    registry.wait_for_examine().await;
    registry.bdevs().into_iter().filter(|bdev| bdev.module() == gpt::MODULE).collect()
}

/// The sizes of the partitions' bdevs, by name.
async fn found(registry: &Registry, bytes: &[u8]) -> Vec<(String, u64)> {
    let parts = partitions_of(registry, bytes).await;
    parts.iter().map(|part| (part.name().to_owned(), part.num_blocks())).collect()
}

/// Checks which partitions a disk with `table` has after `damage`.
fn shows(table: &Table, damage: impl FnOnce(&mut Vec<u8>), expected: &[(&str, u64)]) {
    let mut bytes = disk(table);
    damage(&mut bytes);
    let expected: Vec<(String, u64)> =
        expected.iter().map(|(name, blocks)| ((*name).into(), *blocks)).collect();
    simulated(async move |registry| assert_eq!(found(&registry, &bytes).await, expected));
}

fn two() -> Table {
    Table::of(&[(OURS, 40, 99), (LINUX, 100, 199), (OURS_BEFORE, 200, 299)])
}

const BOTH: [(&str, u64); 2] = [("M0p1", 60), ("M0p3", 99)];

#[test]
fn partitions_of_the_two_types_become_bdevs_with_data_of_their_own_and_go_with_their_base() {
    simulated(async |registry| {
        let parts = partitions_of(&registry, &disk(&two())).await;
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].uuid(), Uuid::from_u128(0x1000));
        assert_eq!(parts[1].uuid(), Uuid::from_u128(0x1002));
        assert_eq!(parts[0].info().product_name, "GPT Disk");
        assert_eq!(
            parts[1].details().await.unwrap(),
            Detail::Object(vec![(
                "gpt",
                Detail::Object(vec![
                    ("base_bdev", "M0".into()),
                    ("offset_blocks", 200_u64.into()),
                    ("partition_table_guid", "00000000-0000-0000-0000-000000002000".into()),
                    ("partition_type_guid", "7c5222bd-8f5d-4087-9c00-bf9843c7b58c".into()),
                    ("unique_partition_guid", "00000000-0000-0000-0000-000000001002".into()),
                    ("partition_name", "part 2".into()),
                ])
            )])
        );
        let base = registry.get("M0").unwrap();
        let (part, whole) =
            (Bdev::open("M0p1").unwrap(), base.descriptor(spindle_bdev::DescOptions::new()).unwrap());
        part.channel().unwrap().write(512, IoBuf::copy_from(&[7; 512])).await.0.unwrap();
        let (read, data) = whole.channel().unwrap().read(41 * 512, IoBuf::zeroed(512)).await;
        read.unwrap();
        assert_eq!(data.to_vec(), [7; 512]);
        // It is the base of others now, and goes with them.
        assert!(base.descriptor(spindle_bdev::DescOptions::new().write(true)).is_err());
        drop((part, whole));
        registry.unregister(&base).await.unwrap();
        assert!(registry.bdevs().is_empty());
    });
}

#[test]
fn partitions_are_on_the_memory_node_of_their_disk() {
    simulated(async |registry| {
        let parts = partitions_of(&registry, &disk(&two())).await;
        assert_eq!(parts.iter().map(Bdev::numa_id).collect::<Vec<_>>(), [Some(0); 2]);
    });
}

#[test]
fn the_partitions_of_a_gpt_conform() {
    simulated(async |registry| {
        let parts = partitions_of(&registry, &disk(&Table::of(&[(OURS, 40, 199)]))).await;
        conformance::check(&parts[0], Contents::Kept).await.unwrap();
    });
}

#[test]
fn the_table_at_the_end_counts_if_the_one_at_the_start_is_damaged() {
    shows(&two(), |_| {}, &BOTH);
    shows(&two(), |disk| disk[512] ^= 1, &BOTH);
    shows(&two(), |disk| disk[2 * 512 + 50] ^= 1, &BOTH);
    let end = (BLOCKS as usize - 1) * 512;
    shows(&two(), |disk| (disk[512], disk[end + 30]) = (0, 1), &[]);
    // The table at the end is not asked if that at the start is whole.
    shows(&two(), |disk| disk[end..].fill(0), &BOTH);
}

#[test]
fn a_bdev_without_a_protective_record_is_left_alone() {
    for at in [450, 454, 458, 510, 511] {
        shows(&two(), |disk| disk[at] ^= 1, &[]);
    }
    shows(&two(), |disk| disk[458..462].fill(0xff), &BOTH);
}

#[test]
fn partitions_outside_the_usable_blocks_or_without_blocks_are_left_out() {
    let of = |kind, start, end| Table::of(&[(kind, start, end), (OURS, 40, 40)]);
    let only = [("M0p2", 1)];
    for (start, end) in [(33, 50), (50, BLOCKS - 33), (60, 59), (0, 50), (u64::MAX, 3), (50, u64::MAX)] {
        shows(&of(OURS, start, end), |_| {}, &only);
    }
    shows(&of(OURS, 41, BLOCKS - 34), |_| {}, &[("M0p1", BLOCKS - 34 - 40), ("M0p2", 1)]);
}

#[test]
fn a_table_of_128_entries_counts_and_one_of_129_does_not_nor_one_with_other_numbers_that_cannot_be() {
    let last = |number: usize, count| {
        let mut entries = vec![(0, 0, 0); number];
        entries.push((OURS, 40, 99));
        Table { count, ..Table::of(&entries) }
    };
    shows(&last(127, 128), |_| {}, &[("M0p128", 60)]);
    shows(&last(0, 129), |_| {}, &[]);
    shows(&Table { entry_size: 256, count: 64, ..two() }, |_| {}, &[]);
    shows(&Table { usable: (34, BLOCKS - 1), ..two() }, |_| {}, &BOTH);
    shows(&Table { usable: (34, BLOCKS), ..two() }, |_| {}, &[]);
    shows(&Table { usable: (300, 299), ..two() }, |_| {}, &[]);
    shows(&Table { usable: (0, BLOCKS - 34), ..two() }, |_| {}, &[]);
}

#[test]
fn a_table_of_random_bytes_under_right_checksums_makes_nothing_panic() {
    simulated(async |registry| {
        let mut state = 7_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        for _ in 0..60 {
            let mut bytes = disk(&two());
            // Both headers and tables, and then the checksums that belong to them.
            for own in [1, BLOCKS as usize - 1] {
                let at = own * 512 + [8, 12, 24, 40, 48, 72, 80, 84][random() as usize % 8];
                let value = [0, 1, 0xff, 0x80][random() as usize % 4];
                bytes[at + random() as usize % 4] = value;
                bytes[own * 512 + 16..][..4].fill(0);
                let sum = crc32(&bytes[own * 512..][..92]);
                bytes[own * 512 + 16..][..4].copy_from_slice(&sum.to_le_bytes());
            }
            for part in partitions_of(&registry, &bytes).await {
                assert!(part.num_blocks() <= BLOCKS);
            }
            let base = registry.get("M0").unwrap();
            registry.unregister(&base).await.unwrap();
        }
    });
}

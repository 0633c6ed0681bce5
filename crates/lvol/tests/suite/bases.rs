//! Stores on virtual bdevs: a part of a split, a partition, a passthru. They work, come back, and go with what is below.

use spindle_bdev::modules::gpt;
use spindle_bdev::modules::passthru::{self, PassthruSpec};
use spindle_bdev::modules::split::{self, SplitSpec};
use spindle_bdev::{Bdev, Registry, Uuid};
use spindle_lvol::Lvols;
use spindle_mem::IoBuf;

use crate::support::{MIB, byte, channel, fill, malloc, simulated, store_spec, thin};

/// A store on a bdev is used, left and loaded again, and goes when the RAM disk below goes.
async fn lives_on(registry: &Registry, lvols: &Lvols, base: &str) {
    let store = lvols.create_store(store_spec(base, "lvs")).await.unwrap();
    let clusters = store.info().await.unwrap().total_data_clusters;
    let vol = thin(&store, "vol", clusters).await;
    fill(&channel("lvs/vol"), 0, 1).await;
    fill(&channel("lvs/vol"), (clusters - 1) * MIB, 2).await;
    vol.snapshot("snap").await.unwrap();
    fill(&channel("lvs/vol"), 0, 3).await;
    assert_eq!(Bdev::open(base).unwrap_err().errno(), 1, "the store has it");
    let bdev = store.base().clone();
    store.unload().await.unwrap();
    assert!(registry.get("lvs/vol").is_err());
    lvols.reload(&bdev).await;
    registry.wait_for_examine().await;
    let (vol, snap) = (channel("lvs/vol"), channel("lvs/snap"));
    assert_eq!((byte(&vol, 0).await, byte(&snap, 0).await), (3, 1));
    assert_eq!(byte(&vol, (clusters - 1) * MIB).await, 2);
    drop((vol, snap));
    registry.delete("malloc", "M0").await.unwrap();
    assert!(lvols.stores().is_empty() && registry.bdevs().is_empty(), "{registry:?}");
    assert!(lvols.reports().is_empty(), "{:?}", lvols.reports());
}

#[test]
fn a_store_lives_on_a_part_of_a_split_beside_another_on_the_next_part() {
    simulated(async |registry, lvols| {
        malloc(&registry, "M0", 64).await;
        split::create(&registry, SplitSpec { base: "M0".into(), count: 2, size_mib: 0 }).await.unwrap();
        let other = lvols.create_store(store_spec("M0p1", "other")).await.unwrap();
        thin(&other, "vol", 4).await;
        fill(&channel("other/vol"), 0, 9).await;
        lives_on(&registry, &lvols, "M0p0").await;
    });
}

#[test]
fn a_store_lives_on_a_passthru_and_comes_back_with_it() {
    simulated(async |registry, lvols| {
        malloc(&registry, "M0", 64).await;
        let over = || PassthruSpec { name: "P0".into(), base: "M0".into(), uuid: None };
        passthru::create(&registry, over()).await.unwrap();
        let store = lvols.create_store(store_spec("P0", "first")).await.unwrap();
        thin(&store, "vol", 4).await;
        fill(&channel("first/vol"), MIB, 5).await;
        passthru::delete(&registry, "P0").await.unwrap();
        assert!(lvols.stores().is_empty());
        // The RAM disk below is not claimed now, and holds the store itself.
        lvols.reload(&registry.get("M0").unwrap()).await;
        registry.wait_for_examine().await;
        assert_eq!(byte(&channel("first/vol"), MIB).await, 5);
        lvols.stores()[0].delete().await.unwrap();
        passthru::create(&registry, over()).await.unwrap();
        lives_on(&registry, &lvols, "P0").await;
    });
}

/// The checksum of GPT.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// The first blocks of a disk of so many blocks with one partition.
fn table(blocks: u64, first: u64, last: u64) -> Vec<u8> {
    const KIND: u128 = 0x6527994e_2c5a_4eec_9613_8f5944074e8b;
    let mut disk = vec![0; 34 * 512];
    disk[450] = 0xee;
    disk[454] = 1;
    disk[458..462].copy_from_slice(&(blocks as u32 - 1).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let entry = &mut disk[1024..1152];
    entry[..16].copy_from_slice(&Uuid::from_u128(KIND).to_bytes_le());
    entry[16..32].copy_from_slice(&Uuid::from_u128(7).to_bytes_le());
    entry[32..40].copy_from_slice(&first.to_le_bytes());
    entry[40..48].copy_from_slice(&last.to_le_bytes());
    let entries = crc32(&disk[1024..1024 + 128 * 128]);
    let header = &mut disk[512..1024];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
    let numbers = [(24, 1), (40, 34), (48, blocks - 34), (72, 2), (80, 128 | 128 << 32)];
    for (at, number) in numbers {
        header[at..at + 8].copy_from_slice(&u64::to_le_bytes(number));
    }
    header[88..92].copy_from_slice(&entries.to_le_bytes());
    let sum = crc32(&header[..92]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    disk
}

#[test]
fn a_store_lives_on_a_partition() {
    simulated(async |registry, lvols| {
        malloc(&registry, "M0", 64).await;
        registry.wait_for_examine().await;
        let blocks = 64 * MIB / 512;
        channel("M0").write(0, IoBuf::copy_from(&table(blocks, 2048, blocks - 2048))).await.0.unwrap();
        spindle_reactor::yield_now().await;
        gpt::start(&registry).await.unwrap();
        registry.wait_for_examine().await;
        lives_on(&registry, &lvols, "M0p1").await;
    });
}

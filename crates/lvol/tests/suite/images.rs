//! Stores that SPDK wrote.

use std::io::Read;
use std::path::{Path, PathBuf};

use spindle_bdev::modules::file::{self, FileSpec, Spelling};
use spindle_bdev::{Bdev, Registry};
use spindle_block::Channel;
use spindle_lvol::Lvols;
use spindle_mem::IoBuf;
use spindle_reactor::EngineKind;

use crate::support::on;

/// A fixture, unpacked into a folder.
fn unpacked(folder: &Path, name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let packed = std::fs::File::open(fixtures.join(format!("{name}.img.zst"))).unwrap();
    let mut bytes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed).unwrap().read_to_end(&mut bytes).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

async fn load(registry: &Registry, name: &str, path: PathBuf, block_size: u32, uuid: Option<&str>) {
    let spec = FileSpec {
        name: name.to_owned(),
        filename: path,
        block_size: Some(block_size),
        read_only: false,
        fallocate: true,
        uuid: uuid.map(|uuid| uuid.parse().unwrap()),
        spelling: Spelling::Aio,
    };
    file::create(registry, spec).await.unwrap();
    registry.wait_for_examine().await;
}

#[test]
fn a_store_that_spdk_wrote_comes_with_all_its_volumes() {
    let folder = tempfile::tempdir().unwrap();
    let path = unpacked(folder.path(), "lvs");
    on(EngineKind::Auto, async move |registry: Registry, lvols: Lvols| {
        load(&registry, "F0", path, 4096, None).await;
        assert_eq!(lvols.reports(), []);
        let store = lvols.stores()[0].clone();
        assert_eq!(store.set_aside(), Vec::<String>::new());
        let all = store.lvols();
        assert_eq!(all.len(), 16, "{all:?}");
        // One reads through a bdev that is not there.
        let degraded: Vec<_> = all.iter().filter(|lvol| lvol.bdev().is_none()).collect();
        assert_eq!(degraded.len(), 1, "{degraded:?}");
        let info = degraded[0].info().await.unwrap();
        assert!(info.is_degraded && info.is_esnap_clone);
        assert_eq!(lvols.lvol(&info.alias).unwrap(), *degraded[0]);
        assert_eq!(lvols.lvol(&info.uuid).unwrap(), *degraded[0]);
        // It comes, and the clone is a bdev.
        let uuid = info.parent.unwrap();
        let outside = unpacked(folder.path(), "ext");
        let again = outside.clone();
        load(&registry, "E0", outside, 4096, Some(&uuid)).await;
        assert!(degraded[0].bdev().is_some(), "{:?}", lvols.reports());
        assert!(!degraded[0].info().await.unwrap().is_degraded);
        assert_eq!(registry.get("E0").unwrap().info().claim.unwrap().kind.name(), "read_many_write_none");
        // It goes while the clone is open, and comes back.
        let desc = Bdev::open(&info.alias).unwrap();
        let channel = desc.channel().unwrap();
        let holes = degraded[0].extents(0, info.size, 99).await.unwrap();
        let depth_2 = holes.iter().scan(0, |at, extent| {
            *at += extent.len;
            Some((*at - extent.len, extent.depth))
        });
        let below = depth_2.filter(|(_, depth)| *depth == 2).map(|(at, _)| at).next().unwrap();
        let read = async |channel: &Channel| channel.read(below, IoBuf::zeroed(4096)).await;
        let (before, content) = read(&channel).await;
        before.unwrap();
        registry.delete("aio", "E0").await.unwrap();
        assert!(read(&channel).await.0.is_err() && degraded[0].info().await.unwrap().is_degraded);
        load(&registry, "E1", again, 4096, Some(&uuid)).await;
        let (after, same) = read(&channel).await;
        after.unwrap();
        assert_eq!(content.to_vec(), same.to_vec());
    });
}

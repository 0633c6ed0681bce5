//! Where volumes have data, and whose it is.

use spindle_bdev::{Content, Extent};
use spindle_lvol::{Lvol, LvolSpec};

use crate::support::{MIB, channel, fill, lvs, simulated, thin};

async fn extents(lvol: &Lvol, offset: u64, length: u64, max: usize) -> Vec<(u64, Content, u32)> {
    let found = lvol.extents(offset, length, max).await.unwrap();
    found.into_iter().map(|Extent { len, content, depth }| (len, content, depth)).collect()
}

use Content::{Data, Hole};

#[test]
fn extents_name_the_owner_of_each_cluster() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let vol = thin(&store, "vol", 8).await;
        assert_eq!(extents(&vol, 0, 8 * MIB, 9).await, [(8 * MIB, Hole, 0)]);
        let writes = channel("lvs/vol");
        fill(&writes, MIB, 1).await;
        fill(&writes, 2 * MIB, 1).await;
        let snap = vol.snapshot("snap").await.unwrap();
        fill(&writes, 2 * MIB, 2).await;
        fill(&writes, 7 * MIB, 2).await;
        let all = [(MIB, Hole, 0), (MIB, Data, 2), (MIB, Data, 1), (4 * MIB, Hole, 0), (MIB, Data, 1)];
        assert_eq!(extents(&vol, 0, 8 * MIB, 9).await, all);
        assert_eq!(extents(&vol, 0, 8 * MIB, 2).await, all[..2]);
        let inside = [(512, Hole, 0), (MIB, Data, 2), (512, Data, 1)];
        assert_eq!(extents(&vol, MIB - 512, MIB + 1024, 9).await, inside);
        assert_eq!(
            extents(&snap, 0, 8 * MIB, 9).await,
            [(MIB, Hole, 0), (2 * MIB, Data, 1), (5 * MIB, Hole, 0)]
        );
        // Grown beyond its parent, it has nothing there.
        vol.resize(9 * MIB).await.unwrap();
        assert_eq!(extents(&vol, 8 * MIB, MIB, 9).await, [(MIB, Hole, 0)]);
        let own = thin(&store, "own", 2).await;
        fill(&channel("lvs/own"), MIB, 1).await;
        channel("lvs/own").unmap(MIB, MIB).await.unwrap();
        assert_eq!(extents(&own, 0, 2 * MIB, 9).await, [(2 * MIB, Hole, 0)]);
        assert_eq!(vol.extents(9 * MIB, 1, 1).await.unwrap_err().errno(), 22);
        assert_eq!(vol.extents(u64::MAX, 2, 1).await.unwrap_err().errno(), 22);
        let thick = store.create(LvolSpec::thick("thick", 2 * MIB)).await.unwrap();
        assert_eq!(extents(&thick, 0, 2 * MIB, 9).await, [(2 * MIB, Data, 1)]);
        // The same by the bdev, as targets ask.
        let asked = vol.bdev().unwrap().disk().clone().extents().unwrap();
        assert_eq!(asked.extents(0, MIB, 1).await.unwrap(), [Extent { len: MIB, content: Hole, depth: 0 }]);
    });
}

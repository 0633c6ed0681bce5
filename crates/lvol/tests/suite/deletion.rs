//! What may be deleted when, and what happens at the limits of a store.

use spindle_lvol::{Lvol, LvolError, LvolSpec};
use spindle_reactor::EngineKind;

use crate::support::{MIB, byte, channel, fill, lvs, malloc, on, simulated, store_spec, thin};

/// A tree of snapshots and clones that chance picks, with data in each volume.
async fn grow_tree(first: &Lvol) {
    let mut all = vec![first.clone()];
    for number in 0..8 {
        let lvol = all[(spindle_reactor::random() % all.len() as u64) as usize].clone();
        let is_snapshot = lvol.info().await.unwrap().is_snapshot;
        let new = match is_snapshot {
            true => lvol.clone_as(&format!("c{number}")).await.unwrap(),
            false => lvol.snapshot(&format!("s{number}")).await.unwrap(),
        };
        let to = if is_snapshot { &new } else { &lvol };
        fill(&channel(&to.alias()), spindle_reactor::random() % 4 * MIB, number + 1).await;
        all.push(new);
    }
}

/// What a volume reads.
async fn contents(lvol: &Lvol) -> [u8; 4] {
    let of = channel(&lvol.alias());
    let mut read = [0; 4];
    for (cluster, byte_of) in (0..).zip(&mut read) {
        *byte_of = byte(&of, cluster * MIB).await;
    }
    read
}

#[test]
fn any_order_of_deletions_that_is_allowed_leaves_the_others_what_they_read_and_gives_all_back() {
    for seed in 0..20 {
        on(EngineKind::Sim(seed), async |registry, lvols| {
            let store = lvs(&registry, &lvols).await;
            let free = store.info().await.unwrap().free_clusters;
            grow_tree(&thin(&store, "first", 4).await).await;
            let mut refused = 0;
            while !store.lvols().is_empty() {
                let all = store.lvols();
                let lvol = &all[(spindle_reactor::random() % all.len() as u64) as usize];
                let clones = lvol.info().await.unwrap().clones.len();
                let mut before = Vec::new();
                for other in &all {
                    before.push((other.alias(), contents(other).await));
                }
                let gone = lvol.alias();
                match lvol.delete().await {
                    Ok(()) => assert!(clones < 2, "{gone} has {clones} clones"),
                    Err(error) => {
                        assert!(
                            clones > 1 && matches!(error, LvolError::HasClones { .. }),
                            "{gone}: {error}"
                        );
                        refused += 1;
                        before.retain(|(name, _)| *name != gone);
                        assert!(refused < 1000, "something can always be deleted");
                    }
                }
                for (name, read) in before.into_iter().filter(|(name, _)| *name != gone) {
                    assert_eq!(contents(&lvols.lvol(&name).unwrap()).await, read, "{name} without {gone}");
                }
            }
            assert_eq!(store.info().await.unwrap().free_clusters, free);
        });
    }
}

#[test]
fn a_store_is_deleted_with_all_its_volumes_whatever_they_are_to_each_other() {
    for seed in 0..10 {
        on(EngineKind::Sim(seed), async |registry, lvols| {
            let store = lvs(&registry, &lvols).await;
            grow_tree(&thin(&store, "first", 4).await).await;
            store.delete().await.unwrap();
            assert_eq!(registry.bdevs().len(), 1);
            let again = lvols.create_store(store_spec("M0", "lvs")).await.unwrap();
            assert!(again.lvols().is_empty());
        });
    }
}

#[test]
fn a_store_that_is_full_of_volumes_refuses_one_more_and_keeps_all_that_it_has() {
    simulated(async |registry, lvols| {
        malloc(&registry, "M0", 24).await;
        let store = lvols.create_store(store_spec("M0", "lvs")).await.unwrap();
        let mut count = 0;
        let refused = loop {
            match store.create(LvolSpec::thin(format!("v{count}"), MIB)).await {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.errno(), 12, "{refused}");
        assert!(count >= 10, "{count}");
        let mut names: Vec<String> = store.lvols().iter().map(Lvol::alias).collect();
        names.sort();
        assert_eq!(names.len(), count);
        let base = store.base().clone();
        store.unload().await.unwrap();
        lvols.reload(&base).await;
        registry.wait_for_examine().await;
        let mut found: Vec<String> = lvols.lvols().iter().map(Lvol::alias).collect();
        found.sort();
        assert_eq!(found, names, "none is dropped past a limit");
        for name in &names {
            assert!(registry.get(name).is_ok(), "{name}");
        }
        // Room comes back one by one.
        lvols.lvol(&names[0]).unwrap().delete().await.unwrap();
        lvols.stores()[0].create(LvolSpec::thin("one more", MIB)).await.unwrap();
    });
}

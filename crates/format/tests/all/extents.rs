//! The extents of a blob say the same as `resolve` says cluster by cluster, in as many runs as the maps have.

use crate::support;

use spindle_format::cluster_map::MAX_CLUSTERS;
use spindle_format::extents::extents;
use spindle_format::resolve::{ResolveError, Source, resolve};
use spindle_format::{BlobId, ClusterIdx, Parent, Store};
use support::Image;

fn store(name: &str) -> Store {
    Image::fixture(name).load().unwrap()
}

fn named(store: &Store, name: &str) -> BlobId {
    store.blobs_named(name).next().unwrap().id
}

/// The extents must leave nothing out and agree with `resolve` on every cluster.
fn agree_with_resolve(store: &Store, blob: BlobId) {
    let mut next = 0;
    for extent in extents(store, blob) {
        assert_eq!(extent.first, next, "blob {blob}");
        for index in extent.first..extent.first + extent.clusters {
            let here = match extent.source.clone() {
                Ok(Source::Cluster { owner, cluster }) => {
                    let cluster = ClusterIdx(cluster.0 + (index - extent.first) as u32);
                    Ok(Source::Cluster { owner, cluster })
                }
                other => other,
            };
            assert_eq!(here, resolve(store, blob, index), "cluster {index} of blob {blob}");
        }
        next += extent.clusters;
    }
    assert_eq!(next, store.blob(blob).unwrap().metadata.map.num_clusters());
}

#[test]
fn extents_and_resolve_are_of_one_opinion() {
    for name in ["hello", "lvs", "many"] {
        let store = store(name);
        store.blobs.keys().for_each(|&blob| agree_with_resolve(&store, blob));
    }
}

#[test]
fn clusters_behind_the_end_of_a_shorter_parent_are_zeroes_whatever_is_above_it() {
    let mut store = store("lvs");
    let (clone, parent) = (named(&store, "chain"), named(&store, "snap2"));
    store.blobs.get_mut(&parent).unwrap().parent = Some(Parent::External(b"elsewhere".to_vec()));
    for clusters in [0, 1, 3, 7] {
        store.blobs.get_mut(&parent).unwrap().metadata.map.resize(clusters);
        agree_with_resolve(&store, clone);
    }
}

#[test]
fn parents_in_a_circle_or_missing_are_an_error_only_for_clusters_that_need_them() {
    let mut store = store("lvs");
    let (chain, snap1, clone1) = (named(&store, "chain"), named(&store, "snap1"), named(&store, "clone1"));
    store.blobs.get_mut(&snap1).unwrap().parent = Some(Parent::Snapshot(chain));
    agree_with_resolve(&store, chain);
    let errors = |store: &Store, blob| -> Vec<ResolveError> {
        extents(store, blob).into_iter().filter_map(|extent| extent.source.err()).collect()
    };
    let circle = errors(&store, chain);
    assert!(!circle.is_empty() && circle.iter().all(|error| *error == ResolveError::Circle(chain)));
    let thick = named(&store, "inflated");
    store.blobs.get_mut(&thick).unwrap().parent = Some(Parent::Snapshot(snap1));
    store.blobs.remove(&snap1);
    let missing = ResolveError::MissingParent { blob: clone1, parent: snap1 };
    assert!(errors(&store, clone1).contains(&missing));
    assert_eq!(errors(&store, thick), []);
    agree_with_resolve(&store, clone1);
    agree_with_resolve(&store, thick);
}

#[test]
fn a_blob_of_the_largest_size_has_as_many_extents_as_its_chain_has_runs() {
    let mut store = store("lvs");
    let (chain, snap1) = (named(&store, "chain"), named(&store, "snap1"));
    let runs: usize = store.blobs.values().map(|blob| blob.metadata.map.runs().count()).sum();
    store.blobs.values_mut().for_each(|blob| blob.metadata.map.resize(MAX_CLUSTERS));
    store.blobs.remove(&snap1);
    let found = extents(&store, chain);
    assert!(found.len() <= 2 * runs + 1, "{} extents of {runs} runs", found.len());
    assert_eq!(found.iter().map(|extent| extent.clusters).sum::<u64>(), MAX_CLUSTERS);
    assert!(found.last().unwrap().source.is_err(), "its end is read in a parent that is missing");
}

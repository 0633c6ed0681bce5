//! Mutated images: an error that names structure, offset and expectation, or a store; never a panic, an
//! endless loop, or more memory than a small multiple of the metadata.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail like the test")]

mod support;

use proptest::prelude::*;
use spindle_format::check::{Finding, check};
use spindle_format::resolve::resolve;
use spindle_format::{BlobId, LoadOptions, PAGE_SIZE, PageIdx, Store, crc};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::OnceLock;
use support::Image;

/// Counts what the current thread holds.
struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // During thread teardown the counters are gone; nothing is measured then.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + change);
        let _ = MOST.try_with(|most| most.set(most.get().max(now.get())));
    });
}

// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps `dealloc`'s contract, which is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes held at once by what `f` does, beyond what was held before.
fn peak<R>(f: impl FnOnce() -> R) -> (isize, R) {
    let before = NOW.get();
    MOST.set(before);
    let result = f();
    (MOST.get() - before, result)
}

/// A fixture without its data: all that a loader looks at.
fn base(which: usize) -> &'static Image {
    static IMAGES: [OnceLock<Image>; 4] = [const { OnceLock::new() }; 4];
    let name = ["hello", "steps/7-unloaded", "dirty", "steps/6-clone"][which];
    IMAGES[which].get_or_init(|| {
        let whole = Image::fixture(name);
        let mut metadata = Image::zeroed(whole.len);
        metadata.write(0, &whole.read(0, 2 << 20));
        metadata
    })
}

/// One thing done to an image.
#[derive(Clone, Debug)]
enum Damage {
    /// The image ends here (in 512ths of its length).
    Truncate(u64),
    /// Zeroes.
    Zero { page: u64, at: usize, len: usize },
    /// One bit is wrong.
    Flip { page: u64, bit: usize },
    /// A field has another value, and the CRC of its page is right again.
    Field { page: u64, at: usize, width: usize, value: u64, seal: bool },
    /// A page lies where another belongs.
    Copy { from: u64, to: u64, seal: bool },
}

const PAGES: u64 = 4 + 64;

fn page() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0_u64), 6 => 4_u64..20, 2 => 0..PAGES]
}

fn value() -> impl Strategy<Value = u64> {
    let id = (0_u64..20).prop_map(|page| 0x1_0000_0000 | page);
    let edge = prop_oneof![Just(u64::MAX), Just(0xFFFF_FFFF), Just(0x8000_0000), Just(0xFFFF), Just(255)];
    prop_oneof![4 => 0_u64..70, 2 => id, 2 => edge, 1 => any::<u64>()]
}

/// Offsets where the interesting fields of super block, pages and descriptors lie, and others.
fn field() -> impl Strategy<Value = (usize, usize)> {
    let offsets = prop_oneof![
        Just(0_usize),
        Just(8),
        Just(12),
        Just(16),
        Just(17),
        Just(20),
        Just(28),
        Just(32),
        Just(36),
        Just(40),
        Just(44),
        Just(45),
        Just(46),
        Just(48),
        Just(50),
        Just(52),
        Just(58),
        Just(62),
        Just(72),
        Just(76),
        Just(80),
        Just(88),
        Just(92),
        Just(4088),
        0_usize..200,
        0_usize..4092
    ];
    (offsets, prop_oneof![Just(1_usize), Just(2), Just(4), Just(8)])
}

fn damage() -> impl Strategy<Value = Damage> {
    // Three quarters of all fields and copies are sealed again: more than half of all damages.
    let seal = || prop::bool::weighted(0.85);
    prop_oneof![
        1 => (0_u64..513).prop_map(Damage::Truncate),
        1 => (page(), 0_usize..4096, 0_usize..4096).prop_map(|(page, at, len)| Damage::Zero { page, at, len }),
        1 => (page(), 0_usize..32768).prop_map(|(page, bit)| Damage::Flip { page, bit }),
        8 => (page(), field(), value(), seal())
            .prop_map(|(page, (at, width), value, seal)| Damage::Field { page, at, width, value, seal }),
        2 => (page(), page(), seal()).prop_map(|(from, to, seal)| Damage::Copy { from, to, seal }),
    ]
}

fn page_of(image: &Image, page: u64) -> [u8; PAGE_SIZE] {
    image.read(page * PAGE_SIZE as u64, PAGE_SIZE).try_into().unwrap()
}

fn apply(image: &mut Image, damage: &Damage) {
    let put = |image: &mut Image, page: u64, mut bytes: [u8; PAGE_SIZE], seal: bool| {
        if seal {
            crc::seal(&mut bytes);
        }
        image.write(page * PAGE_SIZE as u64, &bytes);
    };
    match *damage {
        Damage::Truncate(at) => image.len = image.len * at / 512,
        Damage::Zero { page, at, len } => {
            let mut bytes = page_of(image, page);
            bytes[at..(at + len).min(PAGE_SIZE)].fill(0);
            put(image, page, bytes, false);
        }
        Damage::Flip { page, bit } => {
            let mut bytes = page_of(image, page);
            bytes[bit / 8] ^= 1 << (bit % 8);
            put(image, page, bytes, false);
        }
        Damage::Field { page, at, width, value, seal } => {
            let mut bytes = page_of(image, page);
            let at = at.min(PAGE_SIZE - width);
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            put(image, page, bytes, seal);
        }
        Damage::Copy { from, to, seal } => {
            let bytes = page_of(image, from);
            put(image, to, bytes, seal);
        }
    }
}

/// Looks at everything a store says.
fn look(store: &Store) -> Vec<Finding> {
    for blob in store.blobs.values() {
        let clusters = blob.metadata.map.num_clusters();
        for index in [0, 1, 2, 511, 512, clusters.wrapping_sub(1), clusters, u64::MAX] {
            let _ = resolve(store, blob.id, index);
        }
        assert!(blob.metadata.map.runs().all(|run| run.cluster.0 + run.length <= store.used_clusters.len()));
    }
    let findings = check(store);
    for finding in &findings {
        assert!(!finding.to_string().is_empty() && !finding.meaning().is_empty());
    }
    findings
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn damaged_images_give_an_error_or_a_store_within_bounds(
        which in 0_usize..4,
        damages in proptest::collection::vec(damage(), 1..5),
        force_recover in any::<bool>(),
    ) {
        let mut image = base(which).clone();
        damages.iter().for_each(|damage| apply(&mut image, damage));
        let options = LoadOptions { force_recover, ..LoadOptions::default() };
        let (held, outcome) = peak(|| image.load_with(options).map(|store| (look(&store), store)));
        // Metadata of these images is under 2 MiB; the largest read in flight is 1 MiB, four at a time.
        prop_assert!(held < 12 << 20, "{held} bytes were held");
        match outcome {
            Ok((_, store)) => {
                // What a writing load would do can be done, and gives a store again.
                for change in store.repairs.iter().flat_map(|repair| &repair.changes) {
                    image.apply(change);
                }
                prop_assert!(image.load().is_ok());
            }
            Err(error) => prop_assert!(error.to_string().contains(" at byte "), "{error}"),
        }
    }
}

/// Every bit of a page that a CRC covers, one at a time: the error names the page, its byte, both CRCs.
#[test]
fn a_flipped_bit_under_a_crc_is_named_with_its_page() {
    let base = base(1);
    let healthy = base.load().unwrap();
    for bit in (0..32768).step_by(13) {
        for page in [4, 6, 7] {
            let mut image = base.clone();
            apply(&mut image, &Damage::Flip { page, bit });
            let store = image.load().unwrap();
            let expected = format!("metadata page {} at byte {}: crc is 0x", page - 4, page * 4096);
            let findings = check(&store);
            assert!(
                findings.iter().any(|finding| finding.to_string().contains(&expected)),
                "bit {bit} of page {page}: {findings:?}"
            );
            assert!(store.blobs.len() >= healthy.blobs.len() - 2, "the other blobs load");
        }
        let mut image = base.clone();
        apply(&mut image, &Damage::Flip { page: 0, bit });
        match image.load() {
            Err(error) => assert!(error.to_string().starts_with("super block at byte 0: "), "{error}"),
            Ok(store) => assert!(!check(&store).is_empty(), "bit {bit} of the super block"),
        }
    }
}

/// A chain that leads back into itself ends, and the blob is set aside.
#[test]
fn a_circular_chain_is_set_aside() {
    for (target, clean) in [(0_u32, 1), (0, 3), (2, 1), (2, 3)] {
        let mut image = base(clean).clone();
        let damage = Damage::Field { page: 4, at: 4088, width: 4, value: target.into(), seal: true };
        apply(&mut image, &damage);
        let store = image.load().unwrap();
        assert_eq!(store.damaged[0].id, BlobId::from_page(PageIdx(0)));
        assert_eq!(store.blobs.len(), 3);
    }
}

/// Parents in a circle: every read ends with an error, and the circle is reported.
#[test]
fn parents_in_a_circle_end() {
    let mut image = base(1).clone();
    let clone = base(1).load().unwrap();
    let ids: Vec<BlobId> =
        clone.blobs.values().filter(|blob| blob.parent.is_some()).map(|blob| blob.id).collect();
    for (id, parent) in [(ids[0], ids[1]), (ids[1], ids[0])] {
        let mut metadata = clone.blob(id).unwrap().metadata.clone();
        metadata.set_internal(b"SNAP", &parent.raw().to_le_bytes()).unwrap();
        let mut pages = spindle_format::chain::to_pages(id, &metadata);
        let root = id.root_page().unwrap();
        spindle_format::chain::link(&mut pages, &[root]);
        image.write(clone.geometry.page_offset(root), pages[0].bytes());
    }
    let store = image.load().unwrap();
    assert!(resolve(&store, ids[0], 0).is_err());
    assert!(check(&store).contains(&Finding::ParentCircle { blob: ids[0] }));
}

/// Thousands of blobs that all name the same extent pages, or long runs of the same clusters, cost what they
/// weigh: most are refused.
#[test]
fn blobs_that_name_the_same_things_over_and_over_stay_within_bounds() {
    use spindle_format::chain::{extent_page, link, to_pages};
    use spindle_format::init::{DeviceShape, InitOptions, plan};
    use spindle_format::{BlobMetadata, ClusterIdx};
    const PAGES: u32 = 4096;
    let device = DeviceShape { size: u64::from(PAGES) << 20, block_size: 512, physical_block_size: 512 };
    let plan = plan(&device, &InitOptions::default()).unwrap();
    let first = plan.geometry.metadata_clusters();
    for table in [true, false] {
        let mut image = Image::zeroed(device.size);
        plan.changes.iter().for_each(|change| image.apply(change));
        let mut blob = BlobMetadata::new_thin();
        blob.map.resize(500 * 512);
        if table {
            for slot in 0..500 {
                blob.map.set(u64::from(slot) * 512, Some(ClusterIdx(first)));
                blob.map.set_extent_page(slot, PageIdx(1 + slot));
                let page = extent_page(BlobId::from_raw(0), slot * 512, &[first; 512]);
                image.write(plan.geometry.page_offset(PageIdx(1 + slot)), page.bytes());
            }
        } else {
            blob.map = spindle_format::ClusterMap::new_rle();
            blob.map.resize(u64::from(PAGES - first));
            (first..PAGES).for_each(|c| blob.map.set(u64::from(c - first), Some(ClusterIdx(c))));
        }
        for root in (if table { 501 } else { 0 })..PAGES {
            let root = PageIdx(root);
            let mut pages = to_pages(BlobId::from_page(root), &blob);
            link(&mut pages, &[root]);
            image.write(plan.geometry.page_offset(root), pages[0].bytes());
        }
        let (held, store) = peak(|| image.load().unwrap());
        let metadata = isize::try_from(PAGES as usize * PAGE_SIZE).unwrap();
        assert!(held < 3 * metadata, "{held} bytes were held for {metadata} of metadata");
        assert!(store.damaged.len() > 3000 && store.allocation_blocked.is_some());
        assert!(!check(&store).is_empty());
    }
}

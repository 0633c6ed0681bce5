//! Registering, opening, closing and removing at once, on two reactors, in the order that a seed picks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spindle_bdev::{Bdev, BdevError, DescOptions, Event, Registry};
use spindle_mem::IoBuf;
use spindle_reactor::EngineKind;

use crate::support::{malloc, on, thread};

/// What happened, over all threads.
#[derive(Default)]
struct Counts {
    opened: AtomicU64,
    removed: AtomicU64,
    resized: AtomicU64,
}

/// Opens, uses and closes whatever has the name; each refusal must be one that can be.
async fn user(rounds: u64, counts: &Arc<Counts>) {
    for _ in 0..rounds {
        let seen = counts.clone();
        let on_event = move |event| {
            match event {
                Event::Remove(_) => &seen.removed,
                _ => &seen.resized,
            }
            .fetch_add(1, Ordering::Relaxed);
        };
        let write = spindle_reactor::random().is_multiple_of(2);
        let options = DescOptions::new().write(write).on_event(on_event);
        match options.open("M0") {
            Ok(desc) => {
                counts.opened.fetch_add(1, Ordering::Relaxed);
                let channel = desc.channel().unwrap();
                let read = channel.read(0, IoBuf::zeroed(512)).await.0;
                // Before or after its removal: it is read, or removed.
                if let Err(error) = read {
                    assert_eq!(error.kind, spindle_block::IoErrorKind::Removed);
                }
            }
            Err(BdevError::NoSuchBdev { .. } | BdevError::BeingRemoved { .. } | BdevError::Gone { .. }) => {}
            Err(other) => panic!("cannot be: {other}"),
        }
        spindle_reactor::yield_now().await;
    }
}

/// Makes, resizes and removes it.
async fn owner(registry: &Registry, rounds: u64) {
    for _ in 0..rounds {
        let bdev: Bdev = malloc(registry, "M0").await;
        for _ in 0..spindle_reactor::random() % 20 {
            spindle_reactor::yield_now().await;
        }
        bdev.resized();
        let again = registry.clone();
        let same = bdev.clone();
        let twice = spindle_reactor::spawn_local(async move { again.unregister(&same).await });
        let results = [registry.unregister(&bdev).await, twice.await.unwrap()];
        assert_eq!(
            results.iter().filter(|result| result.is_ok()).count(),
            1,
            "one of two removes it: {results:?}"
        );
        bdev.removed().await;
    }
}

#[test]
fn opening_and_removing_at_once_ends_in_one_of_both_and_leaves_nothing() {
    let mut opened = 0;
    for seed in 0..40 {
        let counts = Arc::new(Counts::default());
        let all = counts.clone();
        on(EngineKind::Sim(seed), async move |registry| {
            let workers = ["one", "two", "three"].map(thread);
            let tasks: Vec<_> = workers
                .iter()
                .map(|worker| {
                    let counts = counts.clone();
                    worker.spawn(async move || user(40, &counts).await)
                })
                .collect();
            owner(&registry, 12).await;
            for task in tasks {
                task.await.unwrap();
            }
            workers.iter().for_each(|worker| worker.exit());
            for worker in &workers {
                worker.joined().await;
            }
        });
        opened += all.opened.load(Ordering::Relaxed);
    }
    assert!(opened > 100, "the seeds open something: {opened}");
}

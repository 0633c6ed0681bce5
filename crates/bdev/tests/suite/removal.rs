//! How bdevs go, and what their holders are told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use spindle_bdev::{Bdev, BdevError, Desc, Event, Grace, OpenOptions, Phase};
use spindle_reactor::Thread;

use crate::support::{malloc, simulated, thread};

/// A descriptor that keeps the grace of a removal.
fn keeping(name: &str) -> (Arc<Mutex<Option<Grace>>>, Desc) {
    let kept: Arc<Mutex<Option<Grace>>> = Arc::default();
    let keeps = kept.clone();
    let on_event = move |event| {
        if let Event::Remove(grace) = event {
            *keeps.lock().unwrap() = Some(grace);
        }
    };
    let desc = OpenOptions::new().on_event(on_event).open(name).unwrap();
    (kept, desc)
}

#[test]
fn a_removal_is_told_on_the_openers_thread_and_frees_the_names() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let worker = thread("worker");
        let told = Arc::new(AtomicUsize::new(0));
        let seen = told.clone();
        let opened = worker.run(async move || {
            let here = Thread::current().unwrap();
            let on_event = move |event| {
                assert!(matches!(event, Event::Remove(_)));
                assert_eq!(Thread::current().unwrap(), here);
                seen.fetch_add(1, Ordering::Relaxed);
            };
            OpenOptions::new().write(true).on_event(on_event).open("M0").unwrap()
        });
        let desc = opened.await.unwrap();
        registry.unregister(&bdev).await.unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!(bdev.phase(), Phase::Gone);
        assert!(registry.get("M0").is_err() && registry.get(&bdev.uuid().to_string()).is_err());
        // A new one may have the name while the old one is still open.
        let new = malloc(&registry, "M0").await;
        assert_ne!(new, bdev);
        drop(desc);
        assert_eq!(registry.get("M0").unwrap(), new);
        worker.exit();
    });
}

#[test]
fn a_holder_that_asks_for_time_gets_it_and_nobody_opens_meanwhile() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let (kept, desc) = keeping("M0");
        let removing = registry.clone();
        let gone = bdev.clone();
        let task = spindle_reactor::spawn_local(async move { removing.unregister(&gone).await });
        while kept.lock().unwrap().is_none() {
            spindle_reactor::yield_now().await;
        }
        for _ in 0..100 {
            spindle_reactor::yield_now().await;
        }
        assert_eq!(bdev.phase(), Phase::Removing);
        assert!(matches!(Bdev::open("M0"), Err(BdevError::BeingRemoved { .. })));
        assert_eq!(registry.unregister(&bdev).await.unwrap_err().errno(), 16);
        assert_eq!(bdev.add_alias("late").unwrap_err().errno(), 19);
        kept.lock().unwrap().take();
        task.await.unwrap().unwrap();
        assert_eq!(registry.unregister(&bdev).await.unwrap_err().errno(), 19);
        drop(desc);
    });
}

#[test]
fn a_descriptor_whose_thread_is_gone_holds_no_removal_up() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let worker = thread("worker");
        let opened =
            worker.run(async || OpenOptions::new().on_event(|_| ()).open("M0").unwrap()).await.unwrap();
        worker.exit();
        worker.joined().await;
        registry.unregister(&bdev).await.unwrap();
        drop(opened);
    });
}

#[test]
fn a_closed_descriptor_is_told_nothing() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let told = Arc::new(AtomicUsize::new(0));
        let seen = told.clone();
        let desc = OpenOptions::new()
            .on_event(move |_| _ = seen.fetch_add(1, Ordering::Relaxed))
            .open("M0")
            .unwrap();
        bdev.resized();
        // Closed while the event is on its way.
        drop(desc);
        for _ in 0..10 {
            spindle_reactor::yield_now().await;
        }
        assert_eq!(told.load(Ordering::Relaxed), 0);
        assert_eq!(Arc::strong_count(&told), 1, "the callback is gone with its descriptor");
    });
}

#[test]
fn a_removal_whose_future_is_dropped_goes_on_to_its_end() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let (kept, desc) = keeping("M0");
        {
            let mut unregister = std::pin::pin!(registry.unregister(&bdev));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            while kept.lock().unwrap().is_none() {
                assert!(unregister.as_mut().poll(&mut cx).is_pending());
                spindle_reactor::yield_now().await;
            }
        }
        kept.lock().unwrap().take();
        bdev.removed().await;
        assert!(registry.get("M0").is_err());
        drop(desc);
    });
}

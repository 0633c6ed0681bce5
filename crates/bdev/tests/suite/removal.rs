//! How bdevs go, and what their holders are told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use spindle_bdev::modules::null::{self, NullSpec};
use spindle_bdev::{Bdev, BdevError, Desc, DescOptions, Event, Grace, Phase};
use spindle_block::IoErrorKind;
use spindle_mem::IoBuf;
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
    let desc = DescOptions::new().on_event(on_event).open(name).unwrap();
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
            DescOptions::new().write(true).on_event(on_event).open("M0").unwrap()
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
fn a_holder_that_asks_for_time_gets_it_and_no_open_succeeds_meanwhile() {
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
            worker.run(async || DescOptions::new().on_event(|_| ()).open("M0").unwrap()).await.unwrap();
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
        let desc = DescOptions::new()
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

#[test]
fn after_a_removal_an_open_descriptor_is_a_husk_on_every_thread() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let (worker, desc) = (thread("worker"), Arc::new(Bdev::open("M0").unwrap()));
        let theirs = desc.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        let there = worker.spawn(async move || {
            let channel = theirs.channel().unwrap();
            sender.send(()).unwrap();
            // Until it is removed it works.
            loop {
                match channel.read(0, IoBuf::zeroed(512)).await.0 {
                    Ok(()) => spindle_reactor::yield_now().await,
                    Err(error) => return error.kind,
                }
            }
        });
        let channel = desc.channel().unwrap();
        while receiver.try_recv().is_err() {
            spindle_reactor::yield_now().await;
        }
        registry.unregister(&bdev).await.unwrap();
        assert_eq!(there.await.unwrap(), IoErrorKind::Removed);
        assert_eq!(channel.flush().await.unwrap_err().kind, IoErrorKind::Removed);
        // So is one that is opened on a thread from now on.
        let late = desc.channel().unwrap().read(0, IoBuf::zeroed(512)).await.0;
        assert_eq!(late.unwrap_err().kind, IoErrorKind::Removed);
        worker.exit();
    });
}

#[test]
fn a_null_bdev_grows_and_does_not_shrink() {
    simulated(async |registry| {
        let spec = NullSpec { name: "N0".into(), block_size: 512, num_blocks: 8, ..NullSpec::default() };
        let bdev = null::create(&registry, spec).await.unwrap();
        malloc(&registry, "M0").await;
        let desc = Bdev::open("N0").unwrap();
        let channel = desc.channel().unwrap();
        null::resize(&registry, "N0", 16).await.unwrap();
        assert_eq!((bdev.geometry().blocks(), desc.geometry().blocks()), (16, 16));
        channel.read(8 * 512, IoBuf::zeroed(512)).await.0.unwrap();
        for (name, blocks, errno) in
            [("N0", 15, 16), ("N0", 0, 16), ("N0", u64::MAX, 22), ("M0", 128, 22), ("X", 8, 19)]
        {
            let refused = null::resize(&registry, name, blocks).await.unwrap_err();
            assert_eq!(refused.errno(), errno, "{refused}");
        }
        null::resize(&registry, "N0", 16).await.unwrap();
        assert_eq!(bdev.geometry().blocks(), 16);
    });
}

/// What the tasks of all threads wait for.
async fn waits() -> Vec<String> {
    let dump = spindle_reactor::Handle::current().unwrap().dump().await;
    let threads = dump.reactors.into_iter().flat_map(|reactor| reactor.threads);
    threads.flat_map(|thread| thread.tasks).map(|task| task.waits_for).collect()
}

#[test]
fn a_dump_names_the_bdev_and_the_holders_of_a_removal_that_waits_for_a_grace() {
    simulated(async |registry| {
        for closes in [false, true] {
            let bdev = malloc(&registry, "M0").await;
            let (kept, desc) = keeping("M0");
            let other = DescOptions::new().holder("its reader").open("M0").unwrap();
            let (removing, gone) = (registry.clone(), bdev.clone());
            let task = spindle_reactor::spawn_local(async move { removing.unregister(&gone).await });
            while kept.lock().unwrap().is_none() {
                spindle_reactor::yield_now().await;
            }
            let open = (!closes).then_some((desc, other));
            for _ in 0..100 {
                spindle_reactor::yield_now().await;
            }
            assert_eq!(bdev.phase(), Phase::Removing, "closing the descriptor does not release the grace");
            let waits = waits().await;
            let of_bdev: Vec<&String> = waits.iter().filter(|wait| wait.contains("bdev \"M0\"")).collect();
            assert_eq!(of_bdev.len(), 1, "{waits:?}");
            assert!(of_bdev[0].contains("Grace") && of_bdev[0].contains("its reader"), "{of_bdev:?}");
            kept.lock().unwrap().take();
            task.await.unwrap().unwrap();
            drop(open);
        }
    });
}

//! A thread's exit and its channels.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use spindle_block::{Channel, Device, Geometry, Null};
use spindle_engine::EngineKind;
use spindle_reactor::{Handle, Runtime, Thread, extension, sleep};

/// A layer's table on each thread.
#[derive(Default)]
struct Kept(RefCell<Option<Channel>>);

fn null() -> Arc<dyn Device> {
    Null::new("null0", Geometry::new(512, 1 << 20).unwrap())
}

#[test]
fn a_thread_does_not_exit_while_it_has_a_channel_and_says_so() {
    for seed in 0..10 {
        let runtime = Runtime::builder().engine(EngineKind::Sim(seed)).build().unwrap();
        runtime
            .run(async || {
                let worker = Thread::create("worker", "[1]").unwrap();
                let open =
                    async || *extension::<Kept>().0.borrow_mut() = Some(Channel::open(null()).unwrap());
                worker.run(open).await.unwrap();
                worker.exit();
                sleep(Duration::from_millis(1)).await;
                assert!(!worker.is_gone());
                let dump = Handle::current().unwrap().dump().await;
                assert_eq!(dump.reactors[1].threads[0].waits_for, ["1 channel of device null0"]);
                worker.send_msg(|| drop(extension::<Kept>().0.borrow_mut().take())).unwrap();
                worker.joined().await;
            })
            .unwrap();
    }
}

#[test]
fn a_layers_own_channel_goes_with_the_thread() {
    let runtime = Runtime::builder().engine(EngineKind::Sim(1)).build().unwrap();
    runtime
        .run(async || {
            let worker = Thread::create("worker", "[1]").unwrap();
            let open =
                async || *extension::<Kept>().0.borrow_mut() = Some(Channel::open_unheld(null()).unwrap());
            worker.run(open).await.unwrap();
            worker.exit();
            worker.joined().await;
        })
        .unwrap();
}

//! A thread's exit and its channels.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use spindle_block::{Channel, Device, Geometry, Null, SimDisk};
use spindle_engine::EngineKind;
use spindle_engine::sim::{Disk, DiskOptions};
use spindle_mem::IoBuf;
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

/// Reads that were given up are under way when the thread is asked to exit.
#[test]
fn a_thread_exits_when_its_requests_have_ended_also_those_that_were_given_up() {
    for seed in 0..10 {
        let disk = Disk::new(DiskOptions::new(1 << 20));
        let runtime = Runtime::builder().engine(EngineKind::Sim(seed)).build().unwrap();
        runtime
            .run(async move || {
                let worker = Thread::create("worker", "[1]").unwrap();
                let device: Arc<dyn Device> = SimDisk::new("sim0", disk.clone(), seed).unwrap();
                let written = disk.clone();
                let give_up = async move || {
                    let channel = Channel::open_unheld(device).unwrap();
                    let mut write = Box::pin(channel.write(512, IoBuf::copy_from(&[7; 512])));
                    std::future::poll_fn(|cx| {
                        let _pending = write.as_mut().poll(cx);
                        std::task::Poll::Ready(())
                    })
                    .await;
                    drop(write);
                    *extension::<Kept>().0.borrow_mut() = Some(channel);
                };
                worker.run(give_up).await.unwrap();
                worker.exit();
                worker.joined().await;
                let mut bytes = [0; 512];
                written.read(512, &mut bytes).unwrap();
                assert_eq!(bytes, [7; 512], "the write had not ended when the thread had");
            })
            .unwrap();
    }
}

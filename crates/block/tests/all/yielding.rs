//! A thread with tasks on devices of several kinds: no task and no lane keeps the others from their turns.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use spindle_block::{
    Busy, Channel, Cx, Device, Io, Lane, LaneCx, LaneId, Layer, LayerParts, Malloc, OpenError, Submit,
};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Runtime, spawn_local, yield_now};

const LATER: Duration = Duration::from_millis(20);

/// Ends its requests a while after they came; panics instead if it is asked to, once.
struct Late {
    parts: LayerParts,
    panics: bool,
}

impl Layer for Late {
    fn parts(&self) -> &LayerParts {
        &self.parts
    }

    fn lane(self: Arc<Self>, _below: LaneId, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(LateLane { panics: self.panics, kept: Vec::new() }))
    }
}

struct LateLane {
    panics: bool,
    kept: Vec<Io>,
}

impl Lane for LateLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let at = cx.now() + LATER;
        cx.poll_at(at);
        self.kept.push(io);
        Submit::Taken
    }

    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        assert!(!std::mem::take(&mut self.panics), "as asked");
        self.kept.drain(..).for_each(|io| cx.done(io, Ok(())));
        Busy::Yes
    }
}

fn on_one_reactor<R: Send + 'static>(
    engine: EngineKind,
    main: impl AsyncFnOnce() -> R + Send + 'static,
) -> R {
    let runtime = Runtime::builder().reactors(1).engine(engine).build().unwrap();
    runtime.run(main).unwrap()
}

fn memory(mib: u64) -> Arc<dyn Device> {
    Malloc::of_bytes("Malloc0", mib << 20).unwrap()
}

#[test]
fn a_task_that_awaits_request_after_request_of_a_device_that_ends_them_at_once_lets_others_have_turns() {
    for bytes in [4096, 64 << 10, 1 << 20] {
        // Its tasks take turns; a simulation would choose by its seed.
        on_one_reactor(EngineKind::Epoll, async move || {
            let done = Rc::new(Cell::new(0_u64));
            let writes = done.clone();
            let writer = spawn_local(async move {
                let channel = Channel::open(memory(4)).unwrap();
                let mut buffer = IoBuf::zeroed(bytes);
                for _ in 0..2000 {
                    let (result, back) = channel.write(0, buffer).await;
                    result.unwrap();
                    buffer = back.into_one().unwrap();
                    writes.set(writes.get() + 1);
                }
            });
            let mut turns = 0;
            while !writer.is_finished() {
                let before = done.get();
                yield_now().await;
                turns += 1;
                let work = (done.get() - before) * (1 + (bytes as u64 >> 16));
                assert!(work <= 256 + 17, "{work} requests of {bytes} bytes in one turn");
            }
            assert!(turns >= 7, "{turns} turns");
            writer.await.unwrap();
        });
    }
}

#[test]
fn a_lane_that_panics_at_its_time_keeps_no_other_lane_from_its_own() {
    on_one_reactor(EngineKind::Sim(1), async || {
        let base = memory(1);
        let late = |name: &str, panics| {
            let parts = LayerParts::new(name, base.clone());
            Channel::open(Arc::new(Late { parts, panics })).unwrap()
        };
        let (good, bad, other) = (late("good", false), late("bad", true), late("other", false));
        // One that waits when the lane panics, and then some that come later.
        let beside = spawn_local(async move { other.write(0, IoBuf::zeroed(4096)).await.0 });
        let lost = spawn_local(async move { bad.write(0, IoBuf::zeroed(4096)).await.0 });
        beside.await.unwrap().unwrap();
        for _ in 0..3 {
            good.write(0, IoBuf::zeroed(4096)).await.0.unwrap();
        }
        drop(lost);
    });
}

use spindle::reactor::{EngineKind, ThreadRunner};

fn main() {
    let mut runner = ThreadRunner::new("by hand", EngineKind::Auto).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| runner.step());
        runner.step();
    });
}

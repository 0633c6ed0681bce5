use spindle::reactor::{EngineKind, ThreadRunner};

fn main() {
    let runner = ThreadRunner::new("by hand", EngineKind::Auto).unwrap();
    let mut second = runner.clone();
    second.step();
}

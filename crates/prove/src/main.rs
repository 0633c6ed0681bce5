//! The command.
use std::ops::ControlFlow;
fn main() {
    let mut total = spindle_prove::report::Report::default();
    let a: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    for seed in a[0]..a[1] {
        let report =
            spindle_prove::proof::prove(seed, &Default::default(), &mut |_| ControlFlow::Continue(()));
        for v in &report.violations {
            println!("{v}");
        }
        total.add(report);
    }
    print!("{}", total.table());
    println!("{} crash points, {} violations", total.total(), total.violations.len());
}

//! Loads on bdevs: what they count is what was done, and data that is wrong is found.

use std::time::Duration;

use spindle_bdev::load::{self, JobReport, LoadSpec, Workload};
use spindle_bdev::modules::delay::{self, DelaySpec};
use spindle_bdev::modules::error::{self, Effect, ErrorSpec, Injection, Target};
use spindle_bdev::{Bdev, BdevError};
use spindle_block::Operation;

use crate::support::{malloc, simulated, thread};

fn spec(name: &str, io_size: u64, depth: usize) -> LoadSpec {
    let workload = Workload::of_name(name, 70).unwrap();
    LoadSpec { workload, io_size, depth, time: Duration::from_millis(5) }
}

/// Runs on two threads.
async fn run(bdev: &Bdev, spec: &LoadSpec) -> Result<Vec<JobReport>, BdevError> {
    let threads = [thread("one"), thread("two")];
    let reports = load::run(std::slice::from_ref(bdev), &threads, spec).await;
    threads.iter().for_each(spindle_reactor::Thread::exit);
    reports
}

#[test]
fn every_workload_reports_what_the_bdev_counted() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        let latencies = [50, 90, 50, 90];
        let spec_of = DelaySpec { name: "D0".into(), base: "M0".into(), uuid: None, latencies };
        let bdev = delay::create(&registry, spec_of).await.unwrap().unwrap();
        for name in Workload::NAMES {
            let state = bdev.disk().device();
            state.state().unwrap().reset_statistics(spindle_block::StatisticsReset::All).await;
            let reports = run(&bdev, &spec(name, 1024, 4)).await.unwrap();
            assert_eq!(reports.len(), 2, "{name}");
            let counted = bdev.statistics();
            let done: u64 = reports.iter().map(|report| report.requests).sum();
            assert!(reports.iter().all(|one| one.requests > 0 && one.failed == 0 && one.miscompared == 0));
            assert!(reports.iter().all(|one| one.latencies.total() == one.requests), "{name}");
            let shown = counted.read.operations + counted.write.operations + counted.unmap.operations;
            match name {
                "flush" | "write_zeroes" => {}
                _ => assert_eq!(shown, done, "{name}"),
            }
            if name == "randread" {
                let median = reports[0].latencies.percentile(0.5);
                assert!(
                    median >= Duration::from_micros(50) && median < Duration::from_micros(90),
                    "{median:?}"
                );
                // 4 in flight for 50 us each, for 5 ms.
                assert!((300..=400).contains(&reports[0].requests), "{}", reports[0].requests);
            }
            if name == "rw" {
                let share = counted.read.operations * 100 / shown;
                assert!((60..80).contains(&share), "{share} reads in a hundred");
            }
        }
    });
}

#[test]
fn data_that_is_wrong_and_requests_that_fail_are_counted() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        let slow = DelaySpec { name: "D0".into(), base: "M0".into(), uuid: None, latencies: [20; 4] };
        delay::create(&registry, slow).await.unwrap();
        let bdev =
            error::create(&registry, ErrorSpec { base: "D0".into(), uuid: None }).await.unwrap().unwrap();
        for (effect, wrong) in
            [(Effect::CorruptData { offset: 700, value: 4 }, true), (Effect::Failure, false)]
        {
            let injection = Injection { effect, count: 3, queue_depth: 0 };
            error::inject(&registry, bdev.name(), Target::One(Operation::Read), injection).unwrap();
            let reports = run(&bdev, &spec("verify", 1024, 3)).await.unwrap();
            let sum = |of: fn(&JobReport) -> u64| reports.iter().map(of).sum::<u64>();
            let (miscompared, failed) = (sum(|one| one.miscompared), sum(|one| one.failed));
            assert_eq!((miscompared, failed), if wrong { (3, 0) } else { (0, 3) });
        }
    });
}

#[test]
fn what_does_not_fit_a_bdev_is_refused_with_the_numbers() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        // Time passes only where a request takes some.
        let slow = DelaySpec { name: "D0".into(), base: "M0".into(), uuid: None, latencies: [20; 4] };
        let bdev = delay::create(&registry, slow).await.unwrap().unwrap();
        let refused = async |spec| run(&bdev, &spec).await.unwrap_err().to_string();
        assert!(refused(spec("read", 700, 1)).await.contains("700 bytes are not whole blocks of 512"));
        assert!(refused(spec("read", 0, 1)).await.contains("0 bytes"));
        assert!(refused(spec("read", 65 * 512, 1)).await.contains("33280"));
        assert!(refused(spec("verify", 512, 33)).await.contains("take 1 to 32"));
        run(&bdev, &spec("verify", 512, 32)).await.unwrap();
        assert!(refused(spec("read", 512, 0)).await.contains("0 requests"));
    });
}

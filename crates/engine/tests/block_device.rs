//! A real block device: a loop device over a file, where this user may make one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;

use std::io::ErrorKind;
use std::process::Command;

use spindle_engine::{Direct, EngineKind, Op, OpenOptions, Output};
use suite::{Bench, pattern};

const SIZE: u64 = 8 << 20;

/// A loop device, detached when dropped.
struct Loop(String);

impl Loop {
    /// None where loop devices cannot be made.
    fn over(path: &std::path::Path) -> Option<Loop> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(path).output().ok()?;
        let name = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        if made.status.success() { Some(Loop(name)) } else { None }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Left behind, it goes with its file.
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn a_block_device_is_measured_transferred_zeroed_discarded_and_claimed() {
    for kind in [EngineKind::IoUring, EngineKind::Epoll] {
        let Some(mut bench) = Bench::new(kind) else { continue };
        bench.file("backing", SIZE);
        let Some(device) = Loop::over(&bench.path("backing")) else {
            eprintln!("skipped: no loop device can be made here");
            return;
        };
        on_device(&mut bench, &device);
    }
}

fn on_device(bench: &mut Bench, device: &Loop) {
    let options = OpenOptions::new(&device.0).writable(true).direct(Direct::Required).locked(true);
    let file = bench.open(options.clone());
    let info = *file.info();
    assert!(info.block_device && info.direct && info.writable);
    assert_eq!((info.size, info.logical_block), (SIZE, 512));

    let bytes = pattern(1 << 20, 1);
    bench.write(&file, 65_536, &bytes);
    bench.output(Op::Flush { file: file.clone() });
    assert!(bench.read(&file, 65_536, 1 << 20) == bytes);
    assert_eq!(bench.read(&file, SIZE - 4096, 8192).len(), 4096);
    bench.output(Op::ZeroRange { file: file.clone(), offset: 65_536, length: 4096 });
    assert_eq!(bench.read(&file, 65_536, 4096), vec![0; 4096]);
    match bench.run(Op::Discard { file: file.clone(), offset: 131_072, length: 65_536 }).result {
        Ok(output) => assert!(matches!(output, Output::Done)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    }
    assert!(bench.read(&file, 69_632, 4096) == bytes[4096..8192], "the rest stays");

    let error = bench.error(Op::Open { options: Box::new(options) });
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains("this process"), "{error}");
}

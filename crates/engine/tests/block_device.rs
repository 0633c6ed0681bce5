//! A real block device: a loop device over a file, where this user may make one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;

use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use spindle_engine::{Direct, EngineKind, Op, OpenOptions, Output, share_bytes, write_lock};
use suite::{Bench, pattern};

const SIZE: u64 = 8 << 20;

/// A loop device, detached when dropped.
struct Loop(String);

impl Loop {
    /// None where loop devices cannot be made.
    fn over(path: &Path) -> Option<Loop> {
        Loop::with(path, &[])
    }

    /// The same with more arguments of losetup.
    fn with(path: &Path, more: &[&str]) -> Option<Loop> {
        let made = Command::new("losetup").args(["--find", "--show"]).args(more).arg(path).output().ok()?;
        let name = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        if made.status.success() { Some(Loop(name)) } else { None }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // If it is left, it is removed with its file.
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

/// Opens both for writing, in either order: the second is refused, naming this process and the first.
fn exclude_each_other(bench: &mut Bench, one: &Path, other: &Path) {
    for (first, second) in [(one, other), (other, one)] {
        let files = [first, second].map(|path| std::fs::File::open(path).unwrap());
        assert!(share_bytes(&files[0], &files[1]), "{first:?} and {second:?}");
        drop(files);
        let held = bench.open(OpenOptions::new(first).writable(true).locked(true));
        let options = OpenOptions::new(second).writable(true).locked(true);
        let error = bench.error(Op::Open { options: Box::new(options) });
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
        for said in [second, first].map(|path| path.display().to_string()) {
            assert!(error.to_string().contains(&said), "{said} is not named: {error}");
        }
        assert!(error.to_string().contains("this process"), "{error}");
        let holder = format!(" as {}", first.display());
        assert!(error.to_string().contains(&holder), "{first:?} holds it: {error}");
        drop(held);
    }
}

/// Both may be open for writing at once.
fn go_together(bench: &mut Bench, one: &Path, other: &Path) {
    let files = [one, other].map(|path| std::fs::File::open(path).unwrap());
    assert!(!share_bytes(&files[0], &files[1]), "{one:?} and {other:?}");
    drop(files);
    let _one = bench.open(OpenOptions::new(one).writable(true).locked(true));
    bench.open(OpenOptions::new(other).writable(true).locked(true));
}

/// A bench, and a file in it of so many bytes, where a loop device can be made over that.
fn bench_with_backing() -> Option<(Bench, std::path::PathBuf)> {
    let mut bench = Bench::new(EngineKind::Epoll)?;
    bench.file("backing", SIZE);
    let path = bench.path("backing");
    if Loop::over(&path).is_none() {
        eprintln!("skipped: no loop device can be made here");
        return None;
    }
    Some((bench, path))
}

#[test]
fn a_file_has_one_writer_whatever_it_is_called() {
    let Some(mut bench) = Bench::new(EngineKind::Epoll) else { return };
    bench.file("file", SIZE);
    let (file, link) = (bench.path("file"), bench.path("link"));
    std::fs::hard_link(&file, &link).unwrap();
    exclude_each_other(&mut bench, &file, &link);
}

#[test]
fn a_loop_device_and_its_file_have_one_writer() {
    let Some((mut bench, file)) = bench_with_backing() else { return };
    let device = Loop::over(&file).unwrap();
    exclude_each_other(&mut bench, Path::new(&device.0), &file);
    let other = Loop::over(&file).unwrap();
    exclude_each_other(&mut bench, Path::new(&device.0), Path::new(&other.0));
    let above = Loop::over(Path::new(&device.0)).unwrap();
    exclude_each_other(&mut bench, Path::new(&above.0), Path::new(&device.0));
    exclude_each_other(&mut bench, Path::new(&above.0), &file);
}

#[test]
fn a_writer_is_seen_through_what_lies_on_what_it_writes_to() {
    let Some((mut bench, file)) = bench_with_backing() else { return };
    let device = Loop::over(&file).unwrap();
    let above = Loop::over(Path::new(&device.0)).unwrap();
    let seen = |path: &Path| write_lock(&std::fs::File::open(path).unwrap()).and_then(|lock| lock.pid);
    let names = [file.as_path(), Path::new(&device.0), Path::new(&above.0)];
    for name in names {
        assert_eq!(seen(name), None);
    }
    for held in names {
        let writer = bench.open(OpenOptions::new(held).writable(true).locked(true));
        for name in names {
            assert_eq!(seen(name), Some(std::process::id()), "{name:?} while {held:?} is written");
        }
        drop(writer);
    }
}

#[test]
fn two_halves_of_a_file_have_a_writer_each() {
    let Some((mut bench, file)) = bench_with_backing() else { return };
    let half = (SIZE / 2).to_string();
    let first = Loop::with(&file, &["--sizelimit", &half]).unwrap();
    let second = Loop::with(&file, &["--offset", &half]).unwrap();
    go_together(&mut bench, Path::new(&first.0), Path::new(&second.0));
    exclude_each_other(&mut bench, Path::new(&second.0), &file);
}

/// A loop device over a file with two partitions of 1 MiB, the first at 1 MiB. None where they are not shown.
fn with_partitions(file: &Path) -> Option<(Loop, [String; 2])> {
    let backing = std::fs::File::options().write(true).open(file).unwrap();
    for (at, start) in [(446, 2048_u32), (462, 4096)] {
        let entry =
            [&[0, 0, 0, 0, 0x83, 0, 0, 0][..], &start.to_le_bytes(), &2048_u32.to_le_bytes()].concat();
        backing.write_all_at(&entry, at).unwrap();
    }
    backing.write_all_at(&[0x55, 0xAA], 510).unwrap();
    let disk = Loop::with(file, &["--partscan"]).unwrap();
    let parts = ["p1", "p2"].map(|part| format!("{}{part}", disk.0));
    if !Path::new(&parts[1]).exists() {
        eprintln!("skipped: the kernel shows no partitions of loop devices here");
        return None;
    }
    Some((disk, parts))
}

#[test]
fn a_partition_shares_its_writer_with_the_disk_and_the_file_and_not_with_other_partitions() {
    let Some((mut bench, file)) = bench_with_backing() else { return };
    let Some((disk, parts)) = with_partitions(&file) else { return };
    go_together(&mut bench, Path::new(&parts[0]), Path::new(&parts[1]));
    exclude_each_other(&mut bench, Path::new(&parts[0]), Path::new(&disk.0));
    exclude_each_other(&mut bench, Path::new(&parts[1]), &file);
}

/// A device-mapper device, removed when dropped.
struct Mapped(String);

impl Mapped {
    /// So many sectors of another device, from `start` on. None where that cannot be made.
    fn over(device: &str, start: u64, sectors: u64) -> Option<Mapped> {
        let name = format!("spindle-test-{}-{start}", std::process::id());
        let table = format!("0 {sectors} linear {device} {start}");
        let made = Command::new("dmsetup").args(["create", &name, "--table", &table]).output().ok()?;
        made.status.success().then(|| Mapped(name))
    }

    fn path(&self) -> std::path::PathBuf {
        std::fs::canonicalize(Path::new("/dev/mapper").join(&self.0)).unwrap()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = Command::new("dmsetup").args(["remove", "--retry", &self.0]).status();
    }
}

#[test]
fn a_mapped_device_shares_its_writer_with_what_it_lies_on_and_not_with_its_neighbour() {
    let Some((mut bench, file)) = bench_with_backing() else { return };
    let disk = Loop::over(&file).unwrap();
    let (Some(first), Some(second)) = (Mapped::over(&disk.0, 0, 2048), Mapped::over(&disk.0, 2048, 2048))
    else {
        eprintln!("skipped: no device-mapper device can be made here");
        return;
    };
    go_together(&mut bench, &first.path(), &second.path());
    exclude_each_other(&mut bench, &first.path(), &file);
    let _held = bench.open(OpenOptions::new(first.path()).writable(true).locked(true));
    let options = OpenOptions::new(&disk.0).writable(true).locked(true);
    let error = bench.error(Op::Open { options: Box::new(options) });
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains("this process itself as"), "{error}");
}

#[test]
fn a_device_that_only_refuses_writes_is_refused_when_it_is_opened_for_them() {
    let Some((mut bench, file)) = bench_with_backing() else { return };
    let device = Loop::over(&file).unwrap();
    let set =
        |how: &str| assert!(Command::new("blockdev").args([how, &device.0]).status().unwrap().success());
    set("--setro");
    let options = OpenOptions::new(&device.0).writable(true).locked(true);
    let error = bench.run(Op::Open { options: Box::new(options) }).result;
    // It would stay so for the next file below the device.
    set("--setrw");
    let error = error.expect_err("it is read-only");
    assert!(error.to_string().contains(&device.0), "{error}");
    assert!(
        error.to_string().contains("read-only") || error.kind() == ErrorKind::PermissionDenied,
        "{error}"
    );
    bench.open(OpenOptions::new(&device.0).writable(true).locked(true));
}

/// What is written to a file at the place where a device begins is read of the device by each later open, although the
/// kernel has pages of that, and of the devices between, from before.
fn is_read_anew(bench: &mut Bench, device: &Path, between: &[&Path], (file, at): (&Path, u64)) {
    let backing = std::fs::File::options().write(true).open(file).unwrap();
    // The kernel keeps the pages of a device as long as it is open.
    let open = |path: &&Path| std::fs::File::open(path).unwrap();
    let kept: Vec<_> = between.iter().chain([&device]).map(open).collect();
    let ways = [(false, false), (false, true), (true, true), (true, false)];
    for (salt, (writable, locked)) in (1..).zip(ways) {
        for kept in &kept {
            assert!(kept.read_at(&mut vec![0; 2 << 20], 0).unwrap() > 0);
        }
        let bytes = pattern(64 << 10, salt);
        backing.write_all_at(&bytes, at).unwrap();
        let opened = bench.open(OpenOptions::new(device).writable(writable).locked(locked));
        let read = bench.read(&opened, 0, bytes.len());
        assert!(read == bytes, "{device:?}, writable: {writable}, locked: {locked}");
    }
}

#[test]
fn an_opened_device_shows_what_lies_there_and_not_what_the_kernel_read_before() {
    let Some((mut bench, file)) = bench_with_backing() else { return };
    let device = Loop::over(&file).unwrap();
    is_read_anew(&mut bench, Path::new(&device.0), &[], (&file, 0));
    let above = Loop::over(Path::new(&device.0)).unwrap();
    is_read_anew(&mut bench, Path::new(&above.0), &[Path::new(&device.0)], (&file, 0));
}

#[test]
fn an_opened_partition_or_mapped_device_shows_what_lies_there() {
    let Some((mut bench, file)) = bench_with_backing() else { return };
    if let Some((disk, parts)) = with_partitions(&file) {
        is_read_anew(&mut bench, Path::new(&parts[0]), &[Path::new(&disk.0)], (&file, 1 << 20));
    }
    let disk = Loop::over(&file).unwrap();
    let above = Loop::over(Path::new(&disk.0)).unwrap();
    let Some(mapped) = Mapped::over(&above.0, 2048, 2048) else {
        eprintln!("skipped: no device-mapper device can be made here");
        return;
    };
    is_read_anew(&mut bench, &mapped.path(), &[Path::new(&disk.0)], (&file, 1 << 20));
}

#[test]
fn pages_that_a_writer_of_a_device_left_behind_never_go_over_newer_bytes_of_its_file() {
    let Some((mut bench, file)) = bench_with_backing() else { return };
    let device = Loop::over(&file).unwrap();
    let above = Loop::over(Path::new(&device.0)).unwrap();
    for (salt, left) in (1..).zip([&device, &above]) {
        let writer = std::fs::File::options().write(true).open(&left.0).unwrap();
        writer.write_all_at(&pattern(64 << 10, salt), 0).unwrap();
        let opened = bench.open(OpenOptions::new(&file).writable(true).locked(true));
        let newer = pattern(64 << 10, salt + 100);
        bench.write(&opened, 0, &newer);
        writer.sync_all().unwrap();
        std::fs::File::open(&device.0).unwrap().sync_all().unwrap();
        assert!(bench.read(&opened, 0, newer.len()) == newer, "{}", left.0);
    }
}

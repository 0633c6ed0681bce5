//! Files as bdevs: those that fit, and those that do not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spindle_bdev::modules::file::{self, FileSpec, Spelling};
use spindle_bdev::{Bdev, DescOptions, Detail, IoType, NotificationKind, Registry};
use spindle_mem::IoBuf;
use spindle_reactor::EngineKind;

use crate::support::on;

fn spec(name: &str, filename: impl Into<PathBuf>, block_size: u32) -> FileSpec {
    FileSpec {
        name: name.to_owned(),
        filename: filename.into(),
        block_size: Some(block_size),
        read_only: false,
        fallocate: false,
        uuid: None,
        spelling: Spelling::Aio,
    }
}

fn file(folder: &Path, name: &str, size: u64) -> PathBuf {
    let path = folder.join(name);
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    path
}

fn in_folder(test: impl AsyncFnOnce(Registry, PathBuf) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    on(EngineKind::Auto, async move |registry| test(registry, path).await);
}

#[test]
fn a_file_is_a_disk_under_both_spellings() {
    in_folder(async |registry, folder| {
        for (spelling, product, module) in
            [(Spelling::Aio, "AIO disk", "aio"), (Spelling::Uring, "URING bdev", "uring")]
        {
            let path = file(&folder, module, 1 << 20);
            let bdev =
                file::create(&registry, FileSpec { spelling, ..spec("F0", &path, 4096) }).await.unwrap();
            assert_eq!((bdev.info().product_name, bdev.geometry().blocks()), (product, 256));
            let details = bdev.details().await.unwrap();
            let shown = details.get(module).and_then(|own| own.get("filename"));
            assert_eq!(shown, Some(&Detail::Text(path.display().to_string())));
            let desc = Bdev::open("F0").unwrap();
            let channel = desc.channel().unwrap();
            channel.write(4096, IoBuf::copy_from(&[9; 4096])).await.0.unwrap();
            channel.flush().await.unwrap();
            drop((channel, desc));
            registry.delete(module, "F0").await.unwrap();
            assert_eq!(std::fs::read(path).unwrap()[4096..8192], [9; 4096]);
        }
    });
}

#[test]
fn a_file_that_is_no_disk_is_refused_with_the_reason() {
    in_folder(async |registry, folder| {
        let odd = file(&folder, "odd", 8_388_708);
        let empty = file(&folder, "empty", 0);
        let good = file(&folder, "good", 8_389_120);
        let fifo = folder.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let cases = [
            (spec("F", &folder, 512), 21, "it is a directory; name an image file or a block device"),
            (spec("F", &fifo, 512), 22, "fifo: it is a FIFO; name an image file or a block device"),
            (spec("F", "/dev/zero", 512), 22, "/dev/zero"),
            (spec("F", folder.join("missing"), 512), 2, "missing"),
            (spec("F", "", 512), 2, ""),
            (spec("F", folder.join("x".repeat(300)), 512), 36, "xxx"),
            (spec("F", &odd, 512), 22, "8388708 bytes"),
            (spec("F", &empty, 512), 22, "make it larger first: truncate -s SIZE "),
            (spec("F", &good, 4096), 22, "8389120 bytes"),
            (spec("F", &good, 256), 22, "256"),
            (spec("F", &good, 1536), 22, "1536"),
            (spec("F", &good, 1 << 24), 22, "16777216"),
            (spec("", &good, 512), 22, "name"),
            (FileSpec { block_size: None, ..spec("F", &good, 512) }, 22, "set block_size"),
        ];
        for (spec, errno, says) in cases {
            let shown = format!("{spec:?}");
            let refused = file::create(&registry, spec).await.unwrap_err();
            assert_eq!(refused.errno(), errno, "{shown}: {refused}");
            assert!(refused.to_string().contains(says), "{shown}: {refused}");
        }
        assert!(registry.bdevs().is_empty());
        // A refused file is closed again, so a correct request can open it.
        file::create(&registry, spec("F", &good, 512)).await.unwrap();
        let twice = file::create(&registry, spec("G", &good, 512)).await.unwrap_err();
        assert_eq!(twice.errno(), 16, "one writer a file: {twice}");
    });
}

#[test]
fn a_file_opened_for_reading_supports_no_writing() {
    in_folder(async |registry, folder| {
        let path = file(&folder, "f", 8192);
        let spec = FileSpec { read_only: true, ..spec("F", &path, 512) };
        let bdev = file::create(&registry, spec).await.unwrap();
        assert!(bdev.io_types().contains(IoType::Read) && !bdev.io_types().contains(IoType::Write));
        let desc = Bdev::open("F").unwrap();
        assert!(desc.channel().unwrap().write(0, IoBuf::zeroed(512)).await.0.is_err());
    });
}

#[test]
fn a_file_cut_short_while_in_use_fails_reads_past_its_end_only() {
    in_folder(async |registry, folder| {
        let path = file(&folder, "f", 1 << 20);
        file::create(&registry, spec("F", &path, 4096)).await.unwrap();
        let desc = Bdev::open("F").unwrap();
        let channel = desc.channel().unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
        channel.read(4096, IoBuf::zeroed(4096)).await.0.unwrap();
        let error = channel.read(8192, IoBuf::zeroed(4096)).await.0.unwrap_err();
        assert!(error.to_string().contains("8192"), "{error}");
    });
}

#[test]
fn a_rescan_sees_growth_tells_holders_and_refuses_a_shrink_while_in_use() {
    in_folder(async |registry, folder| {
        let path = file(&folder, "f", 8192);
        let bdev = file::create(&registry, spec("F", &path, 512)).await.unwrap();
        registry.wait_for_examine().await;
        let told = Arc::new(AtomicUsize::new(0));
        let seen = told.clone();
        let on_event = move |_| _ = seen.fetch_add(1, Ordering::Relaxed);
        let desc = DescOptions::new().write(true).on_event(on_event).open("F").unwrap();
        let channel = desc.channel().unwrap();
        channel.write(8192, IoBuf::zeroed(512)).await.0.unwrap_err();
        let resize = |size| std::fs::File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        resize(16384);
        file::rescan(&registry, Spelling::Aio, "F").await.unwrap();
        channel.write(8192, IoBuf::zeroed(512)).await.0.unwrap();
        resize(4096);
        let refused = file::rescan(&registry, Spelling::Aio, "F").await.unwrap_err();
        assert_eq!((refused.errno(), bdev.geometry().blocks()), (16, 32), "{refused}");
        drop((channel, desc));
        file::rescan(&registry, Spelling::Aio, "F").await.unwrap();
        assert_eq!(bdev.geometry().blocks(), 8);
        resize(100);
        assert_eq!(file::rescan(&registry, Spelling::Aio, "F").await.unwrap_err().errno(), 22);
        assert_eq!(file::rescan(&registry, Spelling::Uring, "F").await.unwrap_err().errno(), 19);
        let resizes =
            registry.notifications(0, 100).into_iter().filter(|n| n.kind == NotificationKind::Resize);
        assert_eq!((resizes.count(), told.load(Ordering::Relaxed)), (2, 1));
    });
}

#[test]
fn a_path_that_the_system_cannot_open_is_refused_with_the_systems_number_and_a_remedy() {
    in_folder(async |registry, folder| {
        let good = file(&folder, "good", 1 << 20);
        let (loops, socket) = (folder.join("loop"), folder.join("socket"));
        std::os::unix::fs::symlink(&loops, &loops).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, errno, says) in [
            (loops, 40, "name the file itself"),
            (good.join(""), 20, "correct the path"),
            (socket, 6, "name a regular file"),
        ] {
            let refused = file::create(&registry, spec("F", &path, 512)).await.unwrap_err();
            assert_eq!(refused.errno(), errno, "{refused}");
            assert!(refused.to_string().contains(says), "{refused}");
        }
        file::create(&registry, spec("F", &good, 512)).await.unwrap();
        let twice = file::create(&registry, spec("G", &good, 512)).await.unwrap_err();
        assert!(twice.errno() == 16 && twice.to_string().contains("in use for bdev \"F\""), "{twice}");
    });
}

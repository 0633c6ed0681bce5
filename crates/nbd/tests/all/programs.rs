//! Programs that people use, against a server on both engines of the system. A program that is not installed
//! skips its test, by name.

use std::fs;

use spindle_nbd::Options;
use spindle_reactor::EngineKind;

use crate::support::{Served, have, ran, run};

const MIB: u64 = 1 << 20;
const ENGINES: [EngineKind; 2] = [EngineKind::IoUring, EngineKind::Epoll];

/// A server with a RAM disk of 512-byte blocks, one of 4096-byte blocks, and a file.
fn served(kind: EngineKind) -> Served {
    let served = Served::start(kind, Options::default());
    served.export_malloc("ram", 512, 64 * MIB);
    served.export_malloc("ram4k", 4096, 64 * MIB);
    served.export_file("file", 64 * MIB);
    served
}

/// A file with something in it, and holes.
fn image(served: &Served, bytes: u64) -> String {
    let mut content = vec![0u8; bytes as usize];
    for (index, byte) in content.iter_mut().enumerate().filter(|(index, _)| (index >> 18) % 3 != 1) {
        *byte = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[1];
    }
    let path = served.folder.path().join("image.raw");
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn nbdinfo_lists_the_exports_and_what_they_can_do() {
    if !have("nbdinfo") {
        return;
    }
    for kind in ENGINES {
        let served = served(kind);
        let listed = run("nbdinfo", &["--list", &served.uri("")]);
        for name in ["\"ram\"", "\"ram4k\"", "\"file\""] {
            assert!(listed.contains(&format!("export={name}")), "{listed}");
        }
        let told = run("nbdinfo", &[&served.uri("ram4k")]);
        for line in ["export-size: 67108864", "block_size_minimum: 4096", "can_multi_conn: true"] {
            assert!(told.contains(line), "{line} is missing:\n{told}");
        }
        assert!(told.contains("base:allocation") && told.contains("qemu:allocation-depth"), "{told}");
        for can in ["write", "flush", "fua", "trim", "zero", "fast-zero", "cache", "df", "multi-conn"] {
            run("nbdinfo", &["--can", can, &served.uri("ram")]);
        }
        let map = run("nbdinfo", &["--map", &served.uri("file")]);
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "67108864", "0", "data"]);
        let unknown = ran("nbdinfo", &[&served.uri("nothing")]);
        assert!(!unknown.status.success() && !unknown.stderr.is_empty());
    }
}

#[test]
fn nbdcopy_takes_an_image_there_and_back() {
    if !have("nbdcopy") {
        return;
    }
    for kind in ENGINES {
        let served = served(kind);
        let image = image(&served, 48 * MIB);
        let back = served.folder.path().join("back.raw");
        for name in ["ram", "ram4k", "file"] {
            run("nbdcopy", &["--flush", &image, &served.uri(name)]);
            run("nbdcopy", &[&served.uri(name), back.to_str().unwrap()]);
            let (sent, came) = (fs::read(&image).unwrap(), fs::read(&back).unwrap());
            assert!(came.starts_with(&sent) && came[sent.len()..].iter().all(|byte| *byte == 0), "{name}");
        }
        let ended = served.stop();
        assert_eq!((ended.connections, ended.failed_flushes), (0, 0));
    }
}

#[test]
fn qemu_img_converts_compares_and_maps() {
    if !have("qemu-img") {
        return;
    }
    for kind in ENGINES {
        let served = served(kind);
        let image = image(&served, 64 * MIB);
        for name in ["ram", "ram4k", "file"] {
            let uri = served.uri(name);
            run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &image, &uri]);
            run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &image, &uri]);
            let map = run("qemu-img", &["map", "-f", "raw", "--output=json", &uri]);
            assert!(map.contains("\"data\": true") && map.contains("67108864"), "{map}");
        }
    }
}

#[test]
fn qemu_io_writes_zeroes_discards_and_reads_parts_of_blocks() {
    if !have("qemu-io") {
        return;
    }
    for kind in ENGINES {
        let served = served(kind);
        for name in ["ram", "ram4k", "file"] {
            let uri = served.uri(name);
            let commands = [
                "write -P 0x11 0 1M",
                "write -P 0x22 -f 1000 3000",
                "write -z 65536 65536",
                "write -z -u 131072 65536",
                "discard 196608 65536",
                "aio_write -P 0x33 1M 2M",
                "aio_write -P 0x44 3M 2M",
                "aio_flush",
                "flush",
                "read -P 0x11 0 1000",
                "read -P 0x22 1000 3000",
                "read -P 0x11 4000 61536",
                "read -P 0 65536 131072",
                "read -P 0x33 1M 2M",
                "read -P 0x44 3M 2M",
            ];
            let mut arguments = vec!["-f", "raw"];
            commands.iter().for_each(|command| arguments.extend(["-c", command]));
            arguments.push(&uri);
            let printed = run("qemu-io", &arguments);
            assert!(!printed.contains("failed") && !printed.contains("rror"), "{printed}");
        }
    }
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !have("fio") {
        return;
    }
    for kind in ENGINES {
        let served = served(kind);
        for (name, block) in [("ram", "bsrange=512-256k"), ("ram4k", "bs=4k"), ("file", "bsrange=4k-64k")] {
            let folder = format!("--aux-path={}", served.folder.path().display());
            let uri = format!("--uri={}", served.uri(name));
            let arguments = [
                "--name=verify",
                "--ioengine=nbd",
                &uri,
                &folder,
                "--rw=randwrite",
                &format!("--{block}"),
                "--iodepth=64",
                "--size=24m",
                "--verify=crc32c",
                "--verify_fatal=1",
                "--verify_state_save=0",
            ];
            run("fio", &arguments);
        }
        assert!(served.server.exports().iter().all(|export| export.counts.errors == 0));
    }
}

/// What libnbd's own tests do with other servers: requests that a client should not make.
const LIBNBD: &str = r#"
import errno, nbd
h = nbd.NBD()
def error(f):
    try:
        f()
    except nbd.Error as found:
        return found.errnum
    return None
h.set_opt_mode(True)
h.add_meta_context("base:allocation")
h.connect_uri(uri)
names = []
h.opt_list(lambda name, description: names.append(name))
assert sorted(names) == ["file", "ram", "ram4k"], names
h.set_export_name("ram4k")
h.opt_info()
assert h.get_size() == 64 << 20 and h.get_block_size(nbd.SIZE_MINIMUM) == 4096
h.set_export_name("nothing")
assert error(h.opt_info) == errno.ENOENT
contexts = []
h.set_export_name("ram4k")
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ["base:allocation"], contexts
h.opt_go()
h.set_strict_mode(0)
h.pwrite(b"x" * 3000, 5000)
assert h.pread(3002, 4999) == b"\0" + b"x" * 3000 + b"\0"
assert error(lambda: h.pread(512, 64 << 20)) == errno.EINVAL
assert error(lambda: h.pwrite(b"x" * 512, 64 << 20)) == errno.ENOSPC
assert error(lambda: h.pread(1, 2**63)) == errno.EINVAL
assert error(lambda: h.trim(512, 0, 64)) == errno.EINVAL
h.zero(2000, 5500, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA)
assert h.pread(3000, 5000) == b"x" * 500 + b"\0" * 2000 + b"x" * 500
h.trim(64 << 20, 0)
h.cache(4096, 0)
h.flush()
cookies = [h.aio_pread(nbd.Buffer(65536), n * 65536) for n in range(500)]
while cookies:
    h.poll(-1)
    cookies = [cookie for cookie in cookies if not h.aio_command_completed(cookie)]
h.shutdown()
"#;

#[test]
fn libnbd_gets_answers_to_what_it_should_not_ask() {
    // The system's own: that is where the package puts the module.
    let python = "/usr/bin/python3";
    if !std::path::Path::new(python).exists() || !ran(python, &["-c", "import nbd"]).status.success() {
        eprintln!("SKIPPED: python3-libnbd is not installed");
        return;
    }
    for kind in ENGINES {
        let served = served(kind);
        run(python, &["-c", &format!("uri = {:?}\n{LIBNBD}", served.uri(""))]);
    }
}

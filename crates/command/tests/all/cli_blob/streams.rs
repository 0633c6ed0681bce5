//! What a command leaves, and says, when its surroundings fail: streams closed or full, signals, limits, an image
//! that was cut short.

use super::support::{Ended, HELLO, Image, command, on};
use super::writing::{blobs, contents, done, id, in_order, named, pattern, store};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

/// Runs `spindle blob` under bash with redirections or limits around it; `$0` is the binary, `$1` the image.
fn bash(image: &Image, script: &str) -> Ended {
    let run = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_spindle")])
        .arg(image.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let code = run.status.code().unwrap_or_else(|| panic!("{script}: killed by {:?}", run.status.signal()));
    Ended { code, out: run.stdout, err: String::from_utf8(run.stderr).unwrap() }
}

#[test]
fn what_was_done_is_said_when_standard_output_cannot_be_written() {
    for sink in [">&-", ">/dev/full", "| true"] {
        let image = store(16);
        done(&image, "create", &["--size", "128K", "--thin", "--name", "vm"]);
        done(&image, "snapshot", &["vm", "--name", "base"]);
        for (command, says) in [
            ("create $1 --size 64K --name new", "made blob 0x1"),
            ("snapshot $1 vm --name snap", "made blob 0x1"),
            ("clone $1 snap --name copy", "made blob 0x1"),
            ("import $1 vm <(head -c 1000 /dev/zero)", "into blob 0x1"),
            ("import $1 --create --name in <(head -c 1000 /dev/zero)", "into blob 0x1"),
            ("resize $1 new 256K", "resized blob 0x1"),
            ("xattr $1 new set a b", "changed the xattrs of blob 0x1"),
            ("decouple $1 copy", "decoupled blob 0x1"),
            ("inflate $1 copy", "inflated blob 0x1"),
            ("super $1 new", "set the super blob to 0x1"),
            ("rm $1 new", "removed blob 0x1"),
            ("grow $1", "grew "),
            ("init $1 --force", "made a store on "),
        ] {
            // The reader of the pipe has gone before the command begins.
            let script = match sink {
                "| true" => format!("exec 3> >(true); wait $!; \"$0\" blob {command} >&3"),
                sink => format!("\"$0\" blob {command} {sink}"),
            };
            let ended = bash(&image, &script);
            assert_eq!(ended.code, 1, "{command} {sink}: {}", ended.err);
            let last = ended.err.lines().last().unwrap();
            assert!(
                last.contains(says) && last.contains("standard output"),
                "{command} {sink}: {}",
                ended.err
            );
        }
        in_order(&image);
    }
    let image = store(16);
    for command in ["ls", "info", "dump"] {
        let ended = bash(&image, &format!("\"$0\" blob {command} $1 >&-"));
        assert_eq!(ended.code, 1, "{command}");
        assert!(ended.err.contains("standard output"), "{command}: {}", ended.err);
    }
}

#[test]
fn a_null_device_that_is_open_for_reading_and_writing_is_no_closed_stream() {
    let image = store(16);
    for command in ["create $1 --name vm --size 1M", "ls $1", "info $1", "rm $1 vm"] {
        let ended = bash(&image, &format!("\"$0\" blob {command} 1<>/dev/null"));
        assert_eq!((ended.code, &*ended.err), (0, ""), "{command}");
    }
    assert_eq!(bash(&image, "\"$0\" blob import $1 --create --name vm - 0<>/dev/null").code, 0);
    assert_eq!(named(&image, "vm")["size"], 0);
}

#[test]
fn a_closed_standard_input_makes_nothing_and_an_empty_one_an_empty_blob() {
    let image = store(16);
    let before = image.sha256();
    let ended = bash(&image, "\"$0\" blob import $1 --create --name vm - <&-");
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("standard input is closed"), "{}", ended.err);
    assert_eq!(image.sha256(), before);
    assert_eq!(bash(&image, "\"$0\" blob import $1 --create --name vm - </dev/null").code, 0);
    assert_eq!(named(&image, "vm")["size"], 0);
}

#[test]
fn a_closed_stream_by_any_name_is_neither_read_nor_written() {
    let image = store(16);
    done(&image, "create", &["--size", "64K", "--name", "vm"]);
    let before = image.sha256();
    for (command, says) in [
        ("export $1 vm - >&-", "standard output"),
        ("export $1 vm /dev/stdout >&-", "/dev/stdout"),
        ("export $1 vm /dev/fd/1 >&-", "/dev/fd/1"),
        ("export $1 vm /proc/self/fd/1 --force >&-", "/proc/self/fd/1"),
        ("import $1 --create --name z - <&-", "standard input"),
        ("import $1 --create --name z /dev/stdin <&-", "/dev/stdin"),
        ("import $1 --create --name z /dev/fd/0 <&-", "/dev/fd/0"),
        ("import $1 vm /proc/self/fd/0 <&-", "/proc/self/fd/0"),
    ] {
        let ended = bash(&image, &format!("\"$0\" blob {command}"));
        assert_eq!(ended.code, 1, "{command}: {}", ended.err);
        assert!(ended.err.contains(says) && ended.err.contains("closed"), "{command}: {}", ended.err);
    }
    assert_eq!(image.sha256(), before);
}

#[test]
fn a_check_of_a_damaged_store_says_so_by_its_exit_code_whatever_becomes_of_its_output() {
    let mut damaged = HELLO.clone();
    super::support::page_of(&mut damaged, 5)[100] ^= 1;
    for more in ["", "--json", "--repair", "--repair --json"] {
        for sink in [">&-", ">/dev/full", ">&3", "| head -1; exit ${PIPESTATUS[0]}"] {
            let image = Image::new(&damaged);
            // The reader of the third has gone before the command begins.
            let ended =
                bash(&image, &format!("exec 3> >(true); wait $!; \"$0\" blob check $1 {more} {sink}"));
            assert_eq!(ended.code, 4, "check {more} {sink}: {}", ended.err);
            assert!(ended.err.contains("finding"), "check {more} {sink}: {}", ended.err);
        }
    }
}

/// Starts an import of a pipe that stays open, and returns once more was taken than pipe and queue hold.
pub fn endless(image: &Image, arguments: &[&str]) -> std::process::Child {
    let head = ["blob".as_ref(), "import".as_ref(), image.path().as_os_str()];
    let mut child = command(head.into_iter().chain(arguments.iter().map(OsStr::new)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(&pattern(3, 14 << 20)).unwrap();
    child
}

fn signal(child: &std::process::Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_hangup_leaves_the_store_in_order_and_a_dump_can_be_asked_for_meanwhile() {
    let image = store(32);
    let mut child = endless(&image, &["--create", "--thin", "-"]);
    signal(&child, "-USR1");
    signal(&child, "-HUP");
    let input = child.stdin.take();
    let ended = child.wait_with_output().unwrap();
    drop(input);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(129), "{said}");
    assert!(said.contains("leaving the store in order"), "{said}");
    assert!(
        said.contains("spindle blob") && said.contains("task"),
        "the dump names thread and tasks: {said}"
    );
    assert!(blobs(&image).is_empty());
    in_order(&image);
}

/// A clone of 64 MiB of `bytes`, the command on it that a signal reached once it copied, and how that ended. `None` if
/// it had ended before, as may happen on a busy machine.
fn stopped_while_it_copies(verb: &str, name: &str, bytes: &[u8]) -> Option<(Image, Output)> {
    let image = Image::new(&vec![0; 192 << 20]);
    done(&image, "init", &["--cluster-size", "4K", "--md-pages", "400"]);
    let input = image.beside("input");
    fs::write(&input, bytes).unwrap();
    done(&image, "import", &["--create", "--thin", "--name", "vm", input.to_str().unwrap()]);
    done(&image, "snapshot", &["vm", "--name", "base"]);
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&fs::metadata(image.path()).unwrap());
    let before = blocks();
    let arguments = ["blob".as_ref(), verb.as_ref(), image.path().as_os_str(), "vm".as_ref()];
    let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Once it copies, the image takes more space.
    while blocks() < before + 1024 {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
    }
    signal(&child, name);
    let ended = child.wait_with_output().unwrap();
    (!ended.status.success()).then_some((image, ended))
}

#[test]
fn an_inflate_or_decoupling_that_a_signal_stops_is_done_in_part_and_the_next_goes_on_from_there() {
    let bytes = pattern(8, 64 << 20);
    for (verb, name, code) in [("inflate", "-INT", 130), ("decouple", "-TERM", 143)] {
        let (image, ended) = (0..100)
            .find_map(|_| stopped_while_it_copies(verb, name, &bytes))
            .expect("one of a hundred is stopped in time");
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{verb}: {said}");
        assert!(said.contains("call it again to continue") && said.contains("stopped by a signal"), "{said}");
        in_order(&image);
        let stopped = named(&image, "vm");
        assert_eq!(stopped["parent"], named(&image, "base")["id"], "{verb}");
        assert!(stopped["allocated_clusters"].as_u64().unwrap() > 0, "{verb}");
        assert!(contents(&image, "vm") == bytes);
        done(&image, verb, &["vm"]);
        assert!(contents(&image, "vm") == bytes && named(&image, "vm")["parent"].is_null(), "{verb}");
    }
}

#[test]
fn a_command_that_only_reads_survives_the_signal_for_a_dump() {
    let image = Image::fixture("many");
    let arguments =
        ["blob".as_ref(), "export".as_ref(), image.path().as_os_str(), "fragB".as_ref(), "-".as_ref()];
    let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Once it writes it waits for its reader.
    let mut first = [0; 1];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    signal(&child, "-USR1");
    // The line comes before the end does: the export cannot end without a reader.
    let mut line = String::new();
    let mut err = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut err, &mut line).unwrap();
    assert!(line.contains("export") && line.contains("no reactor"), "{line}");
    std::io::copy(child.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_limit_on_the_size_of_files_fails_the_command_and_leaves_nothing() {
    let image = store(64);
    fs::write(image.beside("input"), pattern(4, 20 << 20)).unwrap();
    let ended = bash(&image, "ulimit -f 1000; \"$0\" blob init $1.new --size 1G");
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(!image.beside("store.img.new").exists());
    let ended = bash(&image, "ulimit -f 10000; \"$0\" blob import $1 --create --name v ${1%/*}/input");
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("ulimit -f"), "{}", ended.err);
    assert!(blobs(&image).is_empty());
    in_order(&image);
    done(&image, "create", &["--size", "20M", "--name", "vm"]);
    let ended = bash(&image, "ulimit -f 10000; \"$0\" blob import $1 vm ${1%/*}/input");
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(contents(&image, "vm").iter().all(|&byte| byte == 0), "it holds what it held");
    in_order(&image);
    let ended = bash(&image, "ulimit -f 1000; \"$0\" blob export $1 vm ${1%/*}/out; [ ! -e ${1%/*}/out ]");
    // Zeroes are holes: nothing is written, but the file is as long.
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[test]
fn a_limit_inside_an_image_is_found_before_anything_is_written() {
    let image = store(16);
    done(&image, "create", &["--size", "1M", "--name", "vm"]);
    fs::write(image.beside("input"), pattern(6, 1 << 20)).unwrap();
    let before = image.sha256();
    // In the super block, in the masks, in the metadata, in the data.
    for blocks in [3, 17, 100, 2000] {
        for command in [
            "xattr $1 vm set a b",
            "create $1 --size 64K",
            "import $1 --create ${1%/*}/input",
            "import $1 vm ${1%/*}/input",
            "snapshot $1 vm",
            "resize $1 vm 2M",
            "rm $1 vm",
            "super $1 vm",
            "grow $1",
            "grow $1 --size 32M",
            "check $1 --repair",
            "init $1 --force",
        ] {
            let ended = bash(&image, &format!("ulimit -f {blocks}; \"$0\" blob {command}"));
            assert_eq!(ended.code, 1, "{blocks} {command}: {}", ended.err);
            assert!(ended.err.contains("ulimit -f"), "{blocks} {command}: {}", ended.err);
            assert!(image.sha256() == before, "{blocks} {command} changed the image");
        }
    }
    assert_eq!(bash(&image, "ulimit -f 16384; \"$0\" blob xattr $1 vm set a b").code, 0);
    in_order(&image);
}

#[test]
fn an_image_that_was_cut_short_is_read_as_far_as_it_goes_with_the_remedy() {
    let image = Image::new(&HELLO);
    let whole = HELLO.len() as u64;
    let before = contents(&image, "alpha");
    fs::File::options().write(true).open(image.path()).unwrap().set_len(whole - (1 << 20)).unwrap();
    let remedy = format!("truncate a copy to {whole} bytes to read it");
    for arguments in [&["info"][..], &["ls"], &["dump"], &["export", "alpha", "-"]] {
        let ended = on(&image, arguments[0], &arguments[1..]);
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.err);
        assert!(
            ended.err.contains("cut short") && ended.err.contains(&remedy),
            "{arguments:?}: {}",
            ended.err
        );
    }
    assert!(contents(&image, "alpha") == before);
    on(&image, "create", &["--size", "1M"]).fails(1, &["store.img", "cut short", &remedy]);
    fs::File::options().write(true).open(image.path()).unwrap().set_len(whole).unwrap();
    assert!(on(&image, "ls", &[]).err.is_empty());
}

#[test]
fn no_command_that_writes_changes_an_image_that_was_cut_short() {
    let image = store(16);
    fs::write(image.beside("input"), pattern(5, 3 << 20)).unwrap();
    let input = image.beside("input");
    let input = input.to_str().unwrap();
    let made = done(&image, "import", &["--create", "--name", "vm", input]);
    assert!(made.contains("imported"), "{made}");
    fs::File::options().write(true).open(image.path()).unwrap().set_len(2 << 20).unwrap();
    let before = image.sha256();
    for arguments in [
        &["grow", "--size", "16M"][..],
        &["grow", "--size", "1G"],
        &["grow"],
        &["create", "--size", "64K"],
        &["import", "--create", "--name", "new", input],
        &["import", "vm", input],
        &["import", "--in-place", "vm", input],
        &["rm", "vm"],
        &["resize", "vm", "4M"],
        &["xattr", "vm", "set", "a", "b"],
        &["snapshot", "vm"],
        &["inflate", "vm"],
        &["decouple", "vm"],
        &["super", "vm"],
        &["check", "--repair"],
    ] {
        let ended = on(&image, arguments[0], &arguments[1..]);
        assert_eq!(ended.code, 1, "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains("cut short"), "{arguments:?}: {}", ended.err);
        assert!(image.sha256() == before, "{arguments:?} changed the image");
    }
    assert_eq!(on(&image, "check", &[]).code, 4);
}

#[test]
fn an_image_without_a_store_is_refused_with_the_contents_and_the_remedy() {
    for (magic, at, says) in [
        (&b"EFI PART"[..], 512, &["a partition table (GPT)", "partitions"][..]),
        (b"QFI\xFB", 0, &["qcow2", "qemu-img convert"]),
        (b"\x53\xEF", 1080, &["ext4", "not a Blobstore"]),
        (b"\x28\xB5\x2F\xFD", 0, &["zstd", "unpack"]),
        (b"\x1F\x8B\x08", 0, &["gzip", "unpack"]),
        (b"conectix", 0, &["VHD", "qemu-img convert"]),
        (b"conectix", (2 << 20) - 512, &["VHD", "qemu-img convert"]),
        (b"WithoutFreeSpace", 0, &["Parallels", "qemu-img convert"]),
        (b"PK\x03\x04", 0, &["zip archive", "unpack"]),
        (b"ustar", 257, &["tar archive", "unpack"]),
        (b"OCFSV2", 8192, &["OCFS2", "not a Blobstore"]),
    ] {
        let mut bytes = vec![0; 2 << 20];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        let image = Image::new(&bytes);
        for command in [&["info"][..], &["ls"], &["create", "--size", "1M"]] {
            on(&image, command[0], &command[1..])
                .fails(1, &[&["store.img", "not a Blobstore"], says].concat());
        }
        on(&image, "init", &[]).fails(1, &[says[0], "--force"]);
    }
}

#[test]
fn a_name_that_looks_like_an_id_is_not_given_and_never_meant() {
    let image = store(16);
    for name in
        ["1", "0x10", "4294967296", "18446744073709551615", "18446744073709551616", "0x10000000000000000"]
    {
        let ended = on(&image, "create", &["--size", "64K", "--name", name]);
        assert_eq!(ended.code, 2, "{name}: {}", ended.err);
        assert!(ended.err.contains(name) && ended.err.contains("id of a blob"), "{name}: {}", ended.err);
    }
    let made = id(&image, "create", &["--size", "64K", "--name", "vm"]);
    on(&image, "xattr", &["vm", "set", "name", "77"]).fails(2, &["77", "id of a blob"]);
    let ended = on(&image, "snapshot", &["vm", "--xattr", "name=77"]);
    assert!(ended.code == 2 && ended.err.contains("77"), "{}", ended.err);
    let blob = named(&image, "vm");
    assert_eq!(blob["id_text"], made);
    assert_eq!(format!("{:#x}", blob["id"].as_u64().unwrap()), made);
    done(&image, "snapshot", &["vm", "--name", "snap"]);
    assert_eq!(named(&image, "vm")["parent_text"], named(&image, "snap")["id_text"]);
    assert_eq!(named(&image, "snap")["clones_text"][0], made);
    done(&image, "delete", &["snap"]);
    assert_eq!(on(&image, "list", &["--json"]).out, on(&image, "ls", &["--json"]).out);
}

#[test]
fn a_name_of_another_program_that_looks_like_an_id_is_not_taken_for_the_blob() {
    let mut bytes = HELLO.clone();
    super::support::change_page(&mut bytes, 0, |page| super::support::replace(page, b"alpha", b"12345"));
    let image = Image::new(&bytes);
    on(&image, "export", &["12345", "-"]).fails(1, &["read as an id", "0x100000000"]);
    on(&image, "rm", &["12345"]).fails(1, &["read as an id", "0x100000000"]);
    let long = "123456789012345678901";
    let mut bytes = HELLO.clone();
    super::check::rewrite(&mut bytes, 0x1_0000_0000, &[], |meta| {
        meta.xattrs.set(b"name", long.as_bytes()).unwrap();
    });
    on(&Image::new(&bytes), "rm", &[long]).fails(1, &["read as an id", "0x100000000"]);
}

#[test]
fn sizes_are_read_the_same_everywhere() {
    let image = Image::new(&vec![0; 32 << 20]);
    done(&image, "init", &["--cluster-size", "0.0625MiB"]);
    done(&image, "create", &["--size", "1.5M", "--name", "vm"]);
    assert_eq!(named(&image, "vm")["size"], 3 << 19);
    done(&image, "resize", &["vm", "2.0MiB"]);
    for arguments in [&["resize", "vm", "4MB"][..], &["create", "--size", "4MB"], &["grow", "--size", "4GB"]]
    {
        let ended = on(&image, arguments[0], &arguments[1..]);
        assert_eq!(ended.code, 2, "{arguments:?}");
        assert!(ended.err.contains("iB for powers of 1024"), "{}", ended.err);
    }
}

#[test]
fn a_store_with_much_metadata_says_how_much_and_what_changes_it() {
    let image = Image::new(&[]);
    let path = image.beside("large.img");
    let path = path.to_str().unwrap();
    let ended = super::support::blob(["init", path, "--size", "8G", "--cluster-size", "64K"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    for words in ["metadata takes 51", "--md-pages", "--md-ratio", "--cluster-size"] {
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
    }
}

//! Imports: every byte arrives, nothing else does, and a failed one leaves the store as it was.

use super::support::{Ended, FIRST_ID, HELLO, Image, command, on, unpack};
use super::writing::*;
use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

const CLUSTER: usize = 64 << 10;

/// Data, zeroes, data, and an end in the middle of everything.
fn mixed(len: usize) -> Vec<u8> {
    let mut bytes = pattern(7, len);
    let (from, to) = (len / 4, len / 2);
    bytes[from..to].fill(0);
    bytes
}

#[test]
fn what_is_imported_is_exported_again_at_every_length() {
    let image = store(32);
    let lengths =
        [1, 511, 512, 4095, 4096, 4097, CLUSTER - 1, CLUSTER, CLUSTER + 1, 1 << 20, (3 << 20) + 777];
    for (number, len) in lengths.into_iter().enumerate() {
        let bytes = mixed(len);
        for (way, more) in [("thick", &[][..]), ("thin", &["--thin"])] {
            let name = format!("{way}-{len}");
            let rest = [&["--create", "FILE", "--name", &name, "--json"], more].concat();
            let ended = if number % 2 == 0 {
                import_file(&image, &rest, &bytes)
            } else {
                let rest: Vec<&str> = rest.iter().map(|a| if *a == "FILE" { "-" } else { a }).collect();
                import_stream(&image, &rest, &bytes)
            };
            let report = ended.json();
            assert_eq!(report["bytes"], len, "{name}");
            assert_eq!(report["written"].as_u64().unwrap() + report["zeroes"].as_u64().unwrap(), len as u64);
            let out = contents(&image, &name);
            assert_eq!(out.len(), len.next_multiple_of(CLUSTER), "{name}");
            assert!(out[..len] == bytes, "{name} holds what was imported");
            assert!(out[len..].iter().all(|&byte| byte == 0), "{name} ends in zeroes");
            assert_eq!(report["padding"], out.len() - len);
            done(&image, "rm", &[&name]);
        }
    }
    in_order(&image);
}

#[test]
fn an_end_inside_a_cluster_is_told_and_an_empty_input_is_an_empty_blob() {
    let image = store(8);
    let ended = import_file(&image, &["--create", "FILE", "--name", "odd"], &pattern(1, 5000));
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.text().contains("imported 5000 bytes") && ended.text().contains("60536 bytes of zeroes"));
    let ended = import_file(&image, &["--create", "FILE", "--name", "empty"], b"");
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.text().contains("imported 0 bytes"), "{}", ended.text());
    assert_eq!(named(&image, "empty")["clusters"], 0);
    let ended = import_stream(&image, &["--create", "-", "--name", "silence"], b"");
    assert_eq!((ended.code, &named(&image, "silence")["clusters"]), (0, &0.into()), "{}", ended.err);
    in_order(&image);
}

#[test]
fn a_thin_import_takes_clusters_for_data_only() {
    let image = store(32);
    let path = image.beside("sparse");
    let file = fs::File::create(&path).unwrap();
    // Mostly a hole; and zeroes that are written ones.
    file.set_len(24 << 20).unwrap();
    use std::os::unix::fs::FileExt;
    file.write_all_at(&pattern(3, 100), 10 << 20).unwrap();
    file.write_all_at(&vec![0; 1 << 20], 12 << 20).unwrap();
    file.write_all_at(&pattern(4, CLUSTER), (24 << 20) - CLUSTER as u64).unwrap();
    let rest = ["--create", "--thin", "--name", "sparse", path.to_str().unwrap(), "--json"];
    let report = on(&image, "import", &rest).json();
    assert_eq!(report["blob"]["allocated_clusters"], 2);
    assert_eq!((&report["bytes"], &report["written"]), (&(24 << 20).into(), &(2 * CLUSTER).into()));
    assert!(contents(&image, "sparse") == fs::read(&path).unwrap());
    in_order(&image);
}

#[test]
fn an_existing_blob_holds_the_input_and_then_zeroes() {
    for more in [&[][..], &["--thin"]] {
        let image = store(16);
        let create = [&["--clusters", "40", "--name", "disk"], more].concat();
        done(&image, "create", &create);
        let all = pattern(5, 40 * CLUSTER);
        assert_eq!(import_file(&image, &["disk", "FILE"], &all).code, 0);
        assert!(contents(&image, "disk") == all);
        // Shorter, with a hole of zeroes where data was.
        let bytes = mixed(20 * CLUSTER + 4097);
        for ended in [
            import_file(&image, &["disk", "FILE", "--json"], &bytes),
            import_stream(&image, &["disk", "-", "--json"], &bytes),
        ] {
            assert_eq!(ended.json()["padding"], 40 * CLUSTER - bytes.len());
            let out = contents(&image, "disk");
            assert!(out[..bytes.len()] == bytes);
            assert!(out[bytes.len()..].iter().all(|&byte| byte == 0), "no old data is left after the end");
        }
        in_order(&image);
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_changes() {
    let image = store(8);
    done(&image, "create", &["--clusters", "2", "--name", "small"]);
    let before = image.sha256();
    let large = pattern(6, 2 * CLUSTER + 1);
    import_file(&image, &["small", "FILE"], &large)
        .fails(1, &["131073 bytes", "small", "131072", "spindle blob resize"]);
    import_file(&image, &["--create", "--size", "128K", "FILE"], &large).fails(1, &["131073", "--size"]);
    // Thick: more than there is.
    import_file(&image, &["--create", "FILE"], &vec![0; 9 << 20]).fails(1, &["out of space", "free"]);
    assert_eq!(image.sha256(), before);
    // A stream says too late that it is too long.
    let ended = import_stream(&image, &["small", "-"], &large);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("holds what it held") && ended.err.contains("resize"), "{}", ended.err);
    assert!(contents(&image, "small").iter().all(|&byte| byte == 0));
    let ended = import_stream(&image, &["--in-place", "small", "-"], &large);
    assert_eq!(ended.code, 1);
    for words in ["written over as it comes", "holds part of standard input", "resize"] {
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
    }
    in_order(&image);
}

#[test]
fn an_input_without_end_ends_with_an_error() {
    let image = store(16);
    done(&image, "create", &["--clusters", "40", "--name", "disk"]);
    let before = image.sha256();
    for device in ["/dev/zero", "/dev/urandom", "/dev/full"] {
        on(&image, "import", &["disk", device]).fails(1, &[device, "never ends", "head -c"]);
        on(&image, "import", &["--create", "--name", "z", device]).fails(1, &[device, "never ends"]);
    }
    assert_eq!(image.sha256(), before);
    // A pipe says nothing: what comes is counted, zeroes too.
    for (arguments, says) in [
        (&["disk", "-"][..], "spindle blob resize"),
        (&["--in-place", "disk", "-"], "spindle blob resize"),
        (&["--create", "--thin", "--name", "z", "-"], "give --size"),
        (&["--create", "--thin", "--size", "1M", "--name", "z", "-"], "spindle blob resize"),
    ] {
        let mut endless =
            std::process::Command::new("cat").arg("/dev/zero").stdout(Stdio::piped()).spawn().unwrap();
        let all = ["blob".as_ref(), "import".as_ref(), image.path().as_os_str()];
        let ended = command(all.into_iter().chain(arguments.iter().map(std::ffi::OsStr::new)))
            .stdin(endless.stdout.take().unwrap())
            .output()
            .unwrap();
        endless.wait().unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
        assert_eq!(blobs(&image).len(), 1, "{arguments:?}");
        in_order(&image);
    }
}

#[test]
fn a_kill_in_the_middle_of_an_import_leaves_the_old_contents_or_with_in_place_a_mixture() {
    for in_place in [false, true] {
        let image = store(64);
        done(&image, "create", &["--size", "20M", "--name", "disk", "--xattr", "mine=kept"]);
        let old = pattern(11, 20 << 20);
        assert_eq!(import_file(&image, &["disk", "FILE"], &old).code, 0);
        let before = named(&image, "disk");
        let arguments: &[&str] = if in_place { &["--in-place", "disk", "-"] } else { &["disk", "-"] };
        let mut child = endless(&image, arguments);
        signal(&child, "-KILL");
        child.wait().unwrap();
        assert_eq!(unlocked(|| on(&image, "rm", &["nobody"])).code, 1);
        assert_eq!(contents(&image, "disk") == old, !in_place, "in place: {in_place}");
        assert_eq!(named(&image, "disk"), before, "id, name and xattrs stay");
        assert_eq!(on(&image, "check", &[]).code, 0);
    }
}

#[test]
fn an_import_takes_space_beside_the_old_contents_and_says_so_before() {
    let image = store(32);
    done(&image, "create", &["--size", "20M", "--name", "disk"]);
    let all = pattern(12, 20 << 20);
    let before = image.sha256();
    import_file(&image, &["disk", "FILE"], &all).fails(1, &["20 MiB", "are free", "--in-place"]);
    assert_eq!(image.sha256(), before);
    let ended = import_file(&image, &["--in-place", "disk", "FILE"], &all);
    assert_eq!(ended.code, 0, "{}", ended.err);
    done(&image, "create", &["--size", "20M", "--thin", "--name", "thin"]);
    let free = on(&image, "info", &["--json"]).json()["free_clusters"].clone();
    let ended = import_file(&image, &["thin", "FILE"], &all);
    assert_eq!(ended.code, 1, "{}", ended.err);
    for words in ["at most 20 MiB", "out of space", "holds what it held"] {
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
    }
    assert_eq!(on(&image, "info", &["--json"]).json()["free_clusters"], free);
    in_order(&image);
}

#[test]
fn an_import_that_fills_the_store_takes_its_blob_away_again() {
    let image = store(8);
    let before = blobs(&image);
    let free = on(&image, "info", &["--json"]).json()["free_clusters"].clone();
    let much = pattern(8, 9 << 20);
    import_file(&image, &["--create", "--thin", "FILE"], &much).fails(1, &["out of space"]);
    for arguments in [&["--create", "--thin", "-"][..], &["--create", "-"]] {
        let ended = import_stream(&image, arguments, &much);
        assert_eq!(ended.code, 1, "{}", ended.err);
        // What is seen first: that nothing is free, or that more comes than the store could hold.
        assert!(ended.err.contains("out of space") || ended.err.contains("could hold"), "{}", ended.err);
    }
    assert_eq!(blobs(&image), before);
    assert_eq!(on(&image, "info", &["--json"]).json()["free_clusters"], free);
    in_order(&image);
    assert_eq!(import_file(&image, &["--create", "--thin", "FILE"], &much[..7 << 20]).code, 0);
}

#[test]
fn an_input_that_holds_other_data_in_some_encoding_is_imported_as_it_is_with_a_word_about_it() {
    for (magic, says) in [
        (&b"QFI\xFB"[..], &["a disk image (qcow2)", "qemu-img convert"][..]),
        (b"\x28\xB5\x2F\xFD", &["zstd", "unpack"]),
        (b"plain data", &[]),
    ] {
        let image = store(64);
        let mut bytes = pattern(3, 100_000);
        bytes[..magic.len()].copy_from_slice(magic);
        let input = image.beside("input");
        fs::write(&input, &bytes).unwrap();
        let ended = on(&image, "import", &["--create", "--name", "v", input.to_str().unwrap()]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        let told = ended.err.contains("imported as it is");
        assert_eq!(told, !says.is_empty(), "{}", ended.err);
        assert!(says.iter().all(|word| ended.err.contains(word)), "{}", ended.err);
        assert!(contents(&image, "v")[..bytes.len()] == bytes);
    }
}

#[test]
fn wrong_inputs_are_named() {
    let image = Image::new(&HELLO);
    let path = image.path().to_str().unwrap();
    on(&image, "import", &["--create", path]).fails(1, &["store.img", "the image itself"]);
    on(&image, "import", &["--create", "/nonexistent"]).fails(1, &["/nonexistent", "cannot be opened"]);
    on(&image, "import", &["--create", "/"]).fails(1, &["directory"]);
    on(&image, "import", &["alhpa", "/dev/null"]).fails(1, &["did you mean", "alpha"]);
    on(&image, "import", &["/dev/null"]).fails(2, &["--create"]);
    on(&image, "import", &["alpha", "/dev/null", "--name", "x"]).fails(2, &["--create"]);
    on(&image, "import", &["--create", "alpha", "/dev/null"]).fails(2, &["--create"]);
    assert_eq!(on(&image, "import", &["alpha", "/dev/null", "--thin"]).code, 2);
    assert_eq!(fs::read(image.path()).unwrap(), *HELLO, "nothing was written");
}

#[test]
fn a_clone_of_what_spdk_wrote_takes_an_import_and_its_snapshot_keeps_what_it_had() {
    let image = Image::new(&unpack("lvs"));
    let before = contents(&image, "snap2");
    let clone = id(&image, "clone", &["snap2", "--name", "mine"]);
    let bytes = mixed((5 << 20) + 4096);
    assert_eq!(import_file(&image, &[&clone, "FILE"], &bytes).code, 0);
    let out = contents(&image, "mine");
    assert!(out[..bytes.len()] == bytes && out[bytes.len()..].iter().all(|&byte| byte == 0));
    assert!(contents(&image, "snap2") == before);
    import_file(&image, &["snap2", "FILE"], &bytes).fails(1, &["read-only", "clone"]);
    in_order(&image);
}

#[test]
fn a_clone_is_not_overwritten_in_place_while_its_external_snapshot_is_not_given() {
    let (image, outside) = (Image::new(&unpack("lvs")), Image::fixture("ext"));
    let manifest = super::support::manifest("lvs");
    let uuid = manifest["external_snapshot"]["uuid"].as_str().unwrap();
    let esnap = format!("{uuid}={}", outside.path().display());
    let held = || {
        let ended = on(&image, "export", &["esnap_clone", "-", "--esnap", &esnap]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        ended.out
    };
    let (before, old) = (image.sha256(), held());
    let remedy = format!("was not given: add --esnap {uuid}=FILE");
    let bytes = mixed((1 << 20) + 4096);
    import_file(&image, &["--in-place", "esnap_clone", "FILE"], &bytes).fails(1, &[&remedy]);
    assert_eq!(image.sha256(), before);
    let allocated = named(&image, "esnap_clone")["allocated_clusters"].clone();
    for verb in ["inflate", "decouple"] {
        on(&image, verb, &["esnap_clone"]).fails(1, &[&remedy]);
        assert_eq!(named(&image, "esnap_clone")["allocated_clusters"], allocated, "{verb}");
        assert!(held() == old, "{verb}");
    }
    let other = "11111111-2222-4333-8444-555555555555";
    let ended = on(&image, "set-parent", &["esnap_clone", "--external", other]);
    ended.fails(1, &[&format!("{other} was not given: add --esnap {other}=FILE")]);
    assert!(!ended.err.contains("reads through"), "{}", ended.err);
    let ended = import_file(&image, &["--in-place", "esnap_clone", "FILE", "--esnap", &esnap], &bytes);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let now = held();
    assert!(now[..bytes.len()] == bytes && now[bytes.len()..].iter().all(|&byte| byte == 0));
}

/// Starts an import that does not end unless killed, and returns once the image was written to.
fn endless(image: &Image, rest: &[&str]) -> std::process::Child {
    let mut arguments = vec!["blob".as_ref(), "import".as_ref(), image.path().as_os_str()];
    arguments.extend(rest.iter().map(std::ffi::OsStr::new));
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // More than the pipe and the reader hold: what is taken has reached the store's thread.
    child.stdin.as_mut().unwrap().write_all(&pattern(9, 14 << 20)).unwrap();
    child
}

fn signal(child: &std::process::Child, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn an_interrupted_import_leaves_a_clean_store_without_its_blob() {
    for (name, says) in [("-INT", 130), ("-TERM", 143)] {
        let image = store(32);
        let mut child = endless(&image, &["--create", "--thin", "-"]);
        signal(&child, name);
        // Waiting would close its input, and then it might be done before it heeds the signal.
        let input = child.stdin.take();
        let code = child.wait().unwrap().code();
        drop(input);
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(code, Some(says), "{err}");
        assert!(err.contains("leaving the store in order") && err.contains("stopped by a signal"), "{err}");
        assert_eq!(blobs(&image), [] as [serde_json::Value; 0]);
        in_order(&image);
    }
}

#[test]
fn a_killed_import_leaves_a_store_that_the_next_command_recovers() {
    let image = store(32);
    done(&image, "create", &["--clusters", "3", "--name", "other"]);
    let mut child = endless(&image, &["--create", "--thin", "-", "--name", "half"]);
    on(&image, "create", &["--clusters", "1"])
        .fails(1, &["store.img", "in use", &format!("process {}", child.id())]);
    signal(&child, "-KILL");
    child.wait().unwrap();
    assert_eq!(on(&image, "info", &["--json"]).json()["clean"], false);
    let unknown = unlocked(|| on(&image, "rm", &["half"]));
    assert!(unknown.err.contains("not unloaded cleanly: recovered"), "{}", unknown.err);
    let id = left_over(&image);
    on(&image, "rm", &["half"]).fails(1, &["no blob", "half", &id, "import has not ended"]);
    done(&image, "rm", &[&id]);
    let left = blobs(&image);
    assert_eq!((left.len(), &left[0]["id"]), (1, &FIRST_ID.into()));
    in_order(&image);
}

/// Kills an import that makes a blob called `half`, in the middle of it.
fn killed_import(image: &Image) {
    let mut child = endless(image, &["--create", "--thin", "-", "--name", "half"]);
    signal(&child, "-KILL");
    child.wait().unwrap();
    // Recovers the store; refused then, as there is no such blob.
    assert_eq!(unlocked(|| on(image, "rm", &["nobody"])).code, 1);
}

/// What a killed process had in the kernel holds its lock for a moment longer.
fn unlocked(run: impl Fn() -> Ended) -> Ended {
    let mut runs = std::iter::repeat_with(run).take(1000);
    runs.find(|ended| !ended.err.contains("in use")).expect("the lock goes with its process")
}

/// The id of the blob that a killed import has left, as `ls` tells it.
fn left_over(image: &Image) -> String {
    let listed = on(image, "ls", &[]);
    let line = listed.text().lines().find(|line| line.contains("importing")).expect("it is listed");
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_killed_import_leaves_nothing_by_its_name_and_says_what_it_left() {
    for lvols in [false, true] {
        let image = match lvols {
            false => store(32),
            true => Image::new(&unpack("lvs")),
        };
        killed_import(&image);
        assert!(blobs(&image).iter().all(|blob| blob["name"] != "half"), "lvolstore: {lvols}");
        let id = left_over(&image);
        let listed = on(&image, "ls", &[]);
        assert!(listed.err.contains(&format!("{id} is being imported as half")), "{}", listed.err);
        assert!(
            listed.err.contains("spindle blob rm") && listed.err.contains("removes it"),
            "{}",
            listed.err
        );
        let checked = on(&image, "check", &["--json"]);
        assert_eq!(checked.code, 4, "{}", checked.err);
        let found: serde_json::Value = serde_json::from_slice(&checked.out).unwrap();
        assert_eq!((found.as_array().unwrap().len(), &found[0]["code"]), (1, &"unfinished-import".into()));
        if lvols {
            // SPDK refuses an lvolstore in which a blob has no name that ends in a NUL.
            let names = blobs(&image).into_iter().map(|blob| blob["xattrs"]["name"].clone());
            assert!(names.into_iter().all(|name| name.as_str().is_some_and(|name| name.ends_with("00"))));
        }
        done(&image, "rm", &[&id]);
        assert_eq!(on(&image, "check", &[]).code, 0);
    }
}

#[test]
fn an_import_can_be_done_again_after_a_kill_and_takes_the_place_of_what_was_left() {
    let image = store(32);
    let free = on(&image, "info", &["--json"]).json()["free_clusters"].as_u64().unwrap();
    killed_import(&image);
    killed_import(&image);
    let bytes = mixed(2 << 20);
    let ended = import_stream(&image, &["--create", "--name", "half", "-"], &bytes);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("left by an import of half"), "{}", ended.err);
    assert!(contents(&image, "half") == bytes);
    assert_eq!(blobs(&image).len(), 1);
    let name = super::support::hex(b"half");
    assert_eq!(named(&image, "half")["xattrs"], serde_json::json!({ "name": name }), "no mark is left");
    assert_eq!(on(&image, "info", &["--json"]).json()["free_clusters"], free - (2 << 20) / CLUSTER as u64);
    assert_eq!(on(&image, "check", &[]).code, 0);
    in_order(&image);
}

/// Puts the mark of an unfinished import, with this later name, on the blob with this id.
fn mark(image: &Image, id: &str, name: &[u8]) {
    let mut bytes = fs::read(image.path()).unwrap();
    let id = u64::from_str_radix(id.trim_start_matches("0x"), 16).unwrap();
    super::check::rewrite(&mut bytes, id, &[], |meta| {
        meta.xattrs.set(spindle_format::metadata::IMPORTING, name).unwrap();
    });
    fs::write(image.path(), bytes).unwrap();
}

#[test]
fn an_import_removes_no_blob_that_is_not_as_an_import_leaves_it() {
    let lvolstore = || {
        let image = Image::new(&vec![0; 32 << 20]);
        done(&image, "init", &["--cluster-size", "1M", "--lvolstore", "lvs0"]);
        image
    };
    let bare = || {
        let image = Image::new(&vec![0; 32 << 20]);
        done(&image, "init", &["--cluster-size", "1M"]);
        image
    };
    type Make = fn(&Image) -> String;
    let made: [(Image, Make); 6] = [
        (lvolstore(), |image| done(image, "super", &[]).trim().to_owned()),
        (lvolstore(), |image| id(image, "create", &["--size", "1M", "--name", "vol"])),
        (bare(), |image| id(image, "create", &["--size", "1M", "--name", "vol"])),
        (bare(), |image| {
            let id = id(image, "create", &["--size", "1M"]);
            done(image, "super", &[&id]);
            id
        }),
        (bare(), |image| {
            let id = id(image, "create", &["--size", "1M"]);
            done(image, "snapshot", &[&id]);
            id
        }),
        (bare(), |image| {
            let origin = id(image, "create", &["--size", "1M"]);
            id(image, "snapshot", &[&origin])
        }),
    ];
    for (nth, (image, make)) in made.into_iter().enumerate() {
        let kept = make(&image);
        mark(&image, &kept, b"foo");
        let before = on(&image, "ls", &["--json"]).json().as_array().unwrap().len();
        assert_eq!(on(&image, "check", &[]).code, 0, "case {nth}: nothing is wrong with it");
        assert_eq!(on(&image, "ls", &[]).err, "", "case {nth}: it is not called unfinished");
        let ended = import_file(&image, &["--create", "FILE", "--name", "foo"], b"hi");
        assert_eq!(ended.code, 0, "case {nth}: {}", ended.err);
        assert!(!ended.err.contains("removed"), "case {nth}: {}", ended.err);
        let listed = blobs(&image);
        assert_eq!(listed.len(), before + 1, "case {nth}");
        assert!(listed.iter().any(|blob| blob["id_text"] == kept.as_str()), "case {nth}");
    }
}

#[test]
fn no_command_sets_an_xattr_that_is_the_kits_own() {
    let image = store(16);
    done(&image, "create", &["--size", "64K", "--name", "vm"]);
    done(&image, "snapshot", &["vm", "--name", "snap"]);
    let before = image.sha256();
    let xattr = "spindle.importing=zz";
    for arguments in [
        &["xattr", "vm", "set", "spindle.importing", "foo"][..],
        &["xattr", "vm", "set", "spindle.other", "foo"],
        &["create", "--size", "64K", "--name", "yy", "--xattr", xattr],
        &["snapshot", "vm", "--xattr", xattr],
        &["clone", "snap", "--xattr", xattr],
        &["import", "--create", "/dev/null", "--xattr", xattr],
    ] {
        let ended = on(&image, arguments[0], &arguments[1..]);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains("spindle's own"), "{arguments:?}: {}", ended.err);
    }
    assert_eq!(image.sha256(), before);
    done(&image, "xattr", &["vm", "set", "spindle", "fine"]);
}

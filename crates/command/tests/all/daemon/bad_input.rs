//! What NBD clients should not say and files that are no disks, on the real daemon: each gets its answer, and a client
//! beside them notices nothing.
//!
//! Which bad input is tried where, RPC's in `hostile.rs`:
//!
//! | input | test |
//! |---|---|
//! | RPC: NUL or BOM between requests, 65 levels | `bytes_that_are_no_json_get_the_reason_and_end_their_own_connection_only` |
//! | RPC: duplicate keys, 1e400, 10 MB | `a_request_that_is_too_much_or_says_something_twice_is_refused_and_the_connection_goes_on` |
//! | RPC: half-close, a client that reads no reply |
//! `a_client_that_stops_writing_gets_its_answers_and_one_that_reads_none_delays_no_other` |
//! | names that are another's alias or UUID, UUIDs in upper case, 63 and 64 bytes, slash, newline, quote, sizes 0 and 2^63 | `names_uuids_and_sizes_that_cannot_be_are_refused_with_the_reason` |
//! | files: folder, FIFO, /dev/zero, no multiple of the block, missing, empty | `a_file_that_is_no_disk_is_refused_with_the_reason_and_not_served` |
//! | files: no permission | `a_file_that_the_user_may_not_open_is_refused` |
//! | files: cut short while in use | `a_file_cut_short_while_it_is_served_fails_requests_past_its_end_only` |
//! | NBD: EXPORT_NAME, no NO_ZEROES, names of 4096 bytes or not UTF-8 | `old_handshakes_and_odd_names_are_answered` |
//! | NBD: length 0, over 32 MiB, unaligned on 4 KiB blocks, past 2^64 | `odd_requests_are_answered_and_the_client_goes_on` |
//! | NBD: slow handshakes | `slow_handshakes_end_at_their_deadline_and_delay_no_other` |
//! | NBD: a client that vanishes at any byte | `clients_that_vanish_at_any_byte_leave_nothing` |
//! | NBD: limit on connections | `one_connection_too_many_costs_the_oldest_silent_one_and_no_client_that_is_served` |
//! | NBD: limit on bytes in flight | `a_client_that_asks_for_much_and_reads_nothing_delays_no_other` |
//! | a socket's path in a missing folder | `a_path_that_no_socket_can_have_is_refused_in_one_line`, in `serve.rs` |

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::clients::{FLUSH, Nbd, READ, Request, Rpc, WRITE};
use super::idle::{allow_files, resident};
use super::support::{Daemon, spindle, text};

const SIZE: u64 = 1 << 20;
const INVAL: u32 = 22;
const NOSPC: u32 = 28;

fn serve(folder: &Path) -> Daemon {
    let daemon =
        Daemon::start(folder, &["serve", "-m", "0x1", "-r", "rpc.sock", "--nbd", "unix:nbd.sock"], "data");
    let mut rpc = Rpc::connect(&folder.join("rpc.sock")).unwrap();
    let disk = json!({"name": "disk", "num_blocks": SIZE / 4096, "block_size": 4096});
    rpc.done("bdev_malloc_create", &disk).unwrap();
    rpc.done("nbd_export", &json!({"bdev_name": "disk"})).unwrap();
    daemon
}

/// A connection whose greeting was read and whose flags were sent.
fn greeted(folder: &Path, flags: u32) -> UnixStream {
    let mut stream = UnixStream::connect(folder.join("nbd.sock")).unwrap();
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).unwrap();
    stream.write_all(&flags.to_be_bytes()).unwrap();
    stream
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    [b"IHAVEOPT", &number.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), data].concat()
}

/// The data of GO for a name of any bytes.
fn name(name: &[u8]) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes()[..], name, &[0, 0]].concat()
}

/// All that comes until the server closes.
fn rest(mut stream: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A connection that is closed over what was not read is reset.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// The error of a request with simple replies.
fn error(stream: &mut UnixStream, request: &Request, payload: &[u8]) -> u32 {
    stream.write_all(&[request.bytes(), payload.to_vec()].concat()).unwrap();
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[8..], request.cookie.to_be_bytes());
    u32::from_be_bytes(reply[4..8].try_into().unwrap())
}

#[test]
fn old_handshakes_and_odd_names_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = serve(folder.path());
    let mut beside = Nbd::connect(&folder.path().join("nbd.sock"), "disk").unwrap();
    // EXPORT_NAME, with and without fixed newstyle, with and without the 124 zeroes after its answer.
    for (flags, len) in [(0, 134), (1, 134), (2, 10), (3, 10)] {
        let mut stream = greeted(folder.path(), flags);
        stream.write_all(&option(1, b"disk")).unwrap();
        let mut answer = vec![0; len];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..8], SIZE.to_be_bytes(), "flags {flags}");
        assert!(answer[10..].iter().all(|byte| *byte == 0));
        let read = Request { command: READ, flags: 0, cookie: 7, offset: 4095, len: 3 };
        assert_eq!(error(&mut stream, &read, b""), 0);
        stream.read_exact(&mut [0; 3]).unwrap();
    }
    // A name that EXPORT_NAME does not find has no answer but the end.
    for wrong in [&b"other"[..], &[b'n'; 4096], &[b'n'; 4097], b"\xff\xfe", b"di\0sk"] {
        let mut stream = greeted(folder.path(), 3);
        stream.write_all(&option(1, wrong)).unwrap();
        assert!(rest(stream).is_empty(), "{} bytes", wrong.len());
        // GO says why, and the client goes on.
        let mut stream = greeted(folder.path(), 3);
        stream.write_all(&option(7, &name(wrong))).unwrap();
        let mut head = [0; 20];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[12], 0x80, "an error: {head:?}");
        let len = u32::from_be_bytes(head[16..].try_into().unwrap()) as usize;
        assert!(len < 990);
        stream.read_exact(&mut vec![0; len]).unwrap();
        stream.write_all(&option(7, &name(b"disk"))).unwrap();
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[12], 0, "an answer: {head:?}");
    }
    beside.read(0, 4096).unwrap();
}

#[test]
fn odd_requests_are_answered_and_the_client_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = serve(folder.path());
    let mut beside = Nbd::connect(&folder.path().join("nbd.sock"), "disk").unwrap();
    let mut stream = greeted(folder.path(), 3);
    stream.write_all(&option(1, b"disk")).unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    let cases: [(u16, u64, u32, usize, u32); 9] = [
        (READ, 0, 0, 0, 0),
        (WRITE, 0, 0, 0, 0),
        (READ, 0, (32 << 20) + 1, 0, INVAL),
        (WRITE, 0, (32 << 20) + 1, (32 << 20) + 1, INVAL),
        (READ, u64::MAX, 2, 0, INVAL),
        (WRITE, u64::MAX - 1, 4096, 4096, NOSPC),
        (WRITE, SIZE - 1, 2, 2, NOSPC),
        (FLUSH, 1, 1, 0, INVAL),
        (99, 0, 0, 0, INVAL),
    ];
    for (cookie, (command, offset, len, payload, expected)) in cases.into_iter().enumerate() {
        let request = Request { command, flags: 0, cookie: cookie as u64, offset, len };
        let found = error(&mut stream, &request, &vec![7; payload]);
        assert_eq!(found, expected, "command {command} at {offset} of {len}");
    }
    // Parts of 4096-byte blocks.
    let write = Request { command: WRITE, flags: 0, cookie: 50, offset: 5001, len: 4096 };
    assert_eq!(error(&mut stream, &write, &[9; 4096]), 0);
    let bytes = beside.read(5000, 4098).unwrap();
    assert!(bytes[0] == 0 && bytes[4097] == 0 && bytes[1..4097].iter().all(|byte| *byte == 9));
}

/// Takes as long as the deadline of a handshake, 10 s, which no option of the daemon changes.
#[test]
fn slow_handshakes_end_at_their_deadline_and_delay_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = serve(folder.path());
    let mut beside = Nbd::connect(&folder.path().join("nbd.sock"), "disk").unwrap();
    let silent = UnixStream::connect(folder.path().join("nbd.sock")).unwrap();
    let mut half = greeted(folder.path(), 3);
    half.write_all(&option(7, &name(b"disk"))[..10]).unwrap();
    let mut chatty = greeted(folder.path(), 3);
    // LIST again and again selects nothing either; too many options end it.
    while chatty.write_all(&option(3, b"")).and_then(|()| chatty.read_exact(&mut [0; 20])).is_ok() {
        beside.read(0, 4096).unwrap();
    }
    assert_eq!((rest(silent).len(), rest(half).len()), (18, 0), "closed behind the greeting");
    beside.read(0, 4096).unwrap();
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn one_connection_too_many_costs_the_oldest_silent_one_and_no_client_that_is_served() {
    // As many as one user may have.
    const MOST: usize = 1024;
    allow_files(MOST as u64 + 200);
    let folder = tempfile::tempdir().unwrap();
    let daemon = serve(folder.path());
    let socket = folder.path().join("nbd.sock");
    let mut first = Nbd::connect(&socket, "disk").unwrap();
    let oldest = UnixStream::connect(&socket).unwrap();
    let _silent: Vec<UnixStream> = (2..MOST).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let mut last = Nbd::connect(&socket, "disk").unwrap();
    assert_eq!(rest(oldest).len(), 18, "closed behind the greeting");
    first.read(0, 4096).unwrap();
    last.read(0, 4096).unwrap();
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn a_client_that_asks_for_much_and_reads_nothing_delays_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = serve(folder.path());
    let mut beside = Nbd::connect(&folder.path().join("nbd.sock"), "disk").unwrap();
    let mut deaf = Vec::new();
    for _ in 0..8 {
        let mut stream = greeted(folder.path(), 3);
        stream.write_all(&option(1, b"disk")).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        stream.set_nonblocking(true).unwrap();
        let read = Request { command: READ, flags: 0, cookie: 1, offset: 0, len: SIZE as u32 };
        let mut taken = 0;
        while let Ok(count) = stream.write(&read.bytes().repeat(1000)) {
            taken += count;
            assert!(taken < 1 << 24, "requests of a client that reads nothing are taken without end");
        }
        deaf.push(stream);
        beside.read(0, 4096).unwrap();
    }
    // Their requests would need 128 MiB for each; the daemon has a limit for all.
    assert!(resident(daemon.pid()) < 200 << 10, "{} KiB", resident(daemon.pid()));
    beside.read(0, SIZE as u32).unwrap();
    drop(deaf);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn clients_that_vanish_at_any_byte_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = serve(folder.path());
    let write = Request { command: WRITE, flags: 0, cookie: 1, offset: 0, len: 64 };
    let whole = [3u32.to_be_bytes().to_vec(), option(7, &name(b"disk")), write.bytes(), vec![5; 64]].concat();
    let handles = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let mut beside = Nbd::connect(&folder.path().join("nbd.sock"), "disk").unwrap();
    beside.read(0, 1).unwrap();
    let before = handles(daemon.pid());
    for cut in 0..=whole.len() {
        let mut stream = UnixStream::connect(folder.path().join("nbd.sock")).unwrap();
        stream.write_all(&whole[..cut]).unwrap();
        drop(stream);
        beside.read(0, 1).unwrap();
    }
    // They end by themselves.
    while handles(daemon.pid()) > before {
        beside.read(0, 1).unwrap();
    }
    let exports = text(&daemon.call(&["nbd_get_exports"]).stdout);
    let exports: Value = serde_json::from_str(&exports).unwrap();
    assert_eq!(exports[0]["connections"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn a_file_that_is_no_disk_is_refused_with_the_reason_and_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = |name: &str, bytes: u64| fs::File::create(folder.join(name)).unwrap().set_len(bytes).unwrap();
    file("odd", 8_388_708);
    file("empty", 0);
    fs::create_dir(folder.join("folder")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(folder.join("fifo")).status().unwrap();
    assert!(fifo.success());
    let daemon = serve(folder);
    let mut rpc = Rpc::connect(&folder.join("rpc.sock")).unwrap();
    for (path, errno, says) in [
        ("folder", -21, "folder: it is a directory; name an image file or a block device"),
        ("fifo", -22, "fifo: it is a FIFO; name an image file or a block device"),
        ("/dev/zero", -22, "/dev/zero: it is a character device"),
        ("missing", -2, "missing: there is no such file; make it first"),
        ("odd", -22, "8388708 bytes"),
        ("empty", -22, "make it larger first: truncate -s SIZE empty"),
    ] {
        let params = json!({"name": "F", "filename": path, "block_size": 512});
        let (code, message) = rpc.call("bdev_aio_create", &params).unwrap().unwrap_err();
        assert!(code == errno && message.contains(says), "{path}: {code} {message}");
        let run = spindle(folder).args(["serve", "-r", "other.sock", "--file", path]).output().unwrap();
        let error = text(&run.stderr);
        assert_eq!((run.status.code(), error.lines().count()), (Some(1), 1), "{path}: {error}");
        assert!(error.contains(says) && !folder.join("other.sock").exists(), "{path}: {error}");
    }
    let params = json!({"name": "F", "filename": "", "block_size": 512});
    let (code, message) = rpc.call("bdev_aio_create", &params).unwrap().unwrap_err();
    assert!(code == -2 && message.contains("the name of the file is empty"), "{message}");
    Nbd::connect(&folder.join("nbd.sock"), "disk").unwrap().read(0, 4096).unwrap();
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

/// Root may do everything: another user tries.
pub fn as_another_user(folder: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new("setpriv");
    let binary = env!("CARGO_BIN_EXE_spindle");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", binary]).args(arguments);
    command.current_dir(folder);
    command
}

#[test]
fn a_file_that_the_user_may_not_open_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("disk.img")).unwrap().set_len(1 << 20).unwrap();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    set_mode(&folder.path().join("disk.img"), 0o600);
    set_mode(folder.path(), 0o777);
    let as_other = |arguments: &[&str]| as_another_user(folder.path(), arguments).output();
    if !as_other(&["--version"]).is_ok_and(|run| run.status.success()) {
        eprintln!("SKIPPED: the program cannot be run as another user");
        return;
    }
    let run = as_other(&["serve", "-r", "rpc.sock", "--file", "disk.img"]).unwrap();
    let error = text(&run.stderr);
    assert_eq!((run.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("disk.img") && error.contains("let this user read and write it"), "{error}");
}

#[test]
fn a_file_cut_short_while_it_is_served_fails_requests_past_its_end_only() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let args = ["serve", "-m", "0x1", "-r", "rpc.sock", "--file", "disk.img", "--nbd", "unix:nbd.sock"];
    let daemon = Daemon::start(folder.path(), &args, "data");
    let mut stream = greeted(folder.path(), 3);
    stream.write_all(&option(1, b"disk.img")).unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    fs::File::options().write(true).open(&disk).unwrap().set_len(8192).unwrap();
    let read = |cookie, offset| Request { command: READ, flags: 0, cookie, offset, len: 4096 };
    assert_eq!(error(&mut stream, &read(1, 8192), b""), 5);
    assert_eq!(error(&mut stream, &read(2, 4096), b""), 0);
    stream.read_exact(&mut [0; 4096]).unwrap();
    assert_eq!(error(&mut stream, &read(3, 4096 * 7), b""), 5);
    assert!(daemon.call(&["spdk_get_version"]).status.success());
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

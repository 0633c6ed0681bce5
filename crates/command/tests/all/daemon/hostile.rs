//! Bad input over RPC: each is answered by an error with the object and the remedy, and costs others nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;

use super::support::Daemon;

const SERVE: [&str; 5] = ["serve", "-m", "0x1", "-r", "rpc.sock"];
const VERSION: &str = r#"{"jsonrpc": "2.0", "id": 1, "method": "spdk_get_version"}"#;

struct Client {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Client {
    fn connect(folder: &Path) -> Client {
        let stream = UnixStream::connect(folder.join("rpc.sock")).unwrap();
        Client { answers: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next answer; empty at the end of the connection.
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line
    }

    fn ask(&mut self, request: &str) -> String {
        self.send(request);
        self.answer()
    }

    fn call(&mut self, method: &str, params: &str) -> String {
        self.ask(&format!(r#"{{"jsonrpc": "2.0", "id": 1, "method": "{method}", "params": {params}}}"#))
    }
}

fn is_version(answer: &str) -> bool {
    answer.contains(r#""result":{"version":"#)
}

#[test]
fn bytes_that_are_no_json_get_the_reason_and_end_their_own_connection_only() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &SERVE, "control");
    let mut good = Client::connect(folder.path());
    let deep = "[".repeat(65);
    for garbage in [&b"\0"[..], deep.as_bytes(), b"\xef\xbb\xbf", b"\xff", b"}", b"nul", b"{'a'", b"[1,]"] {
        let mut client = Client::connect(folder.path());
        client.send([VERSION.as_bytes(), garbage, VERSION.as_bytes()].concat());
        assert!(is_version(&client.answer()), "{garbage:?}");
        let refusal = client.answer();
        assert!(
            refusal.contains(r#""code":-32700"#) && refusal.contains("at byte"),
            "{garbage:?}: {refusal}"
        );
        assert_eq!(client.answer(), "", "{garbage:?}");
        assert!(is_version(&good.ask(VERSION)));
    }
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn a_request_that_is_too_much_or_says_something_twice_is_refused_and_the_connection_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &SERVE, "control");
    let mut client = Client::connect(folder.path());
    let refused = [
        (client.call("bdev_get_bdevs", r#"{"name": "a", "name": "b"}"#), "is given twice"),
        (client.call("bdev_get_bdevs", r#"{"timeout": 1e400}"#), "timeout"),
        (client.ask(r#"{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "spdk_get_version"}"#), "twice"),
        (client.call("bdev_get_bdevs", &format!(r#"{{"name": "{}"}}"#, "x".repeat(10 << 20))), "4194304"),
    ];
    for (answer, says) in refused {
        assert!(answer.contains(r#""error":"#) && answer.contains(says), "{says}: {answer}");
        assert!(answer.len() < 2000);
    }
    assert!(is_version(&client.ask(VERSION)));
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn a_client_that_stops_writing_gets_its_answers_and_one_that_reads_none_delays_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &SERVE, "control");
    let mut half = Client::connect(folder.path());
    half.send([VERSION, VERSION, r#"{"jsonrpc": "2.0", "id""#].concat());
    half.stream.shutdown(Shutdown::Write).unwrap();
    assert!(is_version(&half.answer()) && is_version(&half.answer()));
    let mut rest = String::new();
    half.answers.read_to_string(&mut rest).unwrap();

    // It sends until nothing is taken from it any more.
    let deaf = Client::connect(folder.path());
    deaf.stream.set_nonblocking(true).unwrap();
    let request = format!("{VERSION}\n").repeat(1000);
    let mut taken = 0;
    while let Ok(count) = (&deaf.stream).write(request.as_bytes()) {
        taken += count;
        assert!(taken < 1 << 30, "a client that reads nothing is read from without end");
    }
    let mut good = Client::connect(folder.path());
    for _ in 0..100 {
        assert!(is_version(&good.ask(VERSION)));
    }
    drop(deaf);
    assert!(is_version(&good.ask(VERSION)));
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn names_uuids_and_sizes_that_cannot_be_are_refused_with_the_reason() {
    const UUID: &str = "00000000-0000-4000-8000-00000000000a";
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &SERVE, "control");
    let mut client = Client::connect(folder.path());
    let mut malloc = |name: &str, uuid: &str, blocks: &str| {
        let params =
            format!(r#"{{"name": "{name}", "uuid": "{uuid}", "num_blocks": {blocks}, "block_size": 512}}"#);
        client.call("bdev_malloc_create", &params)
    };
    let other = "00000000-0000-4000-8000-00000000000b";
    assert!(malloc("ram", UUID, "65536").contains(r#""result":"ram""#));
    // A name is no other's name or UUID, and a UUID is taken in either case.
    for (name, uuid) in
        [("ram", other), (UUID, other), ("new", UUID), ("new", &UUID.to_uppercase()), ("", other)]
    {
        let answer = malloc(name, uuid, "8");
        assert!(answer.contains(r#""error":"#), "{name} {uuid}: {answer}");
    }
    for blocks in ["0", "9223372036854775808", "18446744073709551615", "18446744073709551616", "-1", "0.5"] {
        let answer = malloc("new", other, blocks);
        assert!(answer.contains(r#""error":"#), "{blocks}: {answer}");
    }
    let upper = client.call("bdev_get_bdevs", &format!(r#"{{"name": "{}"}}"#, UUID.to_uppercase()));
    assert!(upper.contains("No such device"), "{upper}");

    let store = client
        .call("bdev_lvol_create_lvstore", r#"{"bdev_name": "ram", "lvs_name": "s", "cluster_sz": 1048576}"#);
    assert!(store.contains("result"), "{store}");
    let mut volume = |name: &str, mib: &str| {
        let params = format!(
            r#"{{"lvs_name": "s", "lvol_name": "{name}", "size_in_mib": {mib}, "thin_provision": true}}"#
        );
        client.call("bdev_lvol_create", &params)
    };
    for name in [&*"n".repeat(63), "a/b", r"a\nb", r#"a\"b"#, "\u{e4}", " "] {
        let answer = volume(name, "1");
        assert!(answer.contains("result"), "{name}: {answer}");
    }
    for name in [&*"n".repeat(64), &*"\u{e4}".repeat(32), "", r"a\u0000b", "a/b"] {
        let answer = volume(name, "1");
        assert!(answer.contains(r#""error":"#), "{name}: {answer}");
    }
    for mib in ["9223372036854775808", "8796093022208", "18446744073709551616", "-1"] {
        let answer = volume("large", mib);
        assert!(answer.contains(r#""error":"#), "{mib}: {answer}");
    }
    // An empty volume is one, as in SPDK.
    assert!(volume("empty", "0").contains("result"));
    // A bdev may not be called as a volume is.
    let taken = client.call("bdev_null_create", r#"{"name": "s/ ", "num_blocks": 8, "block_size": 512}"#);
    assert!(taken.contains("File exists"), "{taken}");
    assert!(is_version(&client.ask(VERSION)));
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

//! A Unix socket's path with one owner: which listeners are refused, what is taken over, what is left.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::suite::Bench;
use spindle_engine::{EngineKind, Listener, Op, Output};

fn listen(bench: &mut Bench, path: &Path) -> Listener {
    match bench.output(Op::ListenAlone { path: Box::new(path.to_owned()), backlog: 4 }) {
        Output::Listener(listener) => listener,
        other => panic!("{other:?}"),
    }
}

fn refused(bench: &mut Bench, path: &Path) -> std::io::Error {
    bench.error(Op::ListenAlone { path: Box::new(path.to_owned()), backlog: 4 })
}

fn lock_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.lock", path.display()))
}

fn each_engine(test: impl Fn(&mut Bench, &Path)) {
    for kind in [EngineKind::IoUring, EngineKind::Epoll] {
        let folder = tempfile::tempdir().unwrap();
        if let Some(mut bench) = Bench::new(kind) {
            test(&mut bench, &folder.path().join("socket"));
        }
    }
}

#[test]
fn a_path_has_one_owner_which_is_named_to_the_second() {
    each_engine(|bench, path| {
        let first = listen(bench, path);
        let second = refused(bench, path);
        assert_eq!(second.kind(), ErrorKind::AddrInUse);
        assert!(second.to_string().contains("by this process itself"), "{second}");
        drop(first);
    });
}

#[test]
fn the_socket_and_its_lock_are_for_their_owner_alone_and_go_with_the_listener() {
    each_engine(|bench, path| {
        let listener = listen(bench, path);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(lock_of(path)).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        while lock_of(path).exists() {
            std::thread::yield_now();
        }
        assert!(!path.exists());
        drop(listen(bench, path));
    });
}

#[test]
fn a_path_is_free_again_as_soon_as_its_listener_is_dropped() {
    each_engine(|bench, path| {
        for _ in 0..50 {
            drop(listen(bench, path));
        }
    });
}

#[test]
fn a_socket_that_a_killed_process_left_is_taken_over() {
    each_engine(|bench, path| {
        drop(UnixListener::bind(path).unwrap());
        fs::write(lock_of(path), "").unwrap();
        assert!(UnixStream::connect(path).is_err());
        let listener = listen(bench, path);
        UnixStream::connect(path).unwrap();
        drop(listener);
    });
}

#[test]
fn a_socket_that_a_program_without_a_lock_listens_at_is_left_alone() {
    each_engine(|bench, path| {
        let other = UnixListener::bind(path).unwrap();
        let error = refused(bench, path);
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("another program listens"), "{error}");
        assert!(path.exists());
        drop(other);
    });
}

#[test]
fn something_else_than_a_socket_is_not_removed() {
    each_engine(|bench, path| {
        fs::write(path, "precious").unwrap();
        let error = refused(bench, path);
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("is not a socket"), "{error}");
        assert_eq!(fs::read_to_string(path).unwrap(), "precious");
        assert!(!lock_of(path).exists());
    });
}

#[test]
fn a_socket_that_replaced_ours_is_not_removed() {
    each_engine(|bench, path| {
        let listener = listen(bench, path);
        fs::remove_file(path).unwrap();
        let other = UnixListener::bind(path).unwrap();
        drop(listener);
        while lock_of(path).exists() {
            std::thread::yield_now();
        }
        assert!(path.exists());
        drop(other);
    });
}

#[test]
fn a_path_too_long_for_a_socket_is_refused_by_name() {
    each_engine(|bench, path| {
        let path = path.with_file_name("x".repeat(120));
        let error = refused(bench, &path);
        assert!(error.to_string().contains("107 bytes at most"), "{error}");
        assert!(!lock_of(&path).exists());
    });
}

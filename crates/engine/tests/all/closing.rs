//! A worker thread closes a file, never the thread that drops the last handle, and no close is lost.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::suite::Bench;
use spindle_engine::{Bell, EngineKind, File, Op, OpenOptions, Output, spawn_pinned};

const KINDS: [EngineKind; 2] = [EngineKind::IoUring, EngineKind::Epoll];

/// Opens `name` to write under a lock.
fn open(bench: &mut Bench, name: &str) -> io::Result<File> {
    let options = OpenOptions::new(bench.path(name)).writable(true).locked(true).create(4096);
    let token = bench.submit(Op::Open { options: Box::new(options) });
    bench.wait(token).result.map(|output| match output {
        Output::File(file) => file,
        other => panic!("{other:?}"),
    })
}

/// Whether this process has the file open, also when it was deleted.
fn is_open(path: &Path) -> bool {
    let deleted = Path::new(&format!("{} (deleted)", path.display())).to_owned();
    let is_it = |open: &Path| open == path || open == deleted;
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    descriptors.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|open| is_it(&open)))
}

/// Whether it is closed within far longer than that takes.
fn is_closed_soon(path: &Path) -> bool {
    let bell = Bell::new().unwrap();
    (0..2000).any(|_| {
        bell.wait(Some(Duration::from_millis(1)));
        !is_open(path)
    })
}

/// Has the kernel refuse every close of the calling OS thread.
fn forbid_close() -> io::Result<()> {
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The number of the system call is the first field of what the filter sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_close as u32, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter and its program outlive the calls.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[test]
fn the_thread_that_drops_the_last_handle_does_not_close_the_file() {
    for kind in KINDS {
        let Some(mut bench) = Bench::new(kind) else { continue };
        let files = ["a", "b"].map(|name| open(&mut bench, name).unwrap());
        let paths = files.each_ref().map(|file| file.path().to_owned());
        // So that a worker waits for something to do: one that was started below would be forbidden too.
        Bell::new().unwrap().wait(Some(Duration::from_millis(300)));
        let (tell, told) = mpsc::channel();
        let (go_on, may_end) = mpsc::channel::<()>();
        let [control, file] = files.map(|file| move || drop(file));
        let dropper = spawn_pinned("drops", None, move || {
            forbid_close().unwrap();
            file();
            tell.send(()).unwrap();
            // It stays: when it ends the kernel may close on its behalf.
            let _ = may_end.recv();
        });
        told.recv().unwrap();
        assert!(is_open(&paths[0]), "it was not dropped yet");
        assert!(is_closed_soon(&paths[1]), "{kind:?}: closed by the thread that dropped it, which may not");
        control();
        assert!(is_closed_soon(&paths[0]), "{kind:?}");
        drop(go_on);
        dropper.unwrap().join().unwrap();
    }
}

#[test]
fn a_file_that_was_just_dropped_can_be_opened_under_a_lock_at_once() {
    for kind in KINDS {
        let Some(mut bench) = Bench::new(kind) else { continue };
        for _ in 0..300 {
            drop(open(&mut bench, "a").unwrap());
        }
        let _held = open(&mut bench, "a").unwrap();
        let error = open(&mut bench, "a").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "no call waits for a handle that is still held");
    }
}

#[test]
fn an_engine_ends_when_its_files_are_closed_and_one_that_outlives_it_is_closed_too() {
    for kind in KINDS {
        let Some(mut bench) = Bench::new(kind) else { continue };
        let mut files: Vec<File> =
            (0..50).map(|number| open(&mut bench, &number.to_string()).unwrap()).collect();
        let survivor = files.pop().unwrap();
        let (path, paths) = (survivor.path().to_owned(), files.iter().map(|file| file.path().to_owned()));
        let paths: Vec<_> = paths.collect();
        drop(files);
        drop(bench);
        assert!(!paths.iter().any(|path| is_open(path)), "{kind:?}");
        drop(survivor);
        assert!(is_closed_soon(&path), "{kind:?}");
    }
}

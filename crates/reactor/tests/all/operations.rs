//! Operations of the engine: those that are given up, those that are left at an end, and where their completions go.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::rc::Rc;
use std::time::Duration;

use spindle_engine::{Address, Completion, Listener, Op, Output};
use spindle_mem::IoBuf;
use spindle_reactor::*;

/// With sockets, on every engine.
fn with_sockets(test: impl Fn(Runtime)) {
    for kind in [EngineKind::Auto, EngineKind::Epoll].into_iter().chain((0..10).map(EngineKind::Sim)) {
        test(Runtime::builder().reactors(1).engine(kind).build().unwrap());
    }
}

async fn listen() -> Listener {
    let address = Box::new(Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0))));
    match op(Op::Listen { address, backlog: 8 }).await.0 {
        Ok(Output::Listener(listener)) => listener,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_runtime_ends_although_a_connection_and_bytes_are_still_waited_for() {
    with_sockets(|runtime| {
        let ended = runtime.run(async || {
            let listener = listen().await;
            let Ok(Output::Pair(ours, theirs)) = op(Op::Pair).await.0 else { panic!("no pair") };
            let accept = spawn_local(op(Op::Accept { listener }));
            let recv = spawn_local(op(Op::Recv { socket: ours, buffers: IoBuf::zeroed(8).into() }));
            sleep(Duration::from_millis(1)).await;
            assert!(!accept.is_finished() && !recv.is_finished());
            theirs
        });
        ended.unwrap();
    });
}

#[test]
fn an_accept_that_was_given_up_does_not_take_the_next_connection() {
    with_sockets(|runtime| {
        let ended = runtime.run(async || {
            let listener = listen().await;
            let given_up = timeout(Duration::from_millis(1), op(Op::Accept { listener: listener.clone() }));
            assert!(given_up.await.is_err());
            // What the engine still had of it has come back by then.
            sleep(Duration::from_millis(1)).await;
            let address = Box::new(listener.address().clone());
            let connect = spawn_local(op(Op::Connect { address }));
            let accepted = op(Op::Accept { listener }).await.0.unwrap();
            assert!(matches!(accepted, Output::Socket(_)), "{accepted:?}");
            connect.await.unwrap().0.unwrap();
        });
        ended.unwrap();
    });
}

#[test]
fn a_panic_where_a_completion_goes_ends_nothing_else() {
    struct Panics;
    impl OpSink for Panics {
        fn complete(&self, _key: u64, _completion: Completion) {
            panic!("on purpose");
        }
    }
    with_sockets(|runtime| {
        let ended = runtime.run(async || {
            submit_op(Op::Pair, &(Rc::new(Panics) as Rc<dyn OpSink>), 0);
            sleep(Duration::from_millis(5)).await;
            op(Op::Pair).await.0.is_ok()
        });
        assert!(ended.unwrap());
    });
}

#[test]
fn a_runtime_ends_although_a_thread_that_has_exited_left_an_accept() {
    struct Ignores;
    impl OpSink for Ignores {
        fn complete(&self, _key: u64, _completion: Completion) {}
    }
    with_sockets(|runtime| {
        let ended = runtime.run(async || {
            let worker = Handle::current().unwrap().create_thread("worker", "[0-1023]").unwrap();
            let submitted = worker.spawn(async || {
                let listener = listen().await;
                submit_op(Op::Accept { listener }, &(Rc::new(Ignores) as Rc<dyn OpSink>), 0);
            });
            submitted.await.unwrap();
            worker.exit();
            worker.joined().await;
        });
        ended.unwrap();
    });
}

#[test]
fn what_others_own_ends_although_a_connection_is_still_waited_for() {
    async fn accepts() {
        let listener = listen().await;
        let _ = op(Op::Accept { listener }).await;
    }
    for kind in [EngineKind::Auto, EngineKind::Epoll, EngineKind::Sim(1)] {
        let running = Runtime::builder().reactors(1).engine(kind).build().unwrap().start().unwrap();
        let worker = running.handle().create_thread("worker", "[0-1023]").unwrap();
        let waits = worker.spawn(accepts);
        worker.spawn(async || sleep(Duration::from_millis(5)).await).wait().unwrap();
        drop(running);
        assert!(waits.wait().is_err());

        let mut runner = ThreadRunner::new("by hand", kind).unwrap();
        let waits = runner.thread().spawn(accepts);
        for _ in 0..100 {
            runner.step();
        }
        drop(runner);
        assert!(waits.wait().is_err());
    }
}

//! Operations that go on after a result, and sends without copying.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use spindle_engine::{Address, Completion, EngineKind, Interest, Op, Output, ReceivePool, Socket, Token};
use spindle_mem::{IoBuf, Pool};

use super::{Bench, buffer, bytes_of, pattern};

const SIZE: usize = 4096;

fn pool(buffers: usize) -> (Pool, ReceivePool) {
    let pool = Pool::new("receives", buffers * SIZE);
    (pool.clone(), ReceivePool::new(pool, SIZE))
}

impl Bench {
    fn recv_many(&mut self, socket: &Socket, pool: &ReceivePool) -> Token {
        self.submit(Op::RecvMany { socket: socket.clone(), pool: pool.clone() })
    }

    /// The next bytes of a receive that goes on.
    fn received(&mut self, token: Token) -> IoBuf {
        match self.wait(token) {
            Completion { result: Ok(Output::Received(bytes)), more: true, .. } => bytes,
            other => panic!("{other:?}"),
        }
    }

    /// So many bytes of it.
    fn received_all(&mut self, token: Token, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            bytes.extend_from_slice(&self.received(token));
        }
        bytes
    }

    /// Two streams connected over TCP, or what simulation has for that.
    fn tcp_pair(&mut self) -> (Socket, Socket) {
        let address = Box::new(Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        let Output::Listener(listener) = self.output(Op::Listen { address, backlog: 1 }) else { panic!() };
        let address = Box::new(listener.address().clone());
        let connect = self.submit(Op::Connect { address });
        let Output::Socket(there) = self.output(Op::Accept { listener }) else { panic!() };
        let Ok(Output::Socket(here)) = self.wait(connect).result else { panic!() };
        (here, there)
    }
}

pub fn connections_are_accepted_as_they_come_until_that_is_cancelled(bench: &mut Bench) {
    let address = Box::new(Address::Unix(bench.path("many")));
    let Output::Listener(listener) = bench.output(Op::Listen { address, backlog: 16 }) else { panic!() };
    let accept = bench.submit(Op::AcceptMany { listener: listener.clone() });
    assert!(!bench.is_done(accept));
    for n in 0..40u8 {
        let address = Box::new(listener.address().clone());
        let Output::Socket(ours) = bench.output(Op::Connect { address }) else { panic!() };
        let accepted = bench.wait(accept);
        let Ok(Output::Socket(theirs)) = accepted.result else { panic!("{accepted:?}") };
        assert!(accepted.more && matches!(accepted.op, Op::UnderWay));
        assert_eq!(bench.output(Op::Send { socket: theirs, buffers: buffer(&[n]) }).bytes(), 1);
        assert_eq!(bench.recv_all(&ours, 1), [n]);
    }
    assert_eq!(bench.driver.in_flight(), 1);
    bench.driver.cancel(accept);
    let last = bench.wait(accept);
    assert_eq!(last.result.unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(!last.more && matches!(last.op, Op::AcceptMany { .. }));
    assert_eq!(bench.driver.in_flight(), 0);
}

pub fn a_silent_stream_that_receives_holds_no_buffer(bench: &mut Bench) {
    let (memory, pool) = pool(16);
    let pairs: Vec<_> = (0..100).map(|_| bench.pair()).collect();
    let receives: Vec<_> = pairs.iter().map(|(_, b)| bench.recv_many(b, &pool)).collect();
    assert!(!bench.is_done(receives[0]));
    assert!(memory.lent() <= 8 * SIZE, "{} bytes for 100 streams", memory.lent());
    for round in 0..3u8 {
        for ((a, _), &receive) in pairs.iter().zip(&receives) {
            assert_eq!(bench.output(Op::Send { socket: a.clone(), buffers: buffer(&[round]) }).bytes(), 1);
            assert_eq!(bench.received(receive)[..], [round]);
        }
    }
    for &receive in &receives {
        bench.driver.cancel(receive);
        assert_eq!(bench.wait(receive).result.unwrap_err().kind(), ErrorKind::Interrupted);
    }
    // The system lets go of its buffers in its own time.
    bench.sleep_a_little();
    assert_eq!(memory.lent(), 0, "nothing receives any more");
}

pub fn a_silent_stream_waits_for_bytes_although_there_is_no_memory(bench: &mut Bench) {
    // The kernel wants a buffer when a receive that goes on begins, and says so at once.
    if bench.engine.kind() == EngineKind::IoUring {
        return;
    }
    let (memory, pool) = pool(8);
    let (a, b) = bench.pair();
    let taken: Vec<IoBuf> = std::iter::from_fn(|| memory.get(SIZE).ok()).collect();
    let receive = bench.recv_many(&b, &pool);
    bench.sleep_a_little();
    assert!(!bench.is_done(receive), "nothing has come that needs memory");
    drop(taken);
    assert_eq!(bench.output(Op::Send { socket: a, buffers: buffer(&[7]) }).bytes(), 1);
    assert_eq!(bench.received(receive)[..], [7]);
}

pub fn what_comes_is_received_in_order_and_the_end_of_the_stream_is_the_last(bench: &mut Bench) {
    let (_, pool) = pool(64);
    let (a, b) = bench.pair();
    let bytes = pattern(300_000, 5);
    let receive = bench.recv_many(&b, &pool);
    let send = bench.submit(Op::Send { socket: a.clone(), buffers: buffer(&bytes) });
    assert!(bench.received_all(receive, bytes.len()) == bytes);
    assert_eq!(bench.wait(send).result.unwrap().bytes(), bytes.len());
    drop(a);
    let last = bench.wait(receive);
    assert!(matches!(&last.result, Ok(Output::Received(bytes)) if bytes.is_empty()), "{last:?}");
    assert!(!last.more && matches!(last.op, Op::RecvMany { .. }));
    assert_eq!(bench.driver.in_flight(), 0);
}

pub fn a_receive_that_finds_no_memory_ends_and_loses_nothing(bench: &mut Bench) {
    let (memory, pool) = pool(12);
    let (a, b) = bench.pair();
    let bytes = pattern(40 * SIZE, 6);
    let send = bench.submit(Op::Send { socket: a, buffers: buffer(&bytes) });
    let (mut all, mut held, mut ends) = (Vec::new(), Vec::new(), 0);
    let mut receive = bench.recv_many(&b, &pool);
    while all.len() < bytes.len() {
        match bench.wait(receive) {
            Completion { result: Ok(Output::Received(bytes)), more: true, .. } => {
                all.extend_from_slice(&bytes);
                held.push(bytes);
            }
            Completion { result: Err(error), more: false, .. } => {
                assert_eq!(error.kind(), ErrorKind::OutOfMemory);
                assert!(memory.lent() > 4 * SIZE, "there was memory");
                ends += 1;
                held.clear();
                receive = bench.recv_many(&b, &pool);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(all == bytes && ends > 0, "{ends} times without memory");
    assert_eq!(bench.wait(send).result.unwrap().bytes(), bytes.len());
    bench.driver.cancel(receive);
    bench.wait(receive);
}

pub fn a_receive_cancelled_in_the_middle_takes_nothing_meant_for_the_next(bench: &mut Bench) {
    let (_, pool) = pool(64);
    for late in [false, true] {
        let (a, b) = bench.pair();
        let receive = bench.recv_many(&b, &pool);
        assert_eq!(bench.output(Op::Send { socket: a.clone(), buffers: buffer(b"first") }).bytes(), 5);
        if late {
            assert_eq!(bench.received_all(receive, 5), b"first");
        }
        bench.driver.cancel(receive);
        let mut before = if late { b"first".to_vec() } else { Vec::new() };
        loop {
            let one = bench.wait(receive);
            match one.result {
                Ok(Output::Received(bytes)) if one.more => before.extend_from_slice(&bytes),
                result => break assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted),
            }
        }
        assert_eq!(bench.output(Op::Send { socket: a, buffers: buffer(b"second") }).bytes(), 6);
        before.extend(bench.recv_all(&b, 11 - before.len()));
        assert_eq!(before, b"firstsecond");
    }
}

pub fn a_driver_dropped_while_streams_receive_gives_their_memory_back(bench: &mut Bench) {
    let (memory, pool) = pool(64);
    let (a, b) = bench.pair();
    let receive = bench.recv_many(&b, &pool);
    assert_eq!(bench.output(Op::Send { socket: a.clone(), buffers: buffer(b"x") }).bytes(), 1);
    let bytes = bench.received(receive);
    bench.renew_driver();
    drop(bytes);
    assert_eq!(memory.lent(), 0);
    drop((a, b));
}

pub fn a_send_without_copying_tells_its_result_and_then_brings_its_buffers_back(bench: &mut Bench) {
    for (here, there) in [bench.pair(), bench.tcp_pair()] {
        let bytes = pattern(400_000, 8);
        let parts: Vec<IoBuf> = bytes.chunks(100_000).map(IoBuf::copy_from).collect();
        let send = bench.submit(Op::SendZeroCopy { socket: here.clone(), buffers: parts.into() });
        let behind = bench.submit(Op::Send { socket: here.clone(), buffers: buffer(b"behind") });
        assert!(bench.recv_all(&there, bytes.len()) == bytes);
        assert_eq!(bench.recv_all(&there, 6), b"behind");
        let first = bench.wait(send);
        assert!(first.more && first.result.unwrap().bytes() == bytes.len());
        let last = bench.wait(send);
        assert!(matches!(last.result, Ok(Output::Done)) && !last.more, "{last:?}");
        assert!(bytes_of(&last.op.into_buffers()) == bytes);
        assert_eq!(bench.wait(behind).result.unwrap().bytes(), 6);
        drop(there);
        // The first bytes to a peer that is gone may still be taken.
        let error = (0..100).find_map(|_| {
            let send = bench.submit(Op::SendZeroCopy { socket: here.clone(), buffers: buffer(b"too late") });
            let done = bench.wait(send);
            if done.more {
                bench.wait(send);
                bench.sleep_a_little();
            }
            done.result.err()
        });
        let kind = error.expect("the peer is gone").kind();
        assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{kind:?}");
    }
    assert_eq!(bench.driver.in_flight(), 0);
}

pub fn a_foreign_descriptor_is_told_each_time_it_becomes_ready(bench: &mut Bench) {
    let (mut near, far) = UnixStream::pair().unwrap();
    let interest = Interest { readable: true, writable: false };
    let fd = Arc::new(OwnedFd::from(far.try_clone().unwrap()));
    let poll = bench.submit(Op::PollMany { fd, interest });
    if bench.engine.world().is_some() {
        assert_eq!(bench.wait(poll).result.unwrap_err().kind(), ErrorKind::Unsupported);
        return;
    }
    let mut far = far;
    for n in 0..10u8 {
        assert!(!bench.is_done(poll), "nothing has changed");
        near.write_all(&[n]).unwrap();
        let told = bench.wait(poll);
        assert!(matches!(told.result, Ok(Output::Ready(Interest { readable: true, .. }))) && told.more);
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [n]);
    }
    bench.driver.cancel(poll);
    let last = bench.wait(poll);
    assert!(last.result.unwrap_err().kind() == ErrorKind::Interrupted && !last.more);
}

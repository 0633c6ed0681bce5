//! Stream sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use spindle_engine::{Address, Interest, Listener, Op, Output, Peer, Shutdown, Socket, Token};
use spindle_mem::{Buffers, IoBuf};

use super::{Bench, buffer, bytes_of, pattern};

impl Bench {
    pub fn pair(&mut self) -> (Socket, Socket) {
        match self.output(Op::Pair) {
            Output::Pair(a, b) => (a, b),
            other => panic!("{other:?}"),
        }
    }

    fn listen(&mut self, address: Address) -> Listener {
        match self.output(Op::Listen { address: Box::new(address), backlog: 16 }) {
            Output::Listener(listener) => listener,
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, socket: &Socket, bytes: &[u8]) -> usize {
        self.output(Op::Send { socket: socket.clone(), buffers: buffer(bytes) }).bytes()
    }

    /// What arrives next, at most `most` bytes; nothing at the end of the stream.
    fn recv(&mut self, socket: &Socket, most: usize) -> Vec<u8> {
        let done = self.run(Op::Recv { socket: socket.clone(), buffers: IoBuf::zeroed(most).into() });
        let count = done.result.expect("recv").bytes();
        let mut bytes = bytes_of(&done.op.into_buffers());
        bytes.truncate(count);
        bytes
    }

    pub fn recv_all(&mut self, socket: &Socket, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let part = self.recv(socket, (length - bytes.len()).min(100_000));
            assert!(!part.is_empty(), "the stream ended after {} bytes", bytes.len());
            bytes.extend(part);
        }
        bytes
    }
}

fn loopback() -> Address {
    Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

fn talk_over(bench: &mut Bench, address: Address) {
    let listener = bench.listen(address);
    let accept = bench.submit(Op::Accept { listener: listener.clone() });
    let address = Box::new(listener.address().clone());
    let connect = bench.submit(Op::Connect { address });
    let Ok(Output::Socket(theirs)) = bench.wait(accept).result else { panic!("no accept") };
    let Ok(Output::Socket(ours)) = bench.wait(connect).result else { panic!("no connect") };
    assert_eq!(bench.send(&ours, b"question"), 8);
    assert_eq!(bench.recv_all(&theirs, 8), b"question");
    assert_eq!(bench.send(&theirs, b"answer"), 6);
    assert_eq!(bench.recv_all(&ours, 6), b"answer");
}

pub fn streams_talk_over_tcp(bench: &mut Bench) {
    talk_over(bench, loopback());
    talk_over(bench, Address::Tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))));
}

pub fn streams_talk_over_a_unix_path(bench: &mut Bench) {
    let path = bench.path("s");
    talk_over(bench, Address::Unix(path));
}

pub fn port_zero_picks_a_free_one(bench: &mut Bench) {
    let (a, b) = (bench.listen(loopback()), bench.listen(loopback()));
    let port = |listener: &Listener| match listener.address() {
        Address::Tcp(address) => address.port(),
        Address::Unix(_) => 0,
    };
    assert!(port(&a) != 0 && port(&b) != 0 && port(&a) != port(&b));
}

pub fn an_address_in_use_is_refused_by_name(bench: &mut Bench) {
    let first = bench.listen(Address::Unix(bench.path("s")));
    let address = Box::new(first.address().clone());
    let error = bench.error(Op::Listen { address, backlog: 1 });
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

pub fn connecting_without_a_listener_is_refused(bench: &mut Bench) {
    let listener = bench.listen(loopback());
    let address = Box::new(listener.address().clone());
    drop(listener);
    let error = bench.error(Op::Connect { address: address.clone() });
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

pub fn a_large_send_arrives_whole_and_in_order(bench: &mut Bench) {
    let (a, b) = bench.pair();
    let bytes = pattern(3 << 20, 9);
    let parts: Vec<IoBuf> = bytes.chunks(100_000).map(IoBuf::copy_from).collect();
    let send = bench.submit(Op::Send { socket: a, buffers: Buffers::from(parts) });
    assert!(!bench.is_done(send), "nothing was received yet, and no buffer is that large");
    assert!(bench.recv_all(&b, bytes.len()) == bytes);
    assert_eq!(bench.wait(send).result.unwrap().bytes(), bytes.len());
}

pub fn sends_on_one_stream_keep_their_order_and_do_not_mix(bench: &mut Bench) {
    // The kernel takes 1024 parts at a time, and a socket less than one of these.
    for parts in [1, 1500] {
        let (a, b) = bench.pair();
        let bytes = |n: u8| vec![n; 250_000];
        let sends: Vec<_> = (1..=4)
            .map(|n| {
                let list: Vec<IoBuf> = bytes(n).chunks(250_000 / parts).map(IoBuf::copy_from).collect();
                bench.submit(Op::Send { socket: a.clone(), buffers: Buffers::from(list) })
            })
            .collect();
        let expected: Vec<u8> = (1..=4).flat_map(bytes).collect();
        assert!(bench.recv_all(&b, expected.len()) == expected, "in {parts} parts");
        sends.into_iter().for_each(|send| assert_eq!(bench.wait(send).result.unwrap().bytes(), 250_000));
        assert_eq!(bench.send(&a, b"and on"), 6);
    }
}

pub fn a_send_that_waits_for_its_turn_can_be_cancelled(bench: &mut Bench) {
    let (a, b) = bench.pair();
    let send = |bench: &mut Bench, n: u8| {
        bench.submit(Op::Send { socket: a.clone(), buffers: buffer(&vec![n; 400_000]) })
    };
    let (first, second, third) = (send(bench, 1), send(bench, 2), send(bench, 3));
    assert!(!bench.is_done(first) && !bench.is_done(second));
    bench.driver.cancel(second);
    let error = bench.wait(second).result.expect_err("cancelled");
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let expected = [vec![1; 400_000], vec![3; 400_000]].concat();
    assert!(bench.recv_all(&b, expected.len()) == expected);
    assert!(bench.wait(first).result.is_ok() && bench.wait(third).result.is_ok());
}

pub fn a_stream_names_its_peer(bench: &mut Bench) {
    let (a, _b) = bench.pair();
    match a.peer() {
        Peer::Simulated => assert!(bench.engine.world().is_some()),
        Peer::Process { pid, .. } => assert_eq!(pid, std::process::id()),
        other => panic!("{other}"),
    }
    // The system knows when a local peer is gone.
    a.keep_alive(Duration::from_secs(60)).unwrap();
    let listener = bench.listen(loopback());
    let address = Box::new(listener.address().clone());
    let connect = bench.submit(Op::Connect { address });
    let Output::Socket(accepted) = bench.output(Op::Accept { listener }) else { panic!() };
    bench.wait(connect).result.unwrap();
    accepted.keep_alive(Duration::from_secs(60)).unwrap();
}

pub fn a_receive_waits_for_the_first_byte(bench: &mut Bench) {
    let (a, b) = bench.pair();
    let recv = bench.submit(Op::Recv { socket: b, buffers: IoBuf::zeroed(100).into() });
    assert!(!bench.is_done(recv));
    bench.send(&a, b"x");
    let done = bench.wait(recv);
    assert_eq!(done.result.unwrap().bytes(), 1);
    assert_eq!(bytes_of(&done.op.into_buffers())[0], b'x');
}

pub fn a_receive_without_room_does_not_wait(bench: &mut Bench) {
    let (a, b) = bench.pair();
    assert_eq!(bench.output(Op::Recv { socket: b.clone(), buffers: Buffers::None }).bytes(), 0);
    bench.send(&a, b"x");
    assert_eq!(bench.recv_all(&b, 1), b"x");
}

pub fn a_shut_down_stream_ends_after_what_was_sent(bench: &mut Bench) {
    let (a, b) = bench.pair();
    bench.send(&a, b"last words");
    bench.output(Op::Shutdown { socket: a.clone(), how: Shutdown::Write });
    assert_eq!(bench.recv_all(&b, 10), b"last words");
    assert_eq!(bench.recv(&b, 10), b"");
    bench.send(&b, b"still heard");
    assert_eq!(bench.recv_all(&a, 11), b"still heard");
    let error = bench.error(Op::Send { socket: a, buffers: buffer(b"no more") });
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

pub fn dropping_the_last_handle_ends_the_stream(bench: &mut Bench) {
    let (a, b) = bench.pair();
    let recv = bench.submit(Op::Recv { socket: b.clone(), buffers: IoBuf::zeroed(8).into() });
    let clone = a.clone();
    drop(a);
    assert!(!bench.is_done(recv), "a clone is still open");
    drop(clone);
    assert_eq!(bench.wait(recv).result.unwrap().bytes(), 0);
    let error = bench.error(Op::Send { socket: b, buffers: buffer(b"to nobody") });
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

pub fn thousands_that_wait_on_one_stream_are_cancelled_in_any_order_and_the_rest_keep_theirs(
    bench: &mut Bench,
) {
    const MANY: u64 = 1200;
    let (near, far) = bench.pair();
    let tokens: Vec<Token> = (0..MANY)
        .map(|_| bench.submit(Op::Recv { socket: near.clone(), buffers: IoBuf::zeroed(1).into() }))
        .collect();
    // Every third stays; the others go from behind, from the front and from the middle, some of them before the
    // kernel has seen them.
    let leaving: Vec<Token> =
        tokens.iter().enumerate().filter(|(i, _)| i % 3 != 1).map(|(_, t)| *t).collect();
    let (front, back) = leaving.split_at(leaving.len() / 2);
    for (first, last) in front.iter().zip(back.iter().rev()) {
        bench.driver.cancel(*last);
        bench.driver.cancel(*first);
    }
    for token in &leaving {
        let error = bench.wait(*token).result.expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
    let staying: Vec<Token> =
        tokens.iter().enumerate().filter(|(i, _)| i % 3 == 1).map(|(_, t)| *t).collect();
    let bytes: Vec<u8> = (0..staying.len()).map(|i| (i % 251) as u8).collect();
    let sent = bench.submit(Op::Send { socket: far.clone(), buffers: buffer(&bytes) });
    bench.wait(sent).result.expect("sent");
    let mut received: Vec<u8> = Vec::new();
    for token in &staying {
        let completion = bench.wait(*token);
        completion.result.expect("received");
        received.extend(completion.op.into_buffers().to_vec());
    }
    received.sort_unstable();
    let mut all = bytes;
    all.sort_unstable();
    assert_eq!(received, all, "each byte once");
}

pub fn waiting_operations_can_be_cancelled(bench: &mut Bench) {
    let listener = bench.listen(loopback());
    let (a, b) = bench.pair();
    let accept = bench.submit(Op::Accept { listener: listener.clone() });
    let recv = bench.submit(Op::Recv { socket: a.clone(), buffers: IoBuf::zeroed(64).into() });
    assert!(!bench.is_done(accept) && !bench.is_done(recv));
    bench.driver.cancel(accept);
    bench.driver.cancel(recv);
    for token in [accept, recv] {
        let error = bench.wait(token).result.expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
    // Both still work, and nothing was swallowed.
    bench.send(&b, b"on");
    assert_eq!(bench.recv_all(&a, 2), b"on");
    talk_over(bench, loopback());
}

pub fn a_stream_of_another_engine_is_refused(bench: &mut Bench) {
    let Some(mut other) = Bench::new(bench.engine.kind()) else { return };
    let (socket, _peer) = other.pair();
    let error = bench.error(Op::Send { socket, buffers: buffer(b"x") });
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

pub fn many_streams_at_once_do_not_mix(bench: &mut Bench) {
    let pairs: Vec<_> = (0..100).map(|_| bench.pair()).collect();
    let receives: Vec<_> = pairs
        .iter()
        .map(|(_, b)| bench.submit(Op::Recv { socket: b.clone(), buffers: IoBuf::zeroed(1).into() }))
        .collect();
    let sends: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(i, (a, _))| bench.submit(Op::Send { socket: a.clone(), buffers: buffer(&[i as u8]) }))
        .collect();
    for (i, (send, recv)) in sends.into_iter().zip(receives).enumerate() {
        assert_eq!(bench.wait(send).result.unwrap().bytes(), 1);
        let done = bench.wait(recv);
        assert_eq!(done.result.unwrap().bytes(), 1);
        assert_eq!(bytes_of(&done.op.into_buffers()), [i as u8]);
    }
}

pub fn a_foreign_descriptor_can_be_waited_for(bench: &mut Bench) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let fd = Arc::new(OwnedFd::from(reader));
    let wait = Op::Poll { fd, interest: Interest::READABLE };
    let token = bench.submit(wait);
    if bench.engine.world().is_some() {
        let error = bench.wait(token).result.expect_err("it follows no seed");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        return;
    }
    assert!(!bench.is_done(token));
    writer.write_all(b"x").unwrap();
    match bench.wait(token).result.unwrap() {
        Output::Ready(ready) => assert_eq!(ready, Interest::READABLE),
        other => panic!("{other:?}"),
    }
}

pub fn waiting_for_either_direction_ends_with_the_first_that_comes(bench: &mut Bench) {
    if bench.engine.world().is_some() {
        return;
    }
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let fill = pattern(1 << 16, 1);
    while (&near).write(&fill).is_ok() {}
    let fd = Arc::new(OwnedFd::from(near));
    let poll = |interest| Op::Poll { fd: fd.clone(), interest };
    let to_read = bench.submit(poll(Interest::READABLE));
    let either = bench.submit(poll(Interest { readable: true, writable: true }));
    assert!(!bench.is_done(either));
    // Nothing comes, but room does.
    far.set_nonblocking(true).unwrap();
    while far.read(&mut [0; 1 << 16]).is_ok() {}
    assert!(matches!(bench.wait(either).result, Ok(Output::Ready(Interest { writable: true, .. }))));
    assert!(!bench.is_done(to_read));
    far.write_all(b"x").unwrap();
    assert!(matches!(bench.wait(to_read).result, Ok(Output::Ready(Interest { readable: true, .. }))));
}

pub fn what_waits_for_a_peer_is_no_news_until_the_peer_acts(bench: &mut Bench) {
    let (a, b) = bench.pair();
    let receives: Vec<Token> = (0..100)
        .map(|_| bench.submit(Op::Recv { socket: a.clone(), buffers: IoBuf::zeroed(1).into() }))
        .collect();
    assert!(!bench.is_done(receives[0]));
    // In simulation it makes no difference.
    if bench.engine.world().is_none() {
        let mut look = || {
            let news = bench.driver.has_news();
            if news {
                bench.driver.poll(&mut bench.done);
            }
            news
        };
        let news = (0..1600).filter(|_| look()).count();
        assert!(news <= 100, "{news} of 1600 looks find something");
    }
    let sent = bench.submit(Op::Send { socket: b, buffers: buffer(&[7; 100]) });
    for token in receives.into_iter().chain([sent]) {
        for look in 0.. {
            assert!(look < 50_000_000, "{token:?} has ended and is no news");
            if bench.done.iter().any(|ended| ended.token == token) {
                break;
            }
            if bench.driver.has_news() {
                bench.driver.poll(&mut bench.done);
            }
        }
        bench.wait(token).result.expect("it was sent");
    }
    assert!(!bench.driver.has_news());
}

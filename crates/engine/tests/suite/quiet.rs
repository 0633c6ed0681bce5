//! Quiet sends: nothing waits for their end.

use std::io::ErrorKind;
use std::time::Duration;

use spindle_engine::{Op, Socket, Token};

use super::{Bench, buffer, bytes_of};

impl Bench {
    fn send_quietly(&mut self, socket: &Socket, bytes: &[u8]) -> Token {
        self.submit(Op::SendQuietly { socket: socket.clone(), buffers: buffer(bytes) })
    }

    /// Sleeps once, for 30 s at most; true if something ended the sleep before.
    fn is_woken(&mut self) -> bool {
        let limit = self.driver.now() + Duration::from_secs(30);
        self.driver.park(Some(limit));
        self.driver.now() < limit
    }
}

pub fn a_quiet_send_ends_no_sleep_and_is_told_with_what_comes_next(bench: &mut Bench) {
    let (a, b) = bench.pair();
    let before = bench.driver.system_calls();
    let deadline = bench.driver.now() + Duration::from_millis(20);
    let sent = bench.send_quietly(&a, b"answer");
    assert_eq!(bench.driver.in_flight(), 1);
    bench.driver.park(Some(deadline));
    assert!(bench.driver.now() >= deadline, "nothing else happened");
    assert_eq!(bench.wait(sent).result.unwrap().bytes(), 6);
    let called = bench.driver.system_calls() - before;
    if called.sockets == 0 {
        assert!(called.enters <= 1, "one call sends and sleeps: {called}");
    }
    assert_eq!(bench.recv_all(&b, 6), b"answer");
}

pub fn a_quiet_send_that_is_waited_for_after_all_ends_the_sleep(bench: &mut Bench) {
    let (a, _b) = bench.pair();
    let sent = bench.send_quietly(&a, b"answer");
    bench.driver.hurry(sent);
    assert!(bench.is_woken());
    assert_eq!(bench.wait(sent).result.unwrap().bytes(), 6);
    // Of another operation, or none, it means nothing.
    bench.driver.hurry(sent);
}

pub fn a_quiet_send_that_does_not_fit_goes_on_as_any_other(bench: &mut Bench) {
    let (a, b) = bench.pair();
    let bytes = super::pattern(250_000, 3);
    // Each is below the limit of a driver, and both together are not.
    let sent = [bench.send_quietly(&a, &bytes), bench.send_quietly(&a, &bytes)];
    let received = bench.recv_all(&b, 500_000);
    assert!(received == [bytes.clone(), bytes].concat(), "in order");
    for sent in sent {
        assert_eq!(bench.wait(sent).result.unwrap().bytes(), 250_000);
    }
}

pub fn a_send_after_a_quiet_one_does_not_wait_for_other_operations(bench: &mut Bench) {
    let (a, b) = bench.pair();
    let quiet = bench.send_quietly(&a, b"first, ");
    let send = bench.submit(Op::Send { socket: a, buffers: buffer(b"then") });
    assert!(bench.is_woken());
    assert_eq!(bench.wait(send).result.unwrap().bytes(), 4);
    assert_eq!(bench.wait(quiet).result.unwrap().bytes(), 7);
    assert_eq!(bench.recv_all(&b, 11), b"first, then");
}

pub fn a_quiet_send_that_fails_ends_the_sleep_with_the_reason(bench: &mut Bench) {
    let (a, b) = bench.pair();
    drop(b);
    let sent = bench.send_quietly(&a, b"answer");
    assert!(bench.is_woken());
    let done = bench.wait(sent);
    assert_eq!(done.result.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(bytes_of(&done.op.into_buffers()), b"answer");
}

pub fn a_quiet_send_that_fails_among_more_completions_than_a_ring_holds_is_told_so(bench: &mut Bench) {
    let (a, b) = bench.pair();
    let (ended, peer) = bench.pair();
    drop((b, peer));
    let receive = |bench: &mut Bench| bench.submit(Op::Recv { socket: ended.clone(), buffers: buffer(&[0]) });
    let receives: Vec<Token> = (0..4500).map(|_| receive(bench)).collect();
    let sent = bench.send_quietly(&a, b"answer");
    assert_eq!(bench.wait(sent).result.unwrap_err().kind(), ErrorKind::BrokenPipe);
    for token in receives {
        assert_eq!(bench.wait(token).result.unwrap().bytes(), 0);
    }
}

pub fn a_quiet_send_that_has_ended_is_told_when_it_is_cancelled(bench: &mut Bench) {
    let (a, _b) = bench.pair();
    let sent = bench.send_quietly(&a, b"answer");
    let soon = bench.driver.now() + Duration::from_millis(20);
    bench.driver.park(Some(soon));
    bench.driver.cancel(sent);
    assert!(bench.is_woken());
    assert_eq!(bench.wait(sent).result.unwrap().bytes(), 6);
}

pub fn a_cancelled_quiet_send_comes_back_with_its_buffers(bench: &mut Bench) {
    let (a, b) = bench.pair();
    for length in [6, 250_000, 250_000] {
        let sent = bench.send_quietly(&a, &vec![7; length]);
        bench.driver.cancel(sent);
        let done = bench.wait(sent);
        assert_eq!(done.op.into_buffers().len(), length);
    }
    drop(b);
}

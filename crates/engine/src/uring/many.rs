//! Operations with more than one completion of the kernel's: those that go on after a result, and sends without
//! copying, whose buffers come back later.

use std::io;

use io_uring::cqueue;
use spindle_mem::IoBuf;

use super::UringDriver;
use super::flight::{Step, interrupted};
use super::groups::receive_now;
use crate::{Completion, Op, Output};

impl UringDriver {
    /// Hands out one result of an operation that goes on.
    fn hand_out(&mut self, key: usize, output: Output) {
        self.ready.push(Completion::one_of_many(self.flights[key].token, output));
    }

    /// Continues an operation after the kernel's result, unless the kernel does so itself.
    fn carry_on(&mut self, key: usize, flags: u32) {
        match (cqueue::more(flags), self.flights[key].cancelled) {
            (true, _) => {}
            (false, true) => self.finish(key, Err(interrupted())),
            (false, false) => self.push_next(key),
        }
    }

    /// One of many results of an accept or a poll.
    pub(super) fn on_one_of_many(&mut self, key: usize, result: i32, flags: u32) {
        self.socket_calls += u64::from(matches!(self.flights[key].op, Op::AcceptMany { .. }) && result >= 0);
        match self.flights[key].on_result(result, &self.engine_id) {
            Step::Done(Ok(output)) => {
                self.hand_out(key, output);
                self.carry_on(key, flags);
            }
            Step::Done(Err(error)) => self.finish(key, Err(error)),
            Step::Again => self.push_next(key),
        }
    }

    /// One of many results of a receive.
    pub(super) fn on_received(&mut self, key: usize, result: i32, flags: u32) {
        let Some(group) = self.flights[key].group else { return self.receive_here(key, result) };
        let id = cqueue::buffer_select(flags);
        match (usize::try_from(result), id) {
            (Ok(count @ 1..), Some(id)) => {
                let bytes = self.groups.take(group, id, count, &mut self.ring);
                self.hand_out(key, Output::Received(bytes));
                self.carry_on(key, flags);
            }
            (Ok(_), id) => {
                id.into_iter().for_each(|id| self.groups.return_unused(group, id, &mut self.ring));
                self.end_of_stream(key);
            }
            (Err(_), _) if result == -libc::ENOBUFS && !self.flights[key].cancelled => {
                // Others may have filled what the kernel had, and new ones be on their way to it.
                match self.groups.fill(group, &mut self.ring) {
                    true => self.push_next(key),
                    false => self.finish(key, Err(io::ErrorKind::OutOfMemory.into())),
                }
            }
            (Err(_), _) => match self.flights[key].on_result(result, &self.engine_id) {
                Step::Done(result) => self.finish(key, result),
                Step::Again => self.push_next(key),
            },
        }
    }

    fn end_of_stream(&mut self, key: usize) {
        self.finish(key, Ok(Output::Received(IoBuf::zeroed(0))));
    }

    /// The stream may have bytes, on a kernel without multishot receives.
    fn receive_here(&mut self, key: usize, result: i32) {
        let flight = &mut self.flights[key];
        if let Step::Done(Err(error)) = flight.on_result(result.min(0), &self.engine_id) {
            return self.finish(key, Err(error));
        }
        let Op::RecvMany { socket, pool } = &flight.op else { return };
        let Ok(mut buffer) = pool.get() else {
            return self.finish(key, Err(io::ErrorKind::OutOfMemory.into()));
        };
        self.socket_calls += 1;
        match receive_now(socket, &mut buffer) {
            Ok(0) => return self.end_of_stream(key),
            Ok(count) => {
                buffer.truncate(count);
                self.hand_out(key, Output::Received(buffer));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return self.finish(key, Err(error)),
        }
        self.carry_on(key, 0);
    }

    /// A result of a send without copying, or the notice that the kernel no longer reads its bytes.
    pub(super) fn on_zero_copy(&mut self, key: usize, result: i32, flags: u32) {
        let flight = &mut self.flights[key];
        if cqueue::notif(flags) {
            flight.notices -= 1;
            return self.end_zero_copy(key);
        }
        flight.notices += u32::from(cqueue::more(flags));
        if matches!(-result, libc::EOPNOTSUPP | libc::EINVAL) && !flight.copies {
            flight.copies = true;
            return self.push_next(key);
        }
        match flight.on_result(result, &self.engine_id) {
            Step::Again => self.push_next(key),
            Step::Done(result) => {
                flight.outcome = Some(result.map(|_| Output::Done));
                let sent = flight.length();
                if matches!(flight.outcome, Some(Ok(_))) {
                    self.hand_out(key, Output::Bytes(sent));
                }
                self.pass_on(key);
                self.end_zero_copy(key);
            }
        }
    }

    /// Ends it when it has a result and the kernel has no part of it.
    pub(super) fn end_zero_copy(&mut self, key: usize) {
        let flight = &mut self.flights[key];
        if flight.notices == 0
            && let Some(result) = flight.outcome.take()
        {
            self.finish(key, result);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spindle_mem::{Buffers, Pool};

    use super::*;
    use crate::engine_id::EngineId;
    use crate::os::{Clock, Workers};
    use crate::{Driver, ReceivePool, Socket, Token};

    /// A driver as on an old kernel, without multishot operations, or as on this one.
    fn driver(old: bool) -> Option<UringDriver> {
        super::super::probe().ok()?;
        let engine_id = EngineId::new();
        let workers = Arc::new(Workers::new(engine_id.clone(), true));
        let mut driver = UringDriver::new(Clock::start(), engine_id, workers).unwrap();
        driver.ring.may_go_on &= !old;
        driver.ring.may_be_quiet &= !old;
        Some(driver)
    }

    /// Sleeps until something has completed.
    fn next(driver: &mut UringDriver) -> Vec<Completion> {
        let mut done = Vec::new();
        while done.is_empty() {
            driver.poll(&mut done);
            if done.is_empty() {
                driver.park(None);
            }
        }
        done
    }

    fn pair(driver: &mut UringDriver) -> (Socket, Socket) {
        driver.submit(Token(0), Op::Pair);
        match next(driver).remove(0).result {
            Ok(Output::Pair(a, b)) => (a, b),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn streams_receive_and_send_alike_whatever_the_kernel_can_do() {
        for old in [false, true] {
            let Some(mut driver) = driver(old) else { return };
            let (a, b) = pair(&mut driver);
            let memory = Pool::new("receives", 64 << 10);
            let pool = ReceivePool::new(memory.clone(), 4096);
            driver.submit(Token(1), Op::RecvMany { socket: b, pool });
            let (mut received, mut sent) = (Vec::new(), 0);
            for n in 0..100u8 {
                let buffers = Buffers::from(IoBuf::copy_from(&[n; 5]));
                driver.submit(Token(2), Op::SendQuietly { socket: a.clone(), buffers });
                while received.len() < 5 * (usize::from(n) + 1) || sent <= n {
                    for one in next(&mut driver) {
                        match one.result.unwrap() {
                            Output::Received(bytes) if one.more => received.extend_from_slice(&bytes),
                            Output::Bytes(5) if one.token == Token(2) => sent += 1,
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
            assert!(received.chunks(5).zip(0..100u8).all(|(bytes, n)| bytes == [n; 5]));
            assert_eq!(memory.lent() == 0, old, "a kernel that picks buffers has some");
            drop(a);
            let end = next(&mut driver).remove(0);
            assert!(!end.more && matches!(end.result, Ok(Output::Received(bytes)) if bytes.is_empty()));
        }
    }
}

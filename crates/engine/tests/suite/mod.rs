//! What every engine must hold, written once and run over all three.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test binary uses a part")]

pub mod files;
pub mod many;
pub mod quiet;
pub mod sleep;
pub mod sockets;

/// Calls the macro `$then` with its own arguments and the list of everything that must hold.
macro_rules! with_every_test {
    ($then:ident!($($arguments:tt)*)) => {
        $then! {
            $($arguments)*
            files:
                what_was_written_is_read,
                scattered_buffers_are_one_transfer_in_order,
                more_slices_than_the_kernel_takes_at_once_are_still_one_transfer,
                a_read_past_the_end_reports_what_was_there,
                an_empty_transfer_succeeds,
                an_offset_that_no_file_reaches_is_refused,
                a_file_that_cannot_be_made_as_large_is_removed,
                a_flush_succeeds_and_data_survives_a_second_opening,
                a_file_that_exists_keeps_its_size,
                size_and_geometry_are_known,
                a_missing_file_is_an_error_that_names_it,
                a_read_only_file_cannot_be_written,
                a_zeroed_range_reads_zero_and_the_rest_stays,
                zeroing_past_the_end_is_refused_and_grows_nothing,
                a_discarded_range_reads_as_promised_or_is_unsupported,
                a_seek_finds_what_was_written_and_no_hole_that_holds_data,
                direct_transfers_carry_the_same_bytes,
                a_locked_file_has_one_opener_and_the_holder_is_named,
                a_thousand_operations_at_once_all_complete,
                a_cancelled_operation_comes_back_with_its_buffers,
                a_handle_of_another_engine_is_refused,
                a_driver_may_be_dropped_with_operations_in_flight,
                a_file_opened_by_one_driver_serves_another_on_its_own_thread;
            many:
                connections_are_accepted_as_they_come_until_that_is_cancelled,
                a_silent_stream_that_receives_holds_no_buffer,
                a_silent_stream_waits_for_bytes_although_there_is_no_memory,
                what_comes_is_received_in_order_and_the_end_of_the_stream_is_the_last,
                a_receive_that_finds_no_memory_ends_and_loses_nothing,
                a_receive_cancelled_in_the_middle_takes_nothing_meant_for_the_next,
                a_driver_dropped_while_streams_receive_gives_their_memory_back,
                a_send_without_copying_tells_its_result_and_then_brings_its_buffers_back,
                a_foreign_descriptor_is_told_each_time_it_becomes_ready;
            quiet:
                a_quiet_send_ends_no_sleep_and_is_told_with_what_comes_next,
                a_quiet_send_that_is_waited_for_after_all_ends_the_sleep,
                a_quiet_send_that_does_not_fit_goes_on_as_any_other,
                a_send_after_a_quiet_one_does_not_wait_for_other_operations,
                a_quiet_send_that_fails_ends_the_sleep_with_the_reason,
                a_quiet_send_that_fails_among_more_completions_than_a_ring_holds_is_told_so,
                a_quiet_send_that_has_ended_is_told_when_it_is_cancelled,
                a_cancelled_quiet_send_comes_back_with_its_buffers;
            sleep:
                a_sleep_ends_at_its_deadline_and_not_before,
                a_deadline_in_the_past_does_not_sleep,
                time_never_runs_backwards,
                an_unpark_before_the_sleep_is_not_lost,
                an_unpark_from_another_thread_ends_the_sleep,
                a_driver_that_was_woken_with_nothing_in_flight_sleeps_again,
                drivers_of_one_engine_share_the_zero_of_time,
                two_sleepers_wake_each_other_without_losing_one_wake;
            sockets:
                streams_talk_over_tcp,
                streams_talk_over_a_unix_path,
                port_zero_picks_a_free_one,
                an_address_in_use_is_refused_by_name,
                connecting_without_a_listener_is_refused,
                a_large_send_arrives_whole_and_in_order,
                sends_on_one_stream_keep_their_order_and_do_not_mix,
                a_send_that_waits_for_its_turn_can_be_cancelled,
                a_stream_names_its_peer,
                a_receive_waits_for_the_first_byte,
                a_receive_without_room_does_not_wait,
                a_shut_down_stream_ends_after_what_was_sent,
                dropping_the_last_handle_ends_the_stream,
                waiting_operations_can_be_cancelled,
                what_waits_for_a_peer_is_no_news_until_the_peer_acts,
                thousands_that_wait_on_one_stream_are_cancelled_in_any_order_and_the_rest_keep_theirs,
                a_stream_of_another_engine_is_refused,
                many_streams_at_once_do_not_mix,
                a_foreign_descriptor_can_be_waited_for,
                waiting_for_either_direction_ends_with_the_first_that_comes;
        }
    };
}
pub(crate) use with_every_test;

/// Makes a module with one test for each function of the suite, each over all of `$kinds`.
macro_rules! suite {
    (#[$attribute:meta] $module:ident, $kinds:expr; $($part:ident: $($name:ident),+;)+) => {
        mod $module {
            $($(
                #[test]
                #[$attribute]
                fn $name() {
                    use spindle_engine::EngineKind;
                    for kind in $kinds {
                        if let Some(mut bench) = crate::suite::Bench::new(kind) {
                            crate::suite::$part::$name(&mut bench);
                        }
                    }
                }
            )+)+
        }
    };
}
pub(crate) use suite;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use spindle_engine::{
    Completion, Driver, Engine, EngineError, EngineKind, File, Op, OpenOptions, Output, Token,
};
use spindle_mem::{Buffers, IoBuf};

/// One driver of one engine, and a folder for files (a name only, in simulation).
pub struct Bench {
    pub engine: Engine,
    pub driver: Box<dyn Driver>,
    folder: Option<tempfile::TempDir>,
    next: u64,
    done: Vec<Completion>,
}

impl Bench {
    /// None where this machine does not offer the engine.
    pub fn new(kind: EngineKind) -> Option<Bench> {
        let engine = match Engine::open(kind) {
            Ok(engine) => engine,
            Err(error @ EngineError::NoUring { .. }) => {
                eprintln!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        Some(Bench::with(engine))
    }

    /// With an engine that is there.
    pub fn with(engine: Engine) -> Bench {
        let driver = engine.driver(0).unwrap();
        // Beside the build, not in /tmp, which may be a tmpfs without direct transfers.
        let folder =
            engine.world().is_none().then(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        Bench { engine, driver, folder, next: 1, done: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        match &self.folder {
            Some(folder) => folder.path().join(name),
            None => PathBuf::from("/sim").join(name),
        }
    }

    pub fn submit(&mut self, op: Op) -> Token {
        let token = Token(self.next);
        self.next += 1;
        self.driver.submit(token, op);
        token
    }

    /// Drives until `token`'s operation is done. Fails after far longer than anything here takes.
    pub fn wait(&mut self, token: Token) -> Completion {
        let limit = self.driver.now() + Duration::from_secs(30);
        loop {
            if let Some(i) = self.done.iter().position(|c| c.token == token) {
                return self.done.remove(i);
            }
            self.driver.poll(&mut self.done);
            if !self.done.iter().any(|c| c.token == token) {
                let now = self.driver.now();
                assert!(now < limit, "{token:?} does not end; {} in flight", self.driver.in_flight());
                self.driver.park(Some(limit));
            }
        }
    }

    /// Whether `token`'s operation is done after a few turns without sleeping.
    pub fn is_done(&mut self, token: Token) -> bool {
        for _ in 0..10 {
            self.driver.poll(&mut self.done);
        }
        self.done.iter().any(|c| c.token == token)
    }

    /// Turns and sleeps for some milliseconds.
    pub fn sleep_a_little(&mut self) {
        for _ in 0..3 {
            let soon = self.driver.now() + Duration::from_millis(2);
            self.driver.poll(&mut self.done);
            self.driver.park(Some(soon));
        }
        self.driver.poll(&mut self.done);
    }

    /// Drops the driver with all that it has under way, and takes another.
    pub fn renew_driver(&mut self) {
        let other = self.engine.driver(1).unwrap();
        drop(std::mem::replace(&mut self.driver, other));
        self.done.clear();
    }

    pub fn run(&mut self, op: Op) -> Completion {
        let token = self.submit(op);
        self.wait(token)
    }

    pub fn output(&mut self, op: Op) -> Output {
        let name = op.name();
        self.run(op).result.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn error(&mut self, op: Op) -> io::Error {
        let name = op.name();
        match self.run(op).result {
            Ok(output) => panic!("{name} gave {output:?}"),
            Err(error) => error,
        }
    }

    pub fn open(&mut self, options: OpenOptions) -> File {
        match self.output(Op::Open { options: Box::new(options) }) {
            Output::File(file) => file,
            other => panic!("{other:?}"),
        }
    }

    /// A fresh writable file of `size` bytes.
    pub fn file(&mut self, name: &str, size: u64) -> File {
        let options = OpenOptions::new(self.path(name)).writable(true).create(size);
        self.open(options)
    }

    pub fn write(&mut self, file: &File, offset: u64, bytes: &[u8]) -> usize {
        self.output(Op::Write { file: file.clone(), offset, buffers: buffer(bytes) }).bytes()
    }

    /// What lies there, as long as the file reaches.
    pub fn read(&mut self, file: &File, offset: u64, length: usize) -> Vec<u8> {
        let op = Op::Read { file: file.clone(), offset, buffers: IoBuf::zeroed(length).into() };
        let done = self.run(op);
        let count = done.result.expect("read").bytes();
        let mut bytes = bytes_of(&done.op.into_buffers());
        bytes.truncate(count);
        bytes
    }
}

pub fn buffer(bytes: &[u8]) -> Buffers {
    Buffers::from(IoBuf::copy_from(bytes))
}

pub fn bytes_of(buffers: &Buffers) -> Vec<u8> {
    buffers.iter().flat_map(|slice| slice.to_vec()).collect()
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize, salt: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt).collect()
}

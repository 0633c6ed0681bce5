//! The common suite over every engine: files, time and waking, sockets, cancelling, overflow.

mod suite;

use spindle_engine::EngineKind;
use suite::Bench;

/// Makes one test for each function and engine.
macro_rules! suite {
    ($engine:ident, $kinds:expr; $($part:ident: $($name:ident),+;)+) => {
        mod $engine {
            use super::*;
            $($(
                #[test]
                fn $name() {
                    for kind in $kinds {
                        if let Some(mut bench) = Bench::new(kind) {
                            suite::$part::$name(&mut bench);
                        }
                    }
                }
            )+)+
        }
    };
}

macro_rules! every_engine {
    ($($body:tt)+) => {
        suite!(io_uring, [EngineKind::IoUring]; $($body)+);
        suite!(epoll, [EngineKind::Epoll]; $($body)+);
        suite!(sim, (0..20).map(EngineKind::Sim); $($body)+);
    };
}

every_engine! {
    files:
        what_was_written_is_read,
        scattered_buffers_are_one_transfer_in_order,
        more_slices_than_the_kernel_takes_at_once_are_still_one_transfer,
        a_read_past_the_end_reports_what_was_there,
        an_empty_transfer_succeeds,
        a_flush_succeeds_and_data_survives_a_second_opening,
        a_file_that_exists_keeps_its_size,
        size_and_geometry_are_known,
        a_missing_file_is_an_error_that_names_it,
        a_read_only_file_cannot_be_written,
        a_zeroed_range_reads_zero_and_the_rest_stays,
        zeroing_past_the_end_is_refused_and_grows_nothing,
        a_discarded_range_reads_as_promised_or_is_unsupported,
        direct_transfers_carry_the_same_bytes,
        a_locked_file_has_one_opener_and_the_holder_is_named,
        a_thousand_operations_at_once_all_complete,
        a_cancelled_operation_comes_back_with_its_buffers,
        a_handle_of_another_engine_is_refused,
        a_driver_may_be_dropped_with_operations_in_flight;
    sleep:
        a_sleep_ends_at_its_deadline_and_not_before,
        a_deadline_in_the_past_does_not_sleep,
        time_never_runs_backwards,
        an_unpark_before_the_sleep_is_not_lost,
        an_unpark_from_another_thread_ends_the_sleep,
        drivers_of_one_engine_share_the_zero_of_time;
    sockets:
        streams_talk_over_tcp,
        streams_talk_over_a_unix_path,
        port_zero_picks_a_free_one,
        an_address_in_use_is_refused_by_name,
        connecting_where_nobody_listens_is_refused,
        a_large_send_arrives_whole_and_in_order,
        a_receive_waits_for_the_first_byte,
        a_shut_down_stream_ends_after_what_was_sent,
        dropping_the_last_handle_ends_the_stream,
        waiting_operations_can_be_cancelled,
        a_stream_of_another_engine_is_refused,
        many_streams_at_once_do_not_mix;
}

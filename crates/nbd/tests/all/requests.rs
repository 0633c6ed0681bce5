//! Requests and replies of the transmission phase, without a connection.

use proptest::prelude::*;
use spindle_nbd::codec::{
    Checked, Command, CommandFlags, Context, Contexts, ErrorCode, MAX_PAYLOAD, REQUEST_LEN, Request, Rules,
    Violation, reply,
};

const SIZE: u64 = 1 << 20;
const WRITABLE: Rules = Rules { size: SIZE, read_only: false, structured: true, contexts: Contexts::ALL };
const COMMANDS: [u16; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

fn request(command: u16, flags: u16, offset: u64, len: u32) -> Request {
    Request { flags: CommandFlags(flags), command, cookie: 0x0102_0304_0506_0708, offset, len }
}

fn code(rules: &Rules, request: &Request) -> Option<ErrorCode> {
    match rules.check(request) {
        Checked::Command(_) => None,
        Checked::Refused { code, .. } => Some(code),
    }
}

#[test]
fn a_request_is_read_as_it_was_written_and_needs_its_magic() {
    let request = request(6, 0b10010, 1 << 40, 77);
    assert_eq!(Request::parse(&request.to_bytes()), Ok(request));
    let mut bytes = request.to_bytes();
    bytes[0] ^= 1;
    assert!(matches!(Request::parse(&bytes), Err(Violation::RequestMagic(_))));
    // The extended form, which was not negotiated.
    bytes[..4].copy_from_slice(&0x21e4_1c71u32.to_be_bytes());
    assert!(Request::parse(&bytes).is_err());
}

#[test]
fn flags_belong_to_their_commands_and_fua_to_all() {
    for command in COMMANDS.into_iter().filter(|command| *command != 2) {
        let len = if command == 3 { 0 } else { 512 };
        for bit in 0..16 {
            let flag = 1u16 << bit;
            let allowed = match (command, flag) {
                (_, 1) | (0, 4) | (6, 2 | 16) | (7, 8) => None,
                _ => Some(ErrorCode::Invalid),
            };
            assert_eq!(code(&WRITABLE, &request(command, flag, 0, len)), allowed, "{command} {flag}");
        }
    }
    let simple = Rules { structured: false, ..WRITABLE };
    assert_eq!(code(&simple, &request(0, 4, 0, 512)), Some(ErrorCode::Invalid), "DF was not offered");
}

#[test]
fn what_ends_beyond_the_export_is_refused_with_the_error_of_its_command() {
    for (command, expected) in
        [(0, ErrorCode::Invalid), (1, ErrorCode::NoSpace), (4, ErrorCode::Invalid), (6, ErrorCode::NoSpace)]
            .into_iter()
            .chain([(5, ErrorCode::Invalid), (7, ErrorCode::Invalid)])
    {
        for (offset, len) in [
            (SIZE, 1),
            (SIZE - 511, 512),
            (u64::MAX, 1),
            (u64::MAX - 511, 512),
            (u64::MAX, 4096),
            (1 << 63, 1),
        ] {
            let found = code(&WRITABLE, &request(command, 0, offset, len));
            assert_eq!(found, Some(expected), "{command} {offset} {len}");
        }
        assert_eq!(code(&WRITABLE, &request(command, 0, SIZE - 512, 512)), None);
    }
}

#[test]
fn requests_of_no_bytes_are_allowed_but_for_block_status() {
    for command in [0, 1, 3, 4, 5, 6] {
        assert_eq!(code(&WRITABLE, &request(command, 0, 0, 0)), None, "{command}");
    }
    for command in [0, 1, 4, 5, 6] {
        assert_eq!(code(&WRITABLE, &request(command, 0, SIZE, 0)), None, "{command}");
    }
    assert_eq!(code(&WRITABLE, &request(7, 0, 0, 0)), Some(ErrorCode::Invalid));
}

#[test]
fn payloads_have_32_mib_at_most_and_other_ranges_may_be_longer() {
    let rules = Rules { size: 1 << 40, ..WRITABLE };
    for command in [0, 1] {
        assert_eq!(code(&rules, &request(command, 0, 0, MAX_PAYLOAD)), None);
        assert_eq!(code(&rules, &request(command, 0, 0, MAX_PAYLOAD + 1)), Some(ErrorCode::Invalid));
    }
    for command in [4, 5, 6, 7] {
        assert_eq!(code(&rules, &request(command, 0, 0, u32::MAX)), None, "{command}");
    }
}

#[test]
fn a_refused_write_still_has_its_payload_and_nothing_else_has() {
    let read_only = Rules { read_only: true, ..WRITABLE };
    for (rules, flags, offset, len) in
        [(read_only, 0, 0, 512), (WRITABLE, 64, 0, 512), (WRITABLE, 0, SIZE, 512), (WRITABLE, 0, 0, u32::MAX)]
    {
        let Checked::Refused { payload, .. } = rules.check(&request(1, flags, offset, len)) else { panic!() };
        assert_eq!(payload, len);
    }
    for command in [0, 4, 5, 6, 7, 8, 4711] {
        let Checked::Refused { payload, .. } = WRITABLE.check(&request(command, 0, SIZE, 512)) else {
            panic!()
        };
        assert_eq!(payload, 0, "{command}");
    }
}

#[test]
fn read_only_exports_refuse_what_changes_data_and_nothing_else() {
    let rules = Rules { read_only: true, ..WRITABLE };
    for command in [1, 4, 6] {
        assert_eq!(code(&rules, &request(command, 0, 0, 512)), Some(ErrorCode::Permission), "{command}");
        assert_eq!(code(&rules, &request(command, 0, SIZE, 512)), Some(ErrorCode::Permission), "{command}");
    }
    for command in [0, 5, 7] {
        assert_eq!(code(&rules, &request(command, 0, 0, 512)), None, "{command}");
    }
    assert_eq!(code(&rules, &request(3, 0, 0, 0)), None);
}

#[test]
fn disconnects_mean_nothing_by_their_other_fields() {
    let disconnect = request(2, 0xffff, u64::MAX, u32::MAX);
    assert_eq!(WRITABLE.check(&disconnect), Checked::Command(Command::Disconnect));
}

#[test]
fn flushes_have_no_range_and_unknown_commands_are_invalid() {
    assert_eq!(code(&WRITABLE, &request(3, 0, 512, 0)), Some(ErrorCode::Invalid));
    assert_eq!(code(&WRITABLE, &request(3, 0, 0, 512)), Some(ErrorCode::Invalid));
    for command in [8, 9, 4711, u16::MAX] {
        assert_eq!(code(&WRITABLE, &request(command, 0, 0, 512)), Some(ErrorCode::Invalid));
    }
}

#[test]
fn block_status_needs_a_context() {
    let rules = Rules { contexts: Contexts::NONE, ..WRITABLE };
    assert_eq!(code(&rules, &request(7, 0, 0, 512)), Some(ErrorCode::Invalid));
}

#[test]
fn successful_reads_are_simple_or_one_chunk_of_data() {
    assert_eq!(reply::read(false, 7, 512, 4096).as_ref(), b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x07");
    let chunk = b"\x66\x8e\x33\xef\0\x01\0\x01\0\0\0\0\0\0\0\x07\0\0\x10\x08\0\0\0\0\0\0\x02\0";
    assert_eq!(reply::read(true, 7, 512, 4096).as_ref(), chunk);
    // A chunk of data has at least one byte.
    let none = b"\x66\x8e\x33\xef\0\x01\0\0\0\0\0\0\0\0\0\x07\0\0\0\0";
    assert_eq!(reply::read(true, 7, 512, 0).as_ref(), none);
}

#[test]
fn errors_carry_text_only_where_replies_are_structured_and_never_more_than_clients_take() {
    let mut out = Vec::new();
    reply::error(&mut out, false, 7, ErrorCode::NoSpace, "full");
    assert_eq!(out, b"\x67\x44\x66\x98\0\0\0\x1c\0\0\0\0\0\0\0\x07");
    out.clear();
    reply::error(&mut out, true, 7, ErrorCode::NoSpace, "full");
    assert_eq!(out, b"\x66\x8e\x33\xef\0\x01\x80\x01\0\0\0\0\0\0\0\x07\0\0\0\x0a\0\0\0\x1c\0\x04full");
    for text in ["x".repeat(5000), "\u{1f4a5}".repeat(5000)] {
        out.clear();
        reply::error(&mut out, true, 7, ErrorCode::Io, &text);
        assert!(out.len() - 20 < 990 && std::str::from_utf8(&out[26..]).is_ok());
    }
}

#[test]
fn a_status_has_a_chunk_for_each_context_and_the_last_ends_it() {
    let mut out = Vec::new();
    reply::status(&mut out, 7, Context::Allocation, [(512, 3), (1024, 0)].into_iter(), false);
    reply::status(&mut out, 7, Context::Depth, [(1536, 1)].into_iter(), true);
    let first = b"\x66\x8e\x33\xef\0\0\0\x05\0\0\0\0\0\0\0\x07\0\0\0\x14\0\0\0\x01\0\0\x02\0\0\0\0\x03\0\0\x04\0\0\0\0\0";
    let second = b"\x66\x8e\x33\xef\0\x01\0\x05\0\0\0\0\0\0\0\x07\0\0\0\x0c\0\0\0\x02\0\0\x06\0\0\0\0\x01";
    assert_eq!(out, [&first[..], second].concat());
}

proptest! {
    #[test]
    fn an_accepted_request_is_inside_the_export(
        bytes in prop::array::uniform28(any::<u8>()),
        size in 0..1u64 << 63,
        close in any::<u16>(),
        read_only in any::<bool>(),
        structured in any::<bool>(),
    ) {
        let mut bytes: [u8; REQUEST_LEN] = bytes;
        bytes[..4].copy_from_slice(&0x2560_9513u32.to_be_bytes());
        bytes[6] = 0;
        bytes[7] %= 10;
        // Near the end of the export, where it matters.
        let offset = size.wrapping_sub(u64::from(close)).wrapping_add(64);
        bytes[16..24].copy_from_slice(&offset.to_be_bytes());
        let request = Request::parse(&bytes).unwrap();
        let rules = Rules { size, read_only, structured, contexts: Contexts::ALL };
        let range = match rules.check(&request) {
            Checked::Command(
                Command::Read { offset, len }
                | Command::Write { offset, len, .. }
                | Command::Trim { offset, len, .. }
                | Command::Cache { offset, len }
                | Command::WriteZeroes { offset, len, .. }
                | Command::BlockStatus { offset, len, .. },
            ) => u128::from(offset) + u128::from(len),
            _ => 0,
        };
        prop_assert!(range <= u128::from(size));
    }
}

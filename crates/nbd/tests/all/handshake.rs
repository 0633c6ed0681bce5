//! The handshake, byte by byte, without a connection.

use proptest::prelude::*;
use spindle_nbd::codec::{
    Advance, Agreed, BlockSizes, Context, Contexts, Encryption, MAX_OPTION, Negotiation, Offer, Query,
    Refusal, TransmissionFlags, Violation,
};

const SIZE: u64 = 1 << 30;
const ACK: u32 = 1;
const SERVER: u32 = 2;
const INFO: u32 = 3;
const META: u32 = 4;
const UNSUP: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const PLATFORM: u32 = 0x8000_0004;
const TLS_REQUIRED: u32 = 0x8000_0005;
const UNKNOWN: u32 = 0x8000_0006;
const SHUTDOWN: u32 = 0x8000_0007;
const TOO_BIG: u32 = 0x8000_0009;

fn export(name: &str) -> Offer {
    Offer {
        name: name.to_owned(),
        description: "what it is".to_owned(),
        size: SIZE,
        flags: TransmissionFlags::WRITABLE,
        block_sizes: BlockSizes { minimum: 512, preferred: 4096, maximum: 32 << 20 },
        contexts: Contexts::ALL,
    }
}

/// A client's bytes, and a server with the exports "disk", "other" and one whose name is as long as may be.
struct Client {
    negotiation: Negotiation,
    input: Vec<u8>,
    out: Vec<u8>,
    agreed: Option<Agreed>,
    aborted: bool,
    /// TLS begins after the output.
    tls: bool,
}

/// One reply to an option.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    option: u32,
    kind: u32,
    data: Vec<u8>,
}

impl Client {
    /// A client that has read the greeting and sent these flags.
    fn with_flags(flags: u32) -> Client {
        Client::of(Encryption::None, flags)
    }

    /// The same, of a server that requires TLS or not.
    fn of(encryption: Encryption, flags: u32) -> Client {
        let mut out = Vec::new();
        let negotiation = Negotiation::with_encryption(encryption, &mut out);
        assert_eq!(out, b"NBDMAGICIHAVEOPT\x00\x03");
        out.clear();
        let input = flags.to_be_bytes().to_vec();
        Client { negotiation, input, out, agreed: None, aborted: false, tls: false }
    }

    fn new() -> Client {
        Client::with_flags(3)
    }

    fn send(&mut self, option: u32, data: &[u8]) {
        self.input.extend(b"IHAVEOPT");
        self.input.extend(option.to_be_bytes());
        self.input.extend((data.len() as u32).to_be_bytes());
        self.input.extend(data);
    }

    /// Lets the server work on what was sent.
    fn serve(&mut self) -> Result<(), Violation> {
        while self.agreed.is_none() && !self.aborted && !self.tls {
            let (used, advance) = self.negotiation.advance(&self.input, &mut self.out)?;
            self.input.drain(..used);
            match advance {
                Advance::NeedsInput => break,
                Advance::Aborted => self.aborted = true,
                Advance::StartTls => self.tls = true,
                Advance::Query(Query::List) => {
                    self.negotiation.list([("disk", "what it is"), ("other", "")], &mut self.out);
                }
                Advance::Query(Query::Export { name, .. }) => match name.as_str() {
                    "disk" | "other" => self.agreed = self.negotiation.offer(&export(&name), &mut self.out),
                    "leaving" => self.negotiation.refuse(&Refusal::ShuttingDown, &mut self.out)?,
                    "broken" => {
                        let refusal = Refusal::Failed("it is broken ".repeat(1000));
                        self.negotiation.refuse(&refusal, &mut self.out)?;
                    }
                    long if long.len() == 4096 => {
                        self.agreed = self.negotiation.offer(&export(&name), &mut self.out);
                    }
                    _ => self.negotiation.refuse(&Refusal::Unknown, &mut self.out)?,
                },
            }
        }
        Ok(())
    }

    /// The replies to one option.
    fn ask(&mut self, option: u32, data: &[u8]) -> Vec<Reply> {
        self.send(option, data);
        self.serve().unwrap();
        replies(&std::mem::take(&mut self.out))
    }

    /// The kinds of the replies to one option.
    fn kinds(&mut self, option: u32, data: &[u8]) -> Vec<u32> {
        self.ask(option, data).into_iter().map(|reply| reply.kind).collect()
    }

    fn agreed(&self) -> &Agreed {
        self.agreed.as_ref().expect("the handshake is over")
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
        let (option, kind, len) = (u32_at(bytes, 8), u32_at(bytes, 12), u32_at(bytes, 16) as usize);
        replies.push(Reply { option, kind, data: bytes[20..20 + len].to_vec() });
        bytes = &bytes[20 + len..];
    }
    replies
}

/// The data of INFO and GO.
fn info(name: &str, items: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((items.len() as u16).to_be_bytes());
    items.iter().for_each(|item| data.extend(item.to_be_bytes()));
    data
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend((query.len() as u32).to_be_bytes());
        data.extend(query.as_bytes());
    }
    data
}

fn contexts(replies: &[Reply]) -> Vec<(u32, String)> {
    let of = |reply: &Reply| (u32_at(&reply.data, 0), String::from_utf8(reply.data[4..].to_vec()).unwrap());
    replies.iter().filter(|reply| reply.kind == META).map(of).collect()
}

/// A client that was told to begin TLS.
fn at_tls() -> Client {
    let mut client = Client::of(Encryption::Required, 3);
    assert_eq!(client.kinds(STARTTLS, b""), [ACK]);
    assert!(client.tls);
    client
}

const STARTTLS: u32 = 5;

#[test]
fn before_tls_a_server_that_requires_it_answers_starttls_and_abort_only() {
    for option in [3, 4, 6, 7, 8, 9, 10, 11, 12, 4711] {
        let mut client = Client::of(Encryption::Required, 3);
        let data = if matches!(option, 6 | 7) { info("disk", &[]) } else { Vec::new() };
        assert_eq!(client.kinds(option, &data), [TLS_REQUIRED], "option {option}");
        assert_eq!(client.kinds(option, &vec![7; MAX_OPTION + 1]), [TLS_REQUIRED], "option {option}");
        assert_eq!(client.kinds(STARTTLS, b"x"), [INVALID]);
        assert_eq!(client.kinds(STARTTLS, b""), [ACK]);
    }
    let mut client = Client::of(Encryption::Required, 3);
    assert_eq!(client.kinds(2, b""), [ACK]);
    assert!(client.aborted);
    for flags in [0, 3] {
        let mut client = Client::of(Encryption::Required, flags);
        client.send(1, b"disk");
        assert_eq!(client.serve(), Err(Violation::ExportName), "there is no other answer to it");
    }
}

#[test]
fn tls_forgets_what_was_said_before_and_is_begun_once() {
    let mut client = at_tls();
    client.tls = false;
    client.negotiation.encrypted();
    assert_eq!(client.kinds(10, &meta("disk", &["base:allocation"])), [INVALID], "not structured yet");
    assert_eq!(client.kinds(STARTTLS, b""), [INVALID]);
    assert_eq!(client.kinds(8, b""), [ACK]);
    assert_eq!(client.kinds(7, &info("disk", &[])), [INFO, ACK]);
    assert!(client.agreed().rules.structured);
}

#[test]
fn bytes_after_starttls_that_are_not_encrypted_end_the_connection() {
    let mut client = Client::of(Encryption::Required, 3);
    client.send(STARTTLS, b"");
    client.send(8, b"");
    assert_eq!(client.serve(), Err(Violation::BytesBeforeTls));
}

#[test]
fn a_server_without_certificates_does_not_know_tls() {
    assert_eq!(Client::new().kinds(STARTTLS, b""), [UNSUP]);
}

#[test]
fn export_name_has_its_zeroes_unless_both_sides_leave_them_out() {
    for (flags, len) in [(1, 134), (3, 10), (0, 134), (2, 10)] {
        let mut client = Client::with_flags(flags);
        client.send(1, b"disk");
        client.serve().unwrap();
        assert_eq!(client.out.len(), len, "flags {flags}");
        assert_eq!(client.out[..8], SIZE.to_be_bytes());
        // HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN, CACHE, FAST_ZERO; no DF.
        assert_eq!(client.out[8..10], 0b1101_0110_1101_u16.to_be_bytes());
        assert!(!client.agreed().rules.structured);
    }
}

#[test]
fn export_name_of_an_export_that_is_not_there_closes() {
    for name in ["nothing", "leaving", "broken"] {
        let mut client = Client::new();
        client.send(1, name.as_bytes());
        assert_eq!(client.serve(), Err(Violation::ExportName));
        assert!(client.out.is_empty());
    }
}

#[test]
fn go_answers_as_the_info_before_it() {
    for items in [vec![], vec![3], vec![1, 2, 3], vec![77, 3, 3, 0]] {
        let mut client = Client::new();
        let told = client.ask(6, &info("disk", &items));
        assert!(client.agreed.is_none());
        let went = client.ask(7, &info("disk", &items));
        let data =
            |replies: &[Reply]| -> Vec<_> { replies.iter().map(|r| (r.kind, r.data.clone())).collect() };
        assert_eq!(data(&told), data(&went));
        assert_eq!(client.agreed().rules.size, SIZE);
        assert_eq!(told.last().unwrap().kind, ACK);
        assert_eq!(
            told[0].data,
            [&0u16.to_be_bytes()[..], &SIZE.to_be_bytes(), &0xd6du16.to_be_bytes()].concat()
        );
        let sizes = told.iter().any(|reply| reply.kind == INFO && reply.data[..2] == [0, 3]);
        assert_eq!(sizes, items.contains(&3));
    }
}

#[test]
fn df_is_offered_with_structured_replies() {
    let mut client = Client::new();
    assert_eq!(client.kinds(8, b""), [ACK]);
    let told = client.ask(7, &info("disk", &[]));
    assert_eq!(told[0].data[10..], 0xdedu16.to_be_bytes());
    assert!(client.agreed().rules.structured);
}

#[test]
fn structured_replies_are_negotiated_once_and_without_data() {
    let mut client = Client::new();
    assert_eq!(client.kinds(8, b"x"), [INVALID]);
    assert_eq!(client.kinds(8, b""), [ACK]);
    assert_eq!(client.kinds(8, b""), [INVALID]);
}

#[test]
fn unknown_options_are_skipped_and_answered_and_the_client_goes_on() {
    let mut client = Client::new();
    // EXTENDED_HEADERS, which qemu and libnbd ask for first, PEEK_EXPORT, and unknown options of any length.
    for (option, len) in [(11, 0), (4, 3), (4711, 100_000), (u32::MAX, 32 << 20)] {
        assert_eq!(client.kinds(option, &vec![7; len]), [UNSUP], "option {option}");
    }
    assert_eq!(client.kinds(5, b""), [UNSUP]);
    assert_eq!(client.kinds(5, b"x"), [INVALID]);
    assert_eq!(client.kinds(7, &info("disk", &[])), [INFO, ACK]);
}

#[test]
fn an_option_that_is_longer_than_any_closes() {
    let mut client = Client::new();
    client.input.extend(b"IHAVEOPT");
    client.input.extend(4711u32.to_be_bytes());
    client.input.extend(((32u32 << 20) + 1).to_be_bytes());
    assert_eq!(client.serve(), Err(Violation::OptionLength((32 << 20) + 1)));
}

#[test]
fn a_known_option_with_more_data_than_is_kept_is_too_big() {
    let mut client = Client::new();
    assert_eq!(client.kinds(9, &vec![0; MAX_OPTION + 1]), [TOO_BIG]);
    client.send(1, &vec![b'x'; MAX_OPTION + 1]);
    assert_eq!(client.serve(), Err(Violation::ExportName));
}

#[test]
fn names_have_4096_bytes_of_utf8_without_nul() {
    let mut client = Client::new();
    assert_eq!(client.kinds(6, &info(&"n".repeat(4096), &[])), [INFO, ACK]);
    assert_eq!(client.kinds(6, &info(&"n".repeat(4097), &[])), [INVALID]);
    assert_eq!(client.kinds(6, &info("di\0sk", &[])), [INVALID]);
    let mut data = info("disk", &[]);
    data[4] = 0xff;
    assert_eq!(client.kinds(6, &data), [INVALID]);
    assert_eq!(client.kinds(9, &meta(&"n".repeat(4097), &[])), [INVALID]);
    assert_eq!(client.kinds(9, &meta("disk", &[&"q".repeat(4097)])), [INVALID]);
    assert_eq!(client.kinds(9, &meta("disk", &[&"q".repeat(4096)])), [ACK]);
    client.send(1, &[b'n'; 4097]);
    assert_eq!(client.serve(), Err(Violation::ExportName));
}

#[test]
fn lengths_inside_an_option_that_reach_beyond_it_are_invalid() {
    let mut client = Client::new();
    for option in [6, 7, 9, 10] {
        let whole = if option < 8 { info("disk", &[3, 1]) } else { meta("disk", &["base:"]) };
        for len in 0..whole.len() {
            assert_eq!(client.kinds(option, &whole[..len]), [INVALID], "option {option} cut to {len}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(client.kinds(option, &longer), [INVALID]);
        let mut huge = whole.clone();
        huge[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(client.kinds(option, &huge), [INVALID]);
    }
    assert!(client.agreed.is_none());
}

#[test]
fn list_names_every_export_and_takes_no_data() {
    let mut client = Client::new();
    let listed = client.ask(3, b"");
    assert_eq!(listed[0].data, b"\0\0\0\x04diskwhat it is");
    assert_eq!(listed[1].data, b"\0\0\0\x05other");
    assert_eq!(listed.iter().map(|reply| reply.kind).collect::<Vec<_>>(), [SERVER, SERVER, ACK]);
    assert_eq!(client.kinds(3, b"x"), [INVALID]);
}

#[test]
fn exports_that_cannot_be_opened_say_why_in_few_words() {
    let mut client = Client::new();
    let long = "n".repeat(3000);
    for (name, kind) in [("nothing", UNKNOWN), (&long, UNKNOWN), ("leaving", SHUTDOWN), ("broken", PLATFORM)]
    {
        for option in [6, 7] {
            let replies = client.ask(option, &info(name, &[3]));
            assert_eq!((replies.len(), replies[0].kind, replies[0].option), (1, kind, option));
            assert!(!replies[0].data.is_empty() && replies[0].data.len() < 990);
        }
        assert_eq!(client.kinds(9, &meta(name, &[])), [kind]);
    }
    assert!(client.agreed.is_none());
}

#[test]
fn contexts_need_structured_replies_to_be_set_but_not_to_be_listed() {
    let mut client = Client::new();
    assert_eq!(client.kinds(10, &meta("disk", &["base:allocation"])), [INVALID]);
    assert_eq!(client.kinds(9, &meta("disk", &[])), [META, META, ACK]);
}

#[test]
fn contexts_are_listed_by_name_by_namespace_or_all() {
    let mut client = Client::new();
    let (base, depth) = (Context::Allocation.name(), Context::Depth.name());
    let cases: [(&[&str], &[&str]); 6] = [
        (&[], &[base, depth]),
        (&["base:"], &[base]),
        (&["qemu:"], &[depth]),
        (&["qemu:allocation-depth", "base:allocation"], &[base, depth]),
        (&["other:", "base:other", "qemu:dirty-bitmap:x", "", "base"], &[]),
        (&["base:", "base:allocation"], &[base]),
    ];
    for (queries, expected) in cases {
        let listed = contexts(&client.ask(9, &meta("disk", queries)));
        assert!(listed.iter().all(|(id, _)| *id == 0));
        assert_eq!(listed.into_iter().map(|(_, name)| name).collect::<Vec<_>>(), expected, "{queries:?}");
    }
}

#[test]
fn contexts_are_set_by_name_with_numbers_of_their_own() {
    let mut client = Client::new();
    client.ask(8, b"");
    let set = contexts(&client.ask(10, &meta("disk", &["base:allocation", "qemu:allocation-depth", "x:y"])));
    assert_eq!(set.len(), 2);
    assert_ne!(set[0].0, set[1].0);
    client.ask(7, &info("disk", &[]));
    assert_eq!(client.agreed().rules.contexts, Contexts::ALL);
}

#[test]
fn a_namespace_or_no_query_selects_no_context() {
    for queries in [vec![], vec!["base:"], vec!["qemu:"], vec!["unknown:x"]] {
        let mut client = Client::new();
        client.ask(8, b"");
        client.ask(10, &meta("disk", &["base:allocation"]));
        assert_eq!(client.kinds(10, &meta("disk", &queries)), [ACK]);
        client.ask(7, &info("disk", &[]));
        assert!(client.agreed().rules.contexts.is_empty(), "the set replaces the one before");
    }
}

#[test]
fn a_failed_set_leaves_no_context() {
    let wrong = [meta("nothing", &["base:allocation"]), meta("disk", &["base:allocation"])[..9].to_vec()];
    for data in wrong.into_iter().chain([vec![0; MAX_OPTION + 1]]) {
        let mut client = Client::new();
        client.ask(8, b"");
        client.ask(10, &meta("disk", &["base:allocation"]));
        let kinds = client.kinds(10, &data);
        assert!(kinds.len() == 1 && kinds[0] >= UNSUP, "{kinds:?}");
        client.ask(7, &info("disk", &[]));
        assert!(client.agreed().rules.contexts.is_empty());
    }
}

#[test]
fn contexts_belong_to_the_export_they_were_set_for() {
    let mut client = Client::new();
    client.ask(8, b"");
    client.ask(10, &meta("other", &["base:allocation"]));
    client.ask(7, &info("disk", &[]));
    assert!(client.agreed().rules.contexts.is_empty());
}

#[test]
fn abort_is_acknowledged_whatever_it_carries() {
    let mut client = Client::new();
    assert_eq!(client.kinds(2, b"good bye"), [ACK]);
    assert!(client.aborted);
}

#[test]
fn flags_that_were_not_offered_and_wrong_magic_close() {
    let mut client = Client::with_flags(4);
    assert_eq!(client.serve(), Err(Violation::ClientFlags(4)));
    let mut client = Client::new();
    client.input.extend(b"IHAVEOPTIHAVEOPT");
    client.input[4] = b'X';
    assert!(matches!(client.serve(), Err(Violation::OptionMagic(_))));
}

#[test]
fn without_fixed_newstyle_there_is_export_name_and_nothing_else() {
    let mut client = Client::with_flags(2);
    client.send(7, &info("disk", &[]));
    assert_eq!(client.serve(), Err(Violation::NotFixed(7)));
}

#[test]
fn options_without_end_close() {
    let mut client = Client::new();
    for _ in 0..4096 {
        client.send(11, b"");
    }
    client.serve().unwrap();
    client.send(11, b"");
    assert_eq!(client.serve(), Err(Violation::Options(4096)));
}

#[test]
fn bytes_after_the_handshake_are_left_for_the_next_phase() {
    let mut client = Client::new();
    client.send(7, &info("disk", &[]));
    client.input.extend(b"a request");
    client.serve().unwrap();
    assert_eq!(client.input, b"a request");
}

/// A whole handshake: its bytes, and what the server says to them in one go.
fn conversation() -> (Vec<u8>, Vec<u8>) {
    let mut client = Client::new();
    client.send(11, b"");
    client.send(8, b"");
    client.send(3, b"");
    client.send(4711, &[9; 500]);
    client.send(9, &meta("disk", &["base:"]));
    client.send(10, &meta("disk", &["base:allocation"]));
    client.send(6, &info("nothing", &[1]));
    client.send(7, &info("disk", &[3]));
    let bytes = client.input.clone();
    client.serve().unwrap();
    assert!(client.agreed.is_some());
    (bytes, client.out)
}

#[test]
fn it_does_not_matter_where_the_stream_is_cut() {
    let (bytes, answer) = conversation();
    for step in [1, 2, 3, 7, 16, 17, 100] {
        let mut client = Client::new();
        client.input.clear();
        for piece in bytes.chunks(step) {
            client.input.extend(piece);
            client.serve().unwrap();
        }
        assert_eq!(client.out, answer, "in pieces of {step}");
        assert!(client.agreed.is_some());
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_and_little_is_kept(
        start in 0..3usize,
        pieces in prop::collection::vec((any::<u8>(), any::<u16>(), prop::collection::vec(any::<u8>(), 0..80)), 0..40),
    ) {
        let mut client = Client::with_flags(start as u32);
        for (option, len, data) in pieces {
            client.input.extend(b"IHAVEOPT");
            client.input.extend(u32::from(option % 14).to_be_bytes());
            // Half of them have the length they say.
            let len = if len & 1 == 0 { data.len() as u32 } else { u32::from(len) };
            client.input.extend(len.to_be_bytes());
            client.input.extend(&data);
            if client.serve().is_err() || client.agreed.is_some() {
                break;
            }
            prop_assert!(client.input.len() <= MAX_OPTION + 16);
        }
    }

    #[test]
    fn no_change_of_a_byte_panics(at in 0..600usize, to in any::<u8>(), cut in 1..64usize) {
        let (mut bytes, _) = conversation();
        let at = at % bytes.len();
        bytes[at] = to;
        let mut client = Client::new();
        client.input.clear();
        for piece in bytes.chunks(cut) {
            client.input.extend(piece);
            if client.serve().is_err() {
                break;
            }
        }
    }
}

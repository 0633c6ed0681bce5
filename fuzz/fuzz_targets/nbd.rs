//! What an NBD client sends, from its flags to its last request: the first byte says where the stream is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spindle_nbd::codec::{
    Advance, BlockSizes, Checked, Command, Contexts, Encryption, MAX_OPTION, Negotiation, Offer, Query,
    REQUEST_LEN, Refusal, Request, Rules, TransmissionFlags,
};

const SIZE: u64 = 1 << 30;

fn offer(name: &str) -> Offer {
    Offer {
        name: name.to_owned(),
        description: String::new(),
        size: SIZE,
        flags: TransmissionFlags::WRITABLE,
        block_sizes: BlockSizes { minimum: 512, preferred: 4096, maximum: 32 << 20 },
        contexts: Contexts::ALL,
    }
}

/// The handshake; the rules and the rest of the input, if it comes to an end.
fn handshake(stream: &[u8], step: usize) -> Option<(Rules, Vec<u8>)> {
    let mut out = Vec::new();
    // Half of the inputs meet a server that requires TLS, whose encrypted bytes are those that follow.
    let encryption = if stream.len() % 2 == 0 { Encryption::None } else { Encryption::Required };
    let mut negotiation = Negotiation::with_encryption(encryption, &mut out);
    let (mut input, mut left) = (Vec::new(), stream);
    loop {
        let before = out.len();
        let (used, advance) = negotiation.advance(&input, &mut out).ok()?;
        input.drain(..used);
        match advance {
            Advance::NeedsInput => {
                assert!(input.len() <= MAX_OPTION + 16, "more is kept than an option");
                if left.is_empty() {
                    return None;
                }
                let (now, later) = left.split_at(step.min(left.len()));
                input.extend_from_slice(now);
                left = later;
            }
            Advance::Aborted => return None,
            Advance::StartTls => negotiation.encrypted(),
            Advance::Query(Query::List) => negotiation.list([("a", "b"), ("", "")], &mut out),
            Advance::Query(Query::Export { name, .. }) if name.len() % 2 == 1 => {
                negotiation.refuse(&Refusal::Unknown, &mut out).ok()?;
            }
            Advance::Query(Query::Export { name, .. }) => {
                if let Some(agreed) = negotiation.offer(&offer(&name), &mut out) {
                    input.extend_from_slice(left);
                    return Some((agreed.rules, input));
                }
            }
        }
        // One option has few answers, each of a name and a little.
        assert!(out.len() - before < 64 << 10, "an answer is larger than what was asked");
        out.clear();
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((step, stream)) = input.split_first() else { return };
    let Some((rules, mut rest)) = handshake(stream, usize::from(*step) + 1) else { return };
    while let Some(bytes) = rest.first_chunk::<REQUEST_LEN>() {
        let Ok(request) = Request::parse(bytes) else { return };
        assert_eq!(request.to_bytes(), *bytes);
        let payload = match rules.check(&request) {
            Checked::Command(Command::Write { offset, len, .. }) => {
                assert!(offset + u64::from(len) <= SIZE);
                len
            }
            Checked::Command(Command::Disconnect) => return,
            Checked::Command(_) => 0,
            Checked::Refused { payload, .. } => payload,
        };
        let used = REQUEST_LEN + payload as usize;
        rest.drain(..used.min(rest.len()));
    }
});

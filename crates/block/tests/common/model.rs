//! A device beside a plain array of bytes: random requests, several in flight, every answer compared.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use spindle_block::{Channel, Operation};
use spindle_mem::{Buffers, IoBuf};

#[path = "../../../../tests/support/random.rs"]
mod random;

pub use random::Random;

/// Waits for all of them.
pub async fn join_all(mut all: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    poll_fn(|cx| {
        all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Buffers of `len` bytes in one piece or several, filled with `byte`. Pieces end on sectors or, if
/// `ragged`, anywhere.
fn buffers(random: &mut Random, len: usize, byte: u8, ragged: bool) -> Buffers {
    let mut whole = IoBuf::zeroed(len);
    whole.fill(byte);
    if random.below(2) == 0 || len < 1024 {
        return whole.into();
    }
    let at = if ragged { 1 + random.below(len as u64 - 1) as usize } else { (len / 1024) * 512 };
    let (mut front, mut back) = (IoBuf::zeroed(at), IoBuf::zeroed(len - at));
    front.fill(byte);
    back.fill(byte);
    vec![front, back].into()
}

/// `rounds` rounds of up to `width` requests at once, over disjoint ranges, compared with the model.
/// What unmap leaves is compared only where the device says that it reads zero.
pub async fn exercise(channel: &Channel, seed: u64, rounds: usize, width: u64, ragged: bool) {
    let mut random = Random(seed);
    let geometry = channel.geometry();
    let block = u64::from(geometry.block_size());
    let mut model = vec![0u8; geometry.bytes() as usize];
    let zero = channel.write_zeroes(0, geometry.bytes());
    zero.await.unwrap();
    for _ in 0..rounds {
        let lane_blocks = geometry.blocks() / width;
        let mut batch: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for part in 0..width {
            let first = random.below(lane_blocks);
            let count = 1 + random.below((lane_blocks - first).min(16));
            let offset = (part * lane_blocks + first) * block;
            let len = count * block;
            let range = offset as usize..(offset + len) as usize;
            let operation = match random.below(10) {
                0..4 => Operation::Read,
                4..7 => Operation::Write,
                7 => Operation::WriteZeroes,
                8 => Operation::Unmap,
                _ => Operation::Flush,
            };
            match operation {
                Operation::Write => {
                    let byte = random.next() as u8;
                    let data = buffers(&mut random, len as usize, byte, ragged);
                    let fua = random.below(4) == 0;
                    model[range].fill(byte);
                    batch.push(Box::pin(async move {
                        let write = channel.write(offset, data);
                        let (result, back) = if fua { write.fua().await } else { write.await };
                        result.unwrap();
                        assert_eq!(back.len() as u64, len);
                        assert!(
                            back.iter().all(|p| p.iter().all(|b| *b == byte)),
                            "a write changes no buffer"
                        );
                    }));
                }
                Operation::Read => {
                    let into = buffers(&mut random, len as usize, 0xee, ragged);
                    let expected = model[range].to_vec();
                    batch.push(Box::pin(async move {
                        let (result, back) = channel.read(offset, into).await;
                        result.unwrap();
                        let got: Vec<u8> = back.iter().flat_map(|p| p.iter().copied()).collect();
                        assert!(got == expected, "read of {len} bytes at {offset}, seed {seed}");
                    }));
                }
                Operation::WriteZeroes => {
                    model[range].fill(0);
                    batch.push(Box::pin(async move { channel.write_zeroes(offset, len).await.unwrap() }));
                }
                Operation::Unmap => {
                    model[range].fill(0);
                    let rewrite = !geometry.unmap_reads_zero();
                    batch.push(Box::pin(async move {
                        channel.unmap(offset, len).await.unwrap();
                        if rewrite {
                            channel.write_zeroes(offset, len).await.unwrap();
                        }
                    }));
                }
                _ => batch.push(Box::pin(async move { channel.flush().await.unwrap() })),
            }
        }
        join_all(batch).await;
    }
    let (result, all) = channel.read(0, IoBuf::zeroed(model.len())).await;
    result.unwrap();
    let all = all.into_one().unwrap();
    assert!(all[..] == model[..], "the whole device, seed {seed}");
}

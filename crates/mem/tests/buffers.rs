//! What buffers, pools and shared memory promise.

use proptest::prelude::*;
use spindle_mem::{ALIGNMENT, Buffers, IoBuf, Pool, SharedMem};

#[test]
fn a_buffer_begins_at_a_page() {
    assert_eq!(IoBuf::zeroed(10).as_ptr() as usize % ALIGNMENT, 0);
}

#[test]
fn parts_that_touch_join_without_copying() {
    let mut front = IoBuf::copy_from(b"front and back");
    let start = front.as_ptr();
    let back = front.split_off(5);
    let whole = front.join(back).expect("they touch");
    assert_eq!((&*whole, whole.as_ptr()), (&b"front and back"[..], start));
}

#[test]
fn parts_that_do_not_touch_come_back_unchanged() {
    let mut front = IoBuf::copy_from(b"abcdef");
    let mut middle = front.split_off(2);
    let back = middle.split_off(2);
    let (front, back) = front.join(back).expect_err("the middle lies between");
    assert_eq!((&*front, &*back), (&b"ab"[..], &b"ef"[..]));
    let stranger = IoBuf::copy_from(b"xy");
    assert!(front.join(stranger).is_err(), "another allocation never joins");
}

#[test]
fn a_pool_refuses_beyond_its_budget_and_says_what_is_free() {
    let pool = Pool::new("small", 3 << 20);
    let _held = pool.get(2 << 20).expect("fits");
    let refused = pool.get(2 << 20).expect_err("one MiB is left");
    assert_eq!((refused.needed, refused.free), (2 << 20, 1 << 20));
    assert!(refused.to_string().contains("needs 2.000 MiB, 1.000 MiB free"), "{refused}");
}

#[test]
fn a_pool_gets_its_memory_back_when_the_last_part_is_dropped_on_any_thread() {
    let pool = Pool::new("parts", 1 << 20);
    let mut front = pool.get(8192).expect("fits");
    let back = front.split_off(4096);
    drop(front);
    assert_eq!(pool.lent(), 8192, "a part is still out");
    std::thread::scope(|scope| scope.spawn(move || drop(back)).join().expect("no panic"));
    assert_eq!(pool.lent(), 0);
}

#[test]
fn a_pool_keeps_no_more_memory_than_its_budget_when_sizes_change() {
    let pool = Pool::new("mixed", 1 << 20);
    for size in [4 << 10, 64 << 10, 1 << 20, 4 << 10] {
        let all: Vec<_> = (0..(1 << 20) / size).map(|_| pool.get(size).expect("fits the budget")).collect();
        drop(all);
        assert!(pool.held() <= pool.budget(), "{} B kept after buffers of {size}", pool.held());
    }
}

#[test]
fn memory_returned_in_parts_by_two_threads_is_whole_for_whichever_gets_it_next() {
    let pool = Pool::new("one", 8192);
    for round in 0..100 {
        let mut front = pool.get(8192).expect("all of it came back");
        let back = front.split_off(4096);
        let write_and_take_turns = |mut part: IoBuf| {
            part.fill(round);
            drop(part);
            // The budget holds one buffer: this succeeds once both parts are gone, with no other order
            // between the threads than what the count of parts gives.
            let mut whole = loop {
                match pool.get(8192) {
                    Ok(buffer) => break buffer,
                    Err(_) => std::thread::yield_now(),
                }
            };
            whole.fill(round);
        };
        std::thread::scope(|scope| {
            let threads = [front, back].map(|part| scope.spawn(|| write_and_take_turns(part)));
            // Joined one by one: an order that ThreadSanitizer sees, as it does not see the scope's end.
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        });
        assert_eq!(pool.lent(), 0, "the last part gave it back");
    }
}

#[test]
fn a_buffer_may_outlive_its_pool() {
    let pool = Pool::new("gone", 1 << 20);
    let mut buffer = pool.get(4096).expect("fits");
    drop(pool);
    buffer.fill(7);
    assert_eq!(buffer[4095], 7);
}

#[test]
fn shared_memory_reads_zero_until_written_and_after_zeroing() {
    let memory = SharedMem::new(4 << 20).expect("mapped");
    let mut seen = [1u8; 600];
    memory.read(100, &mut seen);
    assert_eq!(seen, [0; 600]);
    memory.write(100, &[9; 600]);
    memory.zero(100, 500);
    memory.read(100, &mut seen);
    assert_eq!((&seen[..500], &seen[500..]), (&[0; 500][..], &[9; 100][..]));
}

#[test]
fn zeroing_a_long_unaligned_range_leaves_its_neighbours_alone() {
    let memory = SharedMem::new(4 << 20).expect("mapped");
    let give_back = |memory: &SharedMem, offset, len| {
        let leaving = memory.begin_to_give_back(offset, len);
        memory.give_back(leaving);
    };
    type Way<'a> = &'a dyn Fn(&SharedMem, usize, usize);
    for way in [&SharedMem::zero as Way, &give_back] {
        memory.write(0, &vec![5; 4 << 20]);
        way(&memory, 4095, (3 << 20) + 2);
        let mut all = vec![1; 4 << 20];
        memory.read(0, &mut all);
        let end = 4095 + (3 << 20) + 2;
        assert!(all[..4095].iter().chain(&all[end..]).all(|b| *b == 5), "outside");
        assert!(all[4095..end].iter().all(|b| *b == 0), "inside");
    }
}

/// Resident bytes of this process, in MiB.
#[cfg(not(sanitized))]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") >> 8
}

// A sanitizer keeps freed memory, and uses more memory for each byte.
#[cfg(not(sanitized))]
#[test]
fn shared_memory_takes_no_memory_where_it_was_only_zeroed_and_gives_back_what_it_is_told_to() {
    const SIZE: usize = 256 << 20;
    let memory = SharedMem::new(SIZE).expect("mapped");
    let before = resident();
    for at in (0..SIZE).step_by(1 << 20) {
        memory.zero(at + 4096, (1 << 20) - 8192);
    }
    assert!(resident() < before + 64, "{} MiB more for zeroes", resident() - before);
    let sevens = vec![7; 1 << 20];
    (1..SIZE >> 20).for_each(|mib| memory.write(mib << 20, &sevens));
    assert!(resident() > before + 192, "{} MiB only", resident() - before);
    assert_eq!(memory.zero_some(4096, SIZE - 4096, 1), (2 << 20) - 4096, "to the end of a piece");
    let leaving = memory.begin_to_give_back(1, SIZE - 1);
    memory.give_back(leaving);
    assert!(resident() < before + 64, "{} MiB are kept", resident() - before);
    memory.zero(1, SIZE - 1);
    assert!(resident() < before + 64, "{} MiB more for zeroes of what was given back", resident() - before);
    let mut seen = vec![1; SIZE - 1];
    memory.read(1, &mut seen);
    assert!(seen.iter().all(|byte| *byte == 0));
}

#[test]
fn shared_memory_copies_into_other_memory_and_into_itself() {
    let (from, to) = (SharedMem::new(4096).expect("mapped"), SharedMem::new(4096).expect("mapped"));
    from.write(10, &[7; 100]);
    to.copy_from(50, &from, 10, 100);
    to.copy_from(150, &to, 50, 100);
    let mut seen = [0; 201];
    to.read(49, &mut seen);
    assert_eq!((seen[0], &seen[1..]), (0, &[7; 200][..]));
}

#[test]
#[should_panic(expected = "overlap")]
fn shared_memory_refuses_a_copy_onto_itself() {
    let memory = SharedMem::new(4096).expect("mapped");
    memory.copy_from(50, &memory, 0, 51);
}

#[test]
#[should_panic(expected = "8 bytes at 4092 of 4096")]
fn shared_memory_refuses_a_range_beyond_its_end() {
    SharedMem::new(4096).expect("mapped").write(4092, &[0; 8]);
}

#[test]
fn two_cores_may_touch_the_same_shared_bytes() {
    let memory = SharedMem::new(1 << 16).expect("mapped");
    let hammer = &|byte: u8| {
        let mut seen = [0; 512];
        for round in 0..200 {
            memory.write(round % 64, &[byte; 512]);
            memory.read(round % 64, &mut seen);
        }
    };
    std::thread::scope(|scope| {
        let hammers = [1, 2].map(|byte| scope.spawn(move || hammer(byte)));
        hammers.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
    let mut seen = [0; 512];
    memory.read(0, &mut seen);
    assert!(seen.iter().all(|b| [1, 2].contains(b)), "every byte is one of those written");
}

proptest! {
    #[test]
    fn splitting_and_appending_keeps_the_bytes_in_order(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
    ) {
        let mut pieces = vec![Buffers::from(IoBuf::copy_from(&bytes))];
        for cut in cuts {
            let mut last = pieces.pop().expect("there is one");
            let rest = last.split_off(cut.index(last.len() + 1));
            pieces.extend([last, rest]);
        }
        let mut whole = Buffers::None;
        pieces.into_iter().for_each(|piece| whole.append(piece));
        prop_assert_eq!(whole.to_vec(), bytes);
        prop_assert!(whole.into_one().is_ok(), "parts of one allocation become one again");
    }

    #[test]
    fn several_runs_split_and_copy_as_their_bytes_do(
        runs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..6),
        at in any::<proptest::sample::Index>(),
    ) {
        let flat = runs.concat();
        let at = at.index(flat.len() + 1);
        let mut front = Buffers::from(runs.iter().map(|r| IoBuf::copy_from(r)).collect::<Vec<_>>());
        let mut tail = vec![0; flat.len() - at];
        prop_assert_eq!(front.copy_to(at, &mut tail), tail.len());
        prop_assert_eq!(&tail, &flat[at..]);
        let mut back = front.split_off(at);
        prop_assert_eq!((front.to_vec(), back.to_vec()), (flat[..at].to_vec(), flat[at..].to_vec()));
        back.fill(0);
        prop_assert_eq!(back.copy_from(0, &tail), tail.len());
        prop_assert_eq!(back.to_vec(), tail);
    }
}

#[test]
fn a_length_that_no_memory_holds_is_an_error_where_it_may_come_from_outside() {
    for len in [1 << 46, usize::MAX / 2, usize::MAX - 4096, usize::MAX] {
        let error = IoBuf::try_zeroed(len).expect_err("more than any address space has here");
        assert!(error.to_string().contains(&len.to_string()), "{error}");
        assert!(Pool::new("small", 1 << 20).get(len).is_err());
        let huge = Pool::new("huge", usize::MAX);
        assert!(huge.get(len).is_err());
        assert_eq!((huge.lent(), huge.held()), (0, 0), "a refused buffer is not counted");
    }
    assert_eq!(IoBuf::try_zeroed(4096).map(|buffer| buffer.len()), Ok(4096));
}

#[test]
fn a_trimmed_pool_holds_what_is_on_loan_and_no_more() {
    let pool = Pool::new("trimmed", 1 << 20);
    let kept = pool.get(5000).unwrap();
    drop((pool.get(4096).unwrap(), pool.get(100_000).unwrap()));
    assert!(pool.held() > pool.lent());
    pool.trim();
    assert_eq!((pool.held(), pool.lent()), (8192, 8192));
    drop(kept);
    assert_eq!((pool.held(), pool.lent()), (8192, 0));
    pool.trim();
    assert_eq!(pool.held(), 0);
}

#[test]
fn shared_bytes_are_read_by_both_and_written_by_the_first_when_the_second_is_gone() {
    let mut first = IoBuf::copy_from(&[1, 2, 3, 4]);
    let at = first.as_ptr();
    let second = first.share();
    assert_eq!((&second[..], second.as_ptr()), (&[1, 2, 3, 4][..], at), "nothing is copied");
    drop(second);
    first[0] = 9;
    assert_eq!((first[0], first.as_ptr()), (9, at), "nor later");
}

#[test]
fn a_write_to_shared_bytes_is_not_seen_by_the_other_holder_whichever_writes() {
    let mut first = IoBuf::copy_from(&[1, 2, 3, 4]);
    let mut second = first.share();
    let third = second.share();
    second[1] = 7;
    assert_eq!(
        (&first[..], &second[..], &third[..]),
        (&[1, 2, 3, 4][..], &[1, 7, 3, 4][..], &[1, 2, 3, 4][..])
    );
    first[2] = 8;
    assert_eq!((&first[..], &third[..]), (&[1, 2, 8, 4][..], &[1, 2, 3, 4][..]));
}

#[test]
fn parts_of_shared_bytes_stay_shared_and_join_with_their_like_only() {
    let mut whole = IoBuf::copy_from(&[1, 2, 3, 4]);
    let mut copy = whole.share();
    let copied = copy.split_off(2);
    let rest = whole.split_off(2);
    let (whole, copied) = whole.join(copied).expect_err("one reads what the other owns");
    let mut copy = copy.join(copied).expect("they touch");
    let mut whole = whole.join(rest).expect("they touch");
    copy[3] = 5;
    assert_eq!((&whole[..], &copy[..]), (&[1, 2, 3, 4][..], &[1, 2, 3, 5][..]));
    let at = whole.as_ptr();
    whole[0] = 6;
    assert_eq!(whole.as_ptr(), at, "the copy has its own bytes by now");
}

#[test]
fn a_part_whose_neighbour_is_shared_is_written_in_place() {
    let mut front = IoBuf::copy_from(&[1, 2, 3, 4]);
    let mut back = front.split_off(2);
    let copy = front.share();
    let at = back.as_ptr();
    back[0] = 9;
    assert_eq!((back.as_ptr(), &copy[..]), (at, &[1, 2][..]));
}

#[test]
fn shared_bytes_may_be_read_on_another_thread_until_the_first_holder_has_them_back() {
    let mut first = IoBuf::zeroed(4096);
    for round in 1..=100 {
        first.fill(round);
        let copy = first.share();
        #[allow(clippy::disallowed_methods, reason = "this crate knows no engine")]
        let reader = std::thread::spawn(move || copy.iter().all(|byte| *byte == round));
        // Does not wait for the reader: it writes to its own copy.
        first[0] = round;
        assert!(reader.join().expect("it only reads"));
    }
}

#[test]
fn a_request_takes_no_more_room_for_what_it_may_share() {
    assert_eq!(size_of::<Buffers>(), 32);
}

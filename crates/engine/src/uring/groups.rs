//! Buffers that the kernel may fill for the stream that gets bytes first.
//!
//! Owned by the driver. One group for each [`ReceivePool`] from which streams receive: a few buffers that the
//! kernel has, however many streams wait. The receiver keeps a filled buffer, and another from the pool takes its
//! place. When the last stream has left, the buffers are taken back, and freed when the kernel no longer uses them.

use io_uring::opcode;
use io_uring::squeue::Flags;
use slab::Slab;
use spindle_mem::IoBuf;

use super::ring::Ring;
use crate::{ReceivePool, Socket};

/// Buffers of a group that the kernel has.
const LENT: usize = 8;

/// The upper half of the user data of entries about groups: no flight has it.
const MARK: u64 = (u32::MAX as u64) << 32;
/// Lower half: set for an entry that removes buffers, clear for one that provides a buffer.
const REMOVAL: u64 = 1 << 31;
/// Group numbers stay below this, so that their user data is never `WAKE` or `CANCEL`.
const MOST: usize = 0x7ffe;

struct Group {
    pool: ReceivePool,
    /// What the kernel may fill, by buffer id.
    lent: [Option<IoBuf>; LENT],
    /// Operations that receive from it.
    users: usize,
    /// Taken back; the kernel still uses them.
    leaving: Vec<IoBuf>,
    removals: u32,
}

/// The groups of one driver.
#[derive(Default)]
pub(super) struct Groups(Slab<Group>);

impl Groups {
    /// Adds an operation that receives from `pool`; returns its group.
    pub(super) fn join(&mut self, pool: &ReceivePool, ring: &mut Ring) -> u16 {
        let known = self.0.iter().find(|(_, group)| group.pool.is(pool)).map(|(number, _)| number);
        let number = known.unwrap_or_else(|| {
            let lent = [const { None }; LENT];
            self.0.insert(Group { pool: pool.clone(), lent, users: 0, leaving: Vec::new(), removals: 0 })
        });
        assert!(number < MOST, "a driver receives from few pools");
        self.0[number].users += 1;
        self.fill(number as u16, ring);
        number as u16
    }

    /// Gives the kernel buffers in place of those that it has filled, as far as the pool has some. False if it
    /// has none at all.
    pub(super) fn fill(&mut self, number: u16, ring: &mut Ring) -> bool {
        let group = &mut self.0[usize::from(number)];
        for (id, place) in group.lent.iter_mut().enumerate().filter(|(_, place)| place.is_none()) {
            let Ok(buffer) = group.pool.get() else { break };
            lend(number, id as u16, place.insert(buffer), ring);
        }
        group.lent.iter().any(Option::is_some)
    }

    /// The buffer that the kernel has filled with `count` bytes; another takes its place.
    pub(super) fn take(&mut self, number: u16, id: u16, count: usize, ring: &mut Ring) -> IoBuf {
        let group = &mut self.0[usize::from(number)];
        let mut buffer = group.lent[usize::from(id)].take().expect("the kernel fills what it has");
        buffer.truncate(count);
        self.fill(number, ring);
        buffer
    }

    /// Gives a buffer back to the kernel that it has picked and not filled.
    pub(super) fn return_unused(&mut self, number: u16, id: u16, ring: &mut Ring) {
        if let Some(buffer) = &mut self.0[usize::from(number)].lent[usize::from(id)] {
            lend(number, id, buffer, ring);
        }
    }

    /// An operation has ended; with the last one the buffers are taken back.
    pub(super) fn leave(&mut self, number: u16, ring: &mut Ring) {
        let group = &mut self.0[usize::from(number)];
        group.users -= 1;
        if group.users > 0 {
            return;
        }
        group.leaving.extend(group.lent.iter_mut().filter_map(Option::take));
        group.removals += 1;
        let entry = opcode::RemoveBuffers::new(LENT as u16, number).build();
        // SAFETY: a removal points at nothing.
        let _ = unsafe { ring.push(entry.user_data(MARK | REMOVAL | u64::from(number) << 16)) };
    }

    /// Handles a completion about a group; false if it is about something else.
    pub(super) fn on_result(&mut self, user_data: u64, result: i32) -> bool {
        let (number, id) = ((user_data >> 16 & 0x7fff) as usize, user_data as u16);
        if user_data & MARK != MARK || number >= MOST {
            return false;
        }
        let Some(group) = self.0.get_mut(number) else { return true };
        if user_data & REMOVAL == 0 {
            if result < 0 {
                // The kernel had no memory for the entry, so it does not have the buffer.
                group.lent[usize::from(id) % LENT] = None;
            }
            return true;
        }
        group.removals -= 1;
        if group.removals == 0 {
            group.leaving.clear();
            if group.users == 0 {
                self.0.remove(number);
            }
        }
        true
    }
}

/// Gives the kernel a buffer to fill.
fn lend(group: u16, id: u16, buffer: &mut IoBuf, ring: &mut Ring) {
    let length = i32::try_from(buffer.len()).unwrap_or(i32::MAX);
    let mut entry = opcode::ProvideBuffers::new(buffer.as_mut_ptr(), length, 1, group, id).build();
    if ring.may_be_quiet {
        entry = entry.flags(Flags::SKIP_SUCCESS);
    }
    // SAFETY: the buffer is on the heap and stays in the group, untouched, until the kernel has filled it or
    // let go of it; a dropped driver closes its ring first, or leaks it.
    let _ = unsafe { ring.push(entry.user_data(MARK | u64::from(group) << 16 | u64::from(id))) };
}

/// Receives what has come into `buffer`, without waiting: for kernels that cannot pick a buffer.
pub(super) fn receive_now(socket: &Socket, buffer: &mut IoBuf) -> std::io::Result<usize> {
    let flags = rustix::net::RecvFlags::DONTWAIT;
    let (_, count) = rustix::net::recv(socket.fd()?, &mut buffer[..], flags)?;
    Ok(count)
}

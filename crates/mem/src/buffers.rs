//! The memory of one request: nothing, one buffer, or several in order.

use crate::IoBuf;

/// The memory of one request, in order. Owned by the request, and given back with it.
#[derive(Debug, Default)]
pub enum Buffers {
    /// No memory: a flush, an unmap.
    #[default]
    None,
    /// One run of bytes.
    One(IoBuf),
    /// Several runs, filled or written in order.
    Many(Vec<IoBuf>),
}

impl Buffers {
    /// Bytes in all runs together.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Buffers::None => 0,
            Buffers::One(part) => part.len(),
            Buffers::Many(parts) => parts.iter().map(|part| part.len()).sum(),
        }
    }

    /// True if there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The runs, in order.
    pub fn parts(&self) -> &[IoBuf] {
        match self {
            Buffers::None => &[],
            Buffers::One(part) => std::slice::from_ref(part),
            Buffers::Many(parts) => parts,
        }
    }

    /// The runs, in order, to be filled.
    pub fn parts_mut(&mut self) -> &mut [IoBuf] {
        match self {
            Buffers::None => &mut [],
            Buffers::One(part) => std::slice::from_mut(part),
            Buffers::Many(parts) => parts,
        }
    }

    /// The runs as slices, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.parts().iter().map(|part| &**part)
    }

    /// The runs as slices to fill, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.parts_mut().iter_mut().map(|part| &mut **part)
    }

    /// Keeps the bytes before `at` and returns those from `at` on. Allocates only if there are several runs.
    ///
    /// # Panics
    /// If `at` is beyond the end, as slices do.
    pub fn split_off(&mut self, at: usize) -> Buffers {
        match self {
            Buffers::None => {
                assert_eq!(at, 0, "split of no bytes");
                Buffers::None
            }
            Buffers::One(part) => Buffers::One(part.split_off(at)),
            Buffers::Many(parts) => Buffers::Many(split_parts(parts, at)),
        }
    }

    /// Appends `next`. Parts that touch in one allocation are joined, so that the parts of a split become one
    /// again without allocating; otherwise the runs stay side by side.
    pub fn append(&mut self, next: Buffers) {
        *self = match (std::mem::take(self), next) {
            (Buffers::None, next) => next,
            (this, Buffers::None) => this,
            (Buffers::One(first), Buffers::One(second)) => match first.join(second) {
                Ok(joined) => Buffers::One(joined),
                Err((first, second)) => Buffers::Many(vec![first, second]),
            },
            (this, next) => {
                let mut parts = this.into_parts();
                for part in next.into_parts() {
                    push_joined(&mut parts, part);
                }
                Buffers::Many(parts)
            }
        };
    }

    /// Returns buffers with the same bytes, without a copy: see [`IoBuf::share`]. Takes a list from `lists`
    /// if it needs one.
    pub fn share(&mut self, lists: &mut Vec<Vec<IoBuf>>) -> Buffers {
        match self {
            Buffers::None => Buffers::None,
            Buffers::One(part) => Buffers::One(part.share()),
            Buffers::Many(parts) => {
                let mut list = lists.pop().unwrap_or_default();
                list.extend(parts.iter_mut().map(IoBuf::share));
                Buffers::Many(list)
            }
        }
    }

    /// Drops the runs. A list is emptied and goes to `lists`, for its capacity.
    pub fn clear(&mut self, lists: &mut Vec<Vec<IoBuf>>) {
        if let Buffers::Many(mut list) = std::mem::take(self) {
            list.clear();
            lists.push(list);
        }
    }

    /// Moves the bytes before `at` to `front`. Returns true if that cut a run in two. Takes a list from
    /// `lists` if it needs one: empty lists are kept there for their capacity, so that nothing is allocated.
    ///
    /// # Panics
    /// If `at` is beyond the end, as slices do.
    #[inline]
    pub fn split_front(&mut self, at: usize, front: &mut Buffers, lists: &mut Vec<Vec<IoBuf>>) -> bool {
        match self {
            Buffers::One(part) if at < part.len() => *front = Buffers::One(part.split_to(at)),
            Buffers::Many(parts) if at < parts.iter().map(|part| part.len()).sum() => {
                return split_list(parts, at, front, lists);
            }
            whole => {
                assert_eq!(at, whole.len(), "split beyond the bytes there are");
                *front = std::mem::take(whole);
                return false;
            }
        }
        true
    }

    /// Appends what [`split_front`](Self::split_front) left; `cut` is what it returned. A list that is no
    /// longer needed goes to `lists`.
    #[inline]
    pub fn rejoin(&mut self, next: &mut Buffers, cut: bool, lists: &mut Vec<Vec<IoBuf>>) {
        let joined = match self {
            Buffers::None => return *self = std::mem::take(next),
            Buffers::One(first) => first.grow_over(next),
            Buffers::Many(_) => false,
        };
        if !joined {
            self.rejoin_lists(std::mem::take(next), cut, lists);
        }
    }

    #[inline(never)]
    fn rejoin_lists(&mut self, mut next: Buffers, cut: bool, lists: &mut Vec<Vec<IoBuf>>) {
        if matches!(next, Buffers::None) {
            return;
        }
        let parts = self.as_list(lists);
        if let Buffers::One(run) = next {
            return match cut {
                true => push_joined(parts, run),
                false => parts.push(run),
            };
        }
        let list = next.as_list(lists);
        let mut runs = list.drain(..);
        if cut && let Some(run) = runs.next() {
            push_joined(parts, run);
        }
        parts.extend(runs);
        if let Buffers::Many(list) = next {
            lists.push(list);
        }
    }

    /// Cuts runs longer than `most` bytes into runs of `most` and a rest; the caller has no more than 64 of them
    /// then. Bit n of what it returns is set if the n-th run goes on in the next:
    /// [`join_runs`](Self::join_runs) undoes the cuts. Takes lists from `lists`, as
    /// [`split_front`](Self::split_front) does.
    pub fn cut_runs(&mut self, most: usize, lists: &mut Vec<Vec<IoBuf>>) -> u64 {
        if most == 0 || self.iter().all(|run| run.len() <= most) {
            return 0;
        }
        let (mut list, mut cuts) = (lists.pop().unwrap_or_default(), 0);
        for run in self.as_list(lists).drain(..) {
            let mut rest = run;
            while rest.len() > most {
                cuts |= 1_u64.checked_shl(list.len() as u32).unwrap_or(0);
                list.push(rest.split_to(most));
            }
            list.push(rest);
        }
        self.clear(lists);
        *self = Buffers::Many(list);
        cuts
    }

    /// Joins runs that [`cut_runs`](Self::cut_runs) has cut; `cuts` is what it returned.
    pub fn join_runs(&mut self, cuts: u64, lists: &mut Vec<Vec<IoBuf>>) {
        let Buffers::Many(runs) = self else { return };
        let mut list = lists.pop().unwrap_or_default();
        for (n, run) in runs.drain(..).enumerate() {
            match n > 0 && n <= 64 && cuts >> (n - 1) & 1 == 1 {
                true => push_joined(&mut list, run),
                false => list.push(run),
            }
        }
        self.clear(lists);
        *self = match list.len() {
            1 => {
                let one = list.pop().map_or(Buffers::None, Buffers::One);
                lists.push(list);
                one
            }
            _ => Buffers::Many(list),
        };
    }

    /// The runs as a list.
    fn as_list(&mut self, lists: &mut Vec<Vec<IoBuf>>) -> &mut Vec<IoBuf> {
        if !matches!(self, Buffers::Many(_)) {
            let mut list = lists.pop().unwrap_or_default();
            if let Buffers::One(part) = std::mem::take(self) {
                list.push(part);
            }
            *self = Buffers::Many(list);
        }
        match self {
            Buffers::Many(list) => list,
            Buffers::None | Buffers::One(_) => unreachable!("a list was just made of it"),
        }
    }

    /// The single run.
    ///
    /// # Errors
    /// Several runs, or none, are returned unchanged.
    pub fn into_one(self) -> Result<IoBuf, Buffers> {
        match self {
            Buffers::One(part) => Ok(part),
            Buffers::Many(mut parts) if parts.len() == 1 => Ok(parts.remove(0)),
            other => Err(other),
        }
    }

    /// Copies into `target` from byte `from` on, as much as both sides have; returns the number of bytes.
    pub fn copy_to(&self, from: usize, target: &mut [u8]) -> usize {
        let mut copied = 0;
        let mut skip = from;
        for part in self.iter() {
            let start = skip.min(part.len());
            skip -= start;
            let n = (part.len() - start).min(target.len() - copied);
            target[copied..copied + n].copy_from_slice(&part[start..start + n]);
            copied += n;
        }
        copied
    }

    /// Copies `source` in from byte `to` on, as much as both sides have; returns the number of bytes.
    pub fn copy_from(&mut self, to: usize, source: &[u8]) -> usize {
        let mut copied = 0;
        let mut skip = to;
        for part in self.iter_mut() {
            let start = skip.min(part.len());
            skip -= start;
            let n = (part.len() - start).min(source.len() - copied);
            part[start..start + n].copy_from_slice(&source[copied..copied + n]);
            copied += n;
        }
        copied
    }

    /// Sets every byte to `byte`.
    pub fn fill(&mut self, byte: u8) {
        self.iter_mut().for_each(|part| part.fill(byte));
    }

    /// All bytes in one vector, for tests and small data.
    pub fn to_vec(&self) -> Vec<u8> {
        self.iter().collect::<Vec<_>>().concat()
    }

    fn into_parts(self) -> Vec<IoBuf> {
        match self {
            Buffers::None => Vec::new(),
            Buffers::One(part) => vec![part],
            Buffers::Many(parts) => parts,
        }
    }
}

/// Moves the bytes before `at` of a list to `front`; returns whether that cut a run in two.
fn split_list(parts: &mut Vec<IoBuf>, at: usize, front: &mut Buffers, lists: &mut Vec<Vec<IoBuf>>) -> bool {
    let mut left = at;
    let fits = |part: &&IoBuf| {
        let fits = part.len() <= left;
        left -= if fits { part.len() } else { 0 };
        fits
    };
    let whole = parts.iter().take_while(fits).count();
    let mut list = lists.pop().unwrap_or_default();
    list.extend(parts.drain(..whole));
    if left > 0 {
        let next = parts.first_mut();
        list.push(next.expect("split within the bytes there are").split_to(left));
    }
    *front = Buffers::Many(list);
    left > 0
}

/// Cuts `parts` at byte `at` and returns the runs behind.
fn split_parts(parts: &mut Vec<IoBuf>, at: usize) -> Vec<IoBuf> {
    let mut left = at;
    for index in 0..parts.len() {
        if left < parts[index].len() {
            let rest = parts[index].split_off(left);
            let mut behind = vec![rest];
            behind.extend(parts.drain(index + 1..));
            if left == 0 {
                parts.truncate(index);
            }
            return behind;
        }
        left -= parts[index].len();
    }
    assert_eq!(left, 0, "split {left} bytes beyond the end");
    Vec::new()
}

fn push_joined(parts: &mut Vec<IoBuf>, next: IoBuf) {
    let mut next = Buffers::One(next);
    if !parts.last_mut().is_some_and(|last| last.grow_over(&mut next)) {
        parts.extend(next.into_one().ok());
    }
}

impl From<IoBuf> for Buffers {
    fn from(buffer: IoBuf) -> Buffers {
        Buffers::One(buffer)
    }
}

impl From<Vec<IoBuf>> for Buffers {
    fn from(parts: Vec<IoBuf>) -> Buffers {
        Buffers::Many(parts)
    }
}

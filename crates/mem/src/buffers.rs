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
    pub fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
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

    /// Takes the bytes before `at` out; also returns whether that cut a run in two. If a list is needed it
    /// comes from `lists`, a store of empty ones kept for their capacity: then nothing is allocated.
    ///
    /// # Panics
    /// If `at` is beyond the end, as slices do.
    pub fn split_front(&mut self, at: usize, lists: &mut Vec<Vec<IoBuf>>) -> (Buffers, bool) {
        match self {
            Buffers::None => {
                assert_eq!(at, 0, "split of no bytes");
                (Buffers::None, false)
            }
            Buffers::One(part) => {
                let cut = at < part.len();
                (Buffers::One(part.split_to(at)), cut)
            }
            Buffers::Many(parts) => {
                let mut left = at;
                let fits = |part: &&IoBuf| {
                    let fits = part.len() <= left;
                    left -= if fits { part.len() } else { 0 };
                    fits
                };
                let whole = parts.iter().take_while(fits).count();
                let mut front = lists.pop().unwrap_or_default();
                front.extend(parts.drain(..whole));
                if left > 0 {
                    let next = parts.first_mut();
                    front.push(next.expect("split within the bytes there are").split_to(left));
                }
                (Buffers::Many(front), left > 0)
            }
        }
    }

    /// Appends what [`split_front`](Self::split_front) left; `cut` is what it returned. A list that is no
    /// longer needed goes to `lists`.
    pub fn rejoin(&mut self, next: Buffers, cut: bool, lists: &mut Vec<Vec<IoBuf>>) {
        let mut next = match (std::mem::take(self), next) {
            (Buffers::None, next) => return *self = next,
            (this, Buffers::None) => return *self = this,
            (Buffers::One(first), Buffers::One(second)) => match first.join(second) {
                Ok(joined) => return *self = Buffers::One(joined),
                Err((first, second)) => {
                    *self = Buffers::One(first);
                    Buffers::One(second)
                }
            },
            (this, next) => {
                *self = this;
                next
            }
        };
        let parts = self.as_list(lists);
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
    match parts.pop() {
        None => parts.push(next),
        Some(last) => match last.join(next) {
            Ok(joined) => parts.push(joined),
            Err((last, next)) => parts.extend([last, next]),
        },
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

//! The model's view of a blob: its metadata, its data, and the xattrs that a crash may bring back.

use spindle_blob::BlobId;

use crate::model::Rules;
use crate::op::{Above, Op, Xattrs};
use crate::units::{GARBAGE, NEVER, Time, Units, Value, ZERO};

/// One version of a value that is changed in memory first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version<T> {
    begin: Time,
    end: Time,
    value: T,
}

/// A value, and the older versions that may still be on the disk. Changes do not overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions<T> {
    /// Oldest first; the last is the current one.
    list: Vec<Version<T>>,
}

impl<T: PartialEq + Clone> Versions<T> {
    /// Creates a value that is durable.
    pub fn known(value: T) -> Versions<T> {
        Versions { list: vec![Version { begin: 0, end: 0, value }] }
    }

    /// Returns the current value.
    pub fn now(&self) -> &T {
        &self.list[self.list.len() - 1].value
    }

    /// True if a crash may leave this value.
    pub fn allows(&self, value: &T) -> bool {
        self.list.iter().any(|known| known.value == *value)
    }

    /// Begins a change.
    fn begin(&mut self, begin: Time, value: T) {
        self.list.push(Version { begin, end: NEVER, value });
    }

    /// Ends the change that began at `begin`; `done` if it happened.
    fn end(&mut self, begin: Time, end: Time, done: bool) {
        match done {
            true => self.list.iter_mut().filter(|one| one.begin == begin).for_each(|one| one.end = end),
            false => self.list.retain(|one| one.begin != begin || begin == 0),
        }
    }

    /// Makes changes that ended before that time durable.
    pub fn settle(&mut self, time: Time) {
        let older = self.list.iter().rposition(|known| known.end < time);
        self.list.drain(..older.unwrap_or(0));
    }

    /// Adds the versions of another.
    fn join(&mut self, other: &Versions<T>) {
        let begins: Vec<Time> = self.list.iter().map(|known| known.begin).collect();
        self.list.extend(other.list.iter().filter(|known| !begins.contains(&known.begin)).cloned());
        self.list.sort_by_key(|known| known.begin);
    }
}

/// A blob of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its id, once known.
    pub id: Option<BlobId>,
    /// Its size in clusters.
    pub clusters: u64,
    /// Whether it is thin.
    pub thin: bool,
    /// Whether its data cannot be written.
    pub read_only: bool,
    /// Its parent.
    pub parent: Option<Above>,
    /// Its xattrs except the tag.
    pub xattrs: Versions<Xattrs>,
    /// Its data.
    pub units: Units,
    /// Reads in progress: no version is forgotten while there are any.
    pub reads: u32,
}

impl Blob {
    /// A thick blob without xattrs.
    pub fn new(id: Option<BlobId>, clusters: u64, units: Units) -> Blob {
        let xattrs = Versions::known(Xattrs::new());
        let (thin, read_only, parent) = (false, false, None);
        Blob { id, clusters, thin, read_only, parent, xattrs, units, reads: 0 }
    }

    /// True if both are equal except in data and xattrs.
    pub fn is_alike(&self, other: &Blob) -> bool {
        (self.clusters, self.thin, self.read_only, self.parent)
            == (other.clusters, other.thin, other.read_only, other.parent)
    }

    /// Allows what either blob may hold.
    pub fn join(&mut self, other: &Blob) {
        self.id = self.id.or(other.id);
        self.xattrs.join(&other.xattrs);
        self.units.either(&other.units);
        self.reads = self.reads.max(other.reads);
    }

    /// Replaces its content by consecutive values from `unit` on. The change began at `begun`.
    pub fn replace(&mut self, unit: u64, count: u64, value: Value, per_cluster: u64, begun: Time) {
        let (end, values) = (unit + count, value..);
        // A thin one has clusters only where it was written to; what it gets later may hold anything
        // if it waives zeroes.
        let cleared = match self.thin {
            true => unit / per_cluster * per_cluster..end.next_multiple_of(per_cluster),
            false => 0..self.clusters * per_cluster,
        };
        self.units.replace((unit..end).zip(values).collect(), cleared, begun);
    }

    /// Begins an operation on its data or xattrs.
    pub fn begin(&mut self, time: Time, op: &Op, rules: Rules) {
        match op {
            Op::Write { unit, count, value, .. } => {
                (0..*count).for_each(|at| self.units.begin(unit + at, value + at as Value, time));
            }
            Op::Zeroes { unit, count, .. } => {
                (0..*count).for_each(|at| self.units.begin(unit + at, ZERO, time));
            }
            Op::Unmap { unit, count, .. } => (0..*count).for_each(|at| {
                self.units.begin(unit + at, ZERO, time);
                if !rules.unmap_reads_zero {
                    self.units.begin(unit + at, GARBAGE, time);
                }
            }),
            Op::Read { .. } => self.reads += 1,
            Op::SetXattr { name, value, .. } => {
                let mut all = self.xattrs.now().clone();
                all.insert(*name, value.clone());
                self.xattrs.begin(time, all);
            }
            Op::RemoveXattr { name, .. } => {
                let mut all = self.xattrs.now().clone();
                all.remove(name);
                self.xattrs.begin(time, all);
            }
            _ => {}
        }
    }

    /// Ends the operation on its data or xattrs that began at `begun`.
    pub fn end(&mut self, begun: Time, now: Time, op: &Op, (done, steady): (bool, bool), rules: Rules) {
        let per_cluster = rules.per_cluster;
        // A write beyond the end happened before the end was cut off.
        let inside = self.clusters * per_cluster;
        match op {
            Op::Write { unit, count, value, .. } => {
                (0..*count).for_each(|at| {
                    let sure = done && unit + at < inside;
                    self.units.end(unit + at, value + at as Value, begun, now, sure);
                });
            }
            Op::Zeroes { unit, count, .. } => (0..*count).for_each(|at| {
                self.units.end(unit + at, ZERO, begun, now, done && unit + at < inside);
            }),
            Op::Unmap { unit, count, .. } => {
                // Whole clusters of a thin blob without parent are freed, durably. If the blob was reshaped
                // meanwhile, the result is unknown.
                let steady = done && steady;
                let frees = steady && self.thin && self.parent.is_none();
                let (first, end) =
                    (unit.div_ceil(per_cluster) * per_cluster, (unit + count) / per_cluster * per_cluster);
                for at in *unit..unit + count {
                    let freed = frees && (first..end).contains(&at);
                    let zero = freed || steady && rules.unmap_reads_zero && self.parent.is_none();
                    self.units.end(at, ZERO, begun, now, zero);
                    if !rules.unmap_reads_zero {
                        // A unit that is certainly zero became so after all its earlier values.
                        let end = if freed { begun - 1 } else { now };
                        self.units.end(at, GARBAGE, begun, end, false);
                    }
                    if freed && self.reads == 0 {
                        self.units.durable(at, begun);
                    }
                }
            }
            Op::Read { .. } => self.reads -= 1,
            Op::SetXattr { .. } | Op::RemoveXattr { .. } => self.xattrs.end(begun, now, done),
            _ => {}
        }
    }
}

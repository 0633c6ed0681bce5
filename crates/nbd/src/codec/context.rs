//! Metadata contexts: the information about an export that block status can report.

/// A metadata context. Its number on the wire is the same for every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Which ranges are holes, and which read as zeroes.
    Allocation = 1,
    /// The layer of a snapshot chain that holds a range: 0 none, 1 the volume itself, 2 its parent.
    Depth = 2,
}

impl Context {
    /// All contexts.
    pub const ALL: [Context; 2] = [Context::Allocation, Context::Depth];

    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Context::Allocation => "base:allocation",
            Context::Depth => "qemu:allocation-depth",
        }
    }

    /// Its number in the protocol.
    pub fn id(self) -> u32 {
        self as u32
    }
}

/// A set of contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contexts(u8);

impl Contexts {
    /// No context.
    pub const NONE: Contexts = Contexts(0);
    /// Every context.
    pub const ALL: Contexts = Contexts(0b110);

    /// Adds a context.
    pub fn insert(&mut self, context: Context) {
        self.0 |= 1 << context.id();
    }

    /// True if the set contains it.
    pub fn contains(self, context: Context) -> bool {
        self.0 & (1 << context.id()) != 0
    }

    /// True if the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in the set, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Context> {
        Context::ALL.into_iter().filter(move |context| self.contains(*context))
    }

    /// Adds those of `offered` that match a query of LIST_META_CONTEXT: by name, or all of a namespace.
    pub(crate) fn list(&mut self, query: &[u8], offered: Contexts) {
        for context in offered.iter() {
            let namespace = context.name().split_inclusive(':').next().unwrap_or_default();
            if query == context.name().as_bytes() || query == namespace.as_bytes() {
                self.insert(context);
            }
        }
    }

    /// Adds the one of `offered` that a query of SET_META_CONTEXT names.
    pub(crate) fn select(&mut self, query: &[u8], offered: Contexts) {
        offered.iter().filter(|context| query == context.name().as_bytes()).for_each(|c| self.insert(c));
    }
}

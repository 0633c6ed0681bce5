//! A broken rule.

/// The rule and how it was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule, always in the same words.
    pub rule: &'static str,
    /// The details.
    pub what: String,
}

impl Broken {
    /// Creates it.
    pub fn new(rule: &'static str, what: impl Into<String>) -> Broken {
        Broken { rule, what: what.into() }
    }
}

//! A set of CPU cores, read and printed as SPDK does.
//!
//! Accepted: a hexadecimal mask with or without `0x`, commas ignored (`ff`, `0x3`, `ffff,00000001`), and
//! a list of cores and ranges in brackets (`[0,2-4]`), blanks allowed. Printed as lower-case hex without
//! prefix or leading zeros. Facts: SPDK lib/util/cpuset.c. Made from values too: a core number, an array, a slice or a
//! range of them.

use std::convert::Infallible;
use std::fmt;
use std::ops::{BitAnd, BitOr, Range, RangeInclusive, Sub};
use std::str::FromStr;

/// One more than the highest core number a set can hold, SPDK's limit.
pub const MAX_CPUS: usize = 1024;

const WORDS: usize = MAX_CPUS / 64;

/// A set of cores 0 to 1023.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CpuSet {
    words: [u64; WORDS],
}

/// Why a text is not a valid set of cores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCpuSet {
    /// Nothing but blanks.
    #[error("empty core list; write a mask such as 0x3 or a list such as [0,2-4]")]
    Empty,
    /// A character that belongs neither to a mask nor to a list.
    #[error(
        "'{text}': unexpected '{found}' at character {position}; write a hex mask such as 0x3 or a list such as [0,2-4]"
    )]
    Unexpected {
        /// The whole text.
        text: String,
        /// The unexpected character.
        found: char,
        /// Counted from 1.
        position: usize,
    },
    /// The text ends where a number or a bracket is expected.
    #[error("'{text}' ends too early; a list is written as [0,2-4]")]
    Unfinished {
        /// The whole text.
        text: String,
    },
    /// A core or a mask bit past the limit.
    #[error("'{text}': core {core} is out of range; the highest is 1023")]
    OutOfRange {
        /// The whole text.
        text: String,
        /// The core as written.
        core: String,
    },
    /// A range that runs backwards.
    #[error("'{text}': the range {first}-{last} runs backwards; write {last}-{first}")]
    Backwards {
        /// The whole text.
        text: String,
        /// Where it starts.
        first: usize,
        /// Where it ends.
        last: usize,
    },
}

impl CpuSet {
    /// The empty set.
    pub const fn new() -> CpuSet {
        CpuSet { words: [0; WORDS] }
    }

    /// Cores 0 to `n - 1`; `n` above 1024 counts as 1024.
    pub fn first(n: usize) -> CpuSet {
        (0..n.min(MAX_CPUS)).collect()
    }

    /// Adds `cpu`; false if it was there or is out of range.
    pub fn insert(&mut self, cpu: usize) -> bool {
        if cpu >= MAX_CPUS || self.contains(cpu) {
            return false;
        }
        self.words[cpu / 64] |= 1 << (cpu % 64);
        true
    }

    /// Removes `cpu`; false if it was not there.
    pub fn remove(&mut self, cpu: usize) -> bool {
        let had = self.contains(cpu);
        if had {
            self.words[cpu / 64] &= !(1 << (cpu % 64));
        }
        had
    }

    /// Whether `cpu` is in the set.
    pub fn contains(&self, cpu: usize) -> bool {
        cpu < MAX_CPUS && self.words[cpu / 64] & (1 << (cpu % 64)) != 0
    }

    /// How many cores.
    pub fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// True if it has no core.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|w| *w == 0)
    }

    /// The cores, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..MAX_CPUS).filter(|cpu| self.contains(*cpu))
    }

    /// The lowest core.
    pub fn lowest(&self) -> Option<usize> {
        self.iter().next()
    }

    /// True if every core of this set is in `other`.
    pub fn is_subset(&self, other: &CpuSet) -> bool {
        (*self - *other).is_empty()
    }

    /// The set as a list such as `[0,2-4]`, for display.
    pub fn as_list(&self) -> String {
        let mut parts = Vec::new();
        let mut cpu = 0;
        while cpu < MAX_CPUS {
            if !self.contains(cpu) {
                cpu += 1;
                continue;
            }
            let start = cpu;
            while self.contains(cpu + 1) {
                cpu += 1;
            }
            parts.push(if start == cpu { format!("{start}") } else { format!("{start}-{cpu}") });
            cpu += 1;
        }
        format!("[{}]", parts.join(","))
    }
}

impl FromIterator<usize> for CpuSet {
    /// Ignores numbers out of range.
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> CpuSet {
        let mut set = CpuSet::new();
        for cpu in cpus {
            set.insert(cpu);
        }
        set
    }
}

fn zip(a: CpuSet, b: CpuSet, f: impl Fn(u64, u64) -> u64) -> CpuSet {
    CpuSet { words: std::array::from_fn(|i| f(a.words[i], b.words[i])) }
}

impl BitAnd for CpuSet {
    type Output = CpuSet;
    fn bitand(self, other: CpuSet) -> CpuSet {
        zip(self, other, |a, b| a & b)
    }
}

impl BitOr for CpuSet {
    type Output = CpuSet;
    fn bitor(self, other: CpuSet) -> CpuSet {
        zip(self, other, |a, b| a | b)
    }
}

impl Sub for CpuSet {
    type Output = CpuSet;
    fn sub(self, other: CpuSet) -> CpuSet {
        zip(self, other, |a, b| a & !b)
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(top) = (0..WORDS).rev().find(|i| self.words[*i] != 0) else { return f.write_str("0") };
        write!(f, "{:x}", self.words[top])?;
        self.words[..top].iter().rev().try_for_each(|word| write!(f, "{word:016x}"))
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_list())
    }
}

impl FromStr for CpuSet {
    type Err = BadCpuSet;

    fn from_str(text: &str) -> Result<CpuSet, BadCpuSet> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(BadCpuSet::Empty);
        }
        if trimmed.starts_with('[') { List::new(trimmed).parse() } else { parse_mask(trimmed) }
    }
}

impl TryFrom<&str> for CpuSet {
    type Error = BadCpuSet;

    fn try_from(text: &str) -> Result<CpuSet, BadCpuSet> {
        text.parse()
    }
}

impl TryFrom<&String> for CpuSet {
    type Error = BadCpuSet;

    fn try_from(text: &String) -> Result<CpuSet, BadCpuSet> {
        text.parse()
    }
}

impl TryFrom<usize> for CpuSet {
    type Error = BadCpuSet;

    fn try_from(cpu: usize) -> Result<CpuSet, BadCpuSet> {
        of_numbers([cpu])
    }
}

impl<const N: usize> TryFrom<[usize; N]> for CpuSet {
    type Error = BadCpuSet;

    fn try_from(cpus: [usize; N]) -> Result<CpuSet, BadCpuSet> {
        of_numbers(cpus)
    }
}

impl TryFrom<&[usize]> for CpuSet {
    type Error = BadCpuSet;

    fn try_from(cpus: &[usize]) -> Result<CpuSet, BadCpuSet> {
        of_numbers(cpus.iter().copied())
    }
}

impl TryFrom<Range<usize>> for CpuSet {
    type Error = BadCpuSet;

    fn try_from(cpus: Range<usize>) -> Result<CpuSet, BadCpuSet> {
        of_numbers(cpus)
    }
}

impl TryFrom<RangeInclusive<usize>> for CpuSet {
    type Error = BadCpuSet;

    fn try_from(cpus: RangeInclusive<usize>) -> Result<CpuSet, BadCpuSet> {
        of_numbers(cpus)
    }
}

impl From<Infallible> for BadCpuSet {
    /// For callers that take a [`CpuSet`] or what converts to one.
    fn from(never: Infallible) -> BadCpuSet {
        match never {}
    }
}

/// The cores with these numbers: at least one, none out of range.
fn of_numbers(cpus: impl IntoIterator<Item = usize>) -> Result<CpuSet, BadCpuSet> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        if cpu >= MAX_CPUS {
            return Err(BadCpuSet::OutOfRange { text: cpu.to_string(), core: cpu.to_string() });
        }
        set.insert(cpu);
    }
    if set.is_empty() { Err(BadCpuSet::Empty) } else { Ok(set) }
}

fn parse_mask(text: &str) -> Result<CpuSet, BadCpuSet> {
    let prefix = if text.starts_with("0x") || text.starts_with("0X") { 2 } else { 0 };
    let mut set = CpuSet::new();
    let mut bit = 0;
    for (i, c) in text.char_indices().skip(prefix).collect::<Vec<_>>().into_iter().rev() {
        if c == ',' {
            continue;
        }
        let position = text[..i].chars().count() + 1;
        let unexpected = || BadCpuSet::Unexpected { text: text.to_owned(), found: c, position };
        let digit = c.to_digit(16).ok_or_else(unexpected)?;
        for cpu in (0..4).filter(|b| digit & (1 << b) != 0).map(|b| bit + b) {
            if cpu >= MAX_CPUS {
                return Err(BadCpuSet::OutOfRange { text: text.to_owned(), core: cpu.to_string() });
            }
            set.insert(cpu);
        }
        bit += 4;
    }
    if bit == 0 { Err(BadCpuSet::Unfinished { text: text.to_owned() }) } else { Ok(set) }
}

/// Reads `[a,b-c]` one character at a time.
struct List<'a> {
    text: &'a str,
    chars: std::iter::Peekable<std::iter::Enumerate<std::str::Chars<'a>>>,
}

impl<'a> List<'a> {
    fn new(text: &'a str) -> List<'a> {
        List { text, chars: text.chars().enumerate().peekable() }
    }

    fn parse(mut self) -> Result<CpuSet, BadCpuSet> {
        self.expect(&['['])?;
        let mut set = CpuSet::new();
        loop {
            let first = self.number()?;
            let mut separator = self.expect(&[',', '-', ']'])?;
            let mut last = first;
            if separator == '-' {
                last = self.number()?;
                separator = self.expect(&[',', ']'])?;
            }
            if last < first {
                return Err(BadCpuSet::Backwards { text: self.text.to_owned(), first, last });
            }
            (first..=last).for_each(|cpu| {
                set.insert(cpu);
            });
            if separator == ']' {
                break;
            }
        }
        self.skip_blanks();
        match self.chars.next() {
            None => Ok(set),
            Some(extra) => Err(self.unexpected(extra)),
        }
    }

    fn skip_blanks(&mut self) {
        while self.chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
    }

    fn expect(&mut self, accepted: &[char]) -> Result<char, BadCpuSet> {
        self.skip_blanks();
        match self.chars.next() {
            None => Err(BadCpuSet::Unfinished { text: self.text.to_owned() }),
            Some((_, c)) if accepted.contains(&c) => Ok(c),
            Some(other) => Err(self.unexpected(other)),
        }
    }

    fn unexpected(&self, (at, found): (usize, char)) -> BadCpuSet {
        BadCpuSet::Unexpected { text: self.text.to_owned(), found, position: at + 1 }
    }

    fn number(&mut self) -> Result<usize, BadCpuSet> {
        self.skip_blanks();
        let mut digits = String::new();
        while let Some((_, c)) = self.chars.next_if(|(_, c)| c.is_ascii_digit()) {
            digits.push(c);
        }
        if digits.is_empty() {
            return Err(match self.chars.next() {
                None => BadCpuSet::Unfinished { text: self.text.to_owned() },
                Some(other) => self.unexpected(other),
            });
        }
        let core = digits.parse().ok().filter(|cpu| *cpu < MAX_CPUS);
        core.ok_or_else(|| BadCpuSet::OutOfRange { text: self.text.to_owned(), core: digits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn masks_and_lists_say_the_same() {
        for (mask, list) in [
            ("1", "[0]"),
            ("0x3", "[0,1]"),
            ("0X1D", "[0, 2-4]"),
            (" ff ", " [ 0 - 7 ] "),
            ("ffff,00000001", "[0,32-47]"),
            ("8000000000000000,0000000000000000", "[127]"),
        ] {
            assert_eq!(set(mask), set(list), "{mask} {list}");
        }
    }

    #[test]
    fn values_make_the_set_that_their_text_makes() {
        let made = [
            (CpuSet::try_from(3), "[3]"),
            (CpuSet::try_from([0, 2]), "[0,2]"),
            (CpuSet::try_from(&[5, 5][..]), "[5]"),
            (CpuSet::try_from(1..4), "[1-3]"),
            (CpuSet::try_from(1..=1023), "[1-1023]"),
            (CpuSet::try_from(&String::from("0x6")), "[1,2]"),
        ];
        for (made, list) in made {
            assert_eq!(made, Ok(set(list)));
        }
    }

    #[test]
    fn no_core_or_one_out_of_range_makes_no_set_from_values_either() {
        assert_eq!(CpuSet::try_from(4..4), Err(BadCpuSet::Empty));
        assert_eq!(CpuSet::try_from([]), Err(BadCpuSet::Empty));
        assert!(matches!(CpuSet::try_from(1024), Err(BadCpuSet::OutOfRange { .. })));
        assert!(matches!(CpuSet::try_from([0, usize::MAX]), Err(BadCpuSet::OutOfRange { .. })));
        assert!(matches!(CpuSet::try_from(1000..usize::MAX), Err(BadCpuSet::OutOfRange { .. })));
    }

    #[test]
    fn a_set_reads_back_as_it_prints() {
        for text in ["1", "ff", "1d", "10000000000000001", "0"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(set("[1023]").as_list(), "[1023]");
        assert_eq!(set("[5,0,2-3,3-4]").as_list(), "[0,2-5]");
        assert_eq!(set(&set("[1023,0]").to_string()), set("[0,1023]"));
    }

    #[test]
    fn errors_say_what_was_wrong() {
        let said = |text: &str| text.parse::<CpuSet>().expect_err(text).to_string();
        assert!(said("  ").contains("empty"));
        assert!(said("0xg").contains("unexpected 'g' at character 3"), "{}", said("0xg"));
        assert!(said("[0,2-4").contains("ends too early"));
        assert!(said("[0;2]").contains("unexpected ';' at character 3"));
        assert!(said("[4-2]").contains("write 2-4"));
        assert!(said("[1024]").contains("core 1024 is out of range"));
        assert!(said("[99999999999999999999]").contains("out of range"));
        assert!(said(&format!("1{}", "0".repeat(256))).contains("core 1024"));
        assert!(said("[]").contains("unexpected ']'"));
        assert!(said("[0] 1").contains("unexpected '1'"));
        assert!(said("0x").contains("too early"));
        assert!(said("1-3").contains("unexpected '-'"));
    }

    #[test]
    fn operations_are_those_of_sets() {
        let (a, b) = (set("[0-3]"), set("[2-5]"));
        assert_eq!(a & b, set("[2,3]"));
        assert_eq!(a | b, set("[0-5]"));
        assert_eq!(a - b, set("[0,1]"));
        assert!((a & b).is_subset(&a) && !a.is_subset(&b));
        assert_eq!(b.lowest(), Some(2));
        assert_eq!(b.len(), 4);
        let mut c = a;
        assert!(c.remove(3) && !c.remove(3) && c.insert(3) && !c.insert(3) && !c.insert(MAX_CPUS));
    }
}

//! Patterns of fnmatch(3) for ASCII texts, in either case: `*`, `?`, sets such as `[a-f]`, `[!a]` and `[[:digit:]]`, and
//! `\` before a character that stands for itself.

/// Characters of a text that a longer pattern cannot fit; it bounds the memory of a pattern.
const LONGEST_TEXT: usize = 256;

/// ASCII characters, one bit each.
type Characters = u128;

/// A parsed pattern.
pub(crate) struct Pattern(Option<Vec<Part>>);

#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// Any characters.
    Run,
    One(Characters),
}

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Pattern {
        Pattern(parse(pattern.as_bytes()))
    }

    /// Whether a text fits as a whole.
    pub(crate) fn fits(&self, text: &str) -> bool {
        self.0.as_deref().is_some_and(|parts| fits(text.as_bytes(), parts))
    }
}

/// None for a pattern that no text fits: it is too long, or ends in a `\`.
fn parse(pattern: &[u8]) -> Option<Vec<Part>> {
    let (mut parts, mut characters, mut at) = (Vec::new(), 0, 0);
    while let Some(&byte) = pattern.get(at) {
        at += 1;
        if byte == b'*' {
            if parts.last() != Some(&Part::Run) {
                parts.push(Part::Run);
            }
            continue;
        }
        let one = match byte {
            b'?' => Characters::MAX,
            b'[' => match set(&pattern[at..]) {
                Some((set, length)) => {
                    at += length;
                    set
                }
                // Without its end it is a character.
                None => range(b'[', b'['),
            },
            _ => {
                let (character, length) = character(&pattern[at - 1..])?;
                at += length - 1;
                range(character, character)
            }
        };
        characters += 1;
        if characters > LONGEST_TEXT {
            return None;
        }
        parts.push(Part::One(one));
    }
    Some(parts)
}

/// A character or an escaped one, and its length in the pattern.
fn character(pattern: &[u8]) -> Option<(u8, usize)> {
    match pattern {
        [b'\\', escaped, ..] => Some((*escaped, 2)),
        [b'\\'] | [] => None,
        [character, ..] => Some((*character, 1)),
    }
}

/// The characters of a set, and the length of what follows its `[`. None if it has no end.
fn set(pattern: &[u8]) -> Option<(Characters, usize)> {
    let negated = matches!(pattern, [b'!' | b'^', ..]);
    let first = usize::from(negated);
    let (mut at, mut set, mut known) = (first, 0, true);
    // A `]` at the beginning is a member.
    while at == first || *pattern.get(at)? != b']' {
        let rest = pattern.get(at..)?;
        let (members, length) = match class(rest) {
            Some((members, length)) => {
                known &= members.is_some();
                (members.unwrap_or(0), length)
            }
            None => members(rest)?,
        };
        // What stands behind an unknown class is not looked at.
        if known {
            set |= members;
        }
        at += length;
    }
    let set = match (negated, known) {
        (false, _) => set,
        (true, true) => !set,
        (true, false) => 0,
    };
    Some((set, at + 1))
}

/// A character or a range of them, and its length.
fn members(pattern: &[u8]) -> Option<(Characters, usize)> {
    let (low, length) = character(pattern)?;
    match &pattern[length..] {
        [b'-', end, ..] if *end != b']' => {
            let (high, end) = character(&pattern[length + 1..])?;
            Some((range(low, high), length + 1 + end))
        }
        _ => Some((range(low, low), length)),
    }
}

/// The characters from `low` to `high`, in either case.
fn range(low: u8, high: u8) -> Characters {
    let (low, high) = (low.to_ascii_lowercase(), high.to_ascii_lowercase());
    of(|character| (low..=high).contains(&character.to_ascii_lowercase()))
}

fn of(is_member: impl Fn(u8) -> bool) -> Characters {
    (0..128).filter(|character| is_member(*character)).fold(0, |set, character| set | 1 << character)
}

/// `[:alpha:]` and the like: the characters, none if there is no such class, and its length.
fn class(pattern: &[u8]) -> Option<(Option<Characters>, usize)> {
    let name = pattern.strip_prefix(b"[:")?;
    let end = name.iter().position(|byte| !byte.is_ascii_lowercase())?;
    name[end..].starts_with(b":]").then_some(())?;
    let is_member: fn(u8) -> bool = match &name[..end] {
        b"alnum" => |character| character.is_ascii_alphanumeric(),
        b"alpha" => |character| character.is_ascii_alphabetic(),
        b"blank" => |character| matches!(character, b' ' | b'\t'),
        b"cntrl" => |character| character.is_ascii_control(),
        b"digit" => |character| character.is_ascii_digit(),
        b"graph" => |character| character.is_ascii_graphic(),
        b"lower" => |character| character.is_ascii_lowercase(),
        b"print" => |character| character.is_ascii_graphic() || character == b' ',
        b"punct" => |character| character.is_ascii_punctuation(),
        // With the vertical tab, which Rust's white space lacks.
        b"space" => |character| character.is_ascii_whitespace() || character == 0x0b,
        b"upper" => |character| character.is_ascii_uppercase(),
        b"xdigit" => |character| character.is_ascii_hexdigit(),
        _ => return Some((None, end + 4)),
    };
    Some((Some(of(is_member)), end + 4))
}

fn fits(text: &[u8], parts: &[Part]) -> bool {
    let (mut at, mut next) = (0, 0);
    // The last run, and where what follows it was last tried.
    let mut run = None;
    while at < text.len() {
        match (parts.get(next), run) {
            (Some(Part::Run), _) => {
                run = Some((next, at));
                next += 1;
            }
            (Some(Part::One(set)), _) if text[at] < 128 && set >> text[at] & 1 == 1 => {
                (at, next) = (at + 1, next + 1);
            }
            (_, Some((place, tried))) => {
                run = Some((place, tried + 1));
                (at, next) = (tried + 1, place + 1);
            }
            (_, None) => return false,
        }
    }
    parts[next..].iter().all(|rest| *rest == Part::Run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[(&str, &str, bool)]) {
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern::new(pattern).fits(text), *expected, "{pattern} {text}");
        }
    }

    #[test]
    fn runs_and_single_characters_fit_in_either_case() {
        check(&[
            ("rpc", "rpc", true),
            ("R?C", "rpc", true),
            ("rpc", "RPC", true),
            ("*", "rpc", true),
            ("r*", "rpc", true),
            ("*c", "rpc", true),
            ("**r*p*c*", "rpc", true),
            ("", "rpc", false),
            ("", "", true),
            ("r", "rpc", false),
            ("rpcs", "rpc", false),
            ("*x*", "rpc", false),
            ("?rpc", "rpc", false),
            ("*_rpc", "app_log_rpc", true),
        ]);
    }

    #[test]
    fn sets_have_characters_ranges_and_classes_and_may_be_negated() {
        check(&[
            ("[abc]", "b", true),
            ("[abc]", "d", false),
            ("[A-C]x", "bx", true),
            ("[a-c]", "d", false),
            ("[c-a]", "b", false),
            ("[!a]", "b", true),
            ("[^a]", "a", false),
            ("[!a-c_]*", "_x", false),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            ("[]a]", "]", true),
            ("[!]a]", "]", false),
            ("[[:alpha:]]", "q", true),
            ("[[:digit:]_]", "_", true),
            ("[![:digit:]]", "7", false),
            ("[[:upper:]]", "q", false),
            ("[[:space:]]", "\u{b}", true),
            ("vbdev[_[:digit:]]*", "vbdev_lvol", true),
            ("[*?]", "*", true),
            ("[*?]", "x", false),
        ]);
    }

    #[test]
    fn an_unknown_class_fits_nothing_and_a_set_without_an_end_is_a_bracket() {
        check(&[
            ("[[:nope:]]", "n", false),
            ("[![:nope:]]", "x", false),
            ("[a[:nope:]b]", "a", true),
            ("[a[:nope:]b]", "b", false),
            ("[[:alpha]", ":", true),
            ("[abc", "a", false),
            ("[abc", "[abc", true),
            ("[", "[", true),
        ]);
    }

    #[test]
    fn an_escaped_character_stands_for_itself() {
        check(&[
            (r"\*", "*", true),
            (r"\*", "x", false),
            (r"\r\p\c", "rpc", true),
            (r"rpc\", "rpc", false),
            (r"[\]]", "]", true),
            (r"[a\-c]", "b", false),
            (r"[a\-c]", "-", true),
            (r"\[a]", "[a]", true),
        ]);
    }

    #[test]
    fn a_pattern_as_long_as_a_message_takes_little_memory() {
        assert!(Pattern::new(&"*".repeat(1 << 20)).fits("rpc"));
        assert!(!Pattern::new(&"?".repeat(1 << 20)).fits("rpc"));
    }
}

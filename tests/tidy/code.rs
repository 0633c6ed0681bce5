//! The code in the text of a Rust file: what is left without comments, literals, and modules of tests.

use std::iter::Peekable;
use std::str::Chars;

/// The code of a file. Where text was left out, its line breaks stay.
pub fn code_of(text: &str) -> String {
    without_tests(&without_words(text))
}

/// The text without comments, and with empty literals.
fn without_words(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('/', Some('/')) => while rest.next_if(|next| *next != '\n').is_some() {},
            ('/', Some('*')) => skip_block(&mut rest),
            ('"', _) => {
                let hashes = raw_hashes(&code);
                code.push_str("\"\"");
                skip_string(&mut rest, hashes);
            }
            ('\'', _) => {
                code.push(c);
                skip_char(&mut rest);
            }
            _ => code.push(c),
        }
    }
    code
}

/// Skips the rest of a block comment, with those in it.
fn skip_block(rest: &mut Peekable<Chars>) {
    let mut depth = 0_usize;
    let mut before = '/';
    for c in rest.by_ref() {
        let step = (before, c);
        match step {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
        before = if matches!(step, ('/', '*') | ('*', '/')) { ' ' } else { c };
    }
}

/// How many `#` a raw string has of which `before` is what comes before its quote; `None` for other strings.
fn raw_hashes(before: &str) -> Option<usize> {
    let start = before.trim_end_matches('#');
    let name = |c: char| c.is_alphanumeric() || c == '_';
    let prefix = start.rsplit(|c: char| !name(c)).next().unwrap_or_default();
    ["r", "br", "cr"].contains(&prefix).then_some(before.len() - start.len())
}

fn skip_string(rest: &mut Peekable<Chars>, raw: Option<usize>) {
    while let Some(c) = rest.next() {
        match (c, raw) {
            ('\\', None) => _ = rest.next(),
            ('"', None) => return,
            ('"', Some(hashes)) => {
                let mut ahead = rest.clone();
                if (0..hashes).all(|_| ahead.next() == Some('#')) {
                    *rest = ahead;
                    return;
                }
            }
            _ => {}
        }
    }
}

/// Skips the rest of a literal of one character; of a lifetime, nothing.
fn skip_char(rest: &mut Peekable<Chars>) {
    let mut ahead = rest.clone();
    match ahead.next() {
        Some('\\') => {
            ahead.next();
            while ahead.next().is_some_and(|c| c != '\'') {}
            *rest = ahead;
        }
        Some(_) if ahead.next() == Some('\'') => *rest = ahead,
        _ => {}
    }
}

/// The code without `#[cfg(test)] mod NAME { .. }`. Other code that only tests have may import no more than the rest.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(";
    let mut kept = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(MARK) {
        kept.push_str(before);
        let (condition, item) = after.split_once(']').unwrap_or((after, ""));
        let is_test = condition == "test)" || condition.starts_with("all(test,");
        let block = after_attributes(item).split_once('{').filter(|(head, _)| is_test && is_module(head));
        rest = block.map_or(after, |(_, body)| after_block(body));
    }
    kept + rest
}

/// True for what stands before the block of a module.
fn is_module(head: &str) -> bool {
    let words: Vec<&str> = head.split_whitespace().collect();
    matches!(words[..], [.., "mod", _])
}

/// What follows the attributes at the start of some code.
fn after_attributes(code: &str) -> &str {
    let code = code.trim_start();
    match code.strip_prefix("#[").and_then(|inner| inner.split_once(']')) {
        Some((_, rest)) => after_attributes(rest),
        None => code,
    }
}

/// What follows the block of which `body` is what comes after its `{`.
fn after_block(body: &str) -> &str {
    let mut depth = 1_usize;
    let end = body.char_indices().find(|(_, c)| {
        depth = match c {
            '{' => depth + 1,
            '}' => depth - 1,
            _ => depth,
        };
        depth == 0
    });
    end.map_or("", |(at, _)| &body[at + 1..])
}

#[test]
fn of_a_file_only_comments_literals_and_modules_of_tests_are_left_out() {
    let text = r##"
fn a<'a>(x: &'a str) -> char { '"' } // not::this
/* nor::this /* nor::this */ "nor::this" */
const B: &str = "{ nor::this \" nor::this";
const C: &str = r#"nor::this " nor::this"#;
#[cfg(test)]
fn helper() { seen::first() }
#[cfg(test)]
#[allow(lint)]
pub(in crate::seen) mod tests {
    fn t() { if true { not::this() } }
}
#[cfg(all(test, not(loom)))]
mod more {
    fn t() { not::this() }
}
#[cfg(test)]
mod elsewhere;
fn d() { seen::second() }
const D: char = '\'';
fn e() { seen::last() }
"##;
    let code = code_of(text);
    assert!(!code.contains("this"), "{code}");
    for seen in ["fn a<'a>(x: &'a str)", "const C", "seen::first", "seen::second", "const D", "seen::last"] {
        assert!(code.contains(seen), "{seen} is not in {code}");
    }
}

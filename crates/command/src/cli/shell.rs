//! Words for a POSIX shell.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::text::printable;

/// A word that a shell reads as `word`; `None` if it has bytes that cannot be shown: they are not UTF-8, move a terminal's
/// cursor, or are invisible.
pub(crate) fn quoted(word: &OsStr) -> Option<String> {
    let word = word.to_str()?;
    // Backslashes are the only characters that are escaped although they can be shown.
    if printable(word.as_bytes()) != word.replace('\\', "\\\\") {
        return None;
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:,+@%".contains(&byte);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => Some(word.to_owned()),
        false => Some(format!("'{}'", word.replace('\'', r"'\''"))),
    }
}

/// The same for a path, which no program takes for an option.
pub(crate) fn quoted_path(path: &Path) -> Option<String> {
    match path.as_os_str().as_bytes().starts_with(b"-") {
        true => quoted(Path::new(".").join(path).as_os_str()),
        false => quoted(path.as_os_str()),
    }
}

/// A path in a command that a message names: for a shell, or as text if that cannot be shown.
pub(crate) fn typed(path: &Path) -> String {
    quoted_path(path).unwrap_or_else(|| printable(path.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a shell makes of a word.
    fn read_by_a_shell(word: &str) -> Vec<u8> {
        let script = format!("printf %s {word}");
        std::process::Command::new("sh").args(["-c", &script]).output().unwrap().stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_shell_reads_a_quoted_word_as_it_is_or_it_cannot_be_shown(
            word in r#"([ -~]|[$`'"\\!*?~#&;|<>(){}\[\] -]|\PC|[\n\t\x1b]){1,12}"#
        ) {
            match quoted(OsStr::new(&word)) {
                Some(quoted) => {
                    prop_assert_eq!(read_by_a_shell(&quoted), word.as_bytes(), "{}", &quoted);
                    prop_assert!(!quoted.contains(char::is_control));
                }
                None => prop_assert_ne!(printable(word.as_bytes()), word),
            }
        }
    }

    #[test]
    fn words_that_a_shell_takes_as_they_are_stay_so() {
        for word in ["spindle-quickstart/spdk.sock", "/a/b_c.d:1,2+3@4%20", "./x"] {
            assert_eq!(quoted(OsStr::new(word)).as_deref(), Some(word));
        }
        for (word, quoted_word) in
            [("", "''"), ("~", "'~'"), ("it's", r"'it'\''s'"), ("`id`", "'`id`'"), ("a=b", "'a=b'")]
        {
            assert_eq!(quoted(OsStr::new(word)).as_deref(), Some(quoted_word));
        }
    }

    #[test]
    fn a_path_is_never_taken_for_an_option_and_one_that_cannot_be_shown_is_not() {
        assert_eq!(quoted_path(Path::new("-n/spdk.sock")).as_deref(), Some("./-n/spdk.sock"));
        assert_eq!(quoted_path(Path::new("-n o")).as_deref(), Some("'./-n o'"));
        for bytes in [&b"a\xff"[..], b"a\nb", b"\x1b[2J", "a\u{202e}b".as_bytes()] {
            assert_eq!(quoted_path(Path::new(OsStr::from_bytes(bytes))), None, "{bytes:?}");
        }
    }
}

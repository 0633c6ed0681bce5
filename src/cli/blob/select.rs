//! Which blob is meant: by its id (decimal, or hexadecimal behind `0x`) or by its `name` xattr.

use super::describe::name_of;
use crate::cli::failure::Failure;
use crate::cli::text::printable;
use spindle_format::{Blob, BlobId, Store};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How many candidates an error lists.
const CANDIDATES: usize = 5;
/// Names longer than this are not compared for likeness: it would take long and help nobody.
const LONGEST_COMPARED: usize = 128;

/// The blob that is meant; `image` is for the errors.
pub(super) fn find<'a>(store: &'a Store, image: &Path, asked: &OsStr) -> Result<&'a Blob, Failure> {
    let asked = asked.as_bytes();
    let id = parse_id(asked).map(BlobId::from_raw);
    let healthy = store.blobs.values().filter(|blob| Some(blob.id) == id || name_of(blob) == Some(asked));
    let damaged = store.damaged.iter().filter(|blob| {
        Some(blob.id) == id || blob.name.as_ref().is_some_and(|name| name.as_bytes() == asked)
    });
    let matches: BTreeSet<BlobId> = healthy.map(|blob| blob.id).chain(damaged.map(|blob| blob.id)).collect();
    let (path, asked) = (image.to_owned(), asked.to_owned());
    let mut ids = matches.iter();
    let (Some(&one), None) = (ids.next(), ids.next()) else {
        return Err(match matches.is_empty() {
            true => Failure::NoSuchBlob { path, near: near(store, &asked, id), asked },
            false => Failure::AmbiguousBlob { path, asked, candidates: list(store, matches) },
        });
    };
    store.blob(one).ok_or_else(|| {
        let errors = store.damaged.iter().filter(|blob| blob.id == one).flat_map(|blob| &blob.errors);
        let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
        Failure::DamagedBlob { path, blob: one, errors: errors.join("; ") }
    })
}

fn parse_id(asked: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(asked).ok()?;
    let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // The parser of the standard library takes a sign; an id has none.
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
}

/// Blobs as an error lists them: id and name.
fn list(store: &Store, ids: impl IntoIterator<Item = BlobId>) -> String {
    let mut ids = ids.into_iter();
    let mut shown: Vec<String> = ids.by_ref().take(CANDIDATES).map(|id| label(store, id)).collect();
    let more = ids.count();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

fn label(store: &Store, id: BlobId) -> String {
    match store.blob(id).and_then(name_of) {
        Some(name) => format!("{id} ({})", printable(name)),
        None => id.to_string(),
    }
}

/// What else may have been meant, as the rest of the sentence "no blob is called so".
fn near(store: &Store, asked: &[u8], id: Option<BlobId>) -> String {
    if store.blobs.is_empty() {
        return ": the store has no blobs".into();
    }
    // Who types the number of a root page means the blob that begins there.
    let page = id.map(BlobId::raw).and_then(|raw| u32::try_from(raw).ok());
    let page = page.map(|page| BlobId::from_page(spindle_format::PageIdx(page)));
    let by_page = page.filter(|id| store.blob(*id).is_some());
    let mut alike: Vec<(usize, BlobId)> =
        store.blobs.values().filter_map(|blob| Some((distance(asked, name_of(blob)?)?, blob.id))).collect();
    alike.sort_unstable();
    let candidates: Vec<BlobId> =
        by_page.into_iter().chain(alike.into_iter().map(|(_, id)| id)).take(CANDIDATES).collect();
    if !candidates.is_empty() {
        format!(": did you mean {}?", list(store, candidates))
    } else {
        format!(": there are {}; spindle blob ls lists them", list(store, store.blobs.keys().copied()))
    }
}

/// How unlike two names are; `None` if nobody would take one for the other.
fn distance(asked: &[u8], name: &[u8]) -> Option<usize> {
    if asked.len().max(name.len()) > LONGEST_COMPARED || asked.is_empty() || name.is_empty() {
        return None;
    }
    let lower = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase();
    let (asked, name) = (lower(asked), lower(name));
    let distance = strsim::damerau_levenshtein(&asked, &name);
    let part = name.contains(&asked) || asked.contains(&name);
    (part || distance <= 1 + asked.chars().count() / 4).then_some(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_decimal_or_hexadecimal_and_nothing_else() {
        assert_eq!(parse_id(b"4294967300"), Some(0x1_0000_0004));
        assert_eq!(parse_id(b"0x100000004"), Some(0x1_0000_0004));
        for wrong in ["", "+4", "0x", "0x+4", "-1", "4 ", "100000004h", "18446744073709551616"] {
            assert_eq!(parse_id(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_near_and_another_word_is_not() {
        assert!(distance(b"alhpa", b"alpha").is_some());
        assert!(distance(b"Alpha", b"alpha").is_some());
        assert!(distance(b"snap", b"thin-snap-2").is_some());
        assert!(distance(b"gamma", b"alpha").is_none());
    }
}

//! Selects a blob: by its id (decimal, or hexadecimal with `0x`) or by its `name` xattr.

use super::describe::name_of;
use crate::cli::failure::Failure;
use crate::cli::text::named;
use spindle_format::{Blob, BlobId, Store};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How many candidates an error lists.
const CANDIDATES: usize = 5;
/// Longer names are not compared for likeness, which would take long.
const LONGEST_COMPARED: usize = 128;

/// A blob's id and names, and whether it can be used.
pub(super) struct Entry {
    pub(super) id: BlobId,
    /// Its name, if it has one.
    pub(super) name: Option<Vec<u8>>,
    /// The name that it gets when its import is complete, if that is unfinished.
    pub(super) importing: Option<Vec<u8>>,
    /// Why it cannot be used, if so.
    pub(super) damage: Option<String>,
}

/// The selected blob; `image` is for the errors.
pub(super) fn find<'a>(store: &'a Store, image: &Path, asked: &OsStr) -> Result<&'a Blob, Failure> {
    let id = choose(&entries(store), image, asked)?;
    Ok(store.blob(id).expect("what can be used is there"))
}

fn entries(store: &Store) -> Vec<Entry> {
    let healthy = store.blobs.values().map(|blob| Entry {
        id: blob.id,
        name: name_of(blob).map(<[u8]>::to_vec),
        importing: store.importing(blob.id).map(<[u8]>::to_vec),
        damage: None,
    });
    let damaged = store.damaged.iter().map(|blob| {
        let errors: Vec<String> = blob.errors.iter().map(|error| error.to_string()).collect();
        Entry {
            id: blob.id,
            name: blob.name.as_ref().map(|name| name.clone().into_bytes()),
            importing: None,
            damage: Some(errors.join("; ")),
        }
    });
    healthy.chain(damaged).collect()
}

/// Selects among these blobs; `image` is for the errors.
pub(super) fn choose(blobs: &[Entry], image: &Path, asked: &OsStr) -> Result<BlobId, Failure> {
    let asked = asked.as_bytes();
    let id = parse_id(asked).map(BlobId::from_raw);
    let meant = |entry: &&Entry| Some(entry.id) == id || entry.name.as_deref() == Some(asked);
    let mut matches: Vec<&Entry> = blobs.iter().filter(meant).collect();
    matches.sort_unstable_by_key(|entry| entry.id);
    matches.dedup_by_key(|entry| entry.id);
    let (path, asked) = (image.to_owned(), asked.to_owned());
    match matches.as_slice() {
        [] => Err(Failure::NoSuchBlob { path, near: near(blobs, &asked, id), asked }),
        [Entry { id, damage: Some(errors), .. }] => {
            Err(Failure::DamagedBlob { path, blob: *id, errors: errors.clone() })
        }
        // Text that looks like an id is one: a name of that form must not select a blob for removal.
        [one] if looks_like_id(&asked) && id != Some(one.id) => {
            Err(Failure::NotAnId { path, asked, blob: one.id })
        }
        [one] => Ok(one.id),
        many => {
            // The text is the id of one and the name of another: only the other form of the id is
            // unambiguous.
            let candidates = list(many.iter().copied());
            let ids: Vec<String> =
                many.iter().take(CANDIDATES).map(|entry| other_way(entry.id, &asked)).collect();
            Err(Failure::AmbiguousBlob { path, asked, candidates, ids: ids.join(" or ") })
        }
    }
}

/// True if text is read as an id, also where it is none: digits, or `0x` and hexadecimal ones, however many.
pub(super) fn looks_like_id(text: &[u8]) -> bool {
    match text.strip_prefix(b"0x").or(text.strip_prefix(b"0X")) {
        Some(digits) => !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit),
        None => !text.is_empty() && text.iter().all(u8::is_ascii_digit),
    }
}

/// An id as it is typed.
pub(super) fn parse_id(asked: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(asked).ok()?;
    let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // The standard library's parser accepts a sign; an id has none.
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
}

/// The other way of writing an id.
fn other_way(id: BlobId, asked: &[u8]) -> String {
    match id.to_string() {
        same if same.as_bytes() == asked => id.raw().to_string(),
        other => other,
    }
}

/// Blobs as an error lists them: id and name.
fn list<'a>(blobs: impl IntoIterator<Item = &'a Entry>) -> String {
    let mut blobs = blobs.into_iter();
    let mut shown: Vec<String> = blobs.by_ref().take(CANDIDATES).map(label).collect();
    let more = blobs.count();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

fn label(blob: &Entry) -> String {
    match &blob.name {
        Some(name) => format!("{} ({})", blob.id, named(name)),
        None => blob.id.to_string(),
    }
}

/// Suggestions, as the rest of the sentence "no blob is called so".
fn near(blobs: &[Entry], asked: &[u8], id: Option<BlobId>) -> String {
    let healthy = || blobs.iter().filter(|blob| blob.damage.is_none());
    if healthy().next().is_none() {
        return ": the store has no blobs".into();
    }
    if let Some(blob) = healthy().find(|blob| blob.importing.as_deref() == Some(asked)) {
        return format!(": {} will get that name, but its import has not ended", blob.id);
    }
    // The number of a root page stands for the blob that begins there.
    let page = id.map(BlobId::raw).and_then(|raw| u32::try_from(raw).ok());
    let page = page.map(|page| BlobId::from_page(spindle_format::PageIdx(page)));
    let by_page = healthy().find(|blob| Some(blob.id) == page);
    let likeness = |blob: &'_ &Entry| distance(asked, blob.name.as_deref()?);
    let mut alike: Vec<(usize, &Entry)> =
        healthy().filter_map(|blob| Some((likeness(&blob)?, blob))).collect();
    alike.sort_unstable_by_key(|(distance, blob)| (*distance, blob.id));
    let candidates: Vec<&Entry> =
        by_page.into_iter().chain(alike.into_iter().map(|(_, blob)| blob)).take(CANDIDATES).collect();
    if !candidates.is_empty() {
        format!(": did you mean {}?", list(candidates))
    } else {
        format!(": there are {}; spindle blob ls lists them", list(healthy()))
    }
}

/// The difference between two names; `None` if they are not alike.
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
        for number in ["5", "0x5", "18446744073709551616", "0x10000000000000000", "0Xff"] {
            assert!(looks_like_id(number.as_bytes()), "{number}");
        }
        for name in ["", "+4", "0x", "0xg", "-1", "4 ", "100000004h", "x5"] {
            assert!(!looks_like_id(name.as_bytes()), "{name}");
        }
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

//! SPDK's requirements for an lvolstore and its volumes, enforced by every command that changes one.
//!
//! The super blob has a `uuid` and a `name`, and every volume a `name`: otherwise SPDK refuses the whole
//! store. A UUID is stored as 36 lower-case characters and a NUL; SPDK gives a volume with another form of
//! `uuid` a different identity, and does not open a clone whose external snapshot is named in another form.
//! From `lib/lvol/lvol.c` (`lvs_read_uuid`, `load_next_lvol`) and `module/bdev/lvol/vbdev_lvol.c`
//! (`vbdev_lvs_esnap_dev_create`); `docs/format.md` section 14 has the rules.

use super::image::ImageFile;
use super::session::Session;
use super::source::load_whole;
use crate::cli::failure::{Failure, shown};
use crate::cli::text::{before_nul, hex, named, printable};
use spindle_blob::{BlobId, BsType, Xattr};
use std::collections::BTreeSet;
use std::io::Read;

/// Bytes of an lvol's name with its NUL, at most.
const LONGEST_NAME: usize = 64;

/// Characters of a UUID before each dash and at the end.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// True if SPDK's logical volume module opens this store.
pub(super) async fn is_lvolstore(session: &Session) -> Result<bool, Failure> {
    Ok(session.info().await?.bs_type == BsType::LVOLSTORE)
}

/// A name as lvolstores store it, with its NUL.
pub(super) fn name(typed: &[u8]) -> Result<Vec<u8>, Failure> {
    let name = typed.strip_suffix(b"\0").unwrap_or(typed);
    let is_text = std::str::from_utf8(name).is_ok();
    if name.is_empty() || name.contains(&0) || name.len() >= LONGEST_NAME || !is_text {
        return Err(Failure::Refused(format!(
            "\"{}\" cannot name an lvolstore or a blob of one: a name has 1 to {} bytes of UTF-8, none of them NUL",
            printable(name),
            LONGEST_NAME - 1
        )));
    }
    Ok([name, b"\0"].concat())
}

/// A UUID as lvolstores store it: lower case, with its NUL.
pub(super) fn uuid(typed: &[u8]) -> Result<Vec<u8>, Failure> {
    let text = typed.strip_suffix(b"\0").unwrap_or(typed);
    // As it was typed: text, or bytes in hexadecimal.
    let shown_id = |text: &[u8]| match text.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        true => named(text),
        false => format!("0x{}", hex(text)),
    };
    let given = text;
    let text = text.to_ascii_lowercase();
    let groups: Vec<&[u8]> = text.split(|&byte| byte == b'-').collect();
    let is_group =
        |(group, len): (&&[u8], usize)| group.len() == len && group.iter().all(u8::is_ascii_hexdigit);
    if groups.len() != GROUPS.len() || !groups.iter().zip(GROUPS).all(is_group) {
        return Err(Failure::Refused(format!(
            "{} is not a UUID, and an lvolstore takes nothing else there: 36 characters as in {}",
            shown_id(given),
            "11111111-2222-4333-8444-555555555555"
        )));
    }
    if text.iter().all(|byte| matches!(byte, b'0' | b'-')) {
        return Err(Failure::Refused("a UUID of zeroes identifies nothing: give another".into()));
    }
    Ok([&text[..], b"\0"].concat())
}

/// A random UUID (version 4) as lvolstores store it.
pub(super) fn new_uuid() -> Result<Vec<u8>, Failure> {
    let path = std::path::Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Failure::file(path, "read", error))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Ok([groups.join("-").as_bytes(), b"\0"].concat())
}

/// An error if a blob other than `own` has this UUID already: SPDK registers only one of two such volumes.
pub(super) async fn check_uuid_free(
    session: &Session,
    uuid: &[u8],
    own: Option<BlobId>,
) -> Result<(), Failure> {
    for id in session.store.blobs().await? {
        let xattrs = session.store.blob_xattrs(id).await?;
        let same = value(&xattrs, b"uuid").is_some_and(|there| before_nul(there) == before_nul(uuid));
        if same && Some(id) != own {
            return Err(Failure::Refused(format!(
                "{} is the UUID of blob {id} of {}: choose another",
                printable(before_nul(uuid)),
                session.image()
            )));
        }
    }
    Ok(())
}

/// The id of an external snapshot in this store's form: in an lvolstore the UUID of a block device.
pub(super) async fn external_id(session: &Session, typed: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if is_lvolstore(session).await? { uuid(&typed) } else { Ok(typed) }
}

/// An error if the blob is the super blob of an lvolstore, unless `forced`. `what` is the planned change:
/// "removed".
pub(super) async fn keep_super_blob(
    session: &Session,
    blob: BlobId,
    what: &str,
    forced: bool,
) -> Result<(), Failure> {
    if forced || !is_lvolstore(session).await? || session.store.super_blob().await? != Some(blob) {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "blob {blob} is the super blob of {}, which has the lvolstore's name and UUID: {what}, SPDK opens no \
         volume of it any more; --force does it nevertheless",
        session.image()
    )))
}

/// An error if the blob is the super blob of an lvolstore. `what` is the planned change, after which it would hold or
/// read data: "made larger".
pub(super) async fn refuse_super_blob(session: &Session, blob: BlobId, what: &str) -> Result<(), Failure> {
    if !is_lvolstore(session).await? || session.store.super_blob().await? != Some(blob) {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "blob {blob} is the super blob of {}, which holds the lvolstore's name and UUID and no data: it is not {what}; \
         name a volume",
        session.image()
    )))
}

/// An error if a blob that is given up is the super blob of an lvolstore.
pub(super) fn refuse_giving_up(image: &ImageFile, give_up: &BTreeSet<BlobId>) -> Result<(), Failure> {
    let block = load_whole(image)?.super_block;
    match block.super_blob.filter(|blob| block.bs_type == BsType::LVOLSTORE && give_up.contains(blob)) {
        None => Ok(()),
        Some(blob) => Err(Failure::Refused(format!(
            "blob {blob} is the super blob of {}, which has the lvolstore's name and UUID: given up, SPDK opens no \
             volume of it any more; --force does it nevertheless",
            shown(image.path())
        ))),
    }
}

/// An error if this blob cannot be the super blob of an lvolstore, unless `forced`.
pub(super) async fn check_new_super_blob(
    session: &Session,
    blob: Option<BlobId>,
    forced: bool,
) -> Result<(), Failure> {
    let now = session.store.super_blob().await?;
    if let Some(now) = now.filter(|_| now != blob) {
        keep_super_blob(session, now, "replaced", forced).await?;
    }
    let Some(blob) = blob.filter(|_| !forced) else { return Ok(()) };
    if !is_lvolstore(session).await? {
        return Ok(());
    }
    let xattrs = session.store.blob_xattrs(blob).await?;
    let kept = |key: &[u8], kept: fn(&[u8]) -> Result<Vec<u8>, Failure>| {
        value(&xattrs, key).is_some_and(|value| kept(value).is_ok_and(|kept| kept == value))
    };
    let empty = session.live(blob).await?.info.clusters == 0;
    match empty && kept(b"uuid", uuid) && kept(b"name", name) {
        true => Ok(()),
        false => Err(Failure::Refused(format!(
            "{} is an lvolstore: its super blob is empty and has the xattrs uuid and name as SPDK keeps them, \
             blob {blob} does not; --force sets it nevertheless",
            session.image()
        ))),
    }
}

fn value<'a>(xattrs: &'a [Xattr], key: &[u8]) -> Option<&'a [u8]> {
    xattrs.iter().find(|xattr| xattr.name == key).map(|xattr| &xattr.value[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_uuid_is_kept_as_it_is_and_no_two_are_the_same() {
        let (one, two) = (new_uuid().unwrap(), new_uuid().unwrap());
        assert_eq!((one.len(), one[36], one[14]), (37, 0, b'4'));
        assert_eq!(uuid(&one).unwrap(), one);
        assert_ne!(one, two);
    }

    #[test]
    fn a_uuid_is_kept_in_lower_case_with_one_nul_and_nothing_else_is_one() {
        let kept = b"1111aaaa-2222-4333-8444-555555555fff\0";
        for typed in [&kept[..], b"1111AAAA-2222-4333-8444-555555555FFF", &kept[..36]] {
            assert_eq!(uuid(typed).unwrap(), kept);
        }
        for wrong in [
            &b""[..],
            b"zzz",
            b"1111aaaa22224333844455555555 5fff",
            b"1111aaaa-2222-4333-8444-555555555ff",
            b"1111aaaa-2222-4333-8444-555555555fffa",
            b"1111aaaa-2222-4333-8444-555555555ffg",
            b"1111aaa-a2222-4333-8444-555555555fff",
            b"{1111aaaa-2222-4333-8444-555555555fff}",
            b"00000000-0000-0000-0000-000000000000",
            b"1111aaaa-2222-4333-8444-555555555fff\0\0",
        ] {
            assert!(uuid(wrong).is_err(), "{}", printable(wrong));
        }
    }

    #[test]
    fn a_name_ends_in_one_nul_and_has_at_most_64_bytes() {
        assert_eq!(name(b"disk").unwrap(), b"disk\0");
        assert_eq!(name(b"disk\0").unwrap(), b"disk\0");
        assert_eq!(name(&[b'x'; 63]).unwrap().len(), 64);
        assert!(name(&[b'x'; 64]).is_err() && name(b"").is_err() && name(b"a\0b").is_err());
        assert!(name(b"\xff").is_err() && name(b"a\xc3").is_err() && name("\u{fc}".as_bytes()).is_ok());
    }
}

//! The two xattrs that identify a store or a volume.

use spindle_bdev::Uuid;
use spindle_blob::Xattr;

use crate::name::Name;

/// The xattr of the name.
pub(crate) const NAME: &str = "name";
/// The xattr of the UUID.
pub(crate) const UUID: &str = "uuid";

/// Bytes of a UUID as text, with its NUL.
const UUID_BYTES: usize = 37;

/// A UUID as SPDK stores it: text in lower case, and a NUL.
pub(crate) fn uuid_bytes(uuid: Uuid) -> Vec<u8> {
    let mut bytes = uuid.to_string().into_bytes();
    bytes.push(0);
    bytes
}

/// The UUID in an xattr or in the id of an external snapshot, if it is valid.
pub(crate) fn uuid_of(value: &[u8]) -> Option<Uuid> {
    let (text, nul) = value.split_at_checked(UUID_BYTES - 1)?;
    let text = std::str::from_utf8(text).ok().filter(|_| nul == [0])?;
    Uuid::try_parse(text).ok()
}

/// The identity of a blob, as far as its xattrs state it.
pub(crate) struct Identity {
    pub(crate) name: Option<Name>,
    pub(crate) uuid: Option<Uuid>,
}

impl Identity {
    pub(crate) fn of(xattrs: &[Xattr]) -> Identity {
        let value = |wanted: &str| {
            let found = xattrs.iter().find(|xattr| xattr.name == wanted.as_bytes());
            found.map(|xattr| xattr.value.as_slice())
        };
        let name = value(NAME).and_then(Name::from_xattr);
        let uuid = value(UUID).and_then(uuid_of);
        Identity { name, uuid }
    }
}

/// The xattrs of a new volume, in SPDK's order.
pub(crate) fn xattrs(name: &Name, uuid: Uuid) -> Vec<(Vec<u8>, Vec<u8>)> {
    vec![(NAME.into(), name.padded()), (UUID.into(), uuid_bytes(uuid))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_on_disk_is_36_characters_and_a_nul() {
        let uuid = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);
        let bytes = uuid_bytes(uuid);
        assert_eq!((bytes.len(), uuid_of(&bytes)), (37, Some(uuid)));
        for bad in [&bytes[..36], b"", &[0; 37], &[bytes.as_slice(), b"x"].concat()] {
            assert_eq!(uuid_of(bad), None);
        }
    }
}

//! Whether two open files or block devices lie on the same bytes.

use std::fs;
use std::path::Path;

use rustix::fs::Stat;

use super::layers::{self, Kind, Layer, Number, Part};

/// Where sysfs and the device nodes are.
const ROOT: &str = "/";

/// True if a byte of one of two open files or block devices is a byte of the other: they are the same by two names,
/// or one lies on the other or on a part of what the other lies on. Two devices made of the same devices, as volumes
/// of one LVM group are, count as apart. What a layer does not tell (`docs/one-writer.md`) is not found here either.
pub fn share_bytes(one: &fs::File, other: &fs::File) -> bool {
    let places = |file: &fs::File| rustix::fs::fstat(file).map_or(Vec::new(), |stat| places(&stat));
    let (one, other) = (places(one), places(other));
    one.iter().any(|one| other.iter().any(|other| one.meets(other)))
}

/// What holds bytes.
#[derive(PartialEq, Eq)]
enum Object {
    Device(Number),
    /// A file by its file system and inode.
    File(u64, u64),
}

/// A part of an object.
struct Place {
    object: Object,
    part: Part,
    /// Set if other devices may lie on this part without having bytes in common.
    shared: bool,
}

impl Place {
    fn meets(&self, other: &Place) -> bool {
        self.object == other.object && !(self.shared && other.shared) && self.part.meets(other.part)
    }
}

/// The block devices, one lying on another before that one, with a byte of a file or device.
pub(super) fn devices_with_bytes_of(stat: &Stat) -> Vec<Layer> {
    let own = places(stat);
    let mut stacks: Vec<Vec<Layer>> = layers::all(Path::new(ROOT))
        .map(|number| layers::beneath(Path::new(ROOT), number))
        .filter(|stack| below(stack).any(|place| own.iter().any(|own| own.meets(&place))))
        .collect();
    stacks.sort_by_key(|stack| std::cmp::Reverse(stack.len()));
    let tops = stacks.into_iter().filter_map(|stack| stack.into_iter().next());
    tops.filter(|layer| matches!(layer.kind, Kind::Device(_))).collect()
}

/// A file or device, and all that it lies on.
fn places(stat: &Stat) -> Vec<Place> {
    let own = Place { object: object(stat), part: Part::WHOLE, shared: false };
    let Some(device) = layers::number_of(stat) else { return vec![own] };
    let layers = layers::beneath(Path::new(ROOT), device);
    std::iter::once(own).chain(below(&layers)).collect()
}

/// The places of layers.
fn below(layers: &[Layer]) -> impl Iterator<Item = Place> {
    layers.iter().filter_map(|layer| {
        let object = match layer.kind {
            Kind::Device(number) => Object::Device(number),
            Kind::File => object(&rustix::fs::stat(&layer.path).ok()?),
        };
        Some(Place { object, part: layer.part, shared: layer.shared })
    })
}

fn object(stat: &Stat) -> Object {
    match layers::number_of(stat) {
        Some(number) => Object::Device(number),
        None => Object::File(stat.st_dev, stat.st_ino),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_meet_where_they_have_a_byte_in_common() {
        let part = |start, length| Part { start, length };
        for (one, other, meet) in [
            (part(0, 0), part(0, 0), true),
            (part(0, 10), part(10, 5), false),
            (part(0, 11), part(10, 5), true),
            (part(20, 0), part(0, 20), false),
            (part(20, 0), part(0, 21), true),
            (part(20, 0), part(1 << 40, 1), true),
        ] {
            assert_eq!((one.meets(other), other.meets(one)), (meet, meet), "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_two_devices_are_made_of_is_no_common_place_but_the_device_itself_is() {
        let place = |shared| Place { object: Object::Device((8, 16)), part: Part::WHOLE, shared };
        assert!(!place(true).meets(&place(true)));
        assert!(place(true).meets(&place(false)) && place(false).meets(&place(false)));
    }

    #[test]
    fn a_file_is_the_same_by_each_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, c) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
        fs::write(&a, "x").unwrap();
        fs::write(&c, "x").unwrap();
        fs::hard_link(&a, &b).unwrap();
        let open = |path| fs::File::open(path).unwrap();
        assert!(share_bytes(&open(&a), &open(&b)));
        assert!(!share_bytes(&open(&a), &open(&c)));
    }
}

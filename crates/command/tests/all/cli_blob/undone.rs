//! Damage anywhere in the metadata: a repair ends in order or says what is left, is done once, and can be undone.

use super::support::{Image, on, unpack};
use std::fs;

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Damages some pages of an image.
fn damage(bytes: &mut [u8], pages: usize, numbers: &mut Numbers) {
    for _ in 0..1 + numbers.below(2) {
        let at = numbers.below(pages) * 4096;
        let page = &mut bytes[at..at + 4096];
        match numbers.below(4) {
            0 => page[numbers.below(200)] ^= 1 << numbers.below(8),
            1 => page.fill(0),
            2 => page[numbers.below(8) * 512..][..512].fill(numbers.below(256) as u8),
            _ => page[..16].iter_mut().for_each(|byte| *byte = numbers.below(256) as u8),
        }
    }
}

#[test]
fn a_repair_of_any_damage_is_done_once_says_what_is_left_and_can_be_undone() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut repaired = 0;
    for name in ["cut/delete-snapshot-3", "cut/shrink-1", "cut/small-clone"] {
        let whole = unpack(name);
        for _ in 0..6 {
            let mut bytes = whole.clone();
            damage(&mut bytes, 12, &mut numbers);
            let image = Image::new(&bytes);
            let said = on(&image, "check", &["--repair"]).code;
            assert!([0, 1, 4].contains(&said), "{name}: the repair ended with {said}");
            let after = fs::read(image.path()).unwrap();
            assert_eq!(
                on(&image, "check", &["--repair"]).code,
                said,
                "{name}: a second repair says the same"
            );
            assert!(fs::read(image.path()).unwrap() == after, "{name}: a second repair changes nothing");
            let undo = image.beside("store.img.undo");
            assert_eq!(undo.exists(), after != bytes, "{name}: what is changed can be undone");
            if undo.exists() {
                repaired += 1;
                assert_eq!(on(&image, "undo", &[undo.to_str().unwrap()]).code, 0, "{name}");
                assert!(fs::read(image.path()).unwrap() == bytes, "{name}: every byte is back");
            }
        }
    }
    assert!(repaired > 3, "only {repaired} images could be repaired");
}

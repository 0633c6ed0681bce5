//! Which volumes a daemon may have while calls are under way, under which names and in which sizes; what is in their pieces
//! is the business of the models that hold them.

use std::collections::BTreeMap;

/// A volume, or what may be one.
#[derive(Clone)]
struct Volume<P> {
    pieces: Vec<P>,
    /// Sizes in MiB, of which it has one.
    mib: Vec<u64>,
    /// It is there; else it may be there.
    sure: bool,
    /// It may have this name instead.
    other_name: Option<String>,
    /// A copy of this volume that is being made: what is written there may be in it.
    taken_of: Option<String>,
}

/// All volumes, by name.
#[derive(Clone)]
pub struct Volumes<P>(BTreeMap<String, Volume<P>>);

impl<P> Default for Volumes<P> {
    fn default() -> Volumes<P> {
        Volumes(BTreeMap::new())
    }
}

impl<P: Clone> Volumes<P> {
    fn volume(&mut self, name: &str) -> &mut Volume<P> {
        self.0.get_mut(name).unwrap_or_else(|| panic!("{name} is known"))
    }

    /// Names, with how many pieces are known.
    pub fn names(&self) -> Vec<(String, usize)> {
        self.0.iter().map(|(name, volume)| (name.clone(), volume.pieces.len())).collect()
    }

    /// The pieces of a volume.
    pub fn pieces(&mut self, name: &str) -> &mut Vec<P> {
        &mut self.volume(name).pieces
    }

    /// The pieces of a volume, and of the copies that are being made of it.
    pub fn pieces_and_copies(&mut self, name: &str) -> impl Iterator<Item = &mut Vec<P>> {
        let name = name.to_owned();
        let written = move |(other, volume): (&String, &mut Volume<P>)| {
            *other == name || volume.taken_of.as_deref() == Some(&name)
        };
        self.0
            .iter_mut()
            .filter_map(move |(other, volume)| written((other, volume)).then_some(&mut volume.pieces))
    }

    pub fn begin(&mut self, name: &str, mib: u64, pieces: Vec<P>) {
        let volume = Volume { pieces, mib: vec![mib], sure: false, other_name: None, taken_of: None };
        self.0.insert(name.to_owned(), volume);
    }

    /// A copy of a volume is being made: a snapshot, or a clone of one.
    pub fn copying(&mut self, from: &str, to: &str) {
        let mut copy = self.volume(from).clone();
        (copy.sure, copy.taken_of) = (false, Some(from.to_owned()));
        self.0.insert(to.to_owned(), copy);
    }

    pub fn made(&mut self, name: &str) {
        let volume = self.volume(name);
        (volume.sure, volume.taken_of) = (true, None);
    }

    pub fn deleting(&mut self, name: &str) {
        self.volume(name).sure = false;
    }

    pub fn deleted(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub fn renaming(&mut self, from: &str, to: &str) {
        self.volume(from).other_name = Some(to.to_owned());
    }

    pub fn renamed(&mut self, from: &str) {
        let mut volume = self.0.remove(from).expect("it was renamed");
        let name = volume.other_name.take().expect("it was being renamed");
        self.0.insert(name, volume);
    }

    pub fn resizing(&mut self, name: &str, mib: u64) {
        self.volume(name).mib.push(mib);
    }

    pub fn resized(&mut self, name: &str) {
        let mib = &mut self.volume(name).mib;
        *mib = mib.split_off(mib.len() - 1);
    }

    /// The volumes that are there are those that may be there, in sizes that they may have; from now on they are that.
    pub fn agree(&mut self, found: &BTreeMap<String, u64>, when: &str) {
        let mut agreed = BTreeMap::new();
        for (name, mut volume) in std::mem::take(&mut self.0) {
            let names: Vec<String> = [name.clone()].into_iter().chain(volume.other_name.take()).collect();
            let there: Vec<&String> = names.iter().filter(|name| found.contains_key(*name)).collect();
            match there[..] {
                [name] => {
                    let mib = found[name];
                    assert!(volume.mib.contains(&mib), "{when}: {name} has {mib} MiB, not {:?}", volume.mib);
                    (volume.mib, volume.sure, volume.taken_of) = (vec![mib], true, None);
                    agreed.insert(name.clone(), volume);
                }
                [] => assert!(!volume.sure, "{when}: {name} is gone"),
                _ => panic!("{when}: {name} is there by both of its names"),
            }
        }
        for name in found.keys() {
            assert!(agreed.contains_key(name), "{when}: {name} is there and should not be");
        }
        self.0 = agreed;
    }
}

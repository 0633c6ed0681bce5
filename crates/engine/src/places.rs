//! A table of operations by their tokens, with constant-time look-up.
//!
//! Owned by a driver. A reactor's tokens carry the place of the operation in a table in their lower half:
//! those are looked up in a list. Other tokens are kept in a tree.

use std::collections::BTreeMap;

use crate::Token;

/// Lower halves from here on are not treated as places.
const LISTED: u64 = 1 << 22;

/// Places by token. Allocates only for a larger lower half than any before.
#[derive(Default)]
pub(crate) struct Places {
    listed: Vec<Option<(Token, u64)>>,
    others: BTreeMap<Token, u64>,
}

impl Places {
    pub(crate) fn insert(&mut self, token: Token, place: u64) {
        if !self.others.is_empty() {
            self.others.remove(&token);
        }
        let low = token.0 & u64::from(u32::MAX);
        if low >= LISTED {
            self.others.insert(token, place);
            return;
        }
        let low = low as usize;
        if self.listed.len() <= low {
            self.listed.resize(low + 1, None);
        }
        if let Some((other, kept)) =
            self.listed[low].replace((token, place)).filter(|(other, _)| *other != token)
        {
            self.others.insert(other, kept);
        }
    }

    pub(crate) fn get(&self, token: Token) -> Option<u64> {
        let low = (token.0 & u64::from(u32::MAX)) as usize;
        match self.listed.get(low) {
            Some(Some((known, place))) if *known == token => Some(*place),
            _ => self.others.get(&token).copied(),
        }
    }

    #[inline]
    pub(crate) fn remove(&mut self, token: Token) -> Option<u64> {
        let low = (token.0 & u64::from(u32::MAX)) as usize;
        match self.listed.get_mut(low) {
            Some(known @ Some(_)) if known.is_some_and(|(known, _)| known == token) => {
                known.take().map(|(_, place)| place)
            }
            _ => self.others.remove(&token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn each_token_has_its_place_also_those_that_share_a_half_and_those_of_no_table() {
        let (mut places, mut model, mut rng) = (Places::default(), BTreeMap::new(), Rng::new(1));
        for place in 0..20_000 {
            let low =
                if rng.below(4) == 0 { rng.next_u64() & u64::from(u32::MAX) } else { rng.below(50) as u64 };
            let token = Token((rng.below(3) as u64) << 32 | low);
            if rng.below(2) == 0 {
                places.insert(token, place);
                model.insert(token, place);
            } else {
                assert_eq!(places.remove(token), model.remove(&token));
            }
            assert_eq!(places.get(token), model.get(&token).copied());
        }
    }
}

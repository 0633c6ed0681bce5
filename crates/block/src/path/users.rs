//! Which line a user has: a table by hash that allocates only to grow, and is the same in every run.
//!
//! Part of the lines of a lane.

/// A user, and true for writes if they wait apart from reads.
pub(crate) type User = (u32, bool);

/// Lines by user: open addressing, at most half full.
#[derive(Default)]
pub(crate) struct Users {
    slots: Vec<Option<(User, u32)>>,
    used: usize,
}

impl Users {
    /// The first slot to look at.
    fn home_of(&self, (user, writes): User) -> usize {
        let hash = (u64::from(user) << 1 | u64::from(writes)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize & (self.slots.len() - 1)
    }

    /// The slot of a user, or the free one where its search ends.
    fn slot_of(&self, user: User) -> usize {
        let mut at = self.home_of(user);
        while self.slots[at].is_some_and(|(known, _)| known != user) {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    /// The line of a user.
    #[inline]
    pub(crate) fn get(&self, user: User) -> Option<u32> {
        match self.used {
            0 => None,
            _ => self.slots[self.slot_of(user)].map(|(_, line)| line),
        }
    }

    /// Notes the line of a user that has none.
    pub(crate) fn insert(&mut self, user: User, line: u32) {
        if 2 * (self.used + 1) > self.slots.len() {
            let larger = vec![None; (2 * self.slots.len()).max(8)];
            let before = std::mem::replace(&mut self.slots, larger);
            for entry in before.into_iter().flatten() {
                let at = self.slot_of(entry.0);
                self.slots[at] = Some(entry);
            }
        }
        let at = self.slot_of(user);
        self.slots[at] = Some((user, line));
        self.used += 1;
    }

    /// Removes a user. Later entries that were displaced by this slot move up.
    pub(crate) fn remove(&mut self, user: User) {
        if self.get(user).is_none() {
            return;
        }
        let last = self.slots.len() - 1;
        let mut free = self.slot_of(user);
        self.slots[free] = None;
        self.used -= 1;
        let mut at = (free + 1) & last;
        while let Some((other, _)) = self.slots[at] {
            let (from_home, from_free) = (at.wrapping_sub(self.home_of(other)), at.wrapping_sub(free));
            if from_home & last >= from_free & last {
                self.slots.swap(free, at);
                free = at;
            }
            at = (at + 1) & last;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn users_are_found_until_they_are_removed_whatever_their_numbers() {
        let (mut users, mut model) = (Users::default(), BTreeMap::new());
        let mut state = 1_u64;
        for step in 0..40_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // More and fewer of them in turns, in small and in large tables.
            let most = if step < 20_000 { 40 } else { 3000 };
            let user = ((state >> 40) as u32 % most * 0x1000, state >> 63 == 1);
            let wanted = if step / 1000 % 2 == 0 { 3 } else { 1 };
            if (state >> 33) % 4 < wanted {
                if model.insert(user, step).is_none() {
                    users.insert(user, step);
                } else {
                    users.remove(user);
                    users.insert(user, step);
                }
            } else {
                model.remove(&user);
                users.remove(user);
            }
            assert_eq!(users.get(user), model.get(&user).copied(), "step {step}");
            assert_eq!(users.used, model.len());
        }
        for (user, line) in &model {
            assert_eq!(users.get(*user), Some(*line));
        }
    }
}

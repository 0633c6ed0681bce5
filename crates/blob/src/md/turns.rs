//! Long loops on the metadata thread, in turns: nothing may hold a reactor, whatever the size of a store.

/// Steps of a loop that are done in one turn: well below a millisecond of work.
const IN_A_TURN: u32 = 1024;

/// Counts the steps of a long loop.
#[derive(Default)]
pub(crate) struct Turns {
    done: u32,
}

impl Turns {
    /// So many steps were done: after enough of them the thread's other work has a turn. What the loop stands on
    /// may have changed then.
    pub(crate) async fn spend(&mut self, steps: u32) {
        self.done = self.done.saturating_add(steps);
        if self.done >= IN_A_TURN {
            self.end().await;
        }
    }

    /// Collects what may be much.
    pub(crate) async fn collect<T>(&mut self, items: impl Iterator<Item = T>) -> Vec<T> {
        let mut all = Vec::new();
        for item in items {
            all.push(item);
            self.spend(1).await;
        }
        all
    }

    /// The thread's other work has a turn now, whatever was done since the last.
    pub(crate) async fn end(&mut self) {
        self.done = 0;
        spindle_reactor::yield_now().await;
    }
}

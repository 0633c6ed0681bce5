//! Long loops on the metadata thread, cut into turns, so that no store is large enough to hold up its
//! reactor.

/// Steps of a loop in one turn: well below a millisecond of work.
const IN_A_TURN: u32 = 1024;

/// Counts the steps of a long loop.
#[derive(Default)]
pub(crate) struct Turns {
    done: u32,
}

impl Turns {
    /// Counts `steps` steps; after enough of them the thread's other work gets a turn. The data under the
    /// loop may have changed then.
    pub(crate) async fn spend(&mut self, steps: u32) {
        self.done = self.done.saturating_add(steps);
        if self.done >= IN_A_TURN {
            self.end().await;
        }
    }

    /// Collects a possibly long iterator.
    pub(crate) async fn collect<T>(&mut self, items: impl Iterator<Item = T>) -> Vec<T> {
        let mut all = Vec::new();
        for item in items {
            all.push(item);
            self.spend(1).await;
        }
        all
    }

    /// Gives the thread's other work a turn now.
    pub(crate) async fn end(&mut self) {
        self.done = 0;
        spindle_reactor::yield_now().await;
    }
}

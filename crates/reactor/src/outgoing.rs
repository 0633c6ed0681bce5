//! What one reactor sends to the others: a [`Route`] to each.
//!
//! Owned by the sending reactor.

use crate::port::{Envelope, Port};
use crate::route::Route;

/// The routes to the other reactors.
pub(crate) struct Outgoing {
    /// By reactor; made when first used.
    targets: Vec<Option<Target>>,
    /// Those that got messages in this turn and did not seem asleep: to be looked at once more.
    unsettled: Vec<usize>,
    /// The reactor's turn, by number.
    turn: u32,
    /// Something waits for room.
    overflowing: bool,
}

/// One other reactor.
struct Target {
    route: Route,
    /// It is among the unsettled.
    unsettled: bool,
}

impl Outgoing {
    /// No routes yet, to `reactors` reactors.
    pub(crate) fn new(reactors: usize) -> Outgoing {
        let targets = (0..reactors).map(|_| None).collect();
        // Room for all of them, so that no message allocates.
        Outgoing { targets, unsettled: Vec::with_capacity(reactors), turn: 0, overflowing: false }
    }

    /// Leaves a message for a thread of another reactor.
    pub(crate) fn send(&mut self, ports: &[Port], reactor: usize, envelope: Envelope) {
        let port = &ports[reactor];
        let target = self.targets[reactor]
            .get_or_insert_with(|| Target { route: Route::new(port.connect()), unsettled: false });
        if !target.route.send(self.turn, envelope) {
            self.overflowing = true;
        }
        // A full barrier for each message would cost more than the message: one at the end of the turn
        // serves all, and until then only a reactor that is just falling asleep is overlooked.
        if port.sleep.seems_asleep() {
            port.wake();
        } else if !std::mem::replace(&mut target.unsettled, true) {
            self.unsettled.push(reactor);
        }
    }

    /// Makes sure that no reactor sleeps over what was sent to it. To be called at the end of a turn, and
    /// before any sleep.
    pub(crate) fn settle(&mut self, ports: &[Port]) {
        self.turn = self.turn.wrapping_add(1);
        for reactor in self.unsettled.drain(..) {
            self.targets[reactor].iter_mut().for_each(|target| target.unsettled = false);
            ports[reactor].wake();
        }
    }

    /// Moves what waits for room into the rings; true if something is left.
    pub(crate) fn flush(&mut self, ports: &[Port]) -> bool {
        if !self.overflowing {
            return false;
        }
        self.overflowing = false;
        for (target, port) in self.targets.iter_mut().zip(ports) {
            let Some(target) = target.as_mut().filter(|target| target.route.is_waiting()) else { continue };
            self.overflowing |= !target.route.flush();
            port.wake();
        }
        self.overflowing
    }
}

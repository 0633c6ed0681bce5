//! Short turns: after a turn in which one thread had work, that thread goes on without the rest of a turn.
//!
//! Part of the reactor's loop. They end as soon as anything else needs the reactor, and after a bounded number.

use std::rc::Rc;

use crate::diagnosis::activity::CallKind;
use crate::local::Local;
use crate::local::current::Entered;
use crate::local::thread_core::{MESSAGES, ThreadCore};
use crate::mode::Mode;
use crate::reactor::Reactor;
use crate::shared::port::{Address, Rings};

/// Most short turns between two whole ones.
const SHORT_TURNS: usize = 8;

/// Most rounds of calls of idle pollers between two whole turns.
const SHORT_ROUNDS: u64 = 16;

impl Reactor {
    /// After a turn in which only one thread had work: continues with its messages in short turns, or with its
    /// pollers if they found nothing, until anything else needs attention. Whole turns for each eight messages, or
    /// for each round of idle pollers, would double the cost.
    pub(crate) fn go_on(&mut self) {
        let alone = self.alone.take().filter(|core| self.reaped.is_empty() && !core.ended.get());
        let Some(core) = alone else { return };
        if self.quick && core.has_only_messages() {
            self.go_on_with_messages(&core);
        } else if self.quick_rounds && self.was_idle && core.has_only_pollers() {
            self.go_on_polling(&core);
        }
    }

    fn go_on_with_messages(&mut self, core: &Rc<ThreadCore>) {
        let local = &self.local;
        let _on_thread = Entered::new(core);
        local.mark_alone(core);
        local.activity().enter(core.shared.id);
        for _ in 0..SHORT_TURNS {
            if is_called_away(local) || !core.has_only_messages() || !short_turn(core, &mut self.rings) {
                break;
            }
        }
        local.activity().begin(CallKind::Nothing, None);
    }

    /// Only on a reactor that stays awake in any case, and not in simulation, where each call is an event.
    fn go_on_polling(&mut self, core: &Rc<ThreadCore>) {
        if self.local.simulated || !(self.mode() == Mode::Poll || core.pollers.has_work()) {
            return;
        }
        let local = &self.local;
        let _on_thread = Entered::new(core);
        local.mark_alone(core);
        local.activity().enter(core.shared.id);
        for _ in 0..SHORT_ROUNDS {
            let goes_on = !is_called_away(local) && !self.rings.have_express() && core.has_only_pollers();
            if !goes_on {
                break;
            }
            self.rounds += 1;
            if core.pollers.run_active(&**core, local.now.get()) {
                self.to_account = true;
                self.last_work = local.now.get();
                self.was_idle = false;
                core.turns.count(true);
                local.turns.count(true);
                break;
            }
        }
        local.activity().begin(CallKind::Nothing, None);
    }
}

/// True if something besides the only thread with work needs the reactor.
#[inline]
fn is_called_away(local: &Local) -> bool {
    local.others_have_messages() || local.port().incoming.has_mail() || local.driver.borrow_mut().has_news()
}

/// A turn of the only thread with work, messages only: waiting ones, and as many directly from the rings.
/// True if there were any.
fn short_turn(core: &ThreadCore, rings: &mut Rings) -> bool {
    let (local, mut left) = (&core.local, MESSAGES);
    let waited = core.run_messages();
    let came = rings.take(MESSAGES, |front| {
        let to = Address::of_tag(front.tag());
        if left > 0 && core.is_at(to) && core.messages.borrow().is_empty() {
            left -= 1;
            core.run_message(&mut front.take());
        } else {
            local.enqueue(to, || front.take());
        }
        left > 0 && !local.others_have_messages()
    });
    if waited || came {
        core.turns.count(true);
        local.turns.count(true);
    }
    waited || came
}

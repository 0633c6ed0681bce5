//! What runtime to build: cores, engine, mode, and what happens when something goes wrong.

use std::sync::Arc;
use std::time::Duration;

use spindle_engine::sim::World;
use spindle_engine::{AvailableCores, BadCpuSet, CpuSet, ENGINE_VARIABLE, Engine, EngineKind};

use crate::error::BuildError;
use crate::mode::Mode;
use crate::runtime::Runtime;
use crate::say::{Reporter, Reports};
use crate::shared::lock_state::LockAction;
use crate::shared::{Settings, Shared};

/// The most reactors that a runtime may have. Each pair has two rings.
const MOST_REACTORS: usize = 1024;

/// Configures a runtime.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    cores: Option<Result<CpuSet, BadCpuSet>>,
    reactors: Option<usize>,
    engine: Option<EngineKind>,
    world: Option<World>,
    settings: Settings,
}

impl Builder {
    /// The cores that get a reactor each: as SPDK writes them ("0x3" or "[0,2-4]"), or as values (`0..2`, `[0, 3]`,
    /// `1`, a [`CpuSet`]). A core that this process may not run on is an error. Default: the cores that affinity and
    /// cgroup quota together allow. A simulated machine has all cores that are asked for.
    pub fn cores(mut self, cores: impl TryInto<CpuSet, Error: Into<BadCpuSet>>) -> Builder {
        self.cores = Some(cores.try_into().map_err(Into::into));
        self
    }

    /// The number of reactors, 1024 at most, on the given [`cores`](Self::cores) or the default ones. More
    /// reactors than cores share them, starting again from the lowest; fewer use the lowest. A simulated
    /// machine without given cores has one for each.
    pub fn reactors(mut self, count: usize) -> Builder {
        self.reactors = Some(count);
        self
    }

    /// The engine; default: the one in `SPINDLE_ENGINE`, or io_uring, or epoll where that is missing.
    pub fn engine(mut self, kind: EngineKind) -> Builder {
        self.engine = Some(kind);
        self
    }

    /// Runs in a simulated world that the caller also holds.
    pub fn world(mut self, world: World) -> Builder {
        self.world = Some(world);
        self
    }

    /// What a reactor does when it has nothing to do.
    pub fn mode(mut self, mode: Mode) -> Builder {
        self.settings.mode = mode;
        self
    }

    /// What happens when a [`Lock`](crate::Lock) finds a mistake; default: a panic at that place.
    pub fn on_lock_fault(mut self, action: LockAction) -> Builder {
        self.settings.lock_action = action;
        self
    }

    /// Whether taking [`Lock`](crate::Lock)s in contradicting orders is a fault, code 2, even if nothing
    /// hangs this time. Default: in debug builds. A circle of waits is a fault in every build.
    pub fn check_lock_order(mut self, check: bool) -> Builder {
        self.settings.lock_order = check;
        self
    }

    /// How long one call of a task, poller or message may hold a reactor before it is reported, on standard
    /// error and by [`Handle::stalls`](crate::Handle::stalls): 10 ms by default, at least 1 ms. `None` turns
    /// the watchdog off. In simulation nothing takes time, and there is no watchdog.
    pub fn watchdog(mut self, limit: Option<Duration>) -> Builder {
        self.settings.watchdog = limit;
        self
    }

    /// Where reports go: panics, stalls, what a stop waits for, dumps, and what parts do ([`tell`](crate::tell)). Default: the
    /// first ones to standard error, the last nowhere.
    pub fn reporter(mut self, reporter: Arc<dyn Reporter>) -> Builder {
        self.settings.reports = Reports::to(reporter);
        self
    }

    /// Checks everything that can be checked before a thread starts.
    ///
    /// # Errors
    /// [`BuildError`] names what is wrong and what is available.
    pub fn build(self) -> Result<Runtime, BuildError> {
        let engine = match self.world {
            Some(world) => Engine::simulated(world),
            None => Engine::open(match self.engine {
                Some(kind) => kind,
                None => engine_from_environment()?,
            })?,
        };
        let cores = if engine.world().is_some() {
            simulated_cores(self.cores.transpose()?, self.reactors)
        } else {
            real_cores(self.cores.transpose()?, self.reactors, &spindle_engine::available_cores())
        }?;
        Ok(Runtime { shared: Shared::new(cores, self.settings), engine })
    }
}

fn engine_from_environment() -> Result<EngineKind, BuildError> {
    match std::env::var(ENGINE_VARIABLE) {
        Ok(word) if !word.is_empty() => Ok(word.parse()?),
        _ => Ok(EngineKind::Auto),
    }
}

/// A simulated machine has the cores that are asked for, or one for each reactor; two by default.
fn simulated_cores(asked: Option<CpuSet>, reactors: Option<usize>) -> Result<Vec<usize>, BuildError> {
    spread(asked.unwrap_or_else(|| CpuSet::first(reactors.unwrap_or(2))), reactors)
}

fn real_cores(
    asked: Option<CpuSet>,
    reactors: Option<usize>,
    available: &AvailableCores,
) -> Result<Vec<usize>, BuildError> {
    let Some(asked) = asked else { return spread(available.set, reactors) };
    let missing: Vec<usize> = asked.iter().filter(|core| !available.affinity.contains(*core)).collect();
    if missing.is_empty() {
        return spread(asked, reactors);
    }
    Err(BuildError::NotAvailable {
        missing: missing.into_iter().collect::<CpuSet>().as_list(),
        available: available.affinity.as_list(),
        limits: available.reasons.join("; "),
    })
}

/// One reactor a core, or as many as asked for, the lowest cores first and around again.
fn spread(cores: CpuSet, reactors: Option<usize>) -> Result<Vec<usize>, BuildError> {
    let count = reactors.unwrap_or(cores.len());
    if cores.is_empty() || count == 0 {
        return Err(BuildError::NoCore { available: spindle_engine::available_cores().affinity.as_list() });
    }
    if count > MOST_REACTORS {
        return Err(BuildError::TooManyReactors { asked: count, most: MOST_REACTORS });
    }
    let cores: Vec<usize> = cores.iter().collect();
    Ok(cores.into_iter().cycle().take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose process may run on cores 0 to 3, with a quota for two.
    fn machine() -> AvailableCores {
        let reasons = vec!["affinity allows [0-3] (4 cores)".to_owned()];
        AvailableCores { set: CpuSet::first(2), affinity: CpuSet::first(4), quota: Some(2.0), reasons }
    }

    fn set(list: &str) -> Option<CpuSet> {
        Some(list.parse().unwrap())
    }

    #[test]
    fn reactors_go_on_the_cores_that_were_listed_and_around_again() {
        type Spread = fn(Option<CpuSet>, Option<usize>) -> Result<Vec<usize>, BuildError>;
        let both: [Spread; 2] = [|asked, count| real_cores(asked, count, &machine()), simulated_cores];
        for spread in both {
            let spread = |asked, count| spread(asked, count).unwrap();
            assert_eq!(spread(set("[1,3]"), None), [1, 3]);
            assert_eq!(spread(set("[1,3]"), Some(1)), [1]);
            assert_eq!(spread(set("[1,3]"), Some(5)), [1, 3, 1, 3, 1]);
            assert_eq!(spread(None, None), [0, 1]);
        }
        assert_eq!(real_cores(None, Some(3), &machine()).unwrap(), [0, 1, 0], "shared");
        assert_eq!(simulated_cores(None, Some(3)).unwrap(), [0, 1, 2], "one for each");
    }

    #[test]
    fn more_reactors_than_can_be_of_use_are_an_error_before_anything_is_made() {
        for count in [MOST_REACTORS + 1, usize::MAX] {
            for spread in [real_cores(None, Some(count), &machine()), simulated_cores(None, Some(count))] {
                let error = spread.unwrap_err().to_string();
                assert!(error.contains(&count.to_string()) && error.contains("at most 1024"), "{error}");
            }
        }
        assert_eq!(real_cores(None, Some(MOST_REACTORS), &machine()).unwrap().len(), MOST_REACTORS);
    }

    #[test]
    fn a_core_that_is_missing_is_an_error_that_says_which_there_are_however_many_reactors() {
        for count in [None, Some(1), Some(3)] {
            let error = real_cores(set("[2,5,7]"), count, &machine()).unwrap_err().to_string();
            for words in ["cores [5,7] cannot be used", "[0-3]", "leave the list out"] {
                assert!(error.contains(words), "{words}: {error}");
            }
        }
        assert_eq!(simulated_cores(set("[2,500]"), None).unwrap(), [2, 500], "whatever is asked for");
    }
}

//! Modules look at every bdev once, whatever came first.

use std::sync::{Arc, Mutex};

use spindle_bdev::{Bdev, ClaimType, DescOptions, LocalFuture, Module, Registry};

use crate::support::{malloc, simulated};

/// Notes down what it sees.
#[derive(Default)]
struct Looker {
    name: &'static str,
    seen: Mutex<Vec<String>>,
    /// Claims what it sees, for good.
    claims: bool,
    panics: bool,
}

impl Module for Looker {
    fn name(&self) -> &'static str {
        self.name
    }

    fn examine(&self, bdev: Bdev) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            for _ in 0..3 {
                spindle_reactor::yield_now().await;
            }
            self.seen.lock().unwrap().push(bdev.name().to_owned());
            if self.claims {
                let desc = bdev.descriptor(DescOptions::new()).unwrap();
                desc.claim(ClaimType::ReadManyWriteNone, "a looker", self.name).unwrap();
                std::mem::forget(desc);
            }
            assert!(!self.panics, "this module panics when it looks");
        })
    }
}

fn looker(name: &'static str) -> Arc<Looker> {
    Arc::new(Looker { name, ..Looker::default() })
}

fn sorted(looker: &Looker) -> Vec<String> {
    let mut seen = looker.seen.lock().unwrap().clone();
    seen.sort();
    seen
}

#[test]
fn bdevs_before_and_after_a_module_are_seen_once_each() {
    simulated(async |registry| {
        let first = looker("first");
        registry.add_module(first.clone()).await.unwrap();
        malloc(&registry, "M0").await;
        let second = looker("second");
        registry.add_module(second.clone()).await.unwrap();
        registry.add_module(second.clone()).await.unwrap();
        malloc(&registry, "M1").await;
        registry.wait_for_examine().await;
        assert_eq!(sorted(&first), ["M0", "M1"]);
        assert_eq!(sorted(&second), ["M0", "M1"]);
        assert_eq!(registry.notifications(0, 9).len(), 2, "each is announced once");
    });
}

#[test]
fn what_one_module_claims_the_others_do_not_look_at() {
    simulated(async |registry| {
        let claims = Arc::new(Looker { name: "claims", claims: true, ..Looker::default() });
        let other = looker("other");
        registry.add_module(claims).await.unwrap();
        registry.add_module(other.clone()).await.unwrap();
        let bdev = malloc(&registry, "M0").await;
        bdev.examined().await;
        assert_eq!(sorted(&other), Vec::<String>::new());
    });
}

#[test]
fn a_module_that_panics_ends_its_own_look_only() {
    simulated(async |registry| {
        let panics = Arc::new(Looker { name: "panics", panics: true, ..Looker::default() });
        let other = looker("other");
        registry.add_module(panics).await.unwrap();
        registry.add_module(other.clone()).await.unwrap();
        malloc(&registry, "M0").await;
        registry.wait_for_examine().await;
        assert_eq!(sorted(&other), ["M0"]);
    });
}

#[test]
fn without_auto_examine_only_named_bdevs_are_seen_now_or_when_they_come() {
    simulated(async |registry: Registry| {
        let looker = looker("looker");
        registry.add_module(looker.clone()).await.unwrap();
        assert_eq!(registry.examine("M0").await.unwrap_err().errno(), 22, "all are seen anyway");
        registry.set_auto_examine(false);
        for name in ["M0", "M1"] {
            malloc(&registry, name).await;
        }
        registry.examine("M1").await.unwrap();
        registry.examine("M2").await.unwrap();
        assert_eq!(registry.examine("M2").await.unwrap_err().errno(), 17);
        malloc(&registry, "M2").await;
        registry.wait_for_examine().await;
        assert_eq!(sorted(&looker), ["M1", "M2"]);
    });
}

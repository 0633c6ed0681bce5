//! The listed differences: what we answer instead, and under which heading the reason stands.
//!
//! The file `differences` has one a line:
//!
//! ```text
//! SCENARIO STEP[,STEP...] HEADING ANSWER   the answer instead: JSON, or * for whatever it is, or = for the recorded one
//!                                          where only the state is another
//! SCENARIO partial        HEADING          steps with methods that are not there are left out
//! SCENARIO skip           HEADING          not replayed
//! SCENARIO absent         HEADING NAME ... bdevs, stores and volumes that are not there, in the states after a step
//! SCENARIO present        HEADING NAME ... those that are there and should not be
//! METHOD   more           HEADING NAME ... members that our answers to a method have besides
//! ```
//! After a step with another answer the state is not compared.

use std::collections::BTreeSet;
use std::sync::Mutex;

use spindle_rpc::Value;

use super::fixture::{self, Scenario};

struct Line {
    text: String,
    scenario: String,
    what: What,
    heading: String,
    used: Mutex<bool>,
}

enum What {
    Answer(Vec<u64>, Option<Value>),
    State(Vec<u64>),
    Partial,
    Skip,
    Absent(Vec<String>),
    Present(Vec<String>),
    More(Vec<String>),
}

pub struct Differences(Vec<Line>);

/// What is expected of a step instead.
pub enum Instead<'a> {
    /// As recorded.
    Nothing,
    /// This answer.
    Answer(&'a Value),
    /// Whatever comes.
    Anything,
}

impl Differences {
    pub fn read() -> Differences {
        let lines = include_str!("differences").lines();
        Differences(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Line::read).collect())
    }

    fn of<'a>(&'a self, scenario: &'a str) -> impl Iterator<Item = &'a Line> {
        self.0.iter().filter(move |line| line.scenario == scenario)
    }

    pub fn replays(&self, scenario: &Scenario, methods: &BTreeSet<String>) -> bool {
        if self.of(&scenario.name).any(|line| matches!(line.what, What::Skip)) {
            return false;
        }
        scenario.missing(methods).is_empty() || self.is_partial(&scenario.name)
    }

    pub fn is_partial(&self, scenario: &str) -> bool {
        self.of(scenario).any(|line| matches!(line.what, What::Partial))
    }

    pub fn instead(&self, scenario: &str, step: u64) -> Instead<'_> {
        let found = self.0.iter().find(|line| {
            line.scenario == scenario && matches!(&line.what, What::Answer(steps, _) if steps.contains(&step))
        });
        match found.map(|line| (line, &line.what)) {
            Some((line, What::Answer(_, answer))) => {
                *line.used.lock().unwrap() = true;
                answer.as_ref().map_or(Instead::Anything, Instead::Answer)
            }
            _ => Instead::Nothing,
        }
    }

    /// Whether the state after a step is another, although the answer is not.
    pub fn is_other_state(&self, scenario: &str, step: u64) -> bool {
        let other = |line: &&Line| matches!(&line.what, What::State(steps) if steps.contains(&step));
        let found = self.of(scenario).find(other);
        found.inspect(|line| *line.used.lock().unwrap() = true).is_some()
    }

    /// Whether an object of that name is not there with us.
    pub fn is_absent(&self, scenario: &str, name: &str) -> bool {
        let absent =
            |line: &&Line| matches!(&line.what, What::Absent(names) if names.iter().any(|n| n == name));
        let found = self.of(scenario).find(absent);
        found.inspect(|line| *line.used.lock().unwrap() = true).is_some()
    }

    /// Whether an object of that name is there with us only.
    pub fn is_present(&self, scenario: &str, name: &str) -> bool {
        let present =
            |line: &&Line| matches!(&line.what, What::Present(names) if names.iter().any(|n| n == name));
        let found = self.of(scenario).find(present);
        found.inspect(|line| *line.used.lock().unwrap() = true).is_some()
    }

    /// An answer to a method without the members that SPDK's answers do not have.
    pub fn without_more(&self, method: &str, mut answer: Value) -> Value {
        for line in self.of(method) {
            if let What::More(names) = &line.what
                && remove_members(&mut answer, names)
            {
                *line.used.lock().unwrap() = true;
            }
        }
        answer
    }

    /// Lines that no step met.
    pub fn unused(&self) -> Vec<String> {
        let counts = |line: &&Line| !matches!(line.what, What::Partial | What::Skip);
        let unused = self.0.iter().filter(counts).filter(|line| !*line.used.lock().unwrap());
        unused.map(|line| format!("a listed difference that is not met: {}", line.text)).collect()
    }

    /// Headings that docs/differences.md lacks.
    pub fn unexplained(&self) -> Vec<String> {
        let text = std::fs::read_to_string(crate::root().join("docs/differences.md")).unwrap();
        let headings: BTreeSet<String> = text
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
            .collect();
        let named: BTreeSet<&String> = self.0.iter().map(|line| &line.heading).collect();
        named.into_iter().filter(|heading| !headings.contains(*heading)).cloned().collect()
    }
}

impl Line {
    fn read(text: &str) -> Line {
        let (scenario, rest) = word(text);
        let (what, rest) = word(rest);
        let (heading, rest) = word(rest);
        let what = match what {
            "partial" => What::Partial,
            "skip" => What::Skip,
            "present" => What::Present(words(rest)),
            "absent" => What::Absent(words(rest)),
            "more" => What::More(words(rest)),
            steps => {
                let steps = steps.split(',').map(|step| step.parse().unwrap()).collect();
                match rest {
                    "=" => What::State(steps),
                    rest => What::Answer(steps, (rest != "*").then(|| fixture::parse(rest))),
                }
            }
        };
        let (scenario, heading) = (scenario.to_owned(), heading.to_owned());
        Line { text: text.to_owned(), scenario, what, heading, used: Mutex::new(false) }
    }
}

/// Removes members of these names at any depth; true if there was one.
fn remove_members(value: &mut Value, names: &[String]) -> bool {
    match value {
        Value::Object(members) => {
            let before = members.len();
            members.retain(|(name, _)| !names.contains(name));
            let found = members.len() < before;
            members.iter_mut().fold(found, |found, (_, value)| remove_members(value, names) || found)
        }
        Value::Array(values) => {
            // All of them, not up to the first.
            values.iter_mut().filter_map(|value| remove_members(value, names).then_some(())).count() > 0
        }
        _ => false,
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.trim_start().split_once(' ').unwrap_or((text.trim_start(), ""));
    (word, rest.trim_start())
}

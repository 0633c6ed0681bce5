//! An answer beside the recorded one: placeholders, shapes, texts whose first words count.

use std::collections::BTreeMap;

use spindle_rpc::{Value, to_json};

/// What the placeholders of a scenario stand for.
#[derive(Clone, Default)]
pub struct Bindings {
    uuids: BTreeMap<String, String>,
    /// File names and their paths.
    pub files: BTreeMap<String, String>,
}

/// Where two values part.
pub type Compared = Result<(), String>;

impl Bindings {
    /// A text of a request with what its placeholders stand for.
    pub fn fill(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        for (name, uuid) in &self.uuids {
            filled = filled.replace(&format!("<uuid:{name}>"), uuid);
        }
        while let Some((before, rest)) = filled.split_once("<UPPER:") {
            let (inner, after) = rest.split_once('>').unwrap();
            filled = format!("{before}{}{after}", inner.to_uppercase());
        }
        for (name, path) in self.files.iter().rev() {
            filled = filled.replace(name, path);
        }
        filled
    }

    /// A value of a request with what its placeholders stand for.
    pub fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(elements) => {
                Value::Array(elements.iter().map(|value| self.fill_value(value)).collect())
            }
            Value::Object(members) => {
                let filled = members.iter().map(|(name, value)| (self.fill(name), self.fill_value(value)));
                Value::Object(filled.collect())
            }
            other => other.clone(),
        }
    }

    /// Compares, and notes what placeholders stand for that are met for the first time.
    pub fn compare(&mut self, expected: &Value, found: &Value) -> Compared {
        match (expected, found) {
            (Value::String(wanted), found) => self.compare_text(wanted, found),
            (Value::Array(wanted), Value::Array(got)) => {
                if wanted.len() != got.len() {
                    return Err(format!("{} elements, not {}", got.len(), wanted.len()));
                }
                let pairs = wanted.iter().zip(got).enumerate();
                pairs.into_iter().try_for_each(|(at, (wanted, got))| {
                    self.compare(wanted, got).map_err(|what| format!("[{at}] {what}"))
                })
            }
            (Value::Object(wanted), Value::Object(got)) => {
                // There with us only: for a moment after a deletion, and after a failed write.
                let ours = ["clearing_bytes", "refuses_changes"];
                let got: Vec<_> =
                    got.iter().filter(|(name, _)| !ours.contains(&name.as_str())).cloned().collect();
                let names = |members: &[(String, Value)]| -> Vec<String> {
                    members.iter().map(|(name, _)| name.clone()).collect()
                };
                if names(wanted) != names(&got) {
                    let (got, wanted) = (names(&got), names(wanted));
                    let missing: Vec<_> = wanted.iter().filter(|name| !got.contains(name)).collect();
                    let more: Vec<_> = got.iter().filter(|name| !wanted.contains(name)).collect();
                    return Err(format!(
                        "has other members: {missing:?} missing, {more:?} more, or another order"
                    ));
                }
                wanted.iter().zip(&got).try_for_each(|((name, wanted), (_, got))| {
                    // Recorded in order of the names; both servers have another.
                    let got = if name == "clones" { &sorted(got) } else { got };
                    match (wanted, got) {
                        // A reason: its first words count, as in the message of an error.
                        (Value::String(words), Value::String(text))
                            if name == "error" && text.starts_with(words.as_str()) =>
                        {
                            Ok(())
                        }
                        _ => self.compare(wanted, got).map_err(|what| format!(".{name} {what}")),
                    }
                })
            }
            (wanted, got) if wanted == got => Ok(()),
            (wanted, got) => Err(format!("{}, not {}", json(got), json(wanted))),
        }
    }

    fn compare_text(&mut self, wanted: &str, found: &Value) -> Compared {
        let unlike = || Err(format!("{}, not {}", json(found), wanted));
        match (wanted, found) {
            ("<int>", Value::Number(_))
            | ("<version>", Value::Object(_))
            | ("<methods>", Value::Array(_)) => Ok(()),
            (wanted, Value::Number(got)) if wanted.strip_prefix("<number ") == Some(&format!("{got}>")) => {
                Ok(())
            }
            (wanted, Value::String(got)) if is_long(wanted, got) => Ok(()),
            (wanted, Value::String(got)) => {
                if let Some(name) = wanted.strip_prefix("<uuid:").and_then(|rest| rest.strip_suffix('>')) {
                    let known = self.uuids.entry(name.to_owned()).or_insert_with(|| got.clone());
                    return if known == got { Ok(()) } else { unlike() };
                }
                if self.fill(wanted) == *got { Ok(()) } else { unlike() }
            }
            _ => unlike(),
        }
    }

    /// Compares an error: the code, and the first words of the message.
    pub fn compare_error(&self, expected: &Value, found: &Value) -> Compared {
        let unlike = || Err(format!("error {}, not {}", json(found), json(expected)));
        let (Some(Value::String(words)), Some(Value::String(message))) =
            (expected.get("message"), found.get("message"))
        else {
            return unlike();
        };
        let words = self.fill(words);
        let same = expected.get("code") == found.get("code") && message.starts_with(&words);
        if same { Ok(()) } else { unlike() }
    }

    /// Compares lists whose order does not count; the remaining ones of both.
    pub fn compare_unordered(&mut self, expected: &[Value], found: &[Value]) -> Compared {
        let mut left: Vec<&Value> = found.iter().collect();
        for wanted in expected {
            let mut nearest = None;
            let place = left.iter().position(|got| {
                let mut trial = self.clone();
                match trial.compare(wanted, got) {
                    Ok(()) => {
                        *self = trial;
                        true
                    }
                    Err(what) => {
                        if same_name(wanted, got) {
                            nearest = Some(what);
                        }
                        false
                    }
                }
            });
            match (place, nearest) {
                (Some(place), _) => drop(left.remove(place)),
                (None, Some(what)) => return Err(format!("{}: {what}", named(wanted))),
                (None, None) => {
                    return Err(format!("{} is missing among {:?}", named(wanted), all_named(&left)));
                }
            }
        }
        if left.is_empty() { Ok(()) } else { Err(format!("{:?} should not be there", all_named(&left))) }
    }
}

fn sorted(value: &Value) -> Value {
    let Value::Array(elements) = value else { return value.clone() };
    let mut elements = elements.clone();
    elements.sort_by_key(json);
    Value::Array(elements)
}

/// Compares a value with names and types.
pub fn compare_shape(shape: &Value, found: &Value) -> Compared {
    let unlike = || Err(format!("{}, not of the shape {}", json(found), json(shape)));
    match (shape, found) {
        (Value::String(kind), found) => {
            let fits = match found {
                Value::String(_) => kind == "<string>",
                Value::Number(_) => kind == "<int>" || kind == "<number>",
                Value::Bool(_) => kind == "<bool>",
                _ => false,
            };
            if fits { Ok(()) } else { unlike() }
        }
        // Each element has one of the shapes.
        (Value::Array(shapes), Value::Array(elements)) => {
            let fits = |element: &Value| shapes.iter().any(|shape| compare_shape(shape, element).is_ok());
            if elements.iter().all(fits) { Ok(()) } else { unlike() }
        }
        (Value::Object(wanted), Value::Object(got)) => match &wanted[..] {
            [(star, kind)] if star == "*" => got.iter().try_for_each(|(_, value)| compare_shape(kind, value)),
            _ if wanted.len() != got.len() => unlike(),
            _ => wanted.iter().zip(got).try_for_each(|((name, shape), (other, value))| {
                if name == other { compare_shape(shape, value) } else { unlike() }
            }),
        },
        _ => unlike(),
    }
}

/// Whether a text stands for a longer one by its length and hash.
fn is_long(wanted: &str, got: &str) -> bool {
    let digest = ring::digest::digest(&ring::digest::SHA256, got.as_bytes());
    let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    wanted == format!("<{} characters, sha256 {hash}>", got.chars().count())
}

fn alias(value: &Value) -> Option<String> {
    match value.get("aliases") {
        Some(Value::Array(aliases)) => aliases.iter().find_map(|alias| match alias {
            Value::String(alias) if alias.contains('/') => Some(alias.clone()),
            _ => None,
        }),
        _ => None,
    }
}

/// What a person calls it: the alias of a volume, the name of anything else.
pub fn named(value: &Value) -> String {
    let name = ["alias", "name"].iter().find_map(|member| super::fixture::text(value, member));
    alias(value).or(name).unwrap_or_else(|| json(value))
}

fn all_named(values: &[&Value]) -> Vec<String> {
    values.iter().map(|value| named(value)).collect()
}

fn same_name(a: &Value, b: &Value) -> bool {
    named(a) == named(b)
}

pub fn json(value: &Value) -> String {
    let text = to_json(value).unwrap();
    if text.len() > 600 { format!("{}...", text.chars().take(600).collect::<String>()) } else { text }
}

//! SPDK's `--lcores`: a list of cores, where each may be followed by the CPUs that it runs on.
//!
//! Here a core has one number, the CPU's. So a list that gives a core other CPUs than its own is refused.

use spindle_engine::CpuSet;

/// Reads `0,2-4`, `(0-3)`, `0@0,(1,2)@(1,2)`.
pub(super) fn parse(text: &str) -> Result<CpuSet, String> {
    let mut cores = CpuSet::new();
    for item in items(text) {
        let (own, on) = match item.split_once('@') {
            Some((own, on)) => (set(own)?, Some(set(on)?)),
            None => (set(item)?, None),
        };
        if let Some(on) = on.filter(|on| *on != own) {
            let on = on.as_list();
            return Err(format!(
                "{item}: a core has the number of its CPU here; write {}",
                on.trim_matches(['[', ']'])
            ));
        }
        cores = cores | own;
    }
    Ok(cores)
}

/// The parts between commas that are not in parentheses.
fn items(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |character| {
        depth += i32::from(character == '(') - i32::from(character == ')');
        character == ',' && depth == 0
    })
}

/// A number, a range, or several of them in parentheses.
fn set(text: &str) -> Result<CpuSet, String> {
    let inner = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(text);
    format!("[{inner}]").parse().map_err(|_| {
        format!(
            "'{text}' is no core or range of cores up to {}; write a list such as 0,2-4",
            spindle_engine::MAX_CPUS - 1
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_as_spdk_takes_it_is_a_set_of_cores() {
        for (text, list) in [
            ("0", "[0]"),
            ("0@0", "[0]"),
            ("0,2-4", "[0,2-4]"),
            ("(0-3)@(0-3),7", "[0-3,7]"),
            ("1@1,(2,3)@(2-3)", "[1-3]"),
            ("10", "[10]"),
        ] {
            assert_eq!(parse(text).map(|set| set.as_list()).as_deref(), Ok(list), "{text}");
        }
    }

    #[test]
    fn a_core_on_another_cpu_and_what_is_no_list_are_refused_with_the_remedy() {
        for (text, says) in [
            ("0@4", "write 4"),
            ("0,(1-2)@(5-6)", "write 5-6"),
            ("", "such as 0,2-4"),
            ("0x3", "such as 0,2-4"),
            ("[0]", "such as 0,2-4"),
            ("(0", "such as 0,2-4"),
            ("0,", "such as 0,2-4"),
            ("0@", "such as 0,2-4"),
            ("1024", "up to 1023"),
        ] {
            assert!(parse(text).is_err_and(|error| error.contains(says)), "{text}: {:?}", parse(text));
        }
    }
}

//! The memory nodes of this machine: those with cores, as DPDK counts them for SPDK.

/// Where the kernel lists them.
const WITH_CORES: &str = "/sys/devices/system/node/has_cpu";

/// Whether the machine has the node. Node 0 is there also where the kernel knows no nodes.
pub(crate) fn exists(node: u16) -> bool {
    // The kernel makes it in memory: reading it waits for nothing.
    node == 0 || std::fs::read_to_string(WITH_CORES).is_ok_and(|text| lists(&text, node))
}

/// Whether a text such as `0-1,4` has the number.
fn lists(text: &str, node: u16) -> bool {
    text.trim().split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = (first.parse::<u16>(), last.parse::<u16>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&node))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_listed_as_numbers_and_ranges() {
        let listed = |text: &str| -> Vec<u16> { (0..9).filter(|node| lists(text, *node)).collect() };
        assert_eq!(listed("0\n"), [0]);
        assert_eq!(listed("0-2,4,6-7\n"), [0, 1, 2, 4, 6, 7]);
        assert_eq!(listed("\n"), [0; 0]);
        assert_eq!(listed("a,2-,-3"), [0; 0]);
    }

    #[test]
    fn a_machine_has_node_0_and_not_all_nodes() {
        assert!(exists(0));
        assert!(!exists(u16::MAX));
    }
}

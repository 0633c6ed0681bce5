//! The page of all methods, and the tests that drove them.

use std::path::PathBuf;

use spindle_control::{methods, reference};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_page_of_methods_says_what_the_table_has() {
    let (page, path) = (reference(), root().join("docs/rpc.md"));
    if std::env::var_os("SPINDLE_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/rpc.md is not what the table says: run this with SPINDLE_WRITE_REFERENCE=1"
    );
}

#[test]
fn every_method_of_spdk_that_is_here_was_driven_by_a_client_of_spdk() {
    let table = methods::table();
    let missing: Vec<&str> = table
        .methods()
        .filter(|method| method.driven_by().is_none())
        .map(|method| method.name())
        .filter(|name| !name.starts_with("nbd_"))
        .collect();
    assert!(missing.is_empty(), "no test with SPDK's client drives {missing:?}");
}

#[test]
fn a_test_that_drove_a_method_is_there() {
    let tests =
        std::fs::read_to_string(root().join("crates/command/tests/all/daemon/spdk_client.rs")).unwrap();
    for method in methods::table().methods() {
        if let Some(test) = method.driven_by() {
            assert!(tests.contains(&format!("fn {test}()")), "{}: {test}", method.name());
        }
    }
}

#[test]
fn the_page_counts_all_methods_of_spdk() {
    assert!(reference().contains("Of SPDK's 296 methods"));
}

#[test]
fn every_method_of_what_is_here_is_done_or_refused() {
    // The modules and parts that are here, by the beginnings of their methods.
    const HERE: [&str; 27] = [
        "framework_",
        "thread_",
        "scheduler_",
        "iobuf_",
        "log_",
        "notify_",
        "rpc_",
        "sock_",
        "spdk_",
        "trace_",
        "keyring_file_",
        "keyring_get_",
        "bdev_aio_",
        "bdev_delay_",
        "bdev_enable_",
        "bdev_error_",
        "bdev_examine",
        "bdev_get_",
        "bdev_lvol_",
        "bdev_malloc_",
        "bdev_null_",
        "bdev_passthru_",
        "bdev_reset_",
        "bdev_set_",
        "bdev_split_",
        "bdev_uring_",
        "bdev_wait_",
    ];
    let page = reference();
    let absent: Vec<&str> = page.lines().filter(|line| line.contains("| not yet:")).collect();
    assert!(absent.len() > 100);
    let of_what_is_here = absent.iter().filter(|line| HERE.iter().any(|name| line[2..].starts_with(name)));
    assert_eq!(of_what_is_here.collect::<Vec<_>>(), [&""; 0]);
}

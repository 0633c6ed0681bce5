//! Answers that were compared with SPDK's: the same calls in the same order, sent to both.

use std::path::Path;

use serde_json::{Value, json};
use spindle_control::{Daemon, DaemonOptions, methods};
use spindle_engine::sim::World;
use spindle_reactor::Runtime;
use spindle_rpc::{Client, ClientError};

const RPC: &str = "rpc.sock";

/// What a call is answered with.
enum Is {
    /// Success, with this result.
    Result(Value),
    /// Success, with a result that has these members among others.
    With(Value),
    Done,
    Refused(i32, &'static str),
}
use Is::{Done, Refused, Result as Gives, With};

fn yes() -> Is {
    Gives(json!(true))
}

/// Starts a daemon, makes the calls, and compares.
fn dialogue(wait_for_rpc: bool, calls: Vec<(&'static str, Value, Is)>) {
    let main = async move || {
        let options =
            DaemonOptions { rpc_socket: Some(RPC.into()), wait_for_rpc, ..DaemonOptions::default() };
        let daemon = Daemon::start(options, methods::table()).await.unwrap();
        let mut client = Client::connect(Path::new(RPC)).await.unwrap();
        for (method, params, is) in calls {
            let text = (!params.is_null()).then(|| params.to_string());
            let found = match client.call(method, text.as_deref()).await {
                Ok(found) => Ok(serde_json::to_value(found).unwrap()),
                Err(ClientError::Answer(error)) => Err((error.code, error.message)),
                Err(other) => panic!("{method} {params}: {other:?}"),
            };
            let same = match (&is, &found) {
                (Gives(expected), Ok(found)) => expected == found,
                (With(expected), Ok(found)) => has(found, expected),
                (Done, Ok(_)) => true,
                (Refused(code, words), Err((found, message))) => code == found && message.starts_with(words),
                _ => false,
            };
            assert!(same, "{method} {params}: {found:?}");
        }
        daemon.stop().await;
    };
    Runtime::builder().world(World::new(7)).reactors(1).build().unwrap().run(main).unwrap();
}

/// Whether all members of `expected` are in `found`.
fn has(found: &Value, expected: &Value) -> bool {
    match expected {
        Value::Object(members) => members.iter().all(|(name, value)| has(&found[name], value)),
        Value::Array(values) => {
            found.as_array().is_some_and(|found| found.len() == values.len())
                && values.iter().enumerate().all(|(place, value)| has(&found[place], value))
        }
        value => found == value,
    }
}

fn malloc(name: &str, mib: u64) -> (&'static str, Value, Is) {
    ("bdev_malloc_create", json!({"name": name, "num_blocks": mib << 11, "block_size": 512}), Done)
}

#[test]
fn a_period_is_set_before_the_scheduler_is_looked_up_and_shown_until_the_next_balancing_round() {
    const HOUR: u64 = 3_600_000_000;
    let set = |params, is| ("framework_set_scheduler", params, is);
    let period =
        |period: u64| ("framework_get_scheduler", json!(null), With(json!({"scheduler_period": period})));
    let none = || Refused(-32603, "Unknown error -22");
    dialogue(
        false,
        vec![
            period(0),
            // The first round comes at once.
            set(json!({"name": "nosuch", "period": HOUR}), none()),
            period(0),
            set(json!({"name": "static"}), yes()),
            period(1_000_000),
            set(json!({"name": "static", "period": HOUR}), yes()),
            set(json!({"name": "static"}), yes()),
            set(json!({"name": "static", "period": 0}), yes()),
            period(HOUR),
            set(json!({"name": "static", "period": 2 * HOUR, "mappings": "nosuch"}), none()),
            period(2 * HOUR),
            (
                "framework_get_config",
                json!({"name": "scheduler"}),
                With(json!([{"params": {"name": "static", "period": 2 * HOUR}}])),
            ),
        ],
    );
}

#[test]
fn a_scheduler_that_is_chosen_before_the_start_forgets_an_earlier_period() {
    const HOUR: u64 = 3_600_000_000;
    let set = |params, is| ("framework_set_scheduler", params, is);
    let shows = |scheduler| ("framework_get_scheduler", json!(null), Gives(scheduler));
    let unset =
        |period: u64| json!({"scheduler_period": period, "isolated_core_mask": "0", "scheduling_core": 0});
    let chosen = |period: u64| {
        let (name, mask) = ("static", "0");
        json!({"scheduler_name": name, "scheduler_period": period, "isolated_core_mask": mask, "scheduling_core": 0})
    };
    let start = || ("framework_start_init", json!(null), yes());
    dialogue(
        true,
        vec![
            shows(unset(0)),
            set(json!({"name": "nosuch", "period": 9}), Refused(-32603, "Unknown error -22")),
            shows(unset(9)),
            set(json!({"name": "static", "period": HOUR}), yes()),
            shows(chosen(0)),
            set(json!({"name": "static", "period": HOUR}), yes()),
            start(),
            shows(chosen(HOUR)),
        ],
    );
    dialogue(
        true,
        vec![
            set(json!({"name": "nosuch", "period": HOUR}), Refused(-32603, "Unknown error -22")),
            start(),
            shows(chosen(0)),
        ],
    );
}

#[test]
fn options_of_the_scheduler_are_refused_with_spdks_words() {
    let set = |params, is| ("scheduler_set_options", params, is);
    let refused = |words| Refused(-32602, words);
    dialogue(
        true,
        vec![
            set(json!(null), refused("Invalid parameters")),
            set(json!({"zz": 1}), refused("Invalid parameters")),
            set(json!({"scheduling_core": -1}), refused("Invalid parameters")),
            set(json!({"scheduling_core": 1_u64 << 32}), refused("Invalid parameters")),
            set(json!({"scheduling_core": 7}), refused("Invalid scheduling core.")),
            set(
                json!({"isolated_core_mask": "0x1", "scheduling_core": 7}),
                refused("Invalid scheduling core."),
            ),
            ("framework_get_scheduler", json!(null), With(json!({"isolated_core_mask": "1"}))),
            set(
                json!({"isolated_core_mask": "0x1"}),
                refused("Scheduling core cannot be included in isolated"),
            ),
            set(json!({"isolated_core_mask": "0x10"}), refused("Invalid isolated core mask")),
            set(json!({"scheduling_core": 0, "isolated_core_mask": "0"}), yes()),
            set(json!({}), yes()),
        ],
    );
}

#[test]
fn a_histogram_that_was_ended_is_empty_until_the_bdev_is_open() {
    let enable = |params, is| ("bdev_enable_histogram", params, is);
    let borders = |is| ("bdev_get_histogram_borders", json!({"name": "M0", "borders": [1]}), is);
    let empty = || Gives(json!({"borders_count": [0, 0]}));
    let no_memory = || Refused(-12, "Cannot allocate memory");
    dialogue(
        false,
        vec![
            malloc("M0", 32),
            borders(no_memory()),
            enable(json!({"name": "M0", "enable": false}), yes()),
            borders(empty()),
            enable(json!({"name": "M0", "enable": true}), yes()),
            borders(empty()),
            enable(json!({"name": "M0", "enable": true, "min_nsec": 1000, "max_nsec": 10}), yes()),
            borders(no_memory()),
            enable(json!({"name": "M0", "enable": false}), yes()),
            ("bdev_lvol_create_lvstore", json!({"bdev_name": "M0", "lvs_name": "lvs"}), Done),
            borders(Refused(-32603, "Bad address")),
        ],
    );
}

#[test]
fn every_kind_of_request_that_spdk_has_can_be_asked_for_in_a_histogram() {
    let enable = |opc: &str, is| {
        ("bdev_enable_histogram", json!({"name": "M0", "enable": true, "opc": opc, "granularity": 7}), is)
    };
    let mut calls = vec![malloc("M0", 4)];
    calls.extend(["zcopy", "abort", "nvme_admin", "get_zone_info", "copy"].map(|opc| enable(opc, yes())));
    calls.push(enable("READ", Refused(-32603, "Invalid Io type")));
    calls.push(("bdev_get_histogram_borders", json!({"name": "M0", "borders": [1]}), Done));
    dialogue(false, calls);
}

#[test]
fn the_settings_of_a_bdev_are_saved_together_and_a_histogram_of_the_usual_granularity_without_it() {
    let limit = |name: &str| ("bdev_set_qos_limit", json!({"name": name, "rw_ios_per_sec": 1000}), yes());
    let enable = |name: &str, granularity: u64| {
        let params = json!({"name": name, "enable": true, "opc": "read", "granularity": granularity});
        ("bdev_enable_histogram", params, yes())
    };
    let limits = |name: &str| json!({"method": "bdev_set_qos_limit", "params": {"name": name}});
    let saved = json!([
        {"method": "bdev_set_options"},
        {"method": "bdev_malloc_create"},
        {"method": "bdev_malloc_create"},
        limits("A"),
        {"params": {"name": "A", "opc": "read", "granularity": null}},
        limits("B"),
        {"params": {"name": "B", "opc": "read", "granularity": 9}},
        {"method": "bdev_wait_for_examine"},
    ]);
    let config = ("framework_get_config", json!({"name": "bdev"}), With(saved));
    let calls =
        vec![malloc("A", 1), malloc("B", 1), limit("A"), limit("B"), enable("A", 7), enable("B", 9), config];
    dialogue(false, calls);
}

#[test]
fn bdevs_that_were_named_to_be_examined_are_saved() {
    let examine = |name: &str| ("bdev_examine", json!({"name": name}), yes());
    let saved = json!([
        {"method": "bdev_set_options", "params": {"bdev_auto_examine": false}},
        {"method": "bdev_examine", "params": {"name": "later"}},
        {"method": "bdev_examine", "params": {"name": "M0"}},
        {"method": "bdev_malloc_create"},
        {"method": "bdev_wait_for_examine"},
    ]);
    let calls = vec![
        ("bdev_set_options", json!({"bdev_auto_examine": false}), yes()),
        ("framework_start_init", json!(null), yes()),
        examine("later"),
        malloc("M0", 1),
        examine("M0"),
        ("framework_get_config", json!({"name": "bdev"}), With(saved)),
    ];
    dialogue(true, calls);
}

#[test]
fn statistics_are_refused_for_more_than_one_channel_list_before_the_names_are_looked_up() {
    let per_channel = |names: Value| {
        ("bdev_get_iostat", json!({"names": names, "per_channel": true}), Refused(-22, "Invalid argument"))
    };
    let lvstore = ("bdev_lvol_create_lvstore", json!({"bdev_name": "M0", "lvs_name": "lvs"}), Done);
    let channels = (
        "bdev_get_iostat",
        json!({"names": ["M0"], "per_channel": true}),
        With(json!({"channels": [{"io_error": {}}]})),
    );
    dialogue(
        false,
        vec![
            malloc("M0", 32),
            per_channel(json!(["nosuch", "other"])),
            per_channel(json!([])),
            lvstore,
            channels,
            ("bdev_reset_iostat", json!({"name": "nosuch", "mode": "none"}), yes()),
            ("bdev_reset_iostat", json!({"name": "nosuch"}), Refused(-19, "No such device")),
        ],
    );
}

#[test]
fn a_store_that_does_not_fit_is_refused_with_spdks_words() {
    let create = |more: Value, is| {
        let mut params = json!({"bdev_name": "M0", "lvs_name": "lvs"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("bdev_lvol_create_lvstore", params, is)
    };
    let invalid = || Refused(-32602, "Invalid argument");
    let no_memory = || Refused(-32602, "Cannot allocate memory");
    dialogue(
        false,
        vec![
            malloc("M0", 64),
            // 16 clusters: not one page.
            create(json!({"num_md_pages_per_cluster_ratio": 1}), invalid()),
            create(json!({"cluster_sz": 1u32 << 31}), invalid()),
            create(json!({"cluster_sz": 4096}), no_memory()),
            create(json!({"num_md_pages_per_cluster_ratio": 1_000_000}), no_memory()),
            create(json!({"num_md_pages_per_cluster_ratio": u32::MAX}), no_memory()),
            create(json!({"num_md_pages_per_cluster_ratio": 0, "cluster_sz": 0, "md_page_size": 0}), Done),
        ],
    );
}

#[test]
fn a_taken_name_is_refused_before_what_the_volume_is() {
    let snapshot = |of: &str, name: &str, is| {
        ("bdev_lvol_snapshot", json!({"lvol_name": format!("lvs/{of}"), "snapshot_name": name}), is)
    };
    let clone = |of: &str, name: &str, is| {
        ("bdev_lvol_clone", json!({"snapshot_name": format!("lvs/{of}"), "clone_name": name}), is)
    };
    let exists = || Refused(-32602, "File exists");
    let invalid = || Refused(-32602, "Invalid argument");
    dialogue(
        false,
        vec![
            malloc("M0", 128),
            ("bdev_lvol_create_lvstore", json!({"bdev_name": "M0", "lvs_name": "lvs"}), Done),
            (
                "bdev_lvol_create",
                json!({"lvs_name": "lvs", "lvol_name": "v", "size_in_mib": 8, "thin_provision": true}),
                Done,
            ),
            snapshot("v", "s", Done),
            snapshot("s", "v", exists()),
            snapshot("s", "s", exists()),
            snapshot("s", "new", invalid()),
            clone("v", "s", exists()),
            clone("v", "v", exists()),
            clone("v", "new", invalid()),
            // Nothing is left of what was refused.
            ("bdev_lvol_create", json!({"lvs_name": "lvs", "lvol_name": "new", "size_in_mib": 4}), Done),
            clone("s", "newer", Done),
        ],
    );
}

#[test]
fn the_store_of_a_new_volume_is_checked_before_its_clearing_its_name_and_its_size() {
    const TOO_LARGE: u64 = 1 << 44;
    let create = |params: Value, is| ("bdev_lvol_create", params, is);
    let missing = || Refused(-19, "No such device");
    let of = |name: &str, more: Value| {
        let mut params = json!({"lvs_name": "lvs", "lvol_name": name, "size_in_mib": TOO_LARGE});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let long = "n".repeat(64);
    dialogue(
        false,
        vec![
            malloc("M0", 128),
            ("bdev_lvol_create_lvstore", json!({"bdev_name": "M0", "lvs_name": "lvs"}), Done),
            malloc("lvs/other", 1),
            create(of("v", json!({"size_in_mib": 4})), Done),
            create(json!({"lvol_name": "", "size_in_mib": 1}), Refused(-22, "Invalid argument")),
            create(of("", json!({"uuid": "nosuch"})), Refused(-22, "Invalid argument")),
            create(json!({"uuid": "nosuch", "lvol_name": "", "size_in_mib": 1}), missing()),
            create(of("", json!({"lvs_name": "nosuch", "clear_method": "nosuch"})), missing()),
            create(of("", json!({"clear_method": "nosuch"})), Refused(-22, "Invalid clean_method option")),
            create(of("", json!({})), Refused(-22, "Invalid argument")),
            create(of(&long, json!({})), Refused(-22, "Invalid argument")),
            create(of("v", json!({})), Refused(-17, "File exists")),
            create(of("other", json!({})), Refused(-32602, "No space left on device")),
            create(of("other", json!({"thin_provision": true})), Refused(-32602, "Cannot allocate memory")),
            create(of("other", json!({"size_in_mib": 4})), Refused(-32602, "File exists")),
            // Nothing is left of what was refused.
            ("bdev_lvol_get_lvols", json!(null), With(json!([{"alias": "lvs/v"}]))),
        ],
    );
}

/// A store of 1 MiB clusters on "M0", a thin volume "v", and its snapshot "s".
fn volume_and_snapshot() -> Vec<(&'static str, Value, Is)> {
    vec![
        malloc("M0", 128),
        (
            "bdev_lvol_create_lvstore",
            json!({"bdev_name": "M0", "lvs_name": "lvs", "cluster_sz": 1 << 20}),
            Done,
        ),
        thin("v", 8),
        ("bdev_lvol_snapshot", json!({"lvol_name": "lvs/v", "snapshot_name": "s"}), Done),
    ]
}

fn thin(name: &str, mib: u64) -> (&'static str, Value, Is) {
    let params = json!({"lvs_name": "lvs", "lvol_name": name, "size_in_mib": mib, "thin_provision": true});
    ("bdev_lvol_create", params, Done)
}

#[test]
fn a_renaming_is_refused_for_a_taken_name_then_for_a_read_only_volume_then_for_a_bad_name() {
    let rename =
        |old: &str, new: &str, is| ("bdev_lvol_rename", json!({"old_name": old, "new_name": new}), is);
    let exists = || Refused(-32602, "File exists");
    let read_only = || Refused(-32602, "Operation not permitted");
    let long = "n".repeat(64);
    let mut calls = volume_and_snapshot();
    calls.extend([
        malloc("lvs/other", 1),
        rename("nosuch", "", Refused(-19, "No such device")),
        rename("M0", "", Refused(-19, "No such device")),
        rename("lvs/s", "v", exists()),
        rename("lvs/s", "s", exists()),
        rename("lvs/s", "other", exists()),
        rename("lvs/v", "other", exists()),
        rename("lvs/s", "new", read_only()),
        rename("lvs/s", "", read_only()),
        rename("lvs/s", &long, read_only()),
        rename("lvs/v", &long, Refused(-32602, "Invalid argument")),
        ("bdev_lvol_get_lvols", json!(null), With(json!([{"alias": "lvs/v"}, {"alias": "lvs/s"}]))),
    ]);
    dialogue(false, calls);
}

#[test]
fn a_size_is_looked_at_after_what_the_volume_is() {
    let resize =
        |name: &str, mib: u64, is| ("bdev_lvol_resize", json!({"name": name, "size_in_mib": mib}), is);
    let mut calls = volume_and_snapshot();
    calls.extend([
        resize("M0", u64::MAX, Refused(-19, "No such device")),
        resize("lvs/s", u64::MAX, Refused(-32602, "Operation not permitted")),
        resize("lvs/s", 8, Refused(-32602, "Operation not permitted")),
        resize("lvs/v", u64::MAX, Refused(-32602, "Cannot allocate memory")),
        resize("lvs/v", 8, yes()),
    ]);
    dialogue(false, calls);
}

#[test]
fn a_parent_is_refused_unless_it_is_a_snapshot_or_a_free_bdev() {
    let set = |lvol: &str, parent: &str, is| {
        ("bdev_lvol_set_parent", json!({"lvol_name": lvol, "parent_name": parent}), is)
    };
    let outside = |lvol: &str, parent: &str, is| {
        ("bdev_lvol_set_parent_bdev", json!({"lvol_name": lvol, "parent_name": parent}), is)
    };
    let thick = json!({"lvs_name": "lvs", "lvol_name": "thick", "size_in_mib": 1});
    let missing = || Refused(-19, "No such device");
    let invalid = || Refused(-32602, "Invalid argument");
    let mut calls = volume_and_snapshot();
    calls.extend([
        malloc("M1", 64),
        ("bdev_lvol_create_lvstore", json!({"bdev_name": "M1", "lvs_name": "other"}), Done),
        ("bdev_malloc_create", json!({"name": "odd", "num_blocks": 3, "block_size": 512}), Done),
        malloc("E", 8),
        thin("ro", 8),
        ("bdev_lvol_set_read_only", json!({"name": "lvs/ro"}), yes()),
        thin("t", 8),
        ("bdev_lvol_create", thick, Done),
        set("nosuch", "nosuch", missing()),
        set("M0", "lvs/s", missing()),
        set("lvs/t", "M0", missing()),
        set("lvs/t", "lvs/t", invalid()),
        // Read-only, but no clone has made it a snapshot.
        set("lvs/t", "lvs/ro", invalid()),
        ("bdev_lvol_clone", json!({"snapshot_name": "lvs/ro", "clone_name": "c"}), Done),
        set("lvs/t", "lvs/ro", yes()),
        set("lvs/t", "lvs/ro", Refused(-32602, "File exists")),
        outside("nosuch", "nosuch", missing()),
        outside("lvs/t", "nosuch", Refused(-32602, "No such device")),
        outside("lvs/t", "M0", invalid()),
        // Another store has claimed it.
        outside("lvs/t", "M1", invalid()),
        outside("lvs/thick", "odd", invalid()),
        outside("lvs/thick", "E", invalid()),
        outside("lvs/t", "E", yes()),
        outside("lvs/t", "E", Refused(-32602, "File exists")),
    ]);
    dialogue(false, calls);
}

#[test]
fn the_name_of_a_clone_of_a_bdev_is_checked_before_the_size_of_the_bdev() {
    let clone = |bdev: &str, store: &str, name: &str, is| {
        let params = json!({"bdev": bdev, "lvs_name": store, "clone_name": name});
        ("bdev_lvol_clone_bdev", params, is)
    };
    let mut calls = volume_and_snapshot();
    calls.extend([
        ("bdev_malloc_create", json!({"name": "odd", "num_blocks": 3, "block_size": 512}), Done),
        clone("nosuch", "nosuch", "", Refused(-32602, "lvs does not exist")),
        clone("nosuch", "lvs", "", Refused(-32602, "bdev does not exist")),
        clone("lvs/v", "lvs", "", Refused(-32602, "bdev is an lvol in same lvs as clone")),
        clone("odd", "lvs", "v", Refused(-32602, "File exists")),
        clone("odd", "lvs", "", Refused(-32602, "Invalid argument")),
        clone("odd", "lvs", "new", Refused(-32602, "Invalid argument")),
    ]);
    dialogue(false, calls);
}

#[test]
fn a_volume_without_its_external_snapshot_is_missing_to_all_methods_but_the_deletion() {
    let missing = || Refused(-19, "No such device");
    let named = |method: &'static str| (method, json!({"name": "lvs/c"}), missing());
    let passthru = || ("bdev_passthru_create", json!({"base_bdev_name": "M0", "name": "P"}), Done);
    dialogue(
        false,
        vec![
            malloc("M0", 64),
            passthru(),
            (
                "bdev_lvol_create_lvstore",
                json!({"bdev_name": "P", "lvs_name": "lvs", "cluster_sz": 1 << 20}),
                Done,
            ),
            thin("t", 4),
            malloc("E", 4),
            ("bdev_lvol_clone_bdev", json!({"bdev": "E", "lvs_name": "lvs", "clone_name": "c"}), Done),
            ("bdev_passthru_delete", json!({"name": "P"}), yes()),
            ("bdev_malloc_delete", json!({"name": "E"}), yes()),
            passthru(),
            ("bdev_wait_for_examine", json!(null), yes()),
            ("bdev_lvol_rename", json!({"old_name": "lvs/c", "new_name": ""}), missing()),
            ("bdev_lvol_snapshot", json!({"lvol_name": "lvs/c", "snapshot_name": ""}), missing()),
            ("bdev_lvol_clone", json!({"snapshot_name": "lvs/c", "clone_name": ""}), missing()),
            ("bdev_lvol_resize", json!({"name": "lvs/c", "size_in_mib": u64::MAX}), missing()),
            named("bdev_lvol_inflate"),
            named("bdev_lvol_decouple_parent"),
            named("bdev_lvol_set_read_only"),
            ("bdev_lvol_set_parent", json!({"lvol_name": "lvs/c", "parent_name": "lvs/t"}), missing()),
            ("bdev_lvol_set_parent", json!({"lvol_name": "lvs/t", "parent_name": "lvs/c"}), missing()),
            ("bdev_lvol_set_parent_bdev", json!({"lvol_name": "lvs/c", "parent_name": "nosuch"}), missing()),
            (
                "bdev_lvol_start_shallow_copy",
                json!({"src_lvol_name": "lvs/c", "dst_bdev_name": "nosuch"}),
                missing(),
            ),
            ("bdev_lvol_delete", json!({"name": "lvs/c"}), yes()),
        ],
    );
}

#[test]
fn a_volume_that_is_being_copied_is_busy_only_after_what_else_is_wrong() {
    let busy = || Refused(-32602, "Device or resource busy");
    let exists = || Refused(-32602, "File exists");
    let read_only = || Refused(-32602, "Operation not permitted");
    let clone =
        |name: &str, is| ("bdev_lvol_clone", json!({"snapshot_name": "lvs/k", "clone_name": name}), is);
    let copy = |name: &str| {
        let params = json!({"src_lvol_name": format!("lvs/{name}"), "dst_bdev_name": "D"});
        ("bdev_lvol_start_shallow_copy", params, Done)
    };
    let day = 86_400_000_000_u64;
    let delay = json!({"base_bdev_name": "T", "name": "D", "avg_read_latency": day, "p99_read_latency": day,
        "avg_write_latency": day, "p99_write_latency": day});
    let mut calls = volume_and_snapshot();
    calls.extend([
        malloc("T", 8),
        ("bdev_delay_create", delay, Done),
        ("bdev_lvol_create", json!({"lvs_name": "lvs", "lvol_name": "k", "size_in_mib": 2}), Done),
        ("bdev_lvol_set_read_only", json!({"name": "lvs/k"}), yes()),
        clone("c1", Done),
        copy("k"),
        clone("v", exists()),
        clone("new", busy()),
        ("bdev_lvol_snapshot", json!({"lvol_name": "lvs/k", "snapshot_name": "v"}), exists()),
        (
            "bdev_lvol_snapshot",
            json!({"lvol_name": "lvs/k", "snapshot_name": "new"}),
            Refused(-32602, "Invalid argument"),
        ),
        ("bdev_lvol_rename", json!({"old_name": "lvs/k", "new_name": "v"}), exists()),
        ("bdev_lvol_rename", json!({"old_name": "lvs/k", "new_name": "new"}), read_only()),
        ("bdev_lvol_resize", json!({"name": "lvs/k", "size_in_mib": 4}), read_only()),
        ("bdev_lvol_set_read_only", json!({"name": "lvs/k"}), yes()),
        ("bdev_lvol_inflate", json!({"name": "lvs/k"}), busy()),
        ("bdev_lvol_set_parent", json!({"lvol_name": "lvs/c1", "parent_name": "lvs/k"}), exists()),
        ("bdev_lvol_set_parent", json!({"lvol_name": "lvs/v", "parent_name": "lvs/k"}), Refused(-32602, "")),
    ]);
    dialogue(false, calls);
}

#[test]
fn the_pages_of_a_new_store_are_checked_before_its_bdev_and_its_clusters_after() {
    let create = |bdev: &str, name: &str, more: Value, is| {
        let mut params = json!({"bdev_name": bdev, "lvs_name": name});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("bdev_lvol_create_lvstore", params, is)
    };
    let invalid = || Refused(-22, "Invalid argument");
    let claimed = || Refused(-1, "Operation not permitted");
    let pages = json!({"md_page_size": 5000});
    let clusters = json!({"cluster_sz": 1000});
    let too_few = json!({"num_md_pages_per_cluster_ratio": 1});
    dialogue(
        false,
        vec![
            malloc("M0", 64),
            malloc("M1", 64),
            create("M0", "lvs", json!({}), Done),
            create(
                "nosuch",
                "",
                json!({"clear_method": "nosuch"}),
                Refused(-22, "Invalid clear_method parameter"),
            ),
            create("nosuch", "", json!({}), invalid()),
            create("nosuch", "lvs", pages, invalid()),
            create("nosuch", "lvs", clusters.clone(), Refused(-19, "No such device")),
            create("M0", "lvs", clusters.clone(), claimed()),
            create("M0", "lvs", too_few.clone(), claimed()),
            create("M1", "lvs", clusters, invalid()),
            create("M1", "lvs", too_few.clone(), Refused(-17, "File exists")),
            create("M1", "new", too_few, Refused(-32602, "Invalid argument")),
        ],
    );
}

#[test]
fn what_spdk_refuses_of_a_disk_is_refused_before_what_is_not_implemented() {
    let taken = || Refused(-17, "File exists");
    let invalid = || Refused(-22, "Invalid argument");
    let unsupported = || Refused(-95, "Operation not supported");
    let of = |method: &'static str, more: Value, is| {
        let mut params = json!({"name": "new", "num_blocks": 64, "block_size": 512});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (method, params, is)
    };
    let uuid = "8db1ad30-8a27-4a6b-b6a5-6ef8fd7a0000";
    let mut calls = vec![(
        "bdev_malloc_create",
        json!({"name": "M0", "uuid": uuid, "num_blocks": 64, "block_size": 512}),
        Done,
    )];
    for method in ["bdev_malloc_create", "bdev_null_create"] {
        calls.extend([
            of(method, json!({"md_size": 8}), unsupported()),
            of(method, json!({"md_size": 8, "dif_type": 1}), unsupported()),
            of(method, json!({"name": "M0", "md_size": 8}), taken()),
            of(method, json!({"uuid": uuid, "md_size": 8}), taken()),
            of(method, json!({"name": "", "md_size": 8}), invalid()),
            of(method, json!({"num_blocks": 0, "md_size": 8}), invalid()),
            of(method, json!({"block_size": 520, "md_size": 8}), invalid()),
            of(method, json!({"physical_block_size": 1000, "md_size": 8}), invalid()),
            of(method, json!({"name": "M0", "md_size": 7}), invalid()),
            of(method, json!({"name": "M0", "dif_type": 1}), invalid()),
            of(method, json!({"md_size": 16, "dif_type": 1, "dif_pi_format": 1}), invalid()),
            of(method, json!({"md_size": 8, "dif_type": 1, "dif_pi_format": 3}), invalid()),
            of(method, json!({"md_size": 8, "dif_type": 4}), invalid()),
        ]);
    }
    let huge = 1_u64 << 50;
    calls.extend([
        of(
            "bdev_malloc_create",
            json!({"num_blocks": huge, "dif_type": 1}),
            Refused(-12, "Cannot allocate memory"),
        ),
        of("bdev_malloc_create", json!({"num_blocks": huge, "physical_block_size": 1000}), invalid()),
        of("bdev_null_create", json!({"optimal_write_size": 8}), unsupported()),
        of("bdev_null_create", json!({"name": "M0", "optimal_write_size": 8}), taken()),
        of("bdev_null_create", json!({"num_blocks": 0, "optimal_write_size": 8}), invalid()),
    ]);
    dialogue(false, calls);
}

#[test]
fn a_null_disk_is_compared_in_whole_mib_and_does_not_shrink_by_less() {
    let resize = |name: &str, mib: u64, is| ("bdev_null_resize", json!({"name": name, "new_size": mib}), is);
    let invalid = || Refused(-22, "Invalid argument");
    dialogue(
        false,
        vec![
            malloc("M0", 1),
            ("bdev_null_create", json!({"name": "N", "num_blocks": 5000, "block_size": 512}), Done),
            resize("nosuch", u64::MAX, Refused(-19, "No such device")),
            resize("M0", 1, invalid()),
            resize("N", 1, invalid()),
            resize("N", 2, Refused(-16, "Device or resource busy")),
            resize("N", 3, yes()),
        ],
    );
}

#[test]
fn a_file_is_opened_before_its_name_is_looked_at() {
    let create = |method: &'static str, more: Value, is| {
        let mut params = json!({"name": "M0", "filename": "nosuch", "block_size": 512});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (method, params, is)
    };
    dialogue(
        false,
        vec![
            malloc("M0", 1),
            create("bdev_aio_create", json!({}), Refused(-2, "No such file or directory")),
            create("bdev_aio_create", json!({"block_size": 7}), Refused(-2, "No such file or directory")),
            create("bdev_uring_create", json!({}), Refused(-32603, "Unable to create URING bdev.")),
            create("bdev_aio_create", json!({"nowait": true}), Refused(-95, "Operation not supported")),
        ],
    );
}

#[test]
fn the_latencies_of_a_delay_bdev_are_changed_by_its_own_name() {
    let uuid = "8db1ad30-8a27-4a6b-b6a5-6ef8fd7a0001";
    let create = |name: &str, base: &str, p99: u64, is| {
        let params = json!({"base_bdev_name": base, "name": name, "uuid": uuid, "avg_read_latency": 2,
            "p99_read_latency": p99, "avg_write_latency": 2, "p99_write_latency": 2});
        ("bdev_delay_create", params, is)
    };
    let update = |name: &str, is| {
        let params = json!({"delay_bdev_name": name, "latency_type": "avg_read", "latency_us": 1});
        ("bdev_delay_update_latency", params, is)
    };
    let missing = || Refused(-32602, "The requested bdev does not exist.");
    dialogue(
        false,
        vec![
            malloc("M0", 1),
            create("D", "M0", 2, Done),
            create("D", "M0", 1, Refused(-22, "Invalid argument")),
            create("D", "M0", 2, Refused(-17, "File exists")),
            create("E", "M0", 2, Refused(-1, "Operation not permitted")),
            update("D", yes()),
            update(uuid, missing()),
            update("M0", missing()),
        ],
    );
}

#[test]
fn log_flags_are_named_by_patterns() {
    let call = |method: &'static str, flag: &str, is| (method, json!({"flag": flag}), is);
    let invalid = || Refused(-32602, "invalid log flag");
    let flags = |flags| ("log_get_flags", json!(null), With(flags));
    dialogue(
        false,
        vec![
            call("log_set_flag", "BDEV*", yes()),
            flags(json!({"bdev": true, "rpc": false})),
            call("log_clear_flag", "[a-c]?[[:alpha:]]v", yes()),
            flags(json!({"bdev": false})),
            call("log_set_flag", "[!b]*", yes()),
            flags(json!({"bdev": false, "rpc": true})),
            call("log_clear_flag", r"r\pc", yes()),
            call("log_set_flag", "[[:digit:]]*", invalid()),
            call("log_set_flag", "", invalid()),
            call("log_set_flag", "bdev[", invalid()),
        ],
    );
}

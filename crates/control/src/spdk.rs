//! The methods of SPDK, all 296 of its schema, and the reason for each that is absent here.
//!
//! The names are those of SPDK v26.09's `schema/schema.yaml`, in its groups.

/// Methods that belong together.
pub(crate) struct Group {
    /// What they are about.
    pub(crate) title: &'static str,
    /// Their names, with blanks between.
    names: &'static str,
}

/// A method of SPDK.
#[derive(Clone, Copy)]
pub(crate) struct Method(pub(crate) &'static str);

impl Group {
    /// The methods.
    pub(crate) fn methods(&self) -> impl Iterator<Item = Method> + use<> {
        self.names.split_whitespace().map(Method)
    }
}

/// Why a method is not here.
#[derive(Clone, Copy)]
pub(crate) enum Absent {
    /// It is not planned.
    Refused(&'static str),
    /// It may be added.
    NotYet(&'static str),
}

impl Method {
    /// Its name, and the reason that callers get, if it is not here.
    pub(crate) fn absent(self) -> Option<(&'static str, &'static str)> {
        let (Absent::Refused(why) | Absent::NotYet(why)) = reason(self.0)?;
        Some((self.0, why))
    }
}

/// All of them.
pub(crate) fn methods() -> impl Iterator<Item = Method> {
    GROUPS.iter().flat_map(Group::methods)
}

/// Whether SPDK has a method of that name.
pub(crate) fn is_known(name: &str) -> bool {
    methods().any(|method| method.0 == name)
}

const PCI: &str = "devices are the kernel's here: none is driven from user space over PCI";
const ENGINES: &str = "no engine of hardware is driven from user space here";

/// Beginnings of names, and why methods with such names are not here; the first match counts.
const REASONS: [(&str, Absent); 34] = [
    ("framework_get_pci_devices", Absent::Refused(PCI)),
    ("vmd_", Absent::Refused(PCI)),
    ("env_dpdk_", Absent::Refused("there is no DPDK here, and memory is the system's")),
    ("ae4dma_", Absent::Refused(ENGINES)),
    ("compressdev_", Absent::Refused(ENGINES)),
    ("cuda_", Absent::Refused(ENGINES)),
    ("dpdk_cryptodev_", Absent::Refused(ENGINES)),
    ("dsa_", Absent::Refused(ENGINES)),
    ("iaa_", Absent::Refused(ENGINES)),
    ("ioat_", Absent::Refused(ENGINES)),
    ("mlx5_", Absent::Refused(ENGINES)),
    ("accel_mlx5_", Absent::Refused(ENGINES)),
    ("bdev_xnvme_", Absent::Refused("bdev_uring_create opens files and block devices by io_uring")),
    ("bdev_daos_", Absent::Refused("it needs DAOS's own C library")),
    ("bdev_ocf_", Absent::Refused("it needs Open CAS's own C library")),
    (
        "nbd_",
        Absent::NotYet("the kernel's NBD client is not driven; nbd_listen and nbd_export serve the protocol"),
    ),
    ("ublk_", Absent::NotYet("ublk is not served yet; nbd_export serves NBD")),
    ("nvmf_", Absent::NotYet("NVMe-oF is not served yet; nbd_export serves NBD")),
    ("vhost_", Absent::NotYet("vhost is not served yet; nbd_export serves NBD")),
    ("virtio_blk_", Absent::NotYet("vhost is not served yet; nbd_export serves NBD")),
    ("vfu_", Absent::NotYet("vfio-user is not served yet; nbd_export serves NBD")),
    ("iscsi_", Absent::NotYet("iSCSI is not served yet; nbd_export serves NBD")),
    ("scsi_", Absent::NotYet("iSCSI is not served yet; nbd_export serves NBD")),
    ("fsdev_", Absent::NotYet("file systems are not served yet")),
    (
        "bdev_nvme_",
        Absent::NotYet(
            "NVMe controllers are not reached yet; bdev_uring_create opens the kernel's /dev/nvme*n*",
        ),
    ),
    ("bdev_opal_", Absent::NotYet("NVMe controllers are not reached yet")),
    ("bdev_raid_", Absent::NotYet("RAID is not there yet")),
    ("bdev_crypto_", Absent::NotYet("encryption is not there yet")),
    ("accel_", Absent::NotYet("encryption and other transformations are not there yet")),
    (
        "keyring_linux_",
        Absent::NotYet("the kernel's keyring is not asked yet; keyring_file_add_key adds a file"),
    ),
    ("bdev_virtio_", Absent::NotYet("virtio devices are not reached yet")),
    ("bdev_iscsi_", Absent::NotYet("iSCSI targets are not reached yet")),
    ("bdev_rbd_", Absent::NotYet("Ceph is not reached yet")),
    ("bdev_", Absent::NotYet("this bdev module is not there yet")),
];

fn reason(name: &str) -> Option<Absent> {
    REASONS.iter().find(|(beginning, _)| name.starts_with(beginning)).map(|(_, absent)| *absent)
}

/// Why a method that is not here is not.
pub(crate) fn absence(name: &str) -> Absent {
    reason(name).unwrap_or(Absent::NotYet("it is not there yet"))
}

/// The groups.
pub(crate) const GROUPS: [Group; 15] = [
    Group {
        title: "Framework and threads",
        names: "
            framework_disable_cpumask_locks framework_enable_cpumask_locks framework_get_config
            framework_get_governor framework_get_pci_devices framework_get_reactors framework_get_scheduler
            framework_get_subsystems framework_monitor_context_switch framework_set_scheduler
            framework_start_init framework_wait_init scheduler_set_options thread_get_io_channels
            thread_get_pollers thread_get_stats thread_set_cpumask",
    },
    Group {
        title: "RPC, log, trace, notifications, environment",
        names: "
            env_dpdk_get_mem_stats log_clear_flag log_enable_timestamps log_get_flags log_get_level
            log_get_print_level log_set_flag log_set_level log_set_print_level notify_get_notifications
            notify_get_types rpc_get_methods spdk_get_version spdk_kill_instance trace_clear
            trace_clear_tpoint_mask trace_disable_tpoint_group trace_enable_tpoint_group trace_get_info
            trace_get_tpoint_group_mask trace_set_tpoint_mask",
    },
    Group {
        title: "Buffers and sockets",
        names: "
            iobuf_get_stats iobuf_set_options sock_get_default_impl sock_impl_get_options
            sock_impl_set_options sock_set_default_impl",
    },
    Group {
        title: "Bdevs",
        names: "
            bdev_enable_histogram bdev_examine bdev_get_bdevs bdev_get_histogram bdev_get_histogram_borders
            bdev_get_iostat bdev_reset_iostat bdev_set_options bdev_set_qd_sampling_period bdev_set_qos_limit
            bdev_wait_for_examine",
    },
    Group {
        title: "Bdev modules",
        names: "
            bdev_aio_create bdev_aio_delete bdev_aio_rescan bdev_crypto_create bdev_crypto_delete
            bdev_daos_create bdev_daos_delete bdev_daos_resize bdev_delay_create bdev_delay_delete
            bdev_delay_update_latency bdev_error_create bdev_error_delete bdev_error_inject_error
            bdev_error_resume_pending bdev_ftl_create bdev_ftl_delete bdev_ftl_get_properties
            bdev_ftl_get_stats bdev_ftl_set_property bdev_ftl_unmap bdev_iscsi_create bdev_iscsi_delete
            bdev_iscsi_set_options bdev_malloc_create bdev_malloc_delete bdev_null_create bdev_null_delete
            bdev_null_resize bdev_ocf_create bdev_ocf_delete bdev_ocf_flush_start bdev_ocf_flush_status
            bdev_ocf_get_bdevs bdev_ocf_get_stats bdev_ocf_reset_stats bdev_ocf_set_cache_mode
            bdev_ocf_set_seqcutoff bdev_passthru_create bdev_passthru_delete bdev_rbd_create bdev_rbd_delete
            bdev_rbd_get_clusters_info bdev_rbd_register_cluster bdev_rbd_resize bdev_rbd_unregister_cluster
            bdev_split_create bdev_split_delete bdev_uring_create bdev_uring_delete bdev_uring_rescan
            bdev_virtio_attach_controller bdev_virtio_blk_set_hotplug bdev_virtio_detach_controller
            bdev_virtio_scsi_get_devices bdev_xnvme_create bdev_xnvme_delete bdev_zone_block_create
            bdev_zone_block_delete",
    },
    Group {
        title: "Logical volumes",
        names:
            "
            bdev_lvol_check_shallow_copy bdev_lvol_clone bdev_lvol_clone_bdev bdev_lvol_create
            bdev_lvol_create_lvstore bdev_lvol_decouple_parent bdev_lvol_delete bdev_lvol_delete_lvstore
            bdev_lvol_get_lvols bdev_lvol_get_lvstores bdev_lvol_grow_lvstore bdev_lvol_inflate
            bdev_lvol_rename bdev_lvol_rename_lvstore bdev_lvol_resize bdev_lvol_set_parent
            bdev_lvol_set_parent_bdev bdev_lvol_set_read_only bdev_lvol_snapshot bdev_lvol_start_shallow_copy",
    },
    Group {
        title: "NVMe bdevs",
        names: "
            bdev_nvme_add_error_injection bdev_nvme_apply_firmware bdev_nvme_attach_controller
            bdev_nvme_cuse_register bdev_nvme_cuse_unregister bdev_nvme_detach_controller
            bdev_nvme_disable_controller bdev_nvme_enable_controller bdev_nvme_get_controller_health_info
            bdev_nvme_get_controllers bdev_nvme_get_discovery_info bdev_nvme_get_io_paths
            bdev_nvme_get_mdns_discovery_info bdev_nvme_get_path_iostat bdev_nvme_get_transport_statistics
            bdev_nvme_opal_init bdev_nvme_opal_revert bdev_nvme_remove_error_injection
            bdev_nvme_reset_controller bdev_nvme_send_cmd bdev_nvme_set_hotplug bdev_nvme_set_keys
            bdev_nvme_set_multipath_policy bdev_nvme_set_options bdev_nvme_set_preferred_path
            bdev_nvme_start_discovery bdev_nvme_start_mdns_discovery bdev_nvme_stop_discovery
            bdev_nvme_stop_mdns_discovery bdev_opal_create bdev_opal_delete bdev_opal_get_info
            bdev_opal_new_user bdev_opal_set_lock_state",
    },
    Group {
        title: "RAID bdevs",
        names: "
            bdev_raid_add_base_bdev bdev_raid_create bdev_raid_delete bdev_raid_get_bdevs
            bdev_raid_remove_base_bdev bdev_raid_set_options",
    },
    Group {
        title: "NVMe-oF",
        names: "
            nvmf_create_subsystem nvmf_create_target nvmf_create_transport nvmf_delete_subsystem
            nvmf_delete_target nvmf_discovery_add_referral nvmf_discovery_get_referrals
            nvmf_discovery_remove_referral nvmf_get_stats nvmf_get_subsystems nvmf_get_targets
            nvmf_get_transports nvmf_ns_add_host nvmf_ns_remove_host nvmf_publish_mdns_prr nvmf_set_config
            nvmf_set_crdt nvmf_set_max_subsystems nvmf_stop_mdns_prr nvmf_subsystem_add_host
            nvmf_subsystem_add_listener nvmf_subsystem_add_ns nvmf_subsystem_allow_any_host
            nvmf_subsystem_get_controllers nvmf_subsystem_get_listeners nvmf_subsystem_get_qpairs
            nvmf_subsystem_listener_set_ana_state nvmf_subsystem_remove_host nvmf_subsystem_remove_listener
            nvmf_subsystem_remove_ns nvmf_subsystem_set_keys nvmf_subsystem_set_ns_ana_group",
    },
    Group {
        title: "NBD and ublk",
        names: "
            nbd_get_disks nbd_start_disk nbd_stop_disk ublk_create_target ublk_destroy_target ublk_get_disks
            ublk_recover_disk ublk_start_disk ublk_stop_disk",
    },
    Group {
        title: "vhost",
        names: "
            vhost_controller_set_coalescing vhost_create_blk_controller vhost_create_scsi_controller
            vhost_delete_controller vhost_get_controllers vhost_scsi_controller_add_target
            vhost_scsi_controller_remove_target vhost_start_scsi_controller virtio_blk_create_transport
            virtio_blk_get_transports",
    },
    Group {
        title: "iSCSI and SCSI",
        names: "
            iscsi_auth_group_add_secret iscsi_auth_group_remove_secret iscsi_create_auth_group
            iscsi_create_initiator_group iscsi_create_portal_group iscsi_create_target_node
            iscsi_delete_auth_group iscsi_delete_initiator_group iscsi_delete_portal_group
            iscsi_delete_target_node iscsi_enable_histogram iscsi_get_auth_groups iscsi_get_connections
            iscsi_get_histogram iscsi_get_initiator_groups iscsi_get_options iscsi_get_portal_groups
            iscsi_get_stats iscsi_get_target_nodes iscsi_initiator_group_add_initiators
            iscsi_initiator_group_remove_initiators iscsi_portal_group_set_auth iscsi_set_discovery_auth
            iscsi_set_options iscsi_start_portal_group iscsi_target_node_add_lun
            iscsi_target_node_add_pg_ig_maps iscsi_target_node_remove_pg_ig_maps
            iscsi_target_node_request_logout iscsi_target_node_set_auth iscsi_target_node_set_redirect
            scsi_get_devices",
    },
    Group {
        title: "Keyring",
        names: "
            keyring_file_add_key keyring_file_remove_key keyring_get_keys keyring_linux_set_options",
    },
    Group {
        title: "Acceleration",
        names: "
            accel_assign_opc accel_crypto_key_create accel_crypto_key_destroy accel_crypto_keys_get
            accel_error_inject_error accel_get_module_info accel_get_opc_assignments accel_get_stats
            accel_mlx5_dump_stats accel_set_driver accel_set_options ae4dma_scan_accel_module
            compressdev_scan_accel_module cuda_scan_accel_module dpdk_cryptodev_get_driver
            dpdk_cryptodev_scan_accel_module dpdk_cryptodev_set_driver dsa_scan_accel_module
            iaa_scan_accel_module ioat_scan_accel_module mlx5_scan_accel_module",
    },
    Group {
        title: "vfio-user, file systems, VMD",
        names: "
            fsdev_aio_create fsdev_aio_delete fsdev_get_opts fsdev_set_opts vfu_tgt_set_base_path
            vfu_virtio_create_blk_endpoint vfu_virtio_create_fs_endpoint vfu_virtio_create_scsi_endpoint
            vfu_virtio_delete_endpoint vfu_virtio_scsi_add_target vfu_virtio_scsi_remove_target vmd_enable
            vmd_remove_device vmd_rescan",
    },
];

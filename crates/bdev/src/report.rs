//! Reports events of bdevs to the log.

use crate::Bdev;

/// The modules and their log flags in SPDK.
const FLAGS: [(&str, &str); 8] = [
    ("aio", "aio"),
    ("delay", "vbdev_delay"),
    ("gpt", "vbdev_gpt"),
    ("malloc", "bdev_malloc"),
    ("null", "bdev_null"),
    ("passthru", "vbdev_passthru"),
    ("split", "vbdev_split"),
    ("uring", "uring"),
];

/// Reports an event under the flag of bdevs and under that of its module.
pub(crate) fn event(bdev: &Bdev, what: &str) {
    let said = || format!("{:?} of module {} {what}", bdev.name(), bdev.module());
    spindle_reactor::tell("bdev", said);
    if let Some((_, flag)) = FLAGS.iter().find(|(module, _)| *module == bdev.module()) {
        spindle_reactor::tell(flag, said);
    }
}

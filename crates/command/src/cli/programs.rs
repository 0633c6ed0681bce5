//! Names of this program and others, for typing.

use std::path::Path;

/// This program's name for use in the current folder: relative if it is below.
pub(crate) fn this() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "spindle".into());
    let here = std::env::current_dir().unwrap_or_default();
    match program.strip_prefix(&here) {
        Ok(below) if below.components().count() > 1 => super::failure::shown(below),
        Ok(below) => format!("./{}", super::failure::shown(below)),
        Err(_) => super::failure::shown(&program),
    }
}

/// A note that names the package of a program that is not installed; empty if it is.
pub(crate) fn package_of_missing(program: &str, package: &str) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).exists());
    if there { String::new() } else { format!("   (apt: {package})") }
}

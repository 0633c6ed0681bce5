//! Names of this program and others, for typing.

use std::path::Path;

use super::shell::quoted_path;

/// This program's name for a shell in the folder `here`: relative if it is below. Without its folder if that cannot be shown.
pub(crate) fn this(here: &Path) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "spindle".into());
    let name = match program.strip_prefix(here) {
        Ok(below) if below.components().count() > 1 => quoted_path(below),
        Ok(below) => quoted_path(&Path::new(".").join(below)),
        Err(_) => quoted_path(&program),
    };
    name.unwrap_or_else(|| "spindle".to_owned())
}

/// A comment for a shell that names the package of a program that is not installed; empty if it is.
pub(crate) fn package_of_missing(program: &str, package: &str) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).exists());
    if there { String::new() } else { format!("   # apt: {package}") }
}

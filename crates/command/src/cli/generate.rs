//! `spindle completions` and `spindle man`: files for a package, generated from the program's arguments.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Arguments;
use super::failure::{Failure, shown};
use super::output::Output;
use super::shell;

/// For which shell.
#[derive(Args)]
pub(crate) struct Completions {
    shell: Shell,
}

/// Where to write the pages.
#[derive(Args)]
pub(crate) struct Man {
    /// An existing folder: it gets spindle.1 and a page for each command
    folder: PathBuf,
}

/// Prints the script that completes the command line.
pub(crate) fn completions(command: Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut Arguments::command(), "spindle", &mut script);
    let mut out = Output::stdout();
    out.write_all(&script)?;
    out.finish()
}

/// Writes the manual pages.
pub(crate) fn man(command: Man) -> Result<(), Failure> {
    let folder = &command.folder;
    let found = fs::metadata(folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let (name, make) = (shown(folder), shell::typed(folder));
            Failure::Refused(format!("there is no folder {name}; make it first (mkdir -p {make})"))
        }
        _ => Failure::file(folder, "opened", error),
    })?;
    if !found.is_dir() {
        return Err(Failure::file(folder, "written to", io::ErrorKind::NotADirectory.into()));
    }
    clap_mangen::generate_to(Arguments::command(), folder)
        .map_err(|error| Failure::file(folder, "written to", error))
}

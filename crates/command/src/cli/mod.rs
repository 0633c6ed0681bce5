//! The command line: its grammar, and the end of every command.
//!
//! A command returns `Result<(), Failure>`; only this module turns that into an exit code and a sentence on
//! standard error. A reader that closes standard output early is not a failure.

mod bdevperf;
mod blob;
mod closed_stream;
mod config_file;
mod failure;
mod file_kind;
mod generate;
mod lcores;
mod output;
mod perf;
mod programs;
mod progress;
mod quickstart;
mod readiness;
mod rpc;
mod serve;
mod shell;
mod size;
mod table;
mod text;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

/// The names of SPDK's daemons.
const SPDK_DAEMONS: [&str; 2] = ["spdk_tgt", "bdev_svc"];

/// Printed without a command.
const WHAT_NEXT: &str = "\
Spindle, a storage kit on SPDK's model.
  spindle quickstart   a store, a volume, its NBD export and SPDK's RPC socket, in a folder here
  spindle serve        the daemon; 'spindle rpc METHOD' calls it
  spindle help         the rest
";

/// A storage kit on SPDK's model.
#[derive(Parser)]
#[command(name = "spindle", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

/// A storage daemon on SPDK's model: 'spindle serve' under the name of one of SPDK's daemons.
#[derive(Parser)]
#[command(name = "spdk_tgt")]
struct SpdkDaemon {
    #[command(flatten)]
    serve: serve::Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look into and change a Blobstore on an image file or block device, offline
    #[command(subcommand, arg_required_else_help = true)]
    Blob(blob::Command),
    /// Create a store and a volume in a folder, and serve them
    Quickstart(quickstart::Command),
    /// Call an RPC method of a daemon
    Rpc(rpc::Command),
    /// Run the daemon
    Serve(Box<serve::Command>),
    /// Print a script that completes this command line in a shell
    Completions(generate::Completions),
    /// Write the manual pages
    Man(generate::Man),
    /// Measure this build on this machine, beside the bare machine
    Perf(perf::Command),
}

/// Runs the command given by the process's arguments.
pub(crate) fn main() -> ExitCode {
    // Never refused; without it a limit on file sizes would kill the process instead of failing a write.
    let _ = spindle_engine::ignore_deadly_signals();
    let arguments = match parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too.
            if !error.use_stderr() {
                return conclude(show(&error));
            }
            let _ = error.print();
            return ExitCode::from(2);
        }
    };
    conclude(run(arguments))
}

/// Prints help or the version.
fn show(text: &clap::Error) -> Result<(), Failure> {
    if std::io::stdout().is_terminal() {
        return Ok(text.print()?);
    }
    let mut out = output::Output::stdout();
    write!(out, "{}", text.render())?;
    out.finish()
}

/// Reads the arguments. Under the name of one of SPDK's daemons, as a link to this program may have, they are those of
/// `serve`, and cores are used as there.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let is_daemon = |program: &OsString| {
        let name = Path::new(program).file_name();
        SPDK_DAEMONS.iter().any(|daemon| name == Some(daemon.as_ref()))
    };
    if !arguments.first().is_some_and(is_daemon) {
        return Arguments::try_parse_from(arguments);
    }
    let SpdkDaemon { serve } = SpdkDaemon::try_parse_from(arguments)?;
    Ok(Arguments { command: Some(Command::Serve(Box::new(serve.into_spdk()))) })
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Some(Command::Blob(command)) => blob::run(command),
        Some(Command::Completions(command)) => generate::completions(command),
        Some(Command::Man(command)) => generate::man(command),
        Some(Command::Perf(command)) => perf::run(command),
        Some(Command::Rpc(command)) => rpc::run(command),
        Some(Command::Serve(command)) => serve::run(*command),
        Some(Command::Quickstart(command)) => quickstart::run(command),
        None => {
            let mut out = output::Output::stdout();
            write!(out, "{WHAT_NEXT}")?;
            out.finish()
        }
    }
}

fn conclude(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is gone as well, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "spindle: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(words: &[&str]) -> Result<Arguments, clap::Error> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn a_link_by_the_name_of_a_daemon_of_spdks_serves() {
        for name in ["spdk_tgt", "/usr/bin/bdev_svc"] {
            for options in
                [&[][..], &["-m", "0x1"], &["-v"], &["--enforce-numa", "-e", "bdev"], &["--lcores", "0@0"]]
            {
                let words = [&[name], options].concat();
                assert!(
                    matches!(parsed(&words), Ok(Arguments { command: Some(Command::Serve(_)) })),
                    "{words:?}"
                );
            }
            assert!(parsed(&[name, "serve"]).is_err());
        }
        assert!(parsed(&["./spindle", "spdk_tgt"]).is_err());
        assert!(matches!(parsed(&[]), Ok(Arguments { command: None })));
    }

    #[test]
    fn the_help_of_a_daemon_of_spdks_says_how_that_is_used() {
        for (words, usage) in [
            (&["spdk_tgt", "--help"][..], "Usage: spdk_tgt [OPTIONS]"),
            (&["/usr/bin/bdev_svc", "-h"], "Usage: bdev_svc [OPTIONS]"),
            (&["spindle", "serve", "--help"], "Usage: spindle serve [OPTIONS]"),
        ] {
            let help = parsed(words).err().unwrap().to_string();
            assert!(help.contains(usage), "{help}");
        }
        let refused = parsed(&["spdk_tgt", "--nope"]).err().unwrap().to_string();
        assert!(
            refused.contains("Usage: spdk_tgt") && !refused.contains("--enable-cpumask-locks"),
            "{refused}"
        );
        let refused = parsed(&["spdk_tgt", "--lcores", "0@4"]).err().unwrap().to_string();
        assert!(refused.contains("--lcores") && refused.contains("write 4"), "{refused}");
    }

    #[test]
    fn the_unit_for_systemd_starts_the_daemon_with_options_that_there_are() {
        let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/systemd/spindle.service");
        let unit = std::fs::read_to_string(unit).unwrap();
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let examples = unit.lines().filter_map(|line| line.strip_prefix("# SPINDLE_OPTIONS="));
        let words = std::iter::once(start).chain(examples).flat_map(|line| line.split([' ', '"']));
        let words = words.filter(|word| !word.is_empty() && !word.starts_with('$'));
        let parsed = Arguments::try_parse_from(words);
        assert!(matches!(parsed, Ok(Arguments { command: Some(Command::Serve(_)) })));
    }

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}

//! The `spindle` command: its arguments, its exit codes, and one module per group of subcommands.
//!
//! Lives on the process's main thread. No Rust interface is promised to other programs; scripts rely on the
//! command line, the JSON output, and the exit codes (0 done, 1 failed, 2 wrong usage, 4 findings of a check,
//! 130 and 143 stopped by SIGINT and SIGTERM).
#![forbid(unsafe_code)]

mod cli;
mod perf;

fn main() -> std::process::ExitCode {
    cli::main()
}

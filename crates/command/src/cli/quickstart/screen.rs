//! What a quickstart prints when it is ready.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use spindle_control::uri;
use spindle_engine::Address;
use spindle_reactor::{CpuSet, Mode};

use super::ALIAS;
use super::place::{Found, Place};
use crate::cli::failure::{Failure, shown};
use crate::cli::output::Output;
use crate::cli::programs;
use crate::cli::serve::IDLE;
use crate::cli::shell::quoted_path;
use crate::cli::text::{count, size};

/// The text for the user.
pub(super) struct Screen<'a> {
    pub(super) place: &'a Place,
    pub(super) engine: &'a str,
    pub(super) cores: &'a [usize],
    pub(super) found: Found,
    pub(super) opening: Duration,
    pub(super) size: u64,
    /// Bytes in clusters of the volume's own: those that were written since its last snapshot.
    pub(super) written: u64,
    pub(super) parent: Option<String>,
}

impl Screen<'_> {
    pub(super) fn print(&self, out: &mut Output) -> Result<(), Failure> {
        let paint = Paint(io::stdout().is_terminal());
        let version = env!("CARGO_PKG_VERSION");
        let title = paint.bold(&format!("Spindle {version}"));
        let reactors = count(self.cores.len() as u64, "reactor");
        writeln!(out, "{title} \u{b7} {} \u{b7} {reactors} \u{b7} no root, no hugepages\n", self.engine)?;
        let typed = self.place.typed.join("disk.img");
        let image = if typed.is_absolute() { shown(&typed) } else { format!("./{}", shown(&typed)) };
        let label = |label: &str| paint.bold(&format!("{label:<9}"));
        let wide = image.len().max(8);
        writeln!(out, "  {}{image:<wide$}  {}", label("store"), self.store()?)?;
        writeln!(out, "  {}{ALIAS:<wide$}  {}", label("volume"), self.volume())?;
        writeln!(out, "  {}{}", label("control"), shown(&self.place.rpc_socket()))?;
        writeln!(out, "  {}{}\n", label("data"), uri(&self.place.nbd_address(), false, ALIAS))?;
        self.cores(out)?;
        self.next(out)?;
        let ready = spindle_reactor::now().as_nanos() as f64 / 1e9;
        Ok(writeln!(out, "Ready in {ready:.2} s. Ctrl-C stops; the volume is here next time.")?)
    }

    fn store(&self) -> Result<String, Failure> {
        let path = self.place.image();
        let file = fs::metadata(&path).map_err(|error| Failure::file(&path, "accessed", error))?;
        let used = size(file.blocks() * 512);
        Ok(match self.found {
            Found::New => format!("{}, new; {used} of this disk used", size(file.len())),
            Found::Clean => {
                format!("{}, opened, last stop clean; {used} of this disk used", size(file.len()))
            }
            Found::CleanAfterKill => {
                format!(
                    "{}, opened, last run was killed, store clean; {used} of this disk used",
                    size(file.len())
                )
            }
            Found::Dirty => {
                let milliseconds = self.opening.as_millis().max(1);
                format!("{}, recovered in {milliseconds} ms; {used} of this disk used", size(file.len()))
            }
        })
    }

    fn volume(&self) -> String {
        let written = match self.written {
            0 => "nothing".to_owned(),
            written => size(written),
        };
        let since = self.parent.as_deref().map(|parent| format!(" since {parent}")).unwrap_or_default();
        format!("{} thin, {written} written{since}", size(self.size))
    }

    fn cores(&self, out: &mut Output) -> Result<(), Failure> {
        // In this mode a reactor runs wherever the scheduler puts it.
        let floats = IDLE == Mode::Interrupt && self.cores.len() > 1;
        for (index, core) in self.cores.iter().enumerate() {
            let what = match (index, self.cores.len()) {
                (0, 1) => "app, metadata, control, NBD connections",
                (0, _) => "app, metadata, control",
                _ => "NBD connections",
            };
            match floats {
                true => writeln!(out, "  reactor {index:<3} {what}")?,
                false => writeln!(out, "  core {core:<3} {what}")?,
            }
        }
        if floats {
            let cores = self.cores.iter().copied().collect::<CpuSet>().as_list();
            writeln!(out, "  on cores {cores}, each where the system's scheduler puts it")?;
        }
        Ok(writeln!(out)?)
    }

    /// Commands to try, for a shell in this folder; in the folder with the store if no shell can be told its name.
    fn next(&self, out: &mut Output) -> Result<(), Failure> {
        let (typed, absolute) = (&self.place.typed, self.place.absolute());
        let here = std::env::current_dir().unwrap_or_default();
        let inside = Path::new("");
        let from_here = quoted_path(&typed.join("spdk.sock")).map(|socket| (socket, typed.as_path(), &*here));
        let (socket, folder, here) = from_here.unwrap_or_else(|| ("spdk.sock".to_owned(), inside, absolute));
        match folder == inside {
            true => writeln!(
                out,
                "In another terminal, in the folder with the store (its name cannot be shown as a shell takes it):"
            )?,
            false => writeln!(out, "In another terminal, here:")?,
        }
        let spindle = programs::this(here);
        writeln!(out, "  {spindle} rpc -s {socket} bdev_get_bdevs")?;
        let snapshot = r#"'{"lvol_name":"demo/vm","snapshot_name":"monday"}'"#;
        writeln!(out, "  {spindle} rpc -s {socket} bdev_lvol_snapshot {snapshot}")?;
        let package = programs::package_of_missing("nbdcopy", "libnbd-bin");
        let uri = uri(&Address::Unix(folder.join("nbd.sock")), false, ALIAS);
        // A URI has no byte that stands for itself in single quotes only.
        writeln!(out, "  nbdcopy IMAGE.raw '{uri}'{package}\n")?;
        Ok(())
    }
}

/// Bold text on a terminal.
struct Paint(bool);

impl Paint {
    fn bold(&self, text: &str) -> String {
        if self.0 { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

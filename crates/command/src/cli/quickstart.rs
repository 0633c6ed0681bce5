//! `spindle quickstart`: a store in a file, a thin volume in it, its NBD export and SPDK's RPC socket, in one folder.
//!
//! The first run creates them, later ones open them.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use spindle_bdev::modules::file::{self, FileSpec, Spelling};
use spindle_control::{Daemon, DaemonOptions, Ended, methods, uri};
use spindle_engine::Address;
use spindle_format::{PAGE_SIZE, SuperBlock};
use spindle_lvol::{LvolSpec, StoreKey, StoreSpec};
use spindle_nbd::BdevExport;
use spindle_reactor::{CpuSet, Handle, Mode, Runtime};

use super::failure::{Failure, shown};
use super::output::{Output, tell};
use super::programs;
use super::serve::IDLE;
use super::text::{count, printable, size};

const IMAGE_BYTES: u64 = 10 << 30;
const BLOCK_SIZE: u32 = 4096;
const CLUSTER_SIZE: u32 = 4 << 20;
const VOLUME_BYTES: u64 = 8 << 30;
const BASE: &str = "disk";
const STORE: &str = "demo";
const VOLUME: &str = "vm";
const ALIAS: &str = "demo/vm";

/// The longest path that a socket can have.
const SOCKET_PATH: usize = 107;

/// Where to create it.
#[derive(Args)]
pub(crate) struct Command {
    /// The folder with the store and the sockets
    #[arg(default_value = "spindle-quickstart")]
    folder: PathBuf,
}

/// The folder and its contents.
struct Place {
    /// As typed.
    typed: PathBuf,
    absolute: PathBuf,
}

/// The state in which the store was found.
enum Found {
    New,
    Clean,
    Dirty,
}

impl Place {
    fn new(typed: PathBuf) -> Result<Place, Failure> {
        fs::create_dir_all(&typed).map_err(|error| unusable(&typed, "made", &error))?;
        let absolute = typed.canonicalize().map_err(|error| Failure::file(&typed, "found", error))?;
        let place = Place { typed, absolute };
        for socket in ["spdk.sock", "nbd.sock"] {
            let path = place.absolute.join(socket);
            // The lock file beside it may have a longer name.
            if path.as_os_str().len() > SOCKET_PATH {
                return Err(Failure::Refused(format!(
                    "{} has {} bytes, and a socket's path at most {SOCKET_PATH}: run it in another folder, or name one: spindle quickstart FOLDER",
                    shown(&path),
                    path.as_os_str().len()
                )));
            }
        }
        let ignore = place.absolute.join(".gitignore");
        fs::write(&ignore, "*\n").map_err(|error| unusable(&ignore, "written", &error))?;
        Ok(place)
    }

    fn image(&self) -> PathBuf {
        self.absolute.join("disk.img")
    }

    fn rpc_socket(&self) -> PathBuf {
        self.absolute.join("spdk.sock")
    }

    fn nbd_address(&self) -> Address {
        Address::Unix(self.absolute.join("nbd.sock"))
    }

    /// The image, created if there is none, and its state.
    fn found(&self) -> Result<Found, Failure> {
        let path = self.image();
        let mut page = [0; PAGE_SIZE];
        match fs::File::open(&path) {
            Ok(mut image) => {
                let read = io::Read::read_exact(&mut image, &mut page);
                read.map_err(|error| Failure::file(&path, "read", error))?;
                match SuperBlock::parse(&page) {
                    Ok(block) if block.clean => Ok(Found::Clean),
                    Ok(_) => Ok(Found::Dirty),
                    // Created before, but without a store on it yet.
                    Err(_) if page.iter().all(|byte| *byte == 0) => Ok(Found::New),
                    Err(error) => Err(Failure::Refused(format!(
                        "{} is there and holds no store that can be read: {error}; see 'spindle blob check', or name another folder",
                        shown(&path)
                    ))),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let image = fs::File::create_new(&path);
                let made = image.and_then(|image| image.set_len(IMAGE_BYTES));
                made.map_err(|error| Failure::file(&path, "made", error))?;
                Ok(Found::New)
            }
            Err(error) => Err(Failure::file(&path, "opened", error)),
        }
    }
}

/// A folder or file in which nothing can be made.
fn unusable(path: &Path, action: &str, error: &io::Error) -> Failure {
    Failure::Refused(format!(
        "{} cannot be {action}: {error}; run it in a folder that you may write to, or name one: spindle quickstart FOLDER",
        shown(path)
    ))
}

/// Creates or opens everything and serves until a signal.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let place = Place::new(command.folder)?;
    let runtime =
        Runtime::builder().mode(IDLE).build().map_err(|error| Failure::Engine(error.to_string()))?;
    let engine = runtime.engine().kind().to_string();
    let result = runtime.run(async move || serve(place, engine).await);
    result.map_err(|error| Failure::Engine(error.to_string()))?
}

async fn serve(place: Place, engine: String) -> Result<(), Failure> {
    let stop = Handle::current().map(|runtime| runtime.stop_requested());
    let options = DaemonOptions { rpc_socket: Some(place.rpc_socket()), ..DaemonOptions::default() };
    let daemon = Daemon::start(options, methods::table()).await.map_err(refused)?;
    let started = set_up(&place, &daemon, &engine).await;
    if let (Ok(()), Some(stop)) = (&started, stop) {
        stop.await;
    }
    let began = spindle_reactor::now();
    let ended = daemon.stop().await;
    started?;
    say_end(&ended, spindle_reactor::now() - began)
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::Refused(printable(error.to_string().as_bytes()))
}

/// The store, the volume and the export; then the screen.
async fn set_up(place: &Place, daemon: &Daemon, engine: &str) -> Result<(), Failure> {
    let control = daemon.control();
    // This process owns the socket, so no other one creates the image now.
    let found = place.found()?;
    let began = spindle_reactor::now();
    let spec = FileSpec {
        name: BASE.to_owned(),
        filename: place.image(),
        block_size: Some(BLOCK_SIZE),
        read_only: false,
        fallocate: true,
        uuid: None,
        spelling: Spelling::Aio,
    };
    let base = file::create(control.registry(), spec).await.map_err(refused)?;
    base.examined().await;
    let opening = spindle_reactor::now() - began;
    let lvols = control.lvols();
    let store = match lvols.store(&StoreKey::Name(STORE.to_owned())) {
        Ok(store) => store,
        Err(_) if matches!(found, Found::New) => {
            let spec = StoreSpec {
                bdev: BASE.to_owned(),
                name: STORE.to_owned(),
                cluster_size: Some(CLUSTER_SIZE),
                ..StoreSpec::default()
            };
            lvols.create_store(spec).await.map_err(refused)?
        }
        Err(error) => {
            let reports = lvols.reports().into_iter().map(|(_, what)| what).collect::<Vec<_>>().join("; ");
            return Err(refused(format!(
                "{}: {error} {reports}; name another folder",
                shown(&place.image())
            )));
        }
    };
    let volume = match store.lvol(VOLUME) {
        Ok(volume) => volume,
        Err(_) => store.create(LvolSpec::thin(VOLUME, VOLUME_BYTES)).await.map_err(refused)?,
    };
    let export = BdevExport { name: ALIAS.to_owned(), ..BdevExport::default() };
    control.nbd().export_bdev(&volume.alias(), export).map_err(refused)?;
    control.nbd().listen(place.nbd_address()).await.map_err(refused)?;
    let info = volume.info().await.map_err(refused)?;
    let written = info.num_allocated_clusters * u64::from(CLUSTER_SIZE);
    let cores = control.runtime().cores();
    let screen =
        Screen { place, engine, cores, found, opening, size: info.size, written, parent: info.parent };
    let done =
        || format!("{} has the store with the volume {ALIAS}, which is not served", shown(&place.image()));
    tell(done, |out| screen.print(out))
}

/// The text for the user.
struct Screen<'a> {
    place: &'a Place,
    engine: &'a str,
    cores: &'a [usize],
    found: Found,
    opening: Duration,
    size: u64,
    /// Bytes in clusters of the volume's own: those that were written since its last snapshot.
    written: u64,
    parent: Option<String>,
}

impl Screen<'_> {
    fn print(&self, out: &mut Output) -> Result<(), Failure> {
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

    fn next(&self, out: &mut Output) -> Result<(), Failure> {
        let spindle = programs::this();
        let folder = shown(&self.place.typed);
        let socket = format!("{folder}/spdk.sock");
        writeln!(out, "In another terminal, here:")?;
        writeln!(out, "  {spindle} rpc -s {socket} bdev_get_bdevs")?;
        let snapshot = r#"'{"lvol_name":"demo/vm","snapshot_name":"monday"}'"#;
        writeln!(out, "  {spindle} rpc -s {socket} bdev_lvol_snapshot {snapshot}")?;
        let package = programs::package_of_missing("nbdcopy", "libnbd-bin");
        writeln!(out, "  nbdcopy IMAGE.raw \"nbd+unix:///{ALIAS}?socket={folder}/nbd.sock\"{package}\n")?;
        Ok(())
    }
}

fn say_end(ended: &Ended, took: Duration) -> Result<(), Failure> {
    let closed = count((ended.rpc_connections + ended.nbd_connections) as u64, "connection");
    let seconds = took.as_secs_f64();
    let flushed = match ended.failed_flushes {
        0 => "all flushed, store clean".to_owned(),
        failed => format!("{failed} flushes failed: what was written since may be lost"),
    };
    let print =
        |out: &mut Output| Ok(writeln!(out, "Stopped: {closed} closed, {flushed} ({seconds:.2} s).")?);
    if ended.failed_flushes > 0 {
        return tell(|| format!("stopped: {closed} closed, {flushed}"), print);
    }
    let mut out = Output::stdout();
    print(&mut out)?;
    out.finish()
}

/// Bold text on a terminal.
struct Paint(bool);

impl Paint {
    fn bold(&self, text: &str) -> String {
        if self.0 { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

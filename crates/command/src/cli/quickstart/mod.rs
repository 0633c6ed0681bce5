//! `spindle quickstart`: a store in a file, a thin volume in it, its NBD export and SPDK's RPC socket, in one folder.
//!
//! The first run creates them, later ones open them.

mod made;
mod place;
mod screen;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use spindle_bdev::Bdev;
use spindle_bdev::modules::file::{self, FileSpec, Spelling};
use spindle_control::{Control, Daemon, DaemonOptions, Ended, Log, methods, raise_open_files};
use spindle_engine::spawn_pinned;
use spindle_lvol::{Lvol, LvolSpec, LvolStore, StoreKey, StoreSpec};
use spindle_nbd::BdevExport;
use spindle_reactor::{Handle, Runtime, sleep};

use super::failure::{Failure, shown};
use super::output::{Output, tell};
use super::serve::IDLE;
use super::text::{count, printable};
use place::{Found, Place, not_ours};
use screen::Screen;

const BLOCK_SIZE: u32 = 4096;
const CLUSTER_SIZE: u32 = 4 << 20;
const VOLUME_BYTES: u64 = 8 << 30;
const BASE: &str = "disk";
const STORE: &str = "demo";
const VOLUME: &str = "vm";
const ALIAS: &str = "demo/vm";

/// How often a wait for an OS thread looks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Where to create it.
#[derive(Args)]
pub(crate) struct Command {
    /// The folder with the store and the sockets
    #[arg(default_value = "spindle-quickstart")]
    folder: PathBuf,
}

/// Creates or opens everything and serves until a signal.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let place = Place::new(command.folder)?;
    let served = serve_in(place.clone());
    if served.is_err() {
        place.take_back();
    }
    served
}

fn serve_in(place: Place) -> Result<(), Failure> {
    raise_open_files();
    let log = Log::default();
    let builder = Runtime::builder().mode(IDLE).reporter(Arc::new(log.clone()));
    let runtime = builder.build().map_err(|error| Failure::Engine(error.to_string()))?;
    let engine = runtime.engine().kind().to_string();
    let result = runtime.run(async move || serve(place, engine, log).await);
    result.map_err(|error| Failure::Engine(error.to_string()))?
}

async fn serve(place: Place, engine: String, log: Log) -> Result<(), Failure> {
    let stop = Handle::current().map(|runtime| runtime.stop_requested());
    let was_killed = place.was_killed();
    let options = DaemonOptions { rpc_socket: Some(place.rpc_socket()), log, ..DaemonOptions::default() };
    let daemon = Daemon::start(options, methods::table()).await.map_err(refused)?;
    let started = set_up(&place, was_killed, &daemon, &engine).await;
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
async fn set_up(place: &Place, was_killed: bool, daemon: &Daemon, engine: &str) -> Result<(), Failure> {
    let control = daemon.control();
    let found = match place.found()? {
        Found::Clean if was_killed => Found::CleanAfterKill,
        found => found,
    };
    if found == Found::New {
        create(place, control).await?;
    }
    let began = spindle_reactor::now();
    let base = open(control, &place.image()).await?;
    base.examined().await;
    let opening = spindle_reactor::now() - began;
    let store = store_of(place, control)?;
    let volume = volume_of(&store).await?;
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

/// Makes the image of a first run. It gets its name when the store and the volume in it are whole and closed.
async fn create(place: &Place, control: &Control) -> Result<(), Failure> {
    let path = place.begin()?;
    let made = match fill(control, &path).await {
        Ok(()) => finish(place).await,
        failed => failed,
    };
    if made.is_err() {
        place.give_up();
    }
    made
}

/// Gives the image its name, on an OS thread of its own: that waits for the disk.
async fn finish(place: &Place) -> Result<(), Failure> {
    let place = place.clone();
    let failed = |error: &dyn std::fmt::Display| Failure::Engine(error.to_string());
    let thread = spawn_pinned("spindle-folder", None, move || place.finish());
    let thread = thread.map_err(|error| failed(&error))?;
    while !thread.is_finished() {
        sleep(LOOK_AGAIN).await;
    }
    thread.join().unwrap_or_else(|_| Err(failed(&"the folder could not be written")))
}

/// A store with the volume in an empty file, which is closed at the end.
async fn fill(control: &Control, path: &Path) -> Result<(), Failure> {
    let base = open(control, path).await?;
    base.examined().await;
    let spec = StoreSpec {
        bdev: BASE.to_owned(),
        name: STORE.to_owned(),
        cluster_size: Some(CLUSTER_SIZE),
        ..StoreSpec::default()
    };
    let store = control.lvols().create_store(spec).await.map_err(refused)?;
    volume_of(&store).await?;
    control.registry().unregister(&base).await.map_err(refused)
}

/// Opens an image as the bdev of the store.
async fn open(control: &Control, path: &Path) -> Result<Bdev, Failure> {
    let spec = FileSpec {
        name: BASE.to_owned(),
        filename: path.to_owned(),
        block_size: Some(BLOCK_SIZE),
        read_only: false,
        fallocate: true,
        uuid: None,
        spelling: Spelling::Aio,
    };
    file::create(control.registry(), spec).await.map_err(refused)
}

/// The store in the image.
fn store_of(place: &Place, control: &Control) -> Result<LvolStore, Failure> {
    let lvols = control.lvols();
    lvols.store(&StoreKey::Name(STORE.to_owned())).map_err(|_| {
        let why = lvols.reports().into_iter().map(|(_, why)| why).chain(
            lvols.stores().into_iter().map(|store| format!("it holds the lvolstore {:?}", store.name())),
        );
        let why = why.collect::<Vec<_>>().join("; ");
        let why = if why.is_empty() { "it is a Blobstore of another kind" } else { &*why };
        not_ours(&place.image(), &format!("holds no lvolstore {STORE:?} that can be used: {why}"))
    })
}

/// The volume of a store, made if it is not there.
async fn volume_of(store: &LvolStore) -> Result<Lvol, Failure> {
    match store.lvol(VOLUME) {
        Ok(volume) => Ok(volume),
        Err(_) => store.create(LvolSpec::thin(VOLUME, VOLUME_BYTES)).await.map_err(refused),
    }
}

fn say_end(ended: &Ended, took: Duration) -> Result<(), Failure> {
    let closed = count((ended.rpc_connections + ended.nbd_connections) as u64, "connection");
    let seconds = took.as_secs_f64();
    let flushed = match (ended.failed_flushes, ended.failed_unloads) {
        (0, 0) => "all flushed, store clean".to_owned(),
        (0, _) => "all flushed, store not unloaded cleanly: the next start recovers it".to_owned(),
        (failed, _) => format!("{failed} flushes failed: what was written since may be lost"),
    };
    let print =
        |out: &mut Output| Ok(writeln!(out, "Stopped: {closed} closed, {flushed} ({seconds:.2} s).")?);
    if ended.failed_flushes + ended.failed_unloads > 0 {
        return tell(|| format!("stopped: {closed} closed, {flushed}"), print);
    }
    let mut out = Output::stdout();
    print(&mut out)?;
    out.finish()
}

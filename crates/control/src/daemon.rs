//! The application's life: it takes the socket, starts the framework, serves clients, and ends everything in
//! order.
//!
//! On the app thread. Dropping the daemon ends its server at once; [`Daemon::stop`] ends it in order.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use spindle_bdev::modules::file::{self, FileSpec, Spelling};
use spindle_engine::Address;
use spindle_nbd::{BdevExport, Tls};
use spindle_reactor::{Handle, Hangups, LocalJoinHandle, spawn_local, timeout};
use spindle_rpc::{Bound, Dispatcher, Phase, RpcError, Server, State, Table};

use crate::control::Control;
use crate::core_locks::{CORE_LOCKS, CoreLocks};
use crate::log::{Level, Log};
use crate::open_files::ServerLimits;
use crate::replay::{ConfigFile, Replay};
use crate::start_error::StartError;

/// How long a stop waits for requests of clients before their bdevs are removed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a stop waits for copying work to end early, before it answers the last calls.
const COPYING: Duration = Duration::from_secs(5);

/// Default block size of a served file.
const FILE_BLOCK: u32 = 512;

/// Parameters of a daemon.
#[derive(Clone, Debug, Default)]
pub struct DaemonOptions {
    /// The RPC socket; without one there is no RPC server.
    pub rpc_socket: Option<PathBuf>,
    /// Serve before the framework is started, and start it when `framework_start_init` is called.
    pub wait_for_rpc: bool,
    /// If not empty: only these methods are available.
    pub rpcs_allowed: Vec<String>,
    /// Addresses on which the NBD server listens from the beginning.
    pub nbd: Vec<Address>,
    /// The folder of certificates for the TCP addresses among them; their connections are then encrypted. A Unix
    /// socket is accessible to its owner only.
    pub nbd_tls: Option<PathBuf>,
    /// Take SPDK's lock files of all cores of this runtime, and do not start if another process has one of them.
    pub lock_cores: bool,
    /// The folder of those files; by default SPDK's, [`CORE_LOCKS`].
    pub core_lock_folder: Option<PathBuf>,
    /// A configuration to replay.
    pub config: Option<ConfigFile>,
    /// The log: its form and where it goes.
    pub log: Log,
    /// Files that become bdevs and NBD exports at the start, with the names of the files; with their paths where a bdev has
    /// that name.
    pub files: Vec<PathBuf>,
}

/// A summary of what the stop ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// RPC clients that were connected.
    pub rpc_connections: usize,
    /// NBD clients that used an export.
    pub nbd_connections: usize,
    /// Flushes for them that failed: their writes may be lost.
    pub failed_flushes: u64,
    /// Lvolstores that were not unloaded cleanly; the log says which, and why. The next load recovers them.
    pub failed_unloads: u64,
}

/// A running daemon.
pub struct Daemon {
    control: Control,
    server: Option<Server>,
    /// The task that reopens the log on SIGHUP; `None` without a log file.
    _hangups: Option<LocalJoinHandle<()>>,
}

impl Daemon {
    /// Takes the socket, starts the framework unless it must wait, and serves. `table` holds the methods.
    ///
    /// # Errors
    /// [`StartError`] names the obstacle and the remedy.
    pub async fn start(options: DaemonOptions, mut table: Table<Control>) -> Result<Daemon, StartError> {
        check_addresses(&options.nbd)?;
        let core_locks = CoreLocks::new(options.core_lock_folder.unwrap_or_else(|| CORE_LOCKS.into()));
        if options.lock_cores {
            let runtime = Handle::current().expect("the daemon lives on a Spindle thread");
            core_locks.claim(runtime.cores())?;
        }
        // Clients that connect early wait.
        let bound = match &options.rpc_socket {
            Some(path) => Some(Bound::bind(path).await.map_err(StartError::Socket)?),
            None => None,
        };
        let limits = ServerLimits::of_process(&options.log);
        let control = Control::with(Phase::new(State::Startup), core_locks, options.log, limits.nbd).await?;
        if !options.rpcs_allowed.is_empty() {
            let allowed: Vec<&str> = options.rpcs_allowed.iter().map(String::as_str).collect();
            table.keep_only(&allowed);
        }
        let hangups = control.log().has_file().then(|| {
            // Made here and not in the task, which runs later: a SIGHUP between the two would stop the daemon.
            let hangups = control.runtime().hangups();
            spawn_local(reopen_logs(control.clone(), hangups)).cancel_on_drop()
        });
        let dispatcher = dispatcher(table, &control);
        let log = control.log();
        let read = |file| Replay::read(file, dispatcher.clone(), (control.lvols().clone(), log.clone()));
        let config = options.config.map(read);
        let config = config.transpose().map_err(StartError::Config)?;
        start_framework(&control, config, options.wait_for_rpc).await.map_err(StartError::Config)?;
        let mut served = Vec::new();
        for path in &options.files {
            let bdev = export_file(&control, path, &served).await?;
            served.push((bdev, path.as_path()));
        }
        let tls = match &options.nbd_tls {
            Some(folder) => Some(Tls::from_folder(folder).await?),
            None => None,
        };
        for address in options.nbd {
            listen(&control, address, tls.as_ref()).await?;
        }
        let server = bound.map(|bound| bound.serve(dispatcher, limits.rpc));
        control.log().notice("app", &format!("serving on the cores {:?}", control.runtime().cores()));
        Ok(Daemon { server, control, _hangups: hangups })
    }

    /// The context of its handlers.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Why the daemon must end: a start by `framework_start_init` that failed.
    pub fn failure(&self) -> Option<String> {
        self.control.framework().failure()
    }

    /// Ends it in order: has inflates, decouples and shallow copies end early, answers calls, flushes NBD clients' writes,
    /// closes bdevs.
    pub async fn stop(self) -> Ended {
        self.control.log().notice("app", "ending");
        self.control.framework().forget_rest();
        // A device may keep such work for ever.
        let _ = timeout(COPYING, self.control.lvols().end_copying()).await;
        let rpc_connections = match self.server {
            Some(server) => server.close().await,
            None => 0,
        };
        let nbd = end_clients_and_bdevs(&self.control).await;
        self.control.core_locks().release();
        let (connections, failed) = (nbd.connections, nbd.failed_flushes);
        let unclean = self.control.lvols().failed_unloads();
        let mut said = format!(
            "ended in order: {rpc_connections} RPC and {connections} NBD clients were connected, {failed} flushes failed"
        );
        if unclean > 0 {
            said += &format!(", {unclean} lvolstores were not unloaded cleanly");
        }
        let level = if failed + unclean > 0 { Level::Error } else { Level::Notice };
        self.control.log().say(level, "app", &said);
        Ended {
            rpc_connections,
            nbd_connections: connections,
            failed_flushes: failed,
            failed_unloads: unclean,
        }
    }
}

/// Ends the NBD clients, and then the bdevs. A request that a device keeps is given up by then, or ends with its bdev.
async fn end_clients_and_bdevs(control: &Control) -> spindle_nbd::Ended {
    let mut clients = pin!(control.nbd().stop());
    let ended = timeout(PATIENCE, clients.as_mut()).await;
    // It fails only if the runtime has ended, and its bdevs with it.
    let _ = control.registry().shutdown().await;
    match ended {
        Ok(ended) => ended,
        Err(_) => clients.await,
    }
}

/// Calls methods, and logs each call if the flag "rpc" or that of its group is set.
fn dispatcher(table: Table<Control>, control: &Control) -> Dispatcher<Control> {
    let log = control.log().clone();
    let observer = move |method: &str, outcome: Result<&str, &RpcError>| {
        let mut flags = group_flag(method).into_iter().chain(["rpc"]);
        let Some(part) = flags.find(|flag| log.says(Level::Info, flag)) else { return };
        let said = match outcome {
            Ok(_) => format!("{method}: done"),
            Err(error) => format!("{method}: refused with {}: {}", error.code, error.message),
        };
        log.say(Level::Info, part, &said);
    };
    Dispatcher::observed(table, control.clone(), control.phase().clone(), observer)
}

/// SPDK's log flag for the group of a method.
fn group_flag(method: &str) -> Option<&'static str> {
    const GROUPS: [(&str, &str); 6] = [
        ("bdev_lvol_", "lvol_rpc"),
        ("framework_", "app_rpc"),
        ("log_", "log_rpc"),
        ("notify_", "notify_rpc"),
        ("spdk_", "app_rpc"),
        ("thread_", "app_rpc"),
    ];
    GROUPS.iter().find(|(beginning, _)| method.starts_with(beginning)).map(|(_, flag)| *flag)
}

/// Reopens the log at each SIGHUP.
async fn reopen_logs(control: Control, mut hangups: Hangups) {
    loop {
        hangups.next().await;
        control.log().reopen();
    }
}

/// Runs the calls of a configuration, and changes to the running state unless an RPC call does that.
async fn start_framework(control: &Control, config: Option<Replay>, waits: bool) -> Result<(), String> {
    if let Some(config) = &config {
        config.run(State::Startup).await?;
    }
    if waits {
        if let Some(config) = config {
            control.framework().set_rest(Box::pin(async move { config.run(State::Runtime).await }));
        }
        return Ok(());
    }
    control.scheduler().choose(spindle_reactor::now());
    if let Some(config) = config {
        config.run(State::Runtime).await?;
    }
    control.phase().set(State::Runtime);
    Ok(())
}

/// The name for the bdev and the export of a file: without its folder, unless a bdev has that name.
fn name_for(control: &Control, path: &Path) -> String {
    let short = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    match control.registry().get(&short) {
        Ok(_) => path.to_string_lossy().into_owned(),
        Err(_) => short.into_owned(),
    }
}

/// Listens, encrypted at a TCP address if there are certificates. Done already where the configuration listens there in
/// the same way.
async fn listen(control: &Control, address: Address, tls: Option<&Tls>) -> Result<(), StartError> {
    let tls = tls.filter(|_| matches!(address, Address::Tcp(_)));
    let folder = tls.map(Tls::folder);
    let listeners = control.nbd().listeners();
    if let Some(there) = listeners.iter().find(|there| is_same_address(&there.address, &address)) {
        return match is_same_path(there.tls.as_deref(), folder) {
            true => Ok(()),
            false => Err(StartError::ListensOtherwise(address)),
        };
    }
    match tls {
        Some(tls) => control.nbd().listen_encrypted(address, tls.clone()).await?,
        None => control.nbd().listen(address).await?,
    };
    Ok(())
}

/// An error if the server cannot listen on two of these addresses together.
fn check_addresses(addresses: &[Address]) -> Result<(), StartError> {
    for (place, second) in addresses.iter().enumerate() {
        addresses[..place].iter().try_for_each(|first| check_pair(first, second))?;
    }
    Ok(())
}

fn check_pair(first: &Address, second: &Address) -> Result<(), StartError> {
    let (one, other) = (first.clone(), second.clone());
    if has_free_port(first) {
        Ok(())
    } else if is_same_address(first, second) {
        Err(StartError::SameAddress { first: one, second: other })
    } else if includes(first, second) {
        Err(StartError::AddressIncluded { all: one, one: other })
    } else if includes(second, first) {
        Err(StartError::AddressIncluded { all: other, one })
    } else {
        Ok(())
    }
}

/// True if the system chooses the port.
fn has_free_port(address: &Address) -> bool {
    matches!(address, Address::Tcp(tcp) if tcp.port() == 0)
}

/// True if `all` stands for all addresses of the machine, `one` among them.
fn includes(all: &Address, one: &Address) -> bool {
    match (all, one) {
        (Address::Tcp(all), Address::Tcp(one)) => {
            all.ip().is_unspecified() && all.port() == one.port() && all.is_ipv4() == one.is_ipv4()
        }
        _ => false,
    }
}

fn is_same_address(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Unix(one), Address::Unix(other)) => is_same_path(Some(one), Some(other)),
        _ => one == other,
    }
}

/// True if both are absent, or name one place, from the folder of this process.
fn is_same_path(one: Option<&Path>, other: Option<&Path>) -> bool {
    let whole =
        |path: Option<&Path>| path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into()));
    whole(one) == whole(other)
}

/// Exports a file, as the bdev that the configuration has made of it or as a new one; returns the name of the bdev. Those
/// that were `served` before are files of the command line, with their paths.
async fn export_file(
    control: &Control,
    path: &Path,
    served: &[(String, &Path)],
) -> Result<String, StartError> {
    if let Some(bdev) = file::made_of(control.registry(), path) {
        if let Some((_, first)) = served.iter().find(|(name, _)| name == bdev.name()) {
            let (first, second) = (first.display().to_string(), path.display().to_string());
            return Err(StartError::SameFile { first, second });
        }
        export_bdev(control, path, bdev.name())?;
        return Ok(bdev.name().to_owned());
    }
    let name = name_for(control, path);
    if control.registry().get(&name).is_ok() {
        return Err(StartError::NameTaken(name));
    }
    let spec = FileSpec {
        name: name.clone(),
        filename: path.to_owned(),
        block_size: Some(FILE_BLOCK),
        read_only: false,
        fallocate: true,
        uuid: None,
        spelling: Spelling::Aio,
    };
    file::create(control.registry(), spec).await?;
    control.nbd().export_bdev(&name, BdevExport::default())?;
    Ok(name)
}

/// Exports a bdev by the name of its file, by its path if another export has that name. Done already if the configuration
/// has done so.
fn export_bdev(control: &Control, path: &Path, bdev: &str) -> Result<(), StartError> {
    let short = path.file_name().unwrap_or(path.as_os_str());
    for name in [short, path.as_os_str()].map(|name| name.to_string_lossy().into_owned()) {
        match control.nbd().exports().iter().find(|export| export.name == name) {
            Some(export) if export.bdev.as_deref() == Some(bdev) => return Ok(()),
            Some(_) => {}
            None => {
                let export = BdevExport { name, ..BdevExport::default() };
                return Ok(control.nbd().export_bdev(bdev, export)?);
            }
        }
    }
    Err(StartError::NameTaken(path.display().to_string()))
}

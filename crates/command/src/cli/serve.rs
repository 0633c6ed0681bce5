//! `spindle serve`: the daemon, with `spdk_tgt`'s options.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use spindle_control::{
    ConfigFile, Daemon, DaemonOptions, Level, Log, LogForm, LogOptions, methods, parse_address,
    raise_open_files, uri,
};
use spindle_engine::{Address, CpuSet, available_cores};
use spindle_nbd::ListenerInfo;
use spindle_reactor::{BuildError, Handle, Mode, Runtime};

use super::config_file;
use super::failure::{Failure, shown};
use super::lcores;
use super::output::{Output, note};
use super::readiness::{self, ReadyFd};

/// The default socket of SPDK's programs.
pub(super) const DEFAULT_SOCKET: &str = "/var/tmp/spdk.sock";

/// What to serve, and where.
#[derive(Args)]
pub(crate) struct Command {
    /// The cores to run on: a mask as 0x3 or a list as [0,2-4]. Default: all that this process may use
    #[arg(short = 'm', long, value_name = "CORES")]
    cpumask: Option<String>,
    /// The same as SPDK also takes it: 0,2-4
    #[arg(long, value_name = "CORES", value_parser = lcores::parse, conflicts_with = "cpumask")]
    lcores: Option<CpuSet>,
    /// The RPC socket. Default: /var/tmp/spdk.sock; with files alone there is none
    #[arg(short = 'r', long, value_name = "PATH")]
    rpc_socket: Option<PathBuf>,
    /// Serve no RPC: for a daemon that is set up by a configuration or files alone
    #[arg(long, conflicts_with_all = ["wait_for_rpc", "rpc_socket"])]
    no_rpc_server: bool,
    /// A configuration to replay: JSON as SPDK's save_config writes it
    #[arg(short = 'c', long, visible_alias = "json", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Continue when a call of the configuration fails or is not known
    #[arg(long)]
    json_ignore_init_errors: bool,
    /// Wait for framework_start_init before subsystems are initialised
    #[arg(long)]
    wait_for_rpc: bool,
    /// Only these RPC methods are allowed
    #[arg(long, value_name = "METHOD,...", value_delimiter = ',')]
    rpcs_allowed: Vec<String>,
    /// Serve NBD here: unix:PATH or IP:PORT. With --file the default is 127.0.0.1:10809
    #[arg(long, value_name = "ADDR", value_parser = address)]
    nbd: Vec<Address>,
    /// Encrypt NBD at TCP addresses by TLS, for clients with a certificate: a folder with server-cert.pem, server-key.pem
    /// and ca-cert.pem, as qemu-nbd takes it
    #[arg(long, value_name = "FOLDER")]
    nbd_tls: Option<PathBuf>,
    /// Serve this file as an NBD export with its name, or with its path if another has that name. May be repeated; with -r
    /// also serve RPC
    #[arg(long, value_name = "PATH")]
    file: Vec<PathBuf>,
    /// Write a line to this file descriptor, open for writing, when everything is served
    #[arg(long, value_name = "FD")]
    ready_fd: Option<u32>,
    /// Take SPDK's lock files of the cores, /var/tmp/spdk_cpu_lock_NNN, as spdk_tgt does; refuse to start if one is taken
    #[arg(long)]
    enable_cpumask_locks: bool,
    /// Share the cores: take no lock files. The default, but not under the name spdk_tgt
    #[arg(long)]
    disable_cpumask_locks: bool,
    /// Append the log to this file too; SIGHUP reopens it
    #[arg(long, value_name = "PATH")]
    log_file: Option<PathBuf>,
    /// How the log is written. Default: human on a terminal, json elsewhere
    #[arg(long, value_name = "FORM")]
    log_format: Option<LogFormat>,
    /// Log what this part does: a flag of log_get_flags, or all. May be repeated
    #[arg(short = 'L', long, value_name = "FLAG")]
    logflag: Vec<String>,
    /// Print warnings and errors only
    #[arg(long)]
    silence_noticelog: bool,
    /// Print the version
    #[arg(short = 'v', long)]
    version: bool,
    #[arg(long, hide = true)]
    core_lock_folder: Option<PathBuf>,
    /// Without -m: run on one core, the first that this process may use.
    #[arg(skip)]
    one_core: bool,
    #[command(flatten)]
    meaningless: Meaningless,
}

/// How the log is written.
#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines of text
    Human,
    /// One JSON object a line
    Json,
}

impl Command {
    /// The same under the name of a daemon of SPDK's: it locks its cores, and has one core unless options name others.
    pub(super) fn into_spdk(self) -> Command {
        Command { enable_cpumask_locks: true, one_core: true, ..self }
    }

    /// The options of the daemon's log.
    fn log(&self) -> LogOptions {
        let form = match self.log_format {
            Some(LogFormat::Human) => LogForm::Human,
            Some(LogFormat::Json) => LogForm::Json,
            None if std::io::stderr().is_terminal() => LogForm::Human,
            None => LogForm::Json,
        };
        let (file, flags) = (self.log_file.clone(), self.logflag.clone());
        LogOptions { form, file, flags, quiet: self.silence_noticelog }
    }

    /// The cores to run on, if they were chosen, and the option that did.
    fn cores(&self) -> Option<(&'static str, String)> {
        let first = || available_cores().affinity.iter().next().map(|core| format!("[{core}]"));
        match (&self.cpumask, self.lcores) {
            (Some(cores), _) => Some(("-m", cores.clone())),
            (None, Some(cores)) => Some(("--lcores", cores.as_list())),
            (None, None) => self.one_core.then(first).flatten().map(|core| ("-m", core)),
        }
    }

    /// The addresses of the NBD server.
    fn nbd_addresses(&self) -> Result<Vec<Address>, Failure> {
        let addresses = match self.nbd.is_empty() && !self.file.is_empty() {
            true => vec![Address::Tcp((Ipv4Addr::LOCALHOST, NBD_PORT).into())],
            false => self.nbd.clone(),
        };
        let encrypts = addresses.iter().any(|address| matches!(address, Address::Tcp(_)));
        if self.nbd_tls.is_some() && !encrypts {
            let why = "--nbd-tls encrypts TCP addresses only, and there is none: add --nbd IP:PORT, or leave --nbd-tls out \
                       (a Unix socket is open to its owner only; nbd_listen encrypts one)";
            return Err(Failure::Usage(why.to_owned()));
        }
        Ok(addresses)
    }

    /// The RPC socket; `None` for a daemon that only serves files.
    fn rpc_socket(&self) -> Option<PathBuf> {
        let needs_rpc = self.config.is_some() || self.wait_for_rpc || !self.rpcs_allowed.is_empty();
        let files_alone = !self.file.is_empty() && !needs_rpc;
        match &self.rpc_socket {
            _ if self.no_rpc_server => None,
            Some(path) => Some(path.clone()),
            None if files_alone => None,
            None => Some(DEFAULT_SOCKET.into()),
        }
    }
}

/// What idle reactors do. A client that waits for each reply before it asks again would keep a core
/// looking for work; on a machine without cores to spare it would take that core from the client.
pub(super) const IDLE: Mode = Mode::Interrupt;

/// The port that NBD clients try.
const NBD_PORT: u16 = 10809;

fn address(text: &str) -> Result<Address, String> {
    parse_address(text)
}

/// Options of SPDK's applications without effect here. They are accepted with a note.
#[derive(Args)]
struct Meaningless {
    #[arg(short = 'i', long, hide = true)]
    shm_id: Option<i64>,
    #[arg(short = 's', long, hide = true)]
    mem_size: Option<String>,
    #[arg(short = 'n', long, hide = true)]
    mem_channels: Option<i64>,
    #[arg(short = 'p', long, hide = true)]
    main_core: Option<i64>,
    #[arg(short = 'g', long, hide = true)]
    single_file_segments: bool,
    #[arg(short = 'u', long, hide = true)]
    no_pci: bool,
    #[arg(short = 'B', long, hide = true)]
    pci_blocked: Vec<String>,
    #[arg(short = 'A', long, hide = true)]
    pci_allowed: Vec<String>,
    #[arg(short = 'R', long, hide = true)]
    huge_unlink: bool,
    #[arg(short = 'd', long, hide = true)]
    limit_coredump: bool,
    #[arg(short = 'e', long, hide = true)]
    tpoint_group: Option<String>,
    #[arg(long, hide = true)]
    no_huge: bool,
    #[arg(long, hide = true)]
    huge_dir: Option<String>,
    #[arg(long, hide = true)]
    iova_mode: Option<String>,
    #[arg(long, hide = true)]
    base_virtaddr: Option<String>,
    #[arg(long, hide = true)]
    env_context: Option<String>,
    #[arg(long, hide = true)]
    num_trace_entries: Option<u64>,
    #[arg(long, hide = true)]
    interrupt_mode: bool,
    #[arg(long, hide = true)]
    msg_mempool_size: Option<u64>,
    #[arg(long, hide = true)]
    vfio_vf_token: Option<String>,
    #[arg(long, hide = true)]
    enforce_numa: bool,
}

impl Meaningless {
    /// The given options, with both names of each.
    fn given(&self) -> Vec<&'static str> {
        let given = [
            ("--shm-id (-i)", self.shm_id.is_some()),
            ("--mem-size (-s)", self.mem_size.is_some()),
            ("--mem-channels (-n)", self.mem_channels.is_some()),
            ("--main-core (-p)", self.main_core.is_some()),
            ("--single-file-segments (-g)", self.single_file_segments),
            ("--no-pci (-u)", self.no_pci),
            ("--pci-blocked (-B)", !self.pci_blocked.is_empty()),
            ("--pci-allowed (-A)", !self.pci_allowed.is_empty()),
            ("--huge-unlink (-R)", self.huge_unlink),
            ("--limit-coredump (-d)", self.limit_coredump),
            ("--tpoint-group (-e)", self.tpoint_group.is_some()),
            ("--no-huge", self.no_huge),
            ("--huge-dir", self.huge_dir.is_some()),
            ("--iova-mode", self.iova_mode.is_some()),
            ("--base-virtaddr", self.base_virtaddr.is_some()),
            ("--env-context", self.env_context.is_some()),
            ("--num-trace-entries", self.num_trace_entries.is_some()),
            ("--interrupt-mode", self.interrupt_mode),
            ("--msg-mempool-size", self.msg_mempool_size.is_some()),
            ("--vfio-vf-token", self.vfio_vf_token.is_some()),
            ("--enforce-numa", self.enforce_numa),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

/// Serves until a signal ends it.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    if command.version {
        let mut out = Output::stdout();
        writeln!(out, "spindle {}", env!("CARGO_PKG_VERSION"))?;
        return out.finish();
    }
    let nbd = command.nbd_addresses()?;
    let ready_fd = command.ready_fd.map(ReadyFd::take);
    raise_open_files();
    // Before the runtime starts, which waits for no file.
    let config =
        command.config.as_deref().map(|path| config_file::read(path, command.json_ignore_init_errors));
    let config = config.transpose()?;
    let log = Log::open(command.log()).map_err(|error| Failure::Refused(error.to_string()))?;
    say_panics(log.clone());
    let mut builder = Runtime::builder().mode(IDLE).reporter(Arc::new(log.clone()));
    let cores = command.cores();
    if let Some((_, cores)) = &cores {
        builder = builder.cores(cores);
    }
    let asked = cores.as_ref().map(|(option, cores)| (*option, &**cores));
    let runtime = builder.build().map_err(|error| cannot_build(asked, &error))?;
    runtime
        .run(async move || serve(command, nbd, config, (log, ready_fd)).await)
        .map_err(|error| Failure::Engine(error.to_string()))?
}

/// Panics are lines of the log, in its form, with a backtrace if RUST_BACKTRACE asks for one.
fn say_panics(log: Log) {
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = Backtrace::capture();
        let mut said = panic.to_string();
        if backtrace.status() == BacktraceStatus::Captured {
            said.push_str(&format!("\n{backtrace}"));
        }
        log.say(Level::Error, "panic", &said);
    }));
}

/// Why there is no runtime; names the option and its value if cores were `asked` for.
pub(super) fn cannot_build(asked: Option<(&str, &str)>, error: &BuildError) -> Failure {
    match (asked, error) {
        (
            Some((option, cores)),
            BuildError::Cores(_)
            | BuildError::NotAvailable { .. }
            | BuildError::NoCore { .. }
            | BuildError::TooManyReactors { .. },
        ) => Failure::Usage(format!("{option} {cores}: {error}")),
        _ => Failure::Engine(error.to_string()),
    }
}

async fn serve(
    command: Command,
    nbd: Vec<Address>,
    config: Option<ConfigFile>,
    (log, ready_fd): (Log, Option<ReadyFd>),
) -> Result<(), Failure> {
    let stop = Handle::current().map(|runtime| runtime.stop_requested());
    let rpc_socket = command.rpc_socket();
    let ignored = command.meaningless.given();
    if !ignored.is_empty() {
        let verb = if ignored.len() == 1 { "has" } else { "have" };
        log.warning("app", &format!("{} {verb} no effect here", ignored.join(", ")));
    }
    let options = DaemonOptions {
        rpc_socket: rpc_socket.clone(),
        wait_for_rpc: command.wait_for_rpc,
        rpcs_allowed: command.rpcs_allowed,
        lock_cores: command.enable_cpumask_locks && !command.disable_cpumask_locks,
        core_lock_folder: command.core_lock_folder,
        config,
        nbd,
        nbd_tls: command.nbd_tls,
        files: command.file,
        log,
    };
    let daemon = Daemon::start(options, methods::table()).await;
    let daemon = daemon.map_err(|error| Failure::Refused(error.to_string()))?;
    if let Err(failure) = say(rpc_socket.as_deref(), &daemon) {
        note(&format!("serving, but {failure}"));
    }
    readiness::ready(ready_fd);
    if let Some(stop) = stop {
        stop.await;
    }
    readiness::stopping();
    let failure = daemon.failure();
    daemon.stop().await;
    failure.map_or(Ok(()), |what| Err(Failure::Refused(what)))
}

/// Prints where it is reached.
fn say(rpc_socket: Option<&Path>, daemon: &Daemon) -> Result<(), Failure> {
    let mut out = Output::stdout();
    match rpc_socket {
        Some(path) => writeln!(out, "control  {}", shown(path))?,
        None => writeln!(out, "control  none: -r PATH makes an RPC socket")?,
    }
    let nbd = daemon.control().nbd();
    for ListenerInfo { address, tls } in nbd.listeners() {
        let exports = nbd.exports();
        let mut say = |export: &str| writeln!(out, "data     {}", uri(&address, tls.is_some(), export));
        exports.iter().try_for_each(|export| say(&export.name))?;
        if exports.is_empty() {
            say("")?;
        }
    }
    out.finish()
}

//! The application's life: the socket is taken, the framework is started, clients are served, and all of it ends in
//! order.
//!
//! On the app thread. Dropping the daemon ends its server at once; [`Daemon::stop`] ends it in order.

use std::io;
use std::path::PathBuf;

use spindle_rpc::{Bound, Dispatcher, Phase, Server, ServerOptions, State, Table};

use crate::control::Control;

/// What to start.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// The RPC socket.
    pub rpc_socket: PathBuf,
    /// Serve before the framework is started, and start it when `framework_start_init` is called.
    pub wait_for_rpc: bool,
    /// Only these methods are there, if any are named.
    pub rpcs_allowed: Vec<String>,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The RPC socket is in use or cannot be made.
    #[error("{0}")]
    Socket(io::Error),
}

/// What ended with the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// RPC clients that were connected.
    pub rpc_connections: usize,
}

/// A daemon at work.
pub struct Daemon {
    control: Control,
    server: Server,
}

impl Daemon {
    /// Takes the socket, starts the framework unless it is to wait, and serves. `table` holds the methods.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way, and the remedy.
    pub async fn start(options: DaemonOptions, mut table: Table<Control>) -> Result<Daemon, StartError> {
        // Whoever connects early waits.
        let bound = Bound::bind(&options.rpc_socket).await.map_err(StartError::Socket)?;
        let control = Control::new(Phase::new(State::Startup));
        if !options.rpcs_allowed.is_empty() {
            let allowed: Vec<&str> = options.rpcs_allowed.iter().map(String::as_str).collect();
            table.keep_only(&allowed);
        }
        if !options.wait_for_rpc {
            control.phase().set(State::Runtime);
        }
        let dispatcher = Dispatcher::new(table, control.clone(), control.phase().clone());
        Ok(Daemon { server: bound.serve(dispatcher, ServerOptions::default()), control })
    }

    /// What its handlers work with.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Ends it in order: answers that are there go out first.
    pub async fn stop(self) -> Ended {
        Ended { rpc_connections: self.server.close().await }
    }
}

//! Methods for the NBD server. SPDK has none: its NBD methods drive the kernel's client.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spindle_nbd::{
    BdevExport, ConnectionInfo, Counts, ExportError, ExportInfo, ExportOptions, ListenerInfo, Tls,
};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::common::{Added, Named};
use crate::address::{parse_address, uri};
use crate::control::Control;

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (runtime, decode) = (States::RUNTIME, BadParams::DECODE_FAILED);
    let refusal = BadParams::new(RpcError::INVALID_PARAMS, "'nbd_get_exports' requires no arguments");
    table.add(Method::with("nbd_listen", runtime, decode, listen))?;
    table.add(Method::with("nbd_export", runtime, decode, export))?;
    table.add(Method::with("nbd_unexport", runtime, decode, unexport))?;
    table.add(Method::without("nbd_get_exports", runtime, refusal, get_exports))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    address: String,
    tls: Option<PathBuf>,
}

/// Listens, encrypted if a folder of certificates is given; returns the address, with the port that was picked.
async fn listen(control: Control, params: Listen) -> Result<String, RpcError> {
    let address = parse_address(&params.address).map_err(|what| RpcError::errno(Errno::INVAL, what))?;
    let listening = match params.tls {
        None => control.nbd().listen(address).await,
        Some(folder) => {
            let tls =
                Tls::from_folder(&folder).await.map_err(|error| RpcError::errno(Errno::INVAL, error))?;
            control.nbd().listen_encrypted(address, tls).await
        }
    };
    let listening = listening.map_err(|error| RpcError::errno(Errno::from_raw(error.errno()), error))?;
    Ok(listening.to_string())
}

/// The parameters of `nbd_export`, also as a saved configuration has them.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewExport {
    bdev_name: String,
    name: Option<String>,
    description: Option<String>,
    read_only: Option<bool>,
}

impl NewExport {
    /// Those that make an export again; none if it is not that of a bdev.
    pub(super) fn of(export: ExportInfo) -> Option<NewExport> {
        let ExportOptions { description, read_only } = export.options;
        Some(NewExport {
            bdev_name: export.bdev?,
            name: Some(export.name),
            description: Some(description),
            read_only: Some(read_only),
        })
    }
}

/// Exports a bdev under a name, its own if none or an empty one is given.
async fn export(control: Control, params: NewExport) -> Result<String, RpcError> {
    let name = params.name.filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| params.bdev_name.clone());
    let options = ExportOptions {
        description: params.description.unwrap_or_default(),
        read_only: params.read_only.unwrap_or(false),
    };
    let how = BdevExport { name: name.clone(), options };
    control.nbd().export_bdev(&params.bdev_name, how).map_err(|error| not_exported(&error))?;
    Ok(name)
}

fn not_exported(error: &ExportError) -> RpcError {
    let errno = match error {
        ExportError::Text { .. } => Errno::INVAL,
        ExportError::Exists(_) => Errno::EXIST,
        ExportError::Unknown(_) => Errno::NODEV,
        ExportError::Bdev { source, .. } => Errno::from_raw(source.errno()),
        _ => Errno::BUSY,
    };
    RpcError::errno(errno, error)
}

/// Removes an export and closes the connections that use it.
async fn unexport(control: Control, params: Named) -> Result<bool, RpcError> {
    control.nbd().remove_export(&params.name).await.map_err(|error| not_exported(&error))?;
    Ok(true)
}

#[derive(Serialize)]
struct Shown {
    name: String,
    description: String,
    device: String,
    size: u64,
    block_size: u32,
    read_only: bool,
    uris: Vec<String>,
    connections: Vec<Connection>,
    #[serde(flatten)]
    counts: ShownCounts,
}

#[derive(Serialize)]
struct Connection {
    id: u64,
    peer: String,
    thread: String,
    encrypted: bool,
    #[serde(flatten)]
    counts: ShownCounts,
}

#[derive(Serialize)]
struct ShownCounts {
    num_read_ops: u64,
    bytes_read: u64,
    num_write_ops: u64,
    bytes_written: u64,
    num_flush_ops: u64,
    num_unmap_ops: u64,
    num_errors: u64,
}

impl From<Counts> for ShownCounts {
    fn from(counts: Counts) -> ShownCounts {
        ShownCounts {
            num_read_ops: counts.reads,
            bytes_read: counts.bytes_read,
            num_write_ops: counts.writes,
            bytes_written: counts.bytes_written,
            num_flush_ops: counts.flushes,
            num_unmap_ops: counts.unmaps,
            num_errors: counts.errors,
        }
    }
}

impl From<ConnectionInfo> for Connection {
    fn from(info: ConnectionInfo) -> Connection {
        let ConnectionInfo { id, peer, thread, encrypted, counts } = info;
        Connection { id, peer, thread, encrypted, counts: counts.into() }
    }
}

async fn get_exports(control: Control) -> Result<Vec<Shown>, RpcError> {
    let listeners = control.nbd().listeners();
    let shown = control.nbd().exports().into_iter().map(|export| shown(export, &listeners));
    Ok(shown.collect())
}

fn shown(export: ExportInfo, listeners: &[ListenerInfo]) -> Shown {
    let uri = |listener: &ListenerInfo| uri(&listener.address, listener.tls.is_some(), &export.name);
    Shown {
        uris: listeners.iter().map(uri).collect(),
        name: export.name,
        description: export.options.description,
        device: export.device,
        size: export.size,
        block_size: export.block_size,
        read_only: export.options.read_only,
        connections: export.connections.into_iter().map(Connection::from).collect(),
        counts: export.counts.into(),
    }
}

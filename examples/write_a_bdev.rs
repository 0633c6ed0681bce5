//! A bdev module with RPC methods, in a separate program: `docs/write-a-bdev.md` explains it.
//!
//! An invert bdev stands on another and stores every byte inverted. The program starts a daemon, makes one over RPC,
//! checks it by the rules of all bdevs, and ends.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use spindle::bdev::conformance::{self, Contents};
use spindle::bdev::{Base, Bdev, BdevError, BdevSpec, Detail, Disk, LocalFuture, Registry, Virtual};
use spindle::block::{
    Cx, Device, DeviceState, Geometry, Io, Lane, LaneCx, LaneId, Layer, OpenError, Operation, Status, Submit,
};
use spindle::control::{Control, Daemon, DaemonOptions, methods};
use spindle::rpc::{BadParams, Client, Errno, Method, RpcError, States, Table};
use spindle::{IoBuf, Runtime};

/// The module's name.
const MODULE: &str = "invert";

/// The device, shared by all threads.
struct Invert {
    name: String,
    below: Arc<dyn Device>,
    state: DeviceState,
}

impl Layer for Invert {
    fn name(&self) -> &str {
        &self.name
    }

    fn below(&self) -> &Arc<dyn Device> {
        &self.below
    }

    fn state(&self) -> &DeviceState {
        &self.state
    }

    fn geometry(&self) -> Geometry {
        self.below.geometry().with_unmap_reads_zero(false)
    }

    fn supports(&self, operation: Operation) -> bool {
        takes(operation) && self.below.supports(operation)
    }

    fn lane(self: Arc<Self>, below: LaneId, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(InvertLane { below }))
    }
}

/// True for what may pass: zeroes and comparisons of the base are about inverted bytes.
fn takes(operation: Operation) -> bool {
    use Operation::{Copy, Flush, Read, Reset, Unmap, Write};
    matches!(operation, Read | Write | Unmap | Flush | Copy | Reset)
}

/// Its half on one thread.
struct InvertLane {
    below: LaneId,
}

impl Lane for InvertLane {
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        if !takes(io.operation()) {
            cx.done(io, Err(spindle::block::IoErrorKind::Unsupported));
            return Submit::Taken;
        }
        if io.operation() == Operation::Write {
            invert(&mut io);
        }
        cx.forward(self.below, io, [0, 0]);
        Submit::Taken
    }

    fn complete(&mut self, mut io: Io, _saved: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        // What was read, and the writer's own data, which it gets back as it was.
        if matches!(io.operation(), Operation::Read | Operation::Write) {
            invert(&mut io);
        }
        cx.done(io, status);
    }
}

fn invert(io: &mut Io) {
    io.buffers_mut().iter_mut().flatten().for_each(|byte| *byte = !*byte);
}

/// What to make: the parameters of the method, too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvertSpec {
    name: String,
    base_bdev_name: String,
}

impl Virtual for InvertSpec {
    fn module(&self) -> &'static str {
        MODULE
    }

    fn key(&self) -> &str {
        &self.name
    }

    fn base(&self) -> &str {
        &self.base_bdev_name
    }

    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let device = Invert { name: self.name.clone(), below: base.device(), state: DeviceState::new() };
        let disk = Arc::new(InvertDisk { device: Arc::new(device), base: base.name().to_owned() });
        Ok(vec![BdevSpec::new(&self.name, "Inverting disk", MODULE, disk)])
    }
}

/// What is shown of it.
struct InvertDisk {
    device: Arc<Invert>,
    base: String,
}

impl Disk for InvertDisk {
    fn device(&self) -> Arc<dyn Device> {
        self.device.clone()
    }

    fn details(&self) -> LocalFuture<'_, Detail> {
        let members = vec![("base_bdev_name", self.base.clone().into())];
        Box::pin(std::future::ready(Detail::Object(vec![("invert", Detail::Object(members))])))
    }
}

async fn invert_create(control: Control, spec: InvertSpec) -> Result<String, RpcError> {
    let name = spec.name.clone();
    let made = control.registry().create_virtual(spec).await;
    made.map_err(|error| RpcError::errno(Errno::from_raw(error.errno()), error))?;
    Ok(name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

async fn invert_delete(control: Control, params: Named) -> Result<bool, RpcError> {
    let gone = control.registry().delete_virtual(MODULE, &params.name).await;
    gone.map_err(|error| RpcError::errno(Errno::from_raw(error.errno()), error))?;
    Ok(true)
}

/// All methods of the daemon, and ours.
fn table() -> Result<Table<Control>, Box<dyn std::error::Error + Send + Sync>> {
    let mut table = methods::table();
    let bad = BadParams::DECODE_FAILED;
    table.add(Method::with("bdev_invert_create", States::RUNTIME, bad, invert_create))?;
    table.add(Method::with("bdev_invert_delete", States::RUNTIME, bad, invert_delete))?;
    Ok(table)
}

/// What went wrong, if something did.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Runs it.
///
/// # Errors
/// What went wrong.
pub fn main() -> Outcome {
    let folder = std::env::temp_dir().join(format!("write-a-bdev-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let socket = folder.join("rpc.sock");
    let outcome = Runtime::builder().reactors(1).build()?.run(async move || story(socket).await)?;
    std::fs::remove_dir_all(&folder)?;
    outcome
}

async fn story(rpc_socket: PathBuf) -> Outcome {
    let options = DaemonOptions { rpc_socket: Some(rpc_socket.clone()), ..DaemonOptions::default() };
    let daemon = Daemon::start(options, table()?).await?;

    let mut client = Client::connect(&rpc_socket).await?;
    let malloc = r#"{"name":"M0","block_size":4096,"num_blocks":256}"#;
    client.call("bdev_malloc_create", Some(malloc)).await?;
    let spec = r#"{"name":"I0","base_bdev_name":"M0"}"#;
    client.call("bdev_invert_create", Some(spec)).await?;

    let registry = daemon.control().registry().clone();
    inverts(&registry).await?;
    conformance::check(&registry.get("I0")?, Contents::Kept).await?;
    println!("I0 keeps the rules of all bdevs");

    drop(client);
    daemon.stop().await;
    Ok(())
}

/// What is written to I0 is inverted on M0.
async fn inverts(registry: &Registry) -> Outcome {
    let (upper, lower) = (Bdev::open("I0")?, registry.open("M0", Default::default())?);
    let (upper, lower) = (upper.channel()?, lower.channel()?);
    upper.write(0, IoBuf::copy_from(&[0x0f; 4096])).await.0?;
    let (read, data) = lower.read(0, IoBuf::zeroed(4096)).await;
    read?;
    assert!(data.to_vec() == [0xf0; 4096]);
    println!("what is written to I0 is inverted on M0");
    Ok(())
}

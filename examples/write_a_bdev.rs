//! A bdev module with RPC methods, in a separate program: `docs/write-a-bdev.md` shows all of it, piece by piece.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde::Deserialize;
use spindle::bdev::conformance::{self, Contents};
use spindle::bdev::{Base, BdevError, BdevSpec, Detail, PlainDisk, Recipe, Virtual};
use spindle::block::{
    Cx, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, Layer, LayerParts, OpenError, Operation, Status,
    Submit,
};
use spindle::control::{ConfigFile, Control, Daemon, DaemonOptions, methods, refused};
use spindle::engine::Address;
use spindle::reactor::{Handle, RunError};
use spindle::rpc::{BadParams, Client, Method, RpcError, States, Table, to_json};
use spindle::{Bdev, IoBuf, Runtime};

/// The module's name.
const MODULE: &str = "invert";

/// The device, shared by all threads.
struct Invert(LayerParts);

impl Layer for Invert {
    fn parts(&self) -> &LayerParts {
        &self.0
    }

    fn geometry(&self) -> Geometry {
        self.0.below().geometry().with_unmap_reads_zero(false)
    }

    fn supports(&self, operation: Operation) -> bool {
        takes(operation) && self.0.below().supports(operation)
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
            cx.done(io, Err(IoErrorKind::Unsupported));
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

    fn recipe(&self) -> Option<Recipe> {
        let below = ("base_bdev_name", self.base_bdev_name.as_str().into());
        let params = Detail::Object(vec![("name", self.name.as_str().into()), below]);
        Some(Recipe { method: "bdev_invert_create", params })
    }

    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let device = Arc::new(Invert(LayerParts::new(&self.name, base.device())));
        let below = || ("base_bdev_name", base.name().into());
        let params = vec![("name", self.name.as_str().into()), below()];
        let disk =
            PlainDisk::new(device).showing("invert", vec![below()]).made_by("bdev_invert_create", params);
        Ok(vec![BdevSpec::new(&self.name, "Inverting disk", MODULE, Arc::new(disk))])
    }
}

async fn invert_create(control: Control, spec: InvertSpec) -> Result<String, RpcError> {
    let name = spec.name.clone();
    control.registry().create_virtual(spec).await.map_err(refused)?;
    Ok(name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

async fn invert_delete(control: Control, params: Named) -> Result<bool, RpcError> {
    control.registry().delete_virtual(MODULE, &params.name).await.map_err(refused)?;
    Ok(true)
}

/// What went wrong, if something did.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// All methods of the daemon, and ours.
fn table() -> Outcome<Table<Control>> {
    let (mut table, bad) = (methods::table(), BadParams::DECODE_FAILED);
    table.add(Method::with("bdev_invert_create", States::RUNTIME, bad, invert_create))?;
    table.add(Method::with("bdev_invert_delete", States::RUNTIME, bad, invert_delete))?;
    Ok(table)
}

/// Serves RPC and NBD clients at sockets in this folder. A configuration that is saved there is restored.
async fn start(folder: &Path) -> Outcome<Daemon> {
    let (rpc_socket, nbd) = (Some(folder.join("rpc.sock")), vec![Address::Unix(folder.join("nbd.sock"))]);
    let saved = folder.join("config.json");
    let config = match saved.is_file() {
        true => Some(std::fs::read_to_string(&saved)?),
        false => None,
    };
    let config =
        config.map(|text| ConfigFile { name: saved.display().to_string(), text, ignore_errors: false });
    Ok(Daemon::start(DaemonOptions { rpc_socket, nbd, config, ..DaemonOptions::default() }, table()?).await?)
}

/// The program: serves until it is told to end.
async fn serve(folder: PathBuf) -> Outcome {
    let daemon = start(&folder).await?;
    Handle::current().ok_or("there is no runtime")?.stop_requested().await;
    daemon.stop().await;
    Ok(())
}

/// Ends with the code of a stop if it was stopped.
pub fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    RunError::exit_code_of(&*error).into()
}

/// Runs it: with a folder as its argument the program, without one the test.
///
/// # Errors
/// What went wrong.
pub fn run() -> Outcome {
    let runtime = Runtime::builder().reactors(1).build()?;
    let folder = std::env::args_os().nth(1).map(PathBuf::from).filter(|folder| folder.is_dir());
    match folder {
        Some(folder) => runtime.run(async move || serve(folder).await)?,
        None => runtime.run(test)?,
    }
}

/// Makes an invert bdev over RPC, looks at what it stores, and tries the rules of all bdevs.
async fn test() -> Outcome {
    let folder = std::env::temp_dir().join(format!("write-a-bdev-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let daemon = start(&folder).await?;
    let mut client = Client::connect(&folder.join("rpc.sock")).await?;
    let malloc = r#"{"name":"M0","block_size":4096,"num_blocks":256}"#;
    client.call("bdev_malloc_create", Some(malloc)).await?;
    client.call("bdev_invert_create", Some(r#"{"name":"I0","base_bdev_name":"M0"}"#)).await?;
    client.call("nbd_export", Some(r#"{"bdev_name":"I0"}"#)).await?;

    let (upper, lower) = (Bdev::open("I0")?, daemon.control().registry().open("M0", Default::default())?);
    upper.channel()?.write(0, IoBuf::copy_from(&[0x0f; 4096])).await.0?;
    let (read, data) = lower.channel()?.read(0, IoBuf::zeroed(4096)).await;
    read?;
    assert!(data.to_vec() == [0xf0; 4096]);
    println!("what is written to I0 is inverted on M0");
    drop((upper, lower));

    let saved = to_json(&client.call("framework_get_config", Some(r#"{"name":"bdev"}"#)).await?)?;
    let call = r#"{"method":"bdev_invert_create","params":{"name":"I0","base_bdev_name":"M0"}}"#;
    assert!(saved.contains(call), "{saved}");
    println!("a saved configuration has the call that makes I0");

    client.call("nbd_unexport", Some(r#"{"name":"I0"}"#)).await?;
    conformance::check(&daemon.control().registry().get("I0")?, Contents::Kept).await?;
    println!("I0 keeps the rules of all bdevs");
    drop(client);
    daemon.stop().await;
    Ok(std::fs::remove_dir_all(&folder)?)
}

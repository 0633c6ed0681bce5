//! Serves block devices over NBD until it is killed: for the performance page and quick tests.
//!
//! `nbd_server ADDRESS REACTORS MODE NAME=malloc:MIB[:BLOCK] NAME=file:PATH NAME=cached:PATH ...`, where
//! ADDRESS is a path or HOST:PORT, and MODE the reactors' mode: poll, adaptive or interrupt. `cached` uses
//! the page cache, `file` bypasses it.

use std::path::PathBuf;
use std::sync::Arc;

use spindle_block::{Device, File, FileOptions, Malloc};
use spindle_engine::{Address, Direct};
use spindle_nbd::{Export, Options, Server};
use spindle_reactor::{Handle, Mode, Runtime, Thread};

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn device(spec: &str) -> Result<Arc<dyn Device>, Failure> {
    let (kind, rest) = spec.split_once(':').ok_or("a device is malloc:MIB[:BLOCK] or file:PATH")?;
    match kind {
        "malloc" => {
            let (mib, block) = rest.split_once(':').unwrap_or((rest, "512"));
            let block: u32 = block.parse()?;
            Ok(Malloc::new("malloc", block, (mib.parse::<u64>()? << 20) / u64::from(block))?)
        }
        "file" => Ok(File::open(FileOptions::new(rest).writable(true)).await?),
        "cached" => Ok(File::open(FileOptions::new(rest).writable(true).direct(Direct::Off)).await?),
        _ => Err(format!("no device is of kind '{kind}'").into()),
    }
}

async fn serve(address: String, exports: Vec<String>) -> Result<(), Failure> {
    let handle = Handle::current().ok_or("main runs on a thread")?;
    let cores = handle.cores().to_vec();
    let threads = cores
        .iter()
        .enumerate()
        .map(|(index, core)| Thread::create(&format!("nbd_{index}"), &format!("[{core}]")));
    let server = Server::new(Options::default(), threads.collect::<Result<_, _>>()?);
    for export in exports {
        let (name, spec) = export.split_once('=').ok_or("an export is NAME=DEVICE")?;
        server.add_export(Export::new(name, device(spec).await?))?;
    }
    let address = match address.parse() {
        Ok(tcp) => Address::Tcp(tcp),
        Err(_) => Address::Unix(PathBuf::from(address)),
    };
    println!("listening on {}", server.listen(address).await?);
    std::future::pending().await
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("say where to listen")?;
    let reactors = arguments.next().ok_or("say how many reactors")?.parse()?;
    let mode = match arguments.next().ok_or("say what an idle reactor does")?.as_str() {
        "poll" => Mode::Poll,
        "adaptive" => Mode::Adaptive,
        "interrupt" => Mode::Interrupt,
        other => return Err(format!("no mode is called '{other}'").into()),
    };
    let exports = arguments.collect();
    Runtime::builder()
        .mode(mode)
        .reactors(reactors)
        .build()?
        .run(async move || serve(address, exports).await)??;
    Ok(())
}

//! Exports of bdevs, which are removed with their bdev.

use std::pin::pin;
use std::sync::{Arc, OnceLock, Weak};

use spindle_bdev::{DescOptions, Event, Registry};
use spindle_reactor::{ReportLevel, report, spawn_local, timeout};

use super::Server;
use crate::codec::shortened;
use crate::shared::{Exported, Shared};
use crate::{Export, ExportError, ExportOptions};

/// How a bdev is exported.
#[derive(Clone, Debug, Default)]
pub struct BdevExport {
    /// The name that clients use; empty for the name of the bdev.
    pub name: String,
    /// How it is exported.
    pub options: ExportOptions,
}

pub(super) fn export(server: &Arc<Shared>, bdev: &str, how: BdevExport) -> Result<(), ExportError> {
    let name = if how.name.is_empty() { bdev.to_owned() } else { how.name };
    let failed = |source| ExportError::Bdev { name: shortened(&name), source };
    let found = Registry::current().and_then(|registry| registry.get(bdev)).map_err(failed)?;
    let writes = !how.options.read_only && found.geometry().writable();
    // Stored for the event callback, which may be called once this thread is back in its loop.
    let exported = Arc::<OnceLock<Weak<Exported>>>::default();
    let (told, shared) = (exported.clone(), Arc::downgrade(server));
    let on_event = move |event: Event| {
        let Event::Remove(grace) = event else { return };
        let (Some(server), Some(exported)) = (shared.upgrade(), told.get().and_then(Weak::upgrade)) else {
            return;
        };
        // At a stop that is in order.
        let level = if server.is_stopping() { ReportLevel::Info } else { ReportLevel::Warning };
        report(level, "nbd", || {
            let name = shortened(&exported.export.name);
            format!(
                "export \"{name}\" ends, as its bdev is being removed; when the bdev is back, export it again"
            )
        });
        drop(spawn_local(async move {
            // Even if it is off the list already, its connections still have to end.
            server.forget_export(&exported);
            let most = server.options.grace;
            let server = Server(server);
            let mut ended = pin!(server.end_export(exported));
            // A request that the device keeps ends only when the bdev takes none any more.
            let in_time = timeout(most, ended.as_mut()).await.is_ok();
            drop(grace);
            if !in_time {
                ended.await;
            }
        }));
    };
    let options = DescOptions::new().write(writes).holder(format!("NBD export \"{}\"", shortened(&name)));
    let desc = found.descriptor(options.on_event(on_event)).map_err(failed)?;
    let export = Export { options: how.options, ..Export::of_desc(name.clone(), desc) };
    let added = server.add(export)?;
    exported.set(Arc::downgrade(&added)).expect("set once, here");
    Ok(())
}

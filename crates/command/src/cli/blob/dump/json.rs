//! A dump for programs: one object, with one page per line so that they can be read as they come.

use super::page::{Contents, Described, PageDump};
use super::{Printed, Printer};
use crate::cli::output::Output;
use crate::cli::text::{hex, json_text};
use serde_json::{Value, json};
use spindle_format::descriptor::{Descriptor, XattrRef};
use spindle_format::{Bitmap, FormatError, MaskKind, Region, SuperBlock};
use std::io::{self, Write};

/// Prints a dump as JSON. Pages of zeroes are left out.
#[derive(Default)]
pub(super) struct Json {
    masks: usize,
    pages: usize,
    in_pages: bool,
}

impl Printer for Json {
    fn super_block(&mut self, out: &mut Output, block: &SuperBlock, error: Option<&FormatError>) -> Printed {
        let region = |region: Region| json!({ "start": region.start, "len": region.len });
        let value = json!({
            "error": error.map(|error| error.to_string()),
            "version": block.version,
            "clean": block.clean,
            "bstype": hex(&block.bs_type.0),
            "super_blob_id": block.super_blob.map(|id| id.raw()),
            "super_blob_id_text": block.super_blob.map(|id| id.to_string()),
            "size": block.size,
            "cluster_size": block.cluster_size,
            "io_unit_size": block.io_unit_size,
            "md_page_size": block.md_page_size,
            "used_page_mask": region(block.used_page_mask),
            "used_cluster_mask": region(block.used_cluster_mask),
            "used_blobid_mask": region(block.used_blobid_mask),
            "metadata": region(block.metadata),
        });
        write!(out, "{{\"super_block\":{value},\n\"masks\":[")
    }

    fn mask(
        &mut self,
        out: &mut Output,
        kind: MaskKind,
        offset: u64,
        mask: Result<&Bitmap, &FormatError>,
    ) -> Printed {
        let mut value = json!({ "kind": kind.to_string(), "offset": offset });
        match mask {
            Ok(bits) => {
                value["bits"] = bits.len().into();
                value["set"] = bits.count().into();
            }
            Err(error) => value["error"] = error.to_string().into(),
        }
        self.masks += 1;
        item(out, self.masks, &value)
    }

    fn page(&mut self, out: &mut Output, dump: &PageDump) -> Printed {
        self.begin_pages(out)?;
        let Contents::Page { page, role, descriptors } = &dump.contents else { return Ok(()) };
        let value = json!({
            "index": dump.index.0,
            "offset": dump.offset,
            "role": role.word(),
            "in_use": dump.in_use,
            "id": page.id().raw(),
            "id_text": page.id().to_string(),
            "sequence": page.sequence(),
            "next": page.next().map(|next| next.0),
            "crc_ok": page.crc_ok(),
            "descriptors": descriptors.iter().map(descriptor).collect::<Vec<_>>(),
        });
        self.pages += 1;
        item(out, self.pages, &value)
    }

    fn end(&mut self, out: &mut Output) -> Printed {
        self.begin_pages(out)?;
        writeln!(out, "]}}")
    }
}

impl Json {
    fn begin_pages(&mut self, out: &mut Output) -> Printed {
        if std::mem::replace(&mut self.in_pages, true) {
            return Ok(());
        }
        write!(out, "],\n\"pages\":[")
    }
}

/// The `number`-th element of an array, counted from 1.
fn item(out: &mut Output, number: usize, value: &Value) -> io::Result<()> {
    write!(out, "{}\n{value}", if number == 1 { "" } else { "," })
}

fn descriptor(described: &Described) -> Value {
    let mut value = match &described.descriptor {
        Err(error) => json!({ "error": error.to_string() }),
        Ok(Descriptor::Flags(flags)) => json!({
            "type": "flags",
            "invalid": flags.invalid,
            "data_ro": flags.data_read_only,
            "md_ro": flags.metadata_read_only,
        }),
        Ok(Descriptor::Xattr(xattr)) => named("xattr", xattr),
        Ok(Descriptor::InternalXattr(xattr)) => named("internal_xattr", xattr),
        Ok(Descriptor::ExtentRle(entries)) => {
            json!({ "type": "extent_rle", "entries": entries.iter().collect::<Vec<_>>() })
        }
        Ok(Descriptor::ExtentTable { num_clusters, entries }) => json!({
            "type": "extent_table",
            "num_clusters": num_clusters,
            "entries": entries.iter().collect::<Vec<_>>(),
        }),
        Ok(Descriptor::ExtentPage { start_cluster, clusters }) => json!({
            "type": "extent_page",
            "start_cluster": start_cluster,
            "clusters": clusters.iter().collect::<Vec<_>>(),
        }),
        Ok(Descriptor::Unknown { kind, payload }) => {
            json!({ "type": "unknown", "kind": kind, "payload": hex(payload) })
        }
    };
    value["offset"] = described.offset.into();
    value
}

fn named(kind: &str, xattr: &XattrRef) -> Value {
    json!({ "type": kind, "name": json_text(xattr.name), "value": hex(xattr.value) })
}

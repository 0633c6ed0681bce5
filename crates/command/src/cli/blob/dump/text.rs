//! A dump for display.

use super::page::{Contents, Described, PageDump, Role};
use super::{Printed, Printer};
use crate::cli::output::Output;
use crate::cli::text::{hex, printable, size};
use spindle_format::descriptor::{Descriptor, XattrRef};
use spindle_format::{BlobId, Flags, FormatError, MaskKind, Region, SuperBlock, bitmap};
use std::io::Write;

/// Prints a dump as text. Neighbouring pages of zeroes are one line.
#[derive(Default)]
pub(super) struct Text {
    /// True if the masks on disk are valid.
    clean: bool,
    /// First and last of the zero pages that are not printed yet.
    zeroes: Option<(u32, u32)>,
}

impl Printer for Text {
    fn super_block(&mut self, out: &mut Output, block: &SuperBlock, error: Option<&FormatError>) -> Printed {
        self.clean = block.clean;
        match error {
            None => writeln!(out, "super block at byte 0: crc ok")?,
            Some(error) => writeln!(out, "{error}")?,
        }
        let region = |region: Region| format!("{} pages from page {}", region.len, region.start);
        let super_blob = block.super_blob.map_or("none".into(), |id: BlobId| id.to_string());
        for (field, value) in [
            ("version", block.version.to_string()),
            ("clean", u8::from(block.clean).to_string()),
            ("bstype", format!("\"{}\"", printable(block.bs_type.to_string().as_bytes()))),
            ("super_blob", super_blob),
            ("size", format!("{} ({})", block.size, size(block.size))),
            ("cluster_size", block.cluster_size.to_string()),
            ("io_unit_size", block.io_unit_size.to_string()),
            ("md_page_size", block.md_page_size.to_string()),
            ("used_page_mask", region(block.used_page_mask)),
            ("used_cluster_mask", region(block.used_cluster_mask)),
            ("used_blobid_mask", region(block.used_blobid_mask)),
            ("metadata", region(block.metadata)),
        ] {
            writeln!(out, "  {field:17}  {value}")?;
        }
        Ok(())
    }

    fn mask(
        &mut self,
        out: &mut Output,
        kind: MaskKind,
        offset: u64,
        mask: Result<&bitmap::Bitmap, &FormatError>,
    ) -> Printed {
        match mask {
            Ok(bits) => writeln!(
                out,
                "{kind} mask at byte {offset}: {} of {} bits set: {}",
                bits.count(),
                bits.len(),
                runs(bits.iter().map(|bit| (Some(bit), 1)))
            ),
            Err(error) if self.clean => writeln!(out, "{error}"),
            Err(error) => writeln!(out, "{error} (not in use: the store is not clean)"),
        }
    }

    fn page(&mut self, out: &mut Output, dump: &PageDump) -> Printed {
        let Contents::Page { page, role, descriptors } = &dump.contents else {
            let first = self.zeroes.map_or(dump.index.0, |(first, _)| first);
            self.zeroes = Some((first, dump.index.0));
            return Ok(());
        };
        self.flush_zeroes(out)?;
        let what = match role {
            Role::Root => format!("root of blob {}", page.id()),
            Role::Chain => format!("page {} of the chain of blob {}", page.sequence(), page.id()),
            Role::Extents => format!("extent page, first written by blob {}", page.id()),
            Role::Stray => format!("stray, names blob {}", page.id()),
            Role::Invalid => format!("invalid, names blob {}, sequence {}", page.id(), page.sequence()),
        };
        let next = page.next().map_or("none".into(), |next| next.to_string());
        let crc =
            if page.crc_ok() { "crc ok".into() } else { format!("crc {:#010x} WRONG", page.stored_crc()) };
        let unused = if dump.in_use == Some(false) { ", not in use" } else { "" };
        writeln!(
            out,
            "metadata page {} at byte {}: {what}, next {next}, {crc}{unused}",
            dump.index, dump.offset
        )?;
        descriptors.iter().try_for_each(|described| descriptor(out, described))
    }

    fn end(&mut self, out: &mut Output) -> Printed {
        self.flush_zeroes(out)
    }
}

impl Text {
    fn flush_zeroes(&mut self, out: &mut Output) -> Printed {
        match self.zeroes.take() {
            None => Ok(()),
            Some((first, last)) if first == last => writeln!(out, "metadata page {first}: zeroes"),
            Some((first, last)) => writeln!(out, "metadata pages {first} to {last}: zeroes"),
        }
    }
}

fn descriptor(out: &mut Output, described: &Described) -> Printed {
    let text = match &described.descriptor {
        Err(error) => format!("{}", error.problem),
        Ok(Descriptor::Flags(flags)) => flags_text(flags),
        Ok(Descriptor::Xattr(xattr)) => format!("xattr {}", xattr_text(xattr)),
        Ok(Descriptor::InternalXattr(xattr)) => format!("internal xattr {}", internal_text(xattr)),
        Ok(Descriptor::ExtentRle(entries)) => {
            format!("extents: clusters {}", runs(entries.iter().map(some_unless_zero)))
        }
        Ok(Descriptor::ExtentTable { num_clusters, entries }) => {
            let pages = runs(entries.iter().map(some_unless_zero));
            format!("extent table of {num_clusters} clusters: pages {pages}")
        }
        Ok(Descriptor::ExtentPage { start_cluster, clusters }) => {
            let clusters = runs(clusters.iter().map(|cluster| some_unless_zero((cluster, 1))));
            format!("extent page from cluster {start_cluster}: clusters {clusters}")
        }
        Ok(Descriptor::Unknown { kind, payload }) => format!("unknown type {kind}: {}", hex(payload)),
    };
    writeln!(out, "  byte {}: {text}", described.offset)
}

fn some_unless_zero((start, len): (u32, u32)) -> (Option<u32>, u32) {
    ((start != 0).then_some(start), len)
}

/// Runs of numbers, `None` for gaps, as "1-3, 7, none x 20"; adjacent runs are joined.
fn runs(parts: impl Iterator<Item = (Option<u32>, u32)>) -> String {
    let mut merged: Vec<(Option<u32>, u64)> = Vec::new();
    for (start, len) in parts {
        match (merged.last_mut(), start) {
            (Some((None, total)), None) => *total += u64::from(len),
            (Some((Some(first), total)), Some(start)) if u64::from(*first) + *total == u64::from(start) => {
                *total += u64::from(len)
            }
            _ => merged.push((start, u64::from(len))),
        }
    }
    let text = merged.into_iter().map(|(start, len)| match start {
        None => format!("none x {len}"),
        Some(first) if len == 1 => first.to_string(),
        Some(first) => format!("{first}-{}", (u64::from(first) + len).saturating_sub(1)),
    });
    let text = text.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "none".into() } else { text }
}

fn flags_text(flags: &Flags) -> String {
    const INVALID: [(u64, &str); 4] = [
        (Flags::THIN, "thin"),
        (Flags::INTERNAL_XATTR, "internal xattrs"),
        (Flags::EXTENT_TABLE, "extent table"),
        (Flags::EXTERNAL_SNAPSHOT, "external snapshot"),
    ];
    let words: Vec<&str> = INVALID
        .into_iter()
        .filter(|(bit, _)| flags.invalid & bit != 0)
        .map(|(_, word)| word)
        .chain(flags.read_only().then_some("read-only"))
        .collect();
    let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
    format!(
        "flags: invalid {:#x}, data_ro {:#x}, md_ro {:#x}{words}",
        flags.invalid, flags.data_read_only, flags.metadata_read_only
    )
}

fn internal_text(xattr: &XattrRef) -> String {
    match <[u8; 8]>::try_from(xattr.value) {
        Ok(id) => format!("{} = {:#x}", printable(xattr.name), u64::from_le_bytes(id)),
        Err(_) => xattr_text(xattr),
    }
}

/// A value as text if it is text apart from trailing NULs, otherwise in hexadecimal.
fn xattr_text(xattr: &XattrRef) -> String {
    let end = xattr.value.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let is_text = std::str::from_utf8(&xattr.value[..end]).is_ok_and(|text| !text.contains(char::is_control));
    let value = match xattr.value.len() - end {
        _ if !is_text => format!("0x{}", hex(xattr.value)),
        0 => format!("\"{}\"", printable(xattr.value)),
        nuls => format!("\"{}\" and {nuls} NUL", printable(&xattr.value[..end])),
    };
    format!("{} = {value}", printable(xattr.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_go_on_from_each_other_are_one() {
        let parts = [(Some(1), 1), (Some(2), 2), (None, 3), (None, 4), (Some(9), 1), (Some(8), 1)];
        assert_eq!(runs(parts.into_iter()), "1-3, none x 7, 9, 8");
        assert_eq!(runs(std::iter::empty()), "none");
        assert_eq!(runs([(Some(u32::MAX), u32::MAX)].into_iter()), "4294967295-8589934589");
    }
}

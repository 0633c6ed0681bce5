//! `spindle blob dump`: the super block, the masks and every metadata page, decoded as they are on disk.
//!
//! Nothing is repaired or left out, and a damaged structure is shown with its damage, so that this works
//! where a load does not. Pages are printed as they are read; memory is one read.

mod json;
mod page;
mod text;

use super::image::ImageFile;
use super::source::{Source, load, not_loaded};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use page::{Contents, PageDump};
use spindle_format::super_block::SIGNATURE;
use spindle_format::{
    Bitmap, ByteRange, FormatError, Geometry, LoadError, MaskKind, PAGE_SIZE, PageIdx, SuperBlock, mask,
};
use std::io::{IsTerminal, Write};

/// Bytes of one read of metadata pages.
const READ_SIZE: u32 = 1 << 20;

/// Arguments of `dump`.
#[derive(clap::Args)]
pub(crate) struct Dump {
    #[command(flatten)]
    source: Source,
    /// Print a JSON object; its pages come one a line
    #[arg(long)]
    json: bool,
}

/// Prints structures one after the other. The order of calls is the order of methods.
trait Printer {
    fn super_block(&mut self, out: &mut Output, block: &SuperBlock, error: Option<&FormatError>) -> Printed;
    fn mask(
        &mut self,
        out: &mut Output,
        kind: MaskKind,
        offset: u64,
        mask: Result<&Bitmap, &FormatError>,
    ) -> Printed;
    fn page(&mut self, out: &mut Output, page: &PageDump) -> Printed;
    fn end(&mut self, out: &mut Output) -> Printed;
}

type Printed = std::io::Result<()>;

impl Dump {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (image, _) = self.source.open()?;
        let mut out = Output::stdout();
        let mut printer: Box<dyn Printer> =
            if self.json { Box::new(json::Json::default()) } else { Box::new(text::Text::default()) };
        let outcome = dump(&image, printer.as_mut(), &mut out);
        if !matches!(outcome, Err(Failure::OutputClosed)) {
            out.finish()?;
        }
        outcome
    }
}

fn dump(image: &ImageFile, printer: &mut dyn Printer, out: &mut Output) -> Result<(), Failure> {
    let unusable = |error: FormatError| not_loaded(image, LoadError::Format(error));
    let mut head = vec![0; PAGE_SIZE.min(usize::try_from(image.size()).unwrap_or(PAGE_SIZE))];
    image.read(0, &mut head)?;
    let block = SuperBlock::parse_unchecked(&head).map_err(unusable)?;
    let damage = SuperBlock::parse(&head).err();
    if let (false, Some(error)) = (head.starts_with(&SIGNATURE), &damage) {
        return Err(unusable(error.clone()));
    }
    printer.super_block(out, &block, damage.as_ref())?;
    // Of a truncated image the pages that are there.
    let whole = if damage.is_none() { image.size().max(block.size) } else { image.size() };
    let read = match Geometry::from_super(&block, whole) {
        Ok(geometry) => masks(image, &geometry, printer, out).and(pages(image, &geometry, printer, out)),
        Err(error) => Err(unusable(error)),
    };
    if !matches!(read, Err(Failure::OutputClosed)) {
        printer.end(out)?;
    }
    read.and(damage.map_or(Ok(()), |error| Err(unusable(error))))
}

fn masks(
    image: &ImageFile,
    geometry: &Geometry,
    printer: &mut dyn Printer,
    out: &mut Output,
) -> Result<(), Failure> {
    for kind in [MaskKind::UsedPages, MaskKind::UsedClusters, MaskKind::UsedBlobIds] {
        let (offset, len) = geometry.bytes_of(geometry.mask(kind));
        if len == 0 {
            continue;
        }
        // The geometry is checked: a mask's region holds at least its bits.
        let mut bytes = vec![0; mask::HEADER_SIZE + geometry.mask_bits(kind).div_ceil(8) as usize];
        image.read(offset, &mut bytes)?;
        printer.mask(out, kind, offset, mask::parse(kind, &bytes, geometry).as_ref())?;
    }
    Ok(())
}

fn pages(
    image: &ImageFile,
    geometry: &Geometry,
    printer: &mut dyn Printer,
    out: &mut Output,
) -> Result<(), Failure> {
    // Only to show which pages are in use: without a loadable store everything else is still shown.
    let used = load(image).ok().map(|store| store.used_pages);
    let slot = geometry.md_page_size();
    let per_read = (READ_SIZE / slot).max(1);
    let mut bytes = Vec::new();
    // A bar between the lines would only be in the way on a terminal.
    let mut progress = (!std::io::stdout().is_terminal()).then(|| Progress::new("reading metadata pages", 0));
    let mut first = 0;
    while first < geometry.md_pages() {
        let count = per_read.min(geometry.md_pages() - first);
        bytes.resize((count - 1) as usize * slot as usize + PAGE_SIZE, 0);
        let offset = geometry.page_offset(PageIdx(first));
        let next = offset + u64::from(count) * u64::from(slot);
        image.read_ahead(ByteRange { offset: next, len: READ_SIZE as usize });
        image.read(offset, &mut bytes)?;
        for (index, bytes) in (first..).zip(bytes.chunks(slot as usize)) {
            let index = PageIdx(index);
            let in_use = used.as_ref().map(|used| used.get(index.0));
            let contents = Contents::of(bytes, index, geometry.page_offset(index));
            printer.page(out, &PageDump { index, offset: geometry.page_offset(index), in_use, contents })?;
        }
        first += count;
        if let Some(progress) = &mut progress {
            progress.at(u64::from(first) * u64::from(slot), u64::from(geometry.md_pages()) * u64::from(slot));
        }
    }
    Ok(out.flush()?)
}

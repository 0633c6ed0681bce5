//! `spindle blob check`: finds what is wrong with a store, and repairs it.

use super::image::ImageFile;
use super::mending::{OnImage, repair, undo_command};
use super::reading::attended;
use super::select::parse_id;
use super::served::note_writer;
use super::source::not_loaded;
use crate::cli::failure::{Failure, shown};
use crate::cli::output::{Output, note, with_result};
use crate::cli::text::count;
use spindle_format::BlobId;
use spindle_format::check::{Finding, Medium, Severity, examine, examine_cut};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Arguments of `check`.
#[derive(clap::Args)]
pub(crate) struct Check {
    /// Image file or block device that holds the store
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Repair what can be repaired without guessing
    #[arg(long)]
    repair: bool,
    /// The file that a repair writes for `spindle blob undo`; by default IMAGE.undo, IMAGE.undo-2 and so on;
    /// that of a device is in the current folder
    #[arg(long, value_name = "FILE", requires = "repair")]
    undo: Option<PathBuf>,
    /// With --repair: delete this blob, even if it is damaged (its id; may be repeated)
    #[arg(long, value_name = "ID", value_parser = blob_id, requires = "repair")]
    give_up: Vec<BlobId>,
    /// With --give-up: also the super blob of an lvolstore, which SPDK does not open without
    #[arg(long, requires = "give_up")]
    force: bool,
    /// Print a JSON array of findings; after a repair, of those that are left
    #[arg(long)]
    json: bool,
}

/// As JSON. Scripts rely on these names.
#[derive(serde::Serialize)]
struct FindingJson {
    code: &'static str,
    severity: &'static str,
    what: String,
    meaning: &'static str,
    remedy: &'static str,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Check { image, repair: mends, undo, give_up, force, json } = self;
        let findings = match mends {
            false => attended("check", || checked(&image))?,
            true => mended(&image, undo, (give_up.into_iter().collect(), force))?,
        };
        let left = findings.iter().filter(|finding| finding.severity() != Severity::Pending).count();
        let result = match left {
            0 => Ok(()),
            _ => Err(Failure::Findings { path: image, count: left, pending: findings.len() - left }),
        };
        with_result(show(&findings, mends, json), result)
    }
}

fn show(findings: &[Finding], mended: bool, json: bool) -> Result<(), Failure> {
    let mut out = Output::stdout();
    match json {
        true => out.json(&findings.iter().map(as_json).collect::<Vec<_>>())?,
        false => print(findings, mended, &mut out)?,
    }
    out.finish()
}

/// The findings of a check.
fn checked(image: &Path) -> Result<Vec<Finding>, Failure> {
    let file = ImageFile::open(image)?;
    note_writer(&file);
    let medium = OnImage(file);
    let examined = match examine(&medium) {
        Err(error) => match error.cut_short(medium.bytes()) {
            Some(whole) => examine_cut(&medium, whole),
            None => Err(error),
        },
        whole => whole,
    };
    let examined = examined.map_err(|error| not_loaded(&medium.0, error))?;
    if !examined.store.super_block.clean {
        note(&format!("{} was not unloaded cleanly: shown is what recovery finds", shown(image)));
    } else if examined.findings.is_empty() && std::io::stderr().is_terminal() {
        let blobs = count(examined.store.blobs.len() as u64, "blob");
        note(&format!("{}: nothing is wrong, {blobs}", shown(image)));
    }
    Ok(examined.findings)
}

fn blob_id(typed: &str) -> Result<BlobId, String> {
    let id = parse_id(typed.as_bytes()).ok_or("an id is a number, decimal, or hexadecimal with 0x")?;
    Ok(BlobId::from_raw(id))
}

/// Repairs; returns the remaining findings. Blobs are given up with the super blob only by force.
fn mended(
    image: &Path,
    undo: Option<PathBuf>,
    give_up: (BTreeSet<BlobId>, bool),
) -> Result<Vec<Finding>, Failure> {
    let undo = undo.unwrap_or_else(|| unused_name(image));
    let mended = repair(image.to_owned(), undo.clone(), give_up)?;
    if !mended.changes.is_empty() {
        let gone = mended.before.iter().filter(|finding| !mended.after.contains(finding));
        gone.for_each(|finding| note(&format!("repaired: {finding}")));
        note(&format!("to take the repair back: {}", undo_command(image, &undo)));
    }
    Ok(mended.after)
}

/// An unused name beside an image file; for a block device in the current folder, as that of its node is emptied at the
/// next boot.
fn unused_name(image: &Path) -> PathBuf {
    let is_device = std::fs::metadata(image).is_ok_and(|found| found.file_type().is_block_device());
    let place = match (is_device, image.file_name()) {
        (true, Some(name)) => std::env::current_dir().unwrap_or_default().join(name),
        _ => image.to_owned(),
    };
    let name = |suffix: &str| {
        let mut name = place.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let numbered = (2..).map(|number| name(&format!(".undo-{number}")));
    let mut names = std::iter::once(name(".undo")).chain(numbered);
    names.find(|name| name.symlink_metadata().is_err()).expect("the numbers are unlimited")
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity() {
        Severity::Pending => "pending",
        Severity::Minor => "minor",
        Severity::Damage => "damage",
    }
}

fn as_json(finding: &Finding) -> FindingJson {
    FindingJson {
        code: finding.code(),
        severity: severity(finding),
        what: finding.to_string(),
        meaning: finding.meaning(),
        remedy: finding.remedy(),
    }
}

fn print(findings: &[Finding], mended: bool, out: &mut Output) -> Result<(), Failure> {
    for finding in findings {
        writeln!(out, "{} ({}): {finding}", finding.code(), severity(finding))?;
        writeln!(out, "    means   {}", finding.meaning())?;
        writeln!(out, "    repair  {}\n", finding.remedy())?;
    }
    if !findings.is_empty() {
        let what = if mended { "left" } else { "found" };
        writeln!(out, "{} {what}", count(findings.len() as u64, "finding"))?;
    }
    Ok(())
}

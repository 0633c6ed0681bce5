//! The output of an export: a sparse file that appears whole or not at all, or a stream.

use super::image::{Identity, ImageFile};
use super::in_use::refuse_used;
use crate::cli::closed_stream::leads_to_closed;
use crate::cli::failure::{Failure, shown};
use crate::cli::output::closed;
use crate::cli::shell;
use crate::cli::text::printable;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use spindle_engine::{Held, StandardStream, hold, share_bytes, was_closed, write_lock};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The unit in which zeroes are looked for; what file systems allocate in.
const BLOCK: usize = 4096;

/// Zeroes for streams.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// The destination of an export. Bytes must come in order and without gaps.
pub(super) struct OutputFile {
    path: PathBuf,
    sink: Sink,
    /// What is replaced or overwritten, if there is anything.
    locked: Option<LockedOutput>,
}

enum Sink {
    /// Written on the file system of the destination; gets its name when it is complete.
    Sparse { file: Unfinished, target: PathBuf, replace: bool },
    /// Standard output, a pipe, or a device.
    Stream { file: File, kind: StreamKind },
}

/// An incomplete file.
enum Unfinished {
    /// Without a name: if the process ends, nothing of it remains. Also the folder in which it will appear.
    Unnamed(File, PathBuf),
    /// With a temporary name, if the file system requires one; removed if this is dropped.
    Named(NamedTempFile),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamKind {
    Stdout,
    Pipe,
    BlockDevice,
}

impl OutputFile {
    /// Standard output.
    pub(super) fn stdout() -> Result<OutputFile, Failure> {
        if was_closed(StandardStream::Output) {
            return Err(Failure::Output(closed()));
        }
        // Unbuffered: writes are large already.
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let sink = Sink::Stream { file, kind: StreamKind::Stdout };
        Ok(OutputFile { path: PathBuf::from("-"), sink, locked: None })
    }

    /// A file of `size` bytes. An existing file is touched only if `replace`, and never if it is in use, or has
    /// bytes of one of `inputs`.
    pub(super) fn create(
        path: &Path,
        size: u64,
        replace: bool,
        inputs: &[&ImageFile],
    ) -> Result<OutputFile, Failure> {
        if leads_to_closed(path) {
            return Err(Failure::file(path, "written", closed()));
        }
        let there = match std::fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                refuse_dangling(path)?;
                None
            }
            Err(error) => return Err(Failure::file(path, "accessed", error)),
        };
        let Some(metadata) = there else {
            return Ok(OutputFile {
                path: path.to_owned(),
                sink: open_sparse(path, size, replace, None)?,
                locked: None,
            });
        };
        let is_input = |input: &&ImageFile| input.identity() == Identity::of(&metadata);
        if inputs.iter().any(is_input) {
            return Err(Failure::OutputIsInput { path: path.to_owned() });
        }
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Err(Failure::file(path, "written", ErrorKind::IsADirectory.into()));
        }
        if !kind.is_file() && !kind.is_block_device() {
            let opened = OpenOptions::new().write(true).open(path);
            let file = opened.map_err(|error| Failure::file(path, "opened for writing", error))?;
            let sink = Sink::Stream { file, kind: StreamKind::Pipe };
            return Ok(OutputFile { path: path.to_owned(), sink, locked: None });
        }
        if !replace {
            return Err(Failure::Exists { path: path.to_owned() });
        }
        let locked = LockedOutput::of(path, inputs)?;
        let sink = match kind.is_file() {
            true => open_sparse(path, size, replace, Some(&Rights::of(&metadata)))?,
            false => open_device(path, size, &locked)?,
        };
        Ok(OutputFile { path: path.to_owned(), sink, locked: Some(locked) })
    }

    /// The next bytes, which begin at byte `at`.
    pub(super) fn data(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        let written = match &mut self.sink {
            Sink::Sparse { file, .. } => write_sparse(file.as_file(), at, bytes),
            Sink::Stream { file, .. } => file.write_all(bytes),
        };
        written.map_err(|error| self.failed(error))
    }

    /// The next `len` bytes are zeroes.
    pub(super) fn zeroes(&mut self, len: u64) -> Result<(), Failure> {
        let Sink::Stream { file, .. } = &mut self.sink else { return Ok(()) };
        let mut left = len;
        while left > 0 {
            let step = left.min(ZEROES.len() as u64);
            if let Err(error) = file.write_all(&ZEROES[..step as usize]) {
                return Err(self.failed(error));
            }
            left -= step;
        }
        Ok(())
    }

    /// Makes the whole file appear under its name.
    pub(super) fn finish(self) -> Result<(), Failure> {
        // Kept to the end.
        let OutputFile { path, sink, locked: _locked } = self;
        match sink {
            Sink::Sparse { file, target, replace: true } => {
                file.replace(&target).map_err(|error| Failure::file(&path, "replaced", error))?;
            }
            Sink::Sparse { file, target, replace: false } => {
                file.appear(&target).map_err(|error| match error.kind() {
                    ErrorKind::AlreadyExists => Failure::Exists { path: path.clone() },
                    _ => Failure::file(&path, "created", error),
                })?;
            }
            // A device reports only now which writes failed.
            Sink::Stream { file, kind: StreamKind::BlockDevice } => {
                file.sync_all().map_err(|error| Failure::file(&path, "written", error))?;
            }
            Sink::Stream { .. } => {}
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Failure {
        match self.sink {
            Sink::Stream { kind: StreamKind::Stdout, .. } => error.into(),
            Sink::Stream { kind: StreamKind::BlockDevice, .. } => {
                Failure::file(&self.path, "written (it now holds only a part of the blob)", error)
            }
            _ => Failure::file(&self.path, "written", error),
        }
    }
}

/// An error if the path is a symbolic link to nothing.
fn refuse_dangling(path: &Path) -> Result<(), Failure> {
    match path.read_link() {
        Ok(target) => Err(Failure::Refused(format!(
            "{} is a symbolic link to {}, which is not there: name that file itself, or remove the link",
            shown(path),
            shown(&target)
        ))),
        Err(_) => Ok(()),
    }
}

/// What a new file takes over from the one that it replaces.
struct Rights {
    user: u32,
    group: u32,
    mode: u32,
}

impl Rights {
    fn of(replaced: &Metadata) -> Rights {
        Rights { user: replaced.uid(), group: replaced.gid(), mode: replaced.mode() & 0o777 }
    }

    /// Gives them to a file, as far as this user may: without the right group, a group gets none.
    fn give(&self, file: &File) -> io::Result<()> {
        let is_owned = fchown(file, Some(self.user), Some(self.group)).is_ok();
        let has_group = is_owned || fchown(file, None, Some(self.group)).is_ok();
        let mode = if has_group { self.mode } else { self.mode & !0o070 };
        file.set_permissions(Permissions::from_mode(mode))
    }
}

/// The file gets rights before it gets data, if it is to have those of another one.
fn open_sparse(path: &Path, size: u64, replace: bool, rights: Option<&Rights>) -> Result<Sink, Failure> {
    let failed = |error| Failure::file(path, "created", error);
    // A symbolic link keeps its target.
    let target = if replace { path.canonicalize().unwrap_or(path.to_owned()) } else { path.to_owned() };
    let folder = folder_of(&target)?;
    // Without the temporary name that it would have had.
    let mode = if rights.is_some() { 0o600 } else { 0o666 };
    let file = Unfinished::make(folder, mode).map_err(|error| failed(error.kind().into()))?;
    if let Some(rights) = rights {
        rights.give(file.as_file()).map_err(failed)?;
    }
    file.as_file().set_len(size).map_err(failed)?;
    Ok(Sink::Sparse { file, target, replace })
}

/// The folder in which a new file is to appear; an error that names it if it is not there.
pub(super) fn folder_of(path: &Path) -> Result<&Path, Failure> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        let (path, name) = (shown(path), shown(folder));
        let make = format!("mkdir -p {}", shell::typed(folder));
        let why = format!("{path} cannot be created: there is no folder {name}; make it first ({make})");
        return Err(Failure::Refused(why));
    }
    Ok(folder)
}

impl Unfinished {
    fn make(folder: &Path, mode: u32) -> io::Result<Unfinished> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let unnamed = rustix::fs::openat(CWD, folder, flags, Mode::from_raw_mode(mode));
        if let Ok(unnamed) = unnamed {
            let file = File::from(unnamed);
            // The name is linked through this path.
            if path_of(&file).exists() {
                return Ok(Unfinished::Unnamed(file, folder.to_owned()));
            }
        }
        let mut named = tempfile::Builder::new();
        named.prefix(".spindle-export-").suffix(".partial").permissions(Permissions::from_mode(mode));
        Ok(Unfinished::Named(named.tempfile_in(folder)?))
    }

    fn as_file(&self) -> &File {
        match self {
            Unfinished::Unnamed(file, _) => file,
            Unfinished::Named(file) => file.as_file(),
        }
    }

    /// Makes the file appear under an unused name.
    fn appear(self, target: &Path) -> io::Result<()> {
        match self {
            Unfinished::Unnamed(file, _) => link(&file, target),
            Unfinished::Named(file) => Ok(file.persist_noclobber(target).map(drop)?),
        }
    }

    /// Replaces an existing file of this name.
    fn replace(self, target: &Path) -> io::Result<()> {
        let named = match self {
            Unfinished::Named(file) => file,
            Unfinished::Unnamed(file, folder) => {
                let mut named = tempfile::Builder::new();
                named
                    .prefix(".spindle-export-")
                    .make_in(folder, |path| link(&file, path).and_then(|()| file.try_clone()))?
            }
        };
        Ok(named.persist(target).map(drop)?)
    }
}

/// A path to a file that may have no name.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Gives a name to a file without one.
fn link(file: &File, name: &Path) -> io::Result<()> {
    Ok(rustix::fs::linkat(CWD, path_of(file), CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

fn open_device(path: &Path, size: u64, locked: &LockedOutput) -> Result<Sink, Failure> {
    let failed = |error| Failure::file(path, "opened for writing", error);
    let opened = locked.file.as_ref().ok_or_else(|| failed(ErrorKind::PermissionDenied.into()))?;
    let mut file = opened.try_clone().map_err(failed)?;
    let measured = file.seek(SeekFrom::End(0)).and_then(|end| file.rewind().map(|()| end));
    let found = measured.map_err(|error| Failure::file(path, "measured", error))?;
    if found < size {
        return Err(Failure::OutputTooSmall { path: path.to_owned(), found, needed: size });
    }
    Ok(Sink::Stream { file, kind: StreamKind::BlockDevice })
}

/// An existing file or device that the export replaces or overwrites. It is locked until the export ends, where the
/// system has locks.
struct LockedOutput {
    /// Open for writing, if it may be written.
    file: Option<File>,
    _held: Option<Held>,
}

impl LockedOutput {
    /// An error if it is in use, or has bytes of an input.
    fn of(path: &Path, inputs: &[&ImageFile]) -> Result<LockedOutput, Failure> {
        let there = ImageFile::open(path)?;
        if inputs.iter().any(|input| share_bytes(input.file(), there.file())) {
            return Err(Failure::OutputIsInput { path: path.to_owned() });
        }
        refuse_used(&there)?;
        // By this flag the kernel keeps mounts and other programs off a device; it means nothing for a file.
        let exclusive = if there.is_file() { OFlags::empty() } else { OFlags::EXCL };
        let flags = exclusive | OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags.bits() as i32).open(path);
        let file = match opened {
            Ok(file) => file,
            // Its folder may be written, so that it can be replaced.
            Err(_) if there.is_file() => {
                return match write_lock(there.file()) {
                    None => Ok(LockedOutput { file: None, _held: None }),
                    Some(_) => Err(Failure::InUse {
                        path: path.to_owned(),
                        by: "another process writes to it".into(),
                    }),
                };
            }
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                let by = "it is mounted, or another program has claimed it".into();
                return Err(Failure::InUse { path: path.to_owned(), by });
            }
            Err(error) => return Err(Failure::file(path, "opened for writing", error)),
        };
        match hold(&file, path) {
            Ok(held) => Ok(LockedOutput { file: Some(file), _held: Some(held) }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(Failure::Open(printable(error.to_string().as_bytes())))
            }
            // A file system without locks.
            Err(_) if there.is_file() => Ok(LockedOutput { file: Some(file), _held: None }),
            Err(error) => Err(Failure::file(path, "locked", error)),
        }
    }
}

/// Writes nonzero blocks; the rest of the file is a hole already.
fn write_sparse(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let mut start = 0;
    for run in bytes.chunks(BLOCK).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let len: usize = run.iter().map(|block| block.len()).sum();
        if !is_zero(run[0]) {
            file.write_all_at(&bytes[start..start + len], at + start as u64)?;
        }
        start += len;
    }
    Ok(())
}

/// Whether these bytes are all zero.
pub(super) fn is_zero(block: &[u8]) -> bool {
    // Data usually shows in its first bytes; otherwise one pass without branches.
    block.iter().take(16).all(|&byte| byte == 0) && block.iter().fold(0, |all, &byte| all | byte) == 0
}

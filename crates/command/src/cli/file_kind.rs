//! What kind of file a path leads to, in words.

use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;

/// The kind with its article, as in "disk.img is a FIFO".
pub(crate) fn described(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_file() => "a regular file",
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_char_device() => "a character device",
        _ if kind.is_block_device() => "a block device",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_symlink() => "a symbolic link",
        _ => "a file of an unknown kind",
    }
}

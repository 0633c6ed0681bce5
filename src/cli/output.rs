//! Standard output as every command uses it: buffered, and a closed pipe ends the command quietly.

use super::failure::Failure;
use serde::Serialize;
use std::io::{self, BufWriter, StdoutLock, Write};

/// Standard output, locked and buffered. Call [`Output::finish`] at the end: dropping it hides errors.
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Takes standard output.
    pub(crate) fn stdout() -> Output {
        Output(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Writes a value as JSON, indented, with a newline.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.0, value).map_err(io::Error::from)?;
        Ok(writeln!(self.0)?)
    }

    /// Writes out what is still buffered.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        Ok(self.0.flush()?)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Says something beside the output, on standard error. If that is gone there is nobody to tell.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "spindle: {text}");
}

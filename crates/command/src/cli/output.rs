//! Standard output for all commands: buffered, and a closed pipe ends the command quietly.

use super::failure::Failure;
use serde::Serialize;
use spindle_engine::{StandardStream, was_closed};
use std::io::{self, BufWriter, StdoutLock, Write};

/// Standard output, locked and buffered. Call [`Output::finish`] at the end: dropping it hides errors.
pub(crate) struct Output(BufWriter<Stdout>);

/// Standard output, which may have been closed before the process started.
enum Stdout {
    Open(StdoutLock<'static>),
    Closed,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stdout::Open(stdout) => stdout.write(bytes),
            Stdout::Closed => Err(closed()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stdout::Open(stdout) => stdout.flush(),
            Stdout::Closed => Ok(()),
        }
    }
}

/// The error of a closed standard output.
pub(crate) fn closed() -> io::Error {
    io::Error::other("it is closed")
}

/// Prints the result of a command that changed something. If that fails, the error says what was done.
pub(crate) fn tell(
    done: impl FnOnce() -> String,
    print: impl FnOnce(&mut Output) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut out = Output::stdout();
    match print(&mut out).and_then(|()| out.finish()) {
        Err(Failure::OutputClosed) => {
            Err(Failure::Untold { done: done(), error: io::ErrorKind::BrokenPipe.into() })
        }
        Err(Failure::Output(error)) => Err(Failure::Untold { done: done(), error }),
        other => other,
    }
}

/// The outcome of a command whose exit code carries a result: that a reader has closed the output, or that it could not
/// be written, does not hide a result that is a failure.
pub(crate) fn with_result(printed: Result<(), Failure>, result: Result<(), Failure>) -> Result<(), Failure> {
    match (printed, result) {
        (printed, Ok(())) => printed,
        (Ok(()) | Err(Failure::OutputClosed), result) => result,
        (Err(error), result) => {
            note(&error.to_string());
            result
        }
    }
}

impl Output {
    /// Takes standard output.
    pub(crate) fn stdout() -> Output {
        let stdout = match was_closed(StandardStream::Output) {
            true => Stdout::Closed,
            false => Stdout::Open(io::stdout().lock()),
        };
        Output(BufWriter::with_capacity(64 << 10, stdout))
    }

    /// Writes a value as JSON, indented, with a newline.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.0, value).map_err(io::Error::from)?;
        Ok(writeln!(self.0)?)
    }

    /// Writes what is still buffered.
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

/// Prints a note on standard error. If that is closed, the note is dropped.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "spindle: {text}");
}

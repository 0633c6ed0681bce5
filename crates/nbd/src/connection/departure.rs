//! Why a client left without an export, for the log.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::time::Duration;

use crate::codec::{Refusal, Violation, shortened};

/// The most characters of an error of TLS: it may repeat what the client's certificate says.
const MOST: usize = 300;

/// Why a client leaves in its handshake.
#[derive(Debug)]
pub(super) enum Departure {
    /// It went by itself.
    Gone,
    /// It did not begin TLS, where nothing is served without.
    Plain,
    /// It asked for an export that it does not get.
    Refused {
        name: String,
        refusal: Refusal,
    },
    Violation(Violation),
    Tls(io::Error),
    /// Its handshake took longer than this.
    Late(Duration),
    /// The server told it to end.
    Told,
}

impl Departure {
    /// A refusal of the export that a client named.
    pub(super) fn refused(name: &str, refusal: &Refusal) -> Departure {
        Departure::Refused { name: shortened(name), refusal: refusal.clone() }
    }

    /// The value; an error becomes the reason.
    pub(super) fn unless<T>(&mut self, result: Result<T, Departure>) -> Option<T> {
        result.map_err(|error| *self = error).ok()
    }

    /// As [`unless`](Self::unless). A refusal that was noted before says more than that it could not be answered.
    pub(super) fn unless_violated<T>(&mut self, result: Result<T, Violation>) -> Option<T> {
        match (&result, &self) {
            (Err(Violation::ExportName), Departure::Plain | Departure::Refused { .. }) => None,
            _ => self.unless(result.map_err(Departure::Violation)),
        }
    }
}

impl Display for Departure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Departure::Gone => f.write_str("it ended the connection"),
            Departure::Plain => f.write_str("it did not begin TLS, without which nothing is served there"),
            Departure::Refused { name, refusal: Refusal::Unknown } => {
                write!(f, "it asked for export {name:?}, which is not there")
            }
            Departure::Refused { name, refusal: Refusal::ShuttingDown } => {
                write!(f, "it asked for export {name:?}, and the server ends")
            }
            Departure::Refused { name, refusal: Refusal::Failed(why) } => {
                write!(f, "it asked for export {name:?}, which cannot be opened: {why}")
            }
            Departure::Violation(violation) => write!(f, "{violation}"),
            Departure::Tls(error) => {
                let error: String = error.to_string().chars().take(MOST).collect();
                write!(f, "TLS did not begin: {error}")
            }
            Departure::Late(limit) => write!(f, "its handshake took over {limit:?}"),
            Departure::Told => f.write_str("the server ends, or another client needed its place"),
        }
    }
}

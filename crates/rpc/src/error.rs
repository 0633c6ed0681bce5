//! The error of an answer: SPDK's code and first words, then the object and the remedy.

use std::fmt;

use crate::errno::Errno;

/// The most characters of a message.
const LONGEST_MESSAGE: usize = 1000;

/// The error of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// JSON-RPC's own from -32768 to -32000, or a negative error number of the system.
    pub code: i32,
    /// For people: the first words are SPDK's.
    pub message: String,
    misses_object: bool,
}

impl RpcError {
    /// The stream is not JSON.
    pub const PARSE: i32 = -32700;
    /// The value is not a request.
    pub const INVALID_REQUEST: i32 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The method does not accept the parameters.
    pub const INVALID_PARAMS: i32 = -32602;
    /// The method failed; SPDK uses it for parameters too.
    pub const INTERNAL: i32 = -32603;
    /// The method may not be called in this state.
    pub const INVALID_STATE: i32 = -1;

    /// An error with that code and text, which is cut if very long: it may contain names from outside.
    pub fn new(code: i32, message: impl Into<String>) -> RpcError {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
            message.truncate(end);
            message.push_str("...");
        }
        RpcError { code, message, misses_object: code == Errno::NODEV.code() }
    }

    /// The errno as the code, its name, and the object.
    pub fn errno(errno: Errno, detail: impl fmt::Display) -> RpcError {
        RpcError::new(errno.code(), format!("{errno}: {detail}"))
    }

    /// Another code with the name of an errno, as in many of SPDK's methods for errors during the operation.
    pub fn named(code: i32, errno: Errno, detail: impl fmt::Display) -> RpcError {
        let error = RpcError::new(code, format!("{errno}: {detail}"));
        if errno == Errno::NODEV { error.of_missing_object() } else { error }
    }

    /// Marks that something which the call names is not there, whatever SPDK's code for it is. Errors with `ENODEV` have
    /// the mark. A configuration is replayed by it: the call is repeated after the following ones.
    pub fn of_missing_object(self) -> RpcError {
        RpcError { misses_object: true, ..self }
    }

    /// Whether something that the call names is not there, which another call may make.
    pub fn misses_object(&self) -> bool {
        self.misses_object
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

impl std::error::Error for RpcError {}

//! What `sock_impl_set_options` set, by implementation.
//!
//! "posix" stands for the kernel's sockets, "ssl" for those with TLS on top. Sizes and hints are kept and shown, and have no
//! effect: the kernel sizes its buffers, and how bytes are sent is the engine's choice.

use std::cell::Cell;

use serde::Serialize;

/// The implementations, in the order in which a configuration has them.
pub(crate) const IMPLEMENTATIONS: [&str; 2] = ["ssl", "posix"];

/// The one that sockets have unless a listener is told to encrypt.
pub(crate) const DEFAULT: &str = "posix";

/// The options of an implementation.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Values {
    pub(crate) recv_buf_size: u32,
    pub(crate) send_buf_size: u32,
    pub(crate) enable_recv_pipe: bool,
    pub(crate) enable_quickack: bool,
    pub(crate) enable_placement_id: u32,
    pub(crate) enable_zerocopy_send_server: bool,
    pub(crate) enable_zerocopy_send_client: bool,
    pub(crate) zerocopy_threshold: u32,
    pub(crate) tls_version: u32,
    pub(crate) enable_ktls: bool,
}

/// The options of both, which may be set again.
pub(crate) struct Sockets {
    ssl: Cell<Values>,
    posix: Cell<Values>,
}

impl Sockets {
    /// The options of an implementation; `None` if there is no such implementation.
    pub(crate) fn of(&self, implementation: &str) -> Option<&Cell<Values>> {
        match implementation {
            "ssl" => Some(&self.ssl),
            "posix" => Some(&self.posix),
            _ => None,
        }
    }
}

impl Default for Sockets {
    /// SPDK's.
    fn default() -> Sockets {
        let with_buffers_of = |size| {
            Cell::new(Values {
                recv_buf_size: size,
                send_buf_size: size,
                enable_recv_pipe: true,
                enable_quickack: false,
                enable_placement_id: 0,
                enable_zerocopy_send_server: true,
                enable_zerocopy_send_client: false,
                zerocopy_threshold: 0,
                tls_version: 0,
                enable_ktls: false,
            })
        };
        Sockets { ssl: with_buffers_of(4 << 10), posix: with_buffers_of(2 << 20) }
    }
}

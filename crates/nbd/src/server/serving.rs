//! Serves clients, each on one thread.

use std::sync::Arc;

use spindle_engine::Socket;
use spindle_reactor::spawn_local;

use crate::origin::Origin;
use crate::shared::Shared;
use crate::{Tls, connection};

/// Places a client on a thread whose reactor has little to do. Refused if there are too many.
pub(super) fn place(server: &Arc<Shared>, socket: Socket, peer: String, tls: Option<Tls>) {
    let Some((registered, thread)) = server.register(peer, Origin::from(socket.peer())) else { return };
    let (server, control) = (registered.server.clone(), registered.control.clone());
    let serve = async move || {
        let _registered = registered;
        connection::run(server, control, socket, tls).await;
    };
    match thread {
        // It runs to its end; if the thread is gone it is dropped, which closes the socket.
        Some(thread) => drop(thread.spawn(serve)),
        None => drop(spawn_local(serve())),
    }
}

//! What is said of clients that leave.

use std::sync::Arc;
use std::time::Duration;

use spindle_nbd::{Export, Options, Server};
use spindle_reactor::{EngineKind, Runtime, sleep};

use crate::client::{Client, SIMPLE, paired};
use crate::connections::{ram, server};
use crate::support::Said;

/// What a server that exports "disk" said of clients that left while a test ran, in simulation.
fn said(options: Options, test: impl AsyncFnOnce(Server) + Send + 'static) -> Vec<String> {
    let said = Said::default();
    let builder = Runtime::builder().engine(EngineKind::Sim(1)).reactors(2).reporter(Arc::new(said.clone()));
    let main = async move || {
        let server = server(options);
        server.add_export(Export::new("disk", ram(512, 1 << 20))).unwrap();
        test(server.clone()).await;
        server.stop().await;
    };
    builder.build().unwrap().run(main).unwrap();
    said.lines_with("client").into_iter().filter(|line| !line.contains("has connected")).collect()
}

async fn all_gone(server: &Server) {
    while server.connections() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

/// A client that sends these bytes, and waits until the server has closed.
async fn sends(server: &Server, bytes: &[u8]) {
    let mut client = Client::silent(paired(server).await, SIMPLE);
    client.take(18).await.unwrap();
    client.send(bytes).await.unwrap();
    assert!(client.is_closed().await);
    all_gone(server).await;
}

#[test]
fn why_a_client_got_no_export_is_said_at_its_end() {
    let limit = Duration::from_secs(3);
    let said = said(Options { handshake: limit, ..Options::default() }, async |server: Server| {
        assert!(Client::shaken(paired(&server).await, "nope", SIMPLE).await.is_err());
        all_gone(&server).await;
        let old = [&3u32.to_be_bytes()[..], b"IHAVEOPT", &[0, 0, 0, 1, 0, 0, 0, 5], b"older"].concat();
        sends(&server, &old).await;
        sends(&server, &[0xff; 4]).await;
        sends(&server, b"").await;
        drop(paired(&server).await);
        all_gone(&server).await;
        let _silent = Client::silent(paired(&server).await, SIMPLE);
        server.stop().await;
    });
    let reasons = [
        "it asked for export \"nope\", which is not there",
        "it asked for export \"older\", which is not there",
        "the client answered the greeting with unknown flags 0xffffffff",
        "its handshake took over 3s",
        "it ended the connection",
        "the server ends, or another client needed its place",
    ];
    assert_eq!(said.len(), reasons.len(), "{said:?}");
    for (said, reason) in said.iter().zip(reasons) {
        assert!(said.ends_with(&format!("has left without an export: {reason}")), "{said}");
    }
}

#[test]
fn how_a_client_broke_the_protocol_is_said_at_its_end() {
    let said = said(Options::default(), async |server: Server| {
        let mut client = Client::new(&server, "disk", SIMPLE).await;
        client.send(&[0xee; 28]).await.unwrap();
        assert!(client.is_closed().await);
    });
    let [uses, ended] = &said[..] else { panic!("{said:?}") };
    assert!(uses.contains("uses export"), "{uses}");
    let reason = "has ended: a request began with 0xeeeeeeee instead of the magic number";
    assert!(ended.ends_with(reason), "{ended}");
}

#[test]
fn a_client_that_finds_no_place_is_said_to_be_refused() {
    let said = said(Options { connections: 1, ..Options::default() }, async |server: Server| {
        let _served = Client::new(&server, "disk", SIMPLE).await;
        assert!(Client::silent(paired(&server).await, SIMPLE).is_closed().await);
    });
    assert!(said.iter().any(|line| line.contains("is refused: as many clients")), "{said:?}");
}

//! A server and its clients, on every engine: what one client does costs others nothing.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;
use spindle_engine::{Address, Op, Output, Shutdown, Socket};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::{EngineKind, Runtime, op, spawn_local, yield_now};
use spindle_rpc::{
    BadParams, Bound, Client, ClientError, Dispatcher, Method, Phase, RpcError, Server, ServerOptions, State,
    States, Table, Value, to_json,
};

/// What the test's methods count.
#[derive(Default)]
struct Counts {
    begun: Cell<usize>,
    ended: Cell<usize>,
    open: Cell<bool>,
}

type Context = Rc<Counts>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Length {
    bytes: usize,
}

fn table() -> Table<Context> {
    let mut table = Table::new();
    let none = BadParams::new(RpcError::INVALID_PARAMS, "no parameters");
    let methods = [
        Method::without("count", States::BOTH, none, async |counts: Context| {
            counts.begun.set(counts.begun.get() + 1);
            Ok::<_, RpcError>(counts.begun.get())
        }),
        // Waits until the test lets it go on.
        Method::ignoring("wait", States::BOTH, async |counts: Context| {
            counts.begun.set(counts.begun.get() + 1);
            while !counts.open.get() {
                yield_now().await;
            }
            counts.ended.set(counts.ended.get() + 1);
            Ok::<_, RpcError>("waited")
        }),
        Method::with("long", States::BOTH, BadParams::INVALID, async |counts: Context, length: Length| {
            counts.begun.set(counts.begun.get() + 1);
            Ok::<_, RpcError>("x".repeat(length.bytes))
        }),
        Method::ignoring("panic", States::BOTH, async |_: Context| -> Result<bool, RpcError> {
            panic!("as asked")
        }),
        Method::ignoring("late", States::RUNTIME, async |_: Context| Ok::<_, RpcError>(true)),
        Method::list("rpc_get_methods"),
    ];
    methods.into_iter().for_each(|method| table.add(method).unwrap());
    table
}

struct Bench {
    counts: Context,
    phase: Phase,
    path: PathBuf,
    server: Option<Server>,
}

impl Bench {
    async fn new(folder: &Path) -> Bench {
        Bench::limited(folder, ServerOptions::default()).await
    }

    async fn limited(folder: &Path, options: ServerOptions) -> Bench {
        let (counts, phase, path) = (Context::default(), Phase::new(State::Runtime), folder.join("s"));
        let dispatcher = Dispatcher::new(table(), counts.clone(), phase.clone());
        let server = Bound::bind(&path).await.unwrap().serve(dispatcher, options);
        Bench { counts, phase, path, server: Some(server) }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.path).await.unwrap()
    }

    async fn raw(&self) -> Raw {
        let address = Box::new(Address::Unix(self.path.clone()));
        match op(Op::Connect { address }).await.0.unwrap() {
            Output::Socket(socket) => Raw(socket),
            other => panic!("{other:?}"),
        }
    }
}

/// A client that sends what it likes.
struct Raw(Socket);

impl Raw {
    async fn send(&self, text: &str) {
        let buffers = IoBuf::copy_from(text.as_bytes()).into();
        op(Op::Send { socket: self.0.clone(), buffers }).await.0.unwrap();
    }

    async fn half_close(&self) {
        op(Op::Shutdown { socket: self.0.clone(), how: Shutdown::Write }).await.0.unwrap();
    }

    /// All that comes until the server closes.
    async fn rest(&self) -> String {
        let mut all = Vec::new();
        loop {
            let buffers = IoBuf::zeroed(1 << 16).into();
            let (result, done) = op(Op::Recv { socket: self.0.clone(), buffers }).await;
            let count = result.unwrap().bytes();
            if count == 0 {
                return String::from_utf8(all).unwrap();
            }
            let Buffers::One(buffer) = done.into_buffers() else { panic!() };
            all.extend_from_slice(&buffer[..count]);
        }
    }
}

/// Runs a test on real sockets and in simulations of several seeds.
fn everywhere(test: impl AsyncFn(Bench) + Copy + Send + 'static) {
    on_sockets(test);
    run_on((0..3).map(EngineKind::Sim), test);
}

/// Runs a test on real sockets.
fn on_sockets(test: impl AsyncFn(Bench) + Copy + Send + 'static) {
    run_on([EngineKind::Auto, EngineKind::Epoll].into_iter(), test);
}

fn run_on(kinds: impl Iterator<Item = EngineKind>, test: impl AsyncFn(Bench) + Copy + Send + 'static) {
    for kind in kinds {
        let runtime = Runtime::builder().reactors(1).engine(kind).build().unwrap();
        let ended = runtime.run(async move || {
            let folder = tempfile::tempdir().unwrap();
            test(Bench::new(folder.path()).await).await;
        });
        ended.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

#[test]
fn a_call_is_answered_with_its_result_or_error() {
    everywhere(async |bench| {
        let mut client = bench.client().await;
        let result = client.call("count", None).await.unwrap();
        assert_eq!(to_json(&result).unwrap(), "1");
        let Err(ClientError::Answer(error)) = client.call("nope", None).await else { panic!() };
        assert_eq!(error.code, RpcError::METHOD_NOT_FOUND);
        let Err(ClientError::Answer(error)) = client.call("count", Some("{}")).await else { panic!() };
        assert_eq!(error, RpcError::new(RpcError::INVALID_PARAMS, "no parameters"));
        let Err(ClientError::Answer(error)) = client.call("long", None).await else { panic!() };
        let words = "Invalid parameters: this method needs parameters, and there are none; known: bytes";
        assert_eq!(error, RpcError::new(RpcError::INVALID_PARAMS, words));
    });
}

#[test]
fn the_table_lists_its_methods_the_newest_first_and_those_of_the_state_if_asked() {
    everywhere(async |bench| {
        bench.phase.set(State::Startup);
        let mut client = bench.client().await;
        let Value::Array(all) = client.call("rpc_get_methods", None).await.unwrap() else { panic!() };
        assert_eq!(all.first(), Some(&Value::String("rpc_get_methods".to_owned())));
        let Value::Array(now) = client.call("rpc_get_methods", Some(r#"{"current":true}"#)).await.unwrap()
        else {
            panic!()
        };
        assert_eq!(all.len(), now.len() + 1);
        let Err(ClientError::Answer(error)) = client.call("late", None).await else { panic!() };
        assert_eq!(error.code, RpcError::INVALID_STATE);
        assert!(error.message.starts_with("Method may only be called after framework is initialized"));
    });
}

#[test]
fn a_method_that_waits_holds_up_no_other_on_the_same_connection() {
    everywhere(async |bench| {
        let client = bench.raw().await;
        client.send(r#"{"id":1,"method":"wait"}{"id":2,"method":"count"}"#).await;
        while bench.counts.begun.get() < 2 {
            yield_now().await;
        }
        bench.counts.open.set(true);
        client.half_close().await;
        let answers = client.rest().await;
        let order = ["\"id\":2", "\"id\":1"].map(|id| answers.find(id).unwrap());
        assert!(order[0] < order[1], "{answers}");
    });
}

#[test]
fn the_work_of_a_client_that_has_gone_ends_once() {
    everywhere(async |bench| {
        let client = bench.raw().await;
        client.send(r#"{"id":1,"method":"wait"}"#).await;
        while bench.counts.begun.get() == 0 {
            yield_now().await;
        }
        drop(client);
        // Another client is served meanwhile.
        bench.client().await.call("count", None).await.unwrap();
        bench.counts.open.set(true);
        while bench.counts.ended.get() == 0 {
            yield_now().await;
        }
        let server = bench.server.as_ref().unwrap();
        while server.connections() > 0 {
            yield_now().await;
        }
        assert_eq!(bench.counts.ended.get(), 1);
    });
}

#[test]
fn a_panic_is_answered_as_an_error_and_costs_nothing_else() {
    everywhere(async |bench| {
        let mut client = bench.client().await;
        let Err(ClientError::Answer(error)) = client.call("panic", None).await else { panic!() };
        assert_eq!(error.code, RpcError::INTERNAL);
        assert!(error.message.contains("panic"), "{error}");
        client.call("count", None).await.unwrap();
    });
}

#[test]
fn a_fault_in_the_stream_is_answered_after_what_came_before_it_and_ends_the_connection() {
    everywhere(async |bench| {
        for fault in ["\0", "\u{feff}", "]", "{\"id\":nul}", "{'id':2}"] {
            let client = bench.raw().await;
            client
                .send(&format!("{{\"id\":1,\"method\":\"count\"}}{fault}{{\"id\":2,\"method\":\"count\"}}"))
                .await;
            let answers = client.rest().await;
            let lines: Vec<&str> = answers.lines().collect();
            assert_eq!(lines.len(), 2, "{answers}");
            assert!(answers.contains("\"id\":1,\"result\""), "{answers}");
            assert!(
                answers.contains("\"id\":null,\"error\":{\"code\":-32700,\"message\":\"Parse error"),
                "{answers}"
            );
        }
    });
}

#[test]
fn a_request_of_ten_megabytes_gets_an_error_and_the_connection_goes_on() {
    on_sockets(async |bench| {
        let client = bench.raw().await;
        let long = format!("{{\"id\":1,\"method\":\"{}\"}}", "m".repeat(10 << 20));
        client.send(&long).await;
        client.send(r#"{"id":2,"method":"count"}"#).await;
        client.half_close().await;
        let answers = client.rest().await;
        assert!(answers.contains("\"id\":1,\"error\":{\"code\":-32600"), "{answers}");
        assert!(answers.contains("4194304 bytes"), "{answers}");
        assert!(answers.contains("\"id\":2,\"result\""), "{answers}");
    });
}

#[test]
fn clients_that_stop_within_a_request_give_way_to_those_that_go_on() {
    const LIMIT: usize = 1 << 20;
    // Half of the limit, without an end, and a third of it, whole.
    let begun = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"count","params":["{}"#, "a".repeat(LIMIT / 2));
    let whole =
        format!(r#"{{"jsonrpc":"2.0","id":2,"method":"wait","params":["{}"]}}"#, "b".repeat(LIMIT / 3));
    for kind in [EngineKind::Auto, EngineKind::Epoll, EngineKind::Sim(1), EngineKind::Sim(2)] {
        let (begun, whole) = (begun.clone(), whole.clone());
        let runtime = Runtime::builder().reactors(1).engine(kind).build().unwrap();
        let ended = runtime.run(async move || {
            let folder = tempfile::tempdir().unwrap();
            let options = ServerOptions { unfinished: LIMIT, ..ServerOptions::default() };
            let bench = Bench::limited(folder.path(), options).await;
            bench.counts.open.set(true);
            let mut stopped = Vec::new();
            for _ in 0..4 {
                let client = bench.raw().await;
                client.send(&begun).await;
                stopped.push(client);
                // Requests of others are answered, whole ones of any size.
                let other = bench.raw().await;
                other.send(&whole).await;
                other.half_close().await;
                let answer = other.rest().await;
                assert!(answer.contains("waited"), "{answer}");
            }
            // The ones that were silent for longest are told why they are closed; those for which there is room stay.
            for client in &stopped[..3] {
                let told = client.rest().await;
                assert!(told.contains("connect and send it again"), "{told}");
            }
            stopped[3].send(r#""]}"#).await;
            stopped[3].half_close().await;
            let answer = stopped[3].rest().await;
            assert!(answer.contains(r#""id":1"#) && !answer.contains("closed"), "{answer}");
        });
        ended.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

#[test]
fn a_client_that_sends_and_does_not_read_is_not_read_from_without_end() {
    on_sockets(async |bench| {
        let client = bench.raw().await;
        const REQUESTS: usize = 400;
        let socket = client.0.clone();
        // The whole cannot be sent before answers are read.
        let sending = spawn_local(async move {
            for _ in 0..REQUESTS {
                let request = br#"{"id":1,"method":"long","params":{"bytes":100000}}"#;
                op(Op::Send { socket: socket.clone(), buffers: IoBuf::copy_from(request).into() })
                    .await
                    .0
                    .unwrap();
            }
        });
        let mut others = bench.client().await;
        for _ in 0..200 {
            others.call("count", None).await.unwrap();
        }
        // What was begun for it is what its unsent answers had room for.
        let begun = bench.counts.begun.get() - 200;
        assert!(begun * 100_000 < 4 << 20, "{begun} answers wait");
        client_reads(&client, REQUESTS).await;
        sending.await.unwrap();
    });
}

async fn client_reads(client: &Raw, answers: usize) {
    let mut lines = 0;
    while lines < answers {
        let buffers = IoBuf::zeroed(1 << 16).into();
        let (result, done) = op(Op::Recv { socket: client.0.clone(), buffers }).await;
        let count = result.unwrap().bytes();
        let Buffers::One(buffer) = done.into_buffers() else { panic!() };
        lines += buffer[..count].iter().filter(|byte| **byte == b'\n').count();
    }
}

#[test]
fn a_batch_is_answered_together_and_notifications_by_errors_only() {
    everywhere(async |bench| {
        let client = bench.raw().await;
        client.send(r#"[{"id":"a","method":"count"},{"method":"count"},{"method":"nope"},7]"#).await;
        client.send(r#"[{"method":"count"}]{"method":"count"}[]"#).await;
        client.half_close().await;
        let answers = client.rest().await;
        // Calls are answered when they end, in whatever order that is.
        let (batches, single): (Vec<&str>, Vec<&str>) =
            answers.lines().partition(|line| line.starts_with('['));
        assert_eq!((batches.len(), single.len()), (1, 1), "{answers}");
        assert!(batches[0].contains(r#"{"jsonrpc":"2.0","id":"a","result":"#), "{answers}");
        assert_eq!(batches[0].matches("\"id\":null").count(), 2, "{answers}");
        assert!(single[0].starts_with(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600"#), "{answers}");
    });
}

#[test]
fn a_closing_server_sends_the_answers_that_are_there_and_frees_its_path() {
    everywhere(async |mut bench| {
        let client = bench.raw().await;
        client.send(r#"{"id":1,"method":"long","params":{"bytes":200000}}"#).await;
        while bench.counts.begun.get() == 0 {
            yield_now().await;
        }
        let reading = spawn_local(async move { client.rest().await });
        assert_eq!(bench.server.take().unwrap().close().await, 1);
        assert!(reading.await.unwrap().len() > 200_000);
        drop(Bound::bind(&bench.path).await.unwrap());
    });
}

#[test]
fn a_closing_server_answers_a_call_that_ends_meanwhile_and_begins_no_other() {
    run_on((0..3).map(EngineKind::Sim), async |mut bench| {
        let client = bench.raw().await;
        client.send(r#"{"id":1,"method":"wait"}"#).await;
        while bench.counts.begun.get() == 0 {
            yield_now().await;
        }
        let server = bench.server.take().unwrap();
        let closing = spawn_local(async move { server.close().await });
        yield_now().await;
        client.send(r#"{"id":2,"method":"count"}"#).await;
        bench.counts.open.set(true);
        let answers = client.rest().await;
        assert!(answers.contains(r#""id":1,"result":"waited""#), "{answers}");
        assert!(!answers.contains(r#""id":2"#), "{answers}");
        assert_eq!((closing.await.unwrap(), bench.counts.begun.get()), (1, 1));
    });
}

//! The single table of methods, for dispatching, listing, documenting and refusing.
//!
//! A value of the serving program, filled before the server starts, by this project and by the embedding
//! program. `C` is the context that handlers get beside their parameters.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::RpcError;
use crate::params::{self, ParamError};
use crate::phase::{State, States};
use crate::request::shown;
use crate::value::Value;
use crate::writer::to_json;

/// How a method refuses parameters: SPDK's methods differ in this.
#[derive(Clone, Copy, Debug)]
pub struct BadParams {
    code: i32,
    words: &'static str,
}

impl BadParams {
    /// Code -32603, "spdk_json_decode_object failed": the answer of most methods.
    pub const DECODE_FAILED: BadParams =
        BadParams { code: RpcError::INTERNAL, words: "spdk_json_decode_object failed" };
    /// Code -32602, "Invalid parameters".
    pub const INVALID: BadParams = BadParams { code: RpcError::INVALID_PARAMS, words: "Invalid parameters" };

    /// Another code and other words.
    pub const fn new(code: i32, words: &'static str) -> BadParams {
        BadParams { code, words }
    }

    /// The error, with the detail.
    pub fn error(self, what: impl std::fmt::Display) -> RpcError {
        RpcError::new(self.code, format!("{}: {what}", self.words))
    }
}

/// The output of a handler's future: the result as JSON.
pub(crate) type Outcome = Pin<Box<dyn Future<Output = Result<String, RpcError>>>>;

type Start<C> = Box<dyn Fn(C, Option<Value>) -> Result<Outcome, RpcError>>;

enum Handler<C> {
    /// Started with parameters, which it decodes at once.
    Start(Start<C>),
    /// Lists the table.
    List,
}

/// A method: one line of the table.
pub struct Method<C> {
    name: &'static str,
    aliases: &'static [&'static str],
    states: States,
    parameters: &'static [&'static str],
    bad: BadParams,
    handler: Handler<C>,
    driven_by: Option<&'static str>,
}

impl<C: 'static> Method<C> {
    /// A method with required parameters `P`, an object.
    pub fn with<P, F, Fut, R>(name: &'static str, states: States, bad: BadParams, handler: F) -> Method<C>
    where
        P: DeserializeOwned,
        F: Fn(C, P) -> Fut + 'static,
        Fut: Future<Output = Result<R, RpcError>> + 'static,
        R: Serialize + 'static,
    {
        let start = move |context, given: Option<Value>| {
            let params: P = decode(given.as_ref(), bad)?;
            Ok(outcome(handler(context, params)))
        };
        Method::new(name, states, bad, params::names::<P>(), Handler::Start(Box::new(start)))
    }

    /// A method whose parameters may be absent, which differs from an object without members.
    pub fn with_optional<P, F, Fut, R>(
        name: &'static str,
        states: States,
        bad: BadParams,
        handler: F,
    ) -> Method<C>
    where
        P: DeserializeOwned,
        F: Fn(C, Option<P>) -> Fut + 'static,
        Fut: Future<Output = Result<R, RpcError>> + 'static,
        R: Serialize + 'static,
    {
        let start = move |context, given: Option<Value>| {
            let params = given.map(|given| decode(Some(&given), bad)).transpose()?;
            Ok(outcome(handler(context, params)))
        };
        Method::new(name, states, bad, params::names::<P>(), Handler::Start(Box::new(start)))
    }

    /// A method that refuses any parameters, with the words of `refusal`.
    pub fn without<F, Fut, R>(name: &'static str, states: States, refusal: BadParams, handler: F) -> Method<C>
    where
        F: Fn(C) -> Fut + 'static,
        Fut: Future<Output = Result<R, RpcError>> + 'static,
        R: Serialize + 'static,
    {
        let start = move |context, given: Option<Value>| match given {
            None => Ok(outcome(handler(context))),
            Some(_) => Err(RpcError::new(refusal.code, refusal.words)),
        };
        Method::new(name, states, refusal, &[], Handler::Start(Box::new(start)))
    }

    /// A method without parameters that ignores any it gets.
    pub fn ignoring<F, Fut, R>(name: &'static str, states: States, handler: F) -> Method<C>
    where
        F: Fn(C) -> Fut + 'static,
        Fut: Future<Output = Result<R, RpcError>> + 'static,
        R: Serialize + 'static,
    {
        let start = move |context, _| Ok(outcome(handler(context)));
        Method::new(name, states, BadParams::INVALID, &[], Handler::Start(Box::new(start)))
    }

    /// `rpc_get_methods`: the names in the table, newest first.
    pub fn list(name: &'static str) -> Method<C> {
        Method::new(name, States::BOTH, BadParams::INVALID, &["current", "include_aliases"], Handler::List)
    }

    fn new(
        name: &'static str,
        states: States,
        bad: BadParams,
        parameters: &'static [&'static str],
        handler: Handler<C>,
    ) -> Method<C> {
        Method { name, aliases: &[], states, parameters, bad, handler, driven_by: None }
    }

    /// Sets other names of the method.
    pub fn aliases(mut self, aliases: &'static [&'static str]) -> Method<C> {
        self.aliases = aliases;
        self
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The states in which it may be called.
    pub fn states(&self) -> States {
        self.states
    }

    /// The test in which a client of SPDK drove the method.
    pub fn driven_by(&self) -> Option<&'static str> {
        self.driven_by
    }

    /// The names of its parameters, aliases included.
    pub fn parameters(&self) -> &'static [&'static str] {
        self.parameters
    }
}

fn decode<P: DeserializeOwned>(given: Option<&Value>, bad: BadParams) -> Result<P, RpcError> {
    let given = given.ok_or_else(|| {
        let known = params::names::<P>().join(", ");
        bad.error(format!("this method needs parameters, and there are none; known: {known}"))
    })?;
    params::from_value(given).map_err(|error: ParamError| bad.error(error))
}

fn outcome<R: Serialize>(future: impl Future<Output = Result<R, RpcError>> + 'static) -> Outcome {
    Box::pin(async move {
        let result = future.await?;
        to_json(&result)
            .map_err(|error| RpcError::new(RpcError::INTERNAL, format!("Internal error: {error}")))
    })
}

/// A name that is already in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table of methods has '{0}' already; choose another name")]
pub struct NameTaken(pub &'static str);

/// The methods.
pub struct Table<C> {
    /// In the order of registration.
    methods: Vec<Method<C>>,
    names: BTreeMap<&'static str, usize>,
    /// Why methods that clients may ask for are not there.
    absent: BTreeMap<&'static str, &'static str>,
}

impl<C> Default for Table<C> {
    fn default() -> Table<C> {
        Table { methods: Vec::new(), names: BTreeMap::new(), absent: BTreeMap::new() }
    }
}

impl<C: 'static> Table<C> {
    /// An empty table.
    pub fn new() -> Table<C> {
        Table::default()
    }

    /// Adds a method.
    ///
    /// # Errors
    /// Its name or one of its aliases is taken; the table is unchanged.
    pub fn add(&mut self, method: Method<C>) -> Result<(), NameTaken> {
        let names = || std::iter::once(&method.name).chain(method.aliases);
        if let Some(taken) = names().find(|name| self.names.contains_key(**name)) {
            return Err(NameTaken(taken));
        }
        let place = self.methods.len();
        self.names.extend(names().map(|name| (*name, place)));
        self.methods.push(method);
        Ok(())
    }

    /// Keeps only the named methods; unknown names are ignored. For `--rpcs-allowed`.
    pub fn keep_only(&mut self, allowed: &[&str]) {
        for (name, _) in self.names.extract_if(.., |name, _| !allowed.contains(name)) {
            self.absent.insert(name, NOT_ALLOWED);
        }
    }

    /// Notes the test in which a client of SPDK drove a method; false if there is no such method.
    pub fn note_test(&mut self, name: &str, test: &'static str) -> bool {
        let method = self.names.get(name).map(|place| &mut self.methods[*place]);
        method.map(|method| method.driven_by = Some(test)).is_some()
    }

    /// Sets why a method that clients may ask for does not exist: the answer to calls of it. Without effect if it does.
    pub fn note_absent(&mut self, name: &'static str, why: &'static str) {
        if !self.names.contains_key(name) {
            self.absent.insert(name, why);
        }
    }

    /// Why there is no method of that name, and what to do.
    pub fn why_absent(&self, name: &str) -> &'static str {
        self.absent.get(name).copied().unwrap_or("rpc_get_methods lists them")
    }

    /// True if [`keep_only`](Self::keep_only) took away the method of that name.
    pub fn is_forbidden(&self, name: &str) -> bool {
        self.absent.get(name).is_some_and(|why| *why == NOT_ALLOWED)
    }

    /// The states in which a method may be called by that name or alias; none if there is none.
    pub fn states_of(&self, name: &str) -> Option<States> {
        self.names.get(name).map(|place| self.methods[*place].states)
    }

    /// The methods that may be called by their name, in the order in which they were added.
    pub fn methods(&self) -> impl DoubleEndedIterator<Item = &Method<C>> {
        self.methods.iter().filter(|method| self.names.contains_key(method.name))
    }

    /// Starts a call.
    pub(crate) fn start(
        &self,
        context: C,
        state: State,
        name: &str,
        params: Option<Value>,
    ) -> Result<Outcome, RpcError> {
        let Some(method) = self.names.get(name).map(|place| &self.methods[*place]) else {
            let why = self.why_absent(name);
            let message = format!("Method not found: '{}'; {why}", shown(name));
            return Err(RpcError::new(RpcError::METHOD_NOT_FOUND, message));
        };
        if !method.states.contain(state) {
            return Err(RpcError::new(RpcError::INVALID_STATE, wrong_state(state)));
        }
        match &method.handler {
            Handler::Start(start) => start(context, params),
            Handler::List => {
                let wanted = params.map(|params| decode(Some(&params), method.bad)).transpose()?;
                Ok(outcome(std::future::ready(Ok(self.list(wanted.unwrap_or_default(), state)))))
            }
        }
    }

    fn list(&self, wanted: ListParams, state: State) -> Vec<&'static str> {
        let mut listed = Vec::new();
        for method in self.methods.iter().rev() {
            if wanted.current && !method.states.contain(state) {
                continue;
            }
            let aliases = method.aliases.iter().filter(|_| wanted.include_aliases);
            let names = aliases.chain(std::iter::once(&method.name));
            listed.extend(names.filter(|name| self.names.contains_key(**name)));
        }
        listed
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListParams {
    current: bool,
    include_aliases: bool,
}

/// Why a method that exists cannot be called.
const NOT_ALLOWED: &str = "it is not among --rpcs-allowed; start with it there, or without that option";

fn wrong_state(state: State) -> &'static str {
    match state {
        State::Startup => {
            "Method may only be called after framework is initialized using framework_start_init RPC."
        }
        State::Runtime => {
            "Method may only be called before framework is initialized. Use --wait-for-rpc command line parameter \
             and then issue this RPC before the framework_start_init RPC."
        }
    }
}

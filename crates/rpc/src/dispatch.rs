//! Calls the methods of a table: one for all connections of a server, and for replayed configuration.

use std::rc::Rc;

use crate::error::RpcError;
use crate::phase::{Phase, State};
use crate::request::Call;
use crate::table::Table;

/// Calls methods with a context of the application. A handle; on one thread.
pub struct Dispatcher<C>(Rc<Inner<C>>);

struct Inner<C> {
    table: Table<C>,
    context: C,
    phase: Phase,
    observer: Option<Observer>,
}

/// Told of each call that ends: the method, and its result or error.
type Observer = Box<dyn Fn(&str, Result<&str, &RpcError>)>;

impl<C> Clone for Dispatcher<C> {
    fn clone(&self) -> Dispatcher<C> {
        Dispatcher(self.0.clone())
    }
}

impl<C: Clone + 'static> Dispatcher<C> {
    /// Calls the methods of `table` with clones of `context`, in the states of `phase`.
    pub fn new(table: Table<C>, context: C, phase: Phase) -> Dispatcher<C> {
        Dispatcher(Rc::new(Inner { table, context, phase, observer: None }))
    }

    /// As [`new`](Self::new); `observer` is told of each call that ends, by its method and its outcome, as for a log.
    pub fn observed(
        table: Table<C>,
        context: C,
        phase: Phase,
        observer: impl Fn(&str, Result<&str, &RpcError>) + 'static,
    ) -> Dispatcher<C> {
        Dispatcher(Rc::new(Inner { table, context, phase, observer: Some(Box::new(observer)) }))
    }

    /// Its table.
    pub fn table(&self) -> &Table<C> {
        &self.0.table
    }

    /// Calls a method; returns its result as JSON. Its parameters are decoded, and refused, at the first
    /// poll. Dropping the future drops the handler's; work that the handler has given to others goes on.
    pub async fn call(&self, call: Call) -> Result<String, RpcError> {
        let state = self.0.phase.state();
        self.call_in(state, call).await
    }

    /// As [`call`](Self::call), as if the application were in that state: for what a configuration replays while
    /// clients have to wait.
    pub async fn call_in(&self, state: State, call: Call) -> Result<String, RpcError> {
        let Inner { table, context, observer, .. } = &*self.0;
        let outcome = match table.start(context.clone(), state, &call.method, call.params) {
            Ok(started) => started.await,
            Err(refused) => Err(refused),
        };
        if let Some(observer) = observer {
            observer(&call.method, outcome.as_deref());
        }
        outcome
    }
}

//! Tasks that HTTP/2 starts beside a connection: on this thread, and known to whoever may have to end them.

use std::future::Future;
use std::rc::Rc;

use hyper::rt::Executor;
use tokio::task::spawn_local;

use crate::connection::Connection;

/// Starts tasks on this thread.
#[derive(Clone, Copy)]
pub(crate) struct Here;

impl<F: Future + 'static> Executor<F> for Here {
    fn execute(&self, task: F) {
        spawn_local(async move { drop(task.await) });
    }
}

/// The same for the requests of one client: each has a task, which its ticket learns of.
///
/// hyper calls the service for a request and then starts the task of that request, with nothing in between.
#[derive(Clone)]
pub(crate) struct PerRequest(pub(crate) Rc<Connection>);

impl<F: Future + 'static> Executor<F> for PerRequest {
    fn execute(&self, task: F) {
        let started = spawn_local(async move { drop(task.await) });
        if let Some(ticket) = self.0.newest.borrow_mut().take() {
            ticket.ended_by(started.abort_handle());
        }
    }
}

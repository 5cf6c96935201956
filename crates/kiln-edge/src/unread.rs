//! Requests of HTTP/1.1 that hyper itself has answered, because it could not read their heads: counted, and written down
//! with what is known of them.

use std::rc::Rc;

use crate::account::{Account, Story};
use crate::connection::Connection;
use crate::counts::Turn;
use crate::refusal::Refusal;
use crate::worker::Worker;

/// Takes account of a request at whose head a connection has ended, if that is why it has.
pub(crate) fn account(worker: &Worker, connection: &Rc<Connection>, error: &hyper::Error) {
    let Some(refusal) = refusal(error) else { return };
    drop(Turn::begin(worker.totals.clone()));
    worker.registry.causes.count(refusal);
    let mut account = Account::open();
    account.status = refusal.status().as_u16();
    let start = connection.marks.unread().unwrap_or_default();
    let story =
        || Box::new(Story { cause: Some(refusal.cause()), ..Story::unread(connection.peer().ip, start) });
    account.story = worker.log.is_some().then(story);
    account.close(worker.log.as_ref());
}

/// Why a head could not be read, if that is what is wrong.
fn refusal(error: &hyper::Error) -> Option<Refusal> {
    if error.is_parse_too_large() {
        return Some(Refusal::TooManyFields);
    }
    error.is_parse().then_some(Refusal::Malformed("its head cannot be read"))
}

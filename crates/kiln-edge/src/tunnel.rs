//! Upgraded connections (websockets and the like): bytes both ways until either side ends. In flight all the while.

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use crate::body::ResponseBody;
use crate::connection::Listed;
use crate::counts::Ending;
use crate::hygiene;
use crate::lease::Place;
use crate::pump::{self, Ended, Talk};
use crate::refusal::Refusal;
use crate::worker::Worker;

/// A wish to leave HTTP behind.
pub(crate) struct Switch {
    /// The protocols that would do.
    pub(crate) asked: HeaderValue,
    /// The client's side of what follows.
    pub(crate) client: OnUpgrade,
}

/// Whether an answer of 101 is one: to a request that asked for it, and with nothing that it did not ask for
/// (RFC 9110, 7.8).
pub(crate) fn is_asked_for(switch: Option<&Switch>, headers: &HeaderMap) -> bool {
    let (Some(switch), Some(chosen)) = (switch, hygiene::upgrade_asked(headers)) else { return false };
    let is_asked = |one: &[u8]| protocols(&switch.asked).any(|asked| asked.eq_ignore_ascii_case(one));
    protocols(&chosen).all(is_asked)
}

fn protocols(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    field.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Passes an instance's 101 on and joins the two connections once both have left HTTP behind.
pub(crate) fn open(
    worker: &Worker,
    switch: Option<Switch>,
    mut response: Response<Incoming>,
    mut place: Place,
) -> Response<ResponseBody> {
    let protocol = hygiene::upgrade_asked(response.headers());
    let (Some(Switch { client, .. }), Some(protocol)) = (switch, protocol) else {
        place.fail();
        return Refusal::Garbage.response();
    };
    let instance = hyper::upgrade::on(&mut response);
    place.flight.ends(Ending::Answered);
    place.reply.answered();
    place.reply.account.status = 101;
    let is_websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    let talk = if is_websocket { Talk::Websocket } else { Talk::Opaque };
    let connection = place.reply.connection().clone();
    connection.marks.becomes_a_tunnel();
    let listed = worker.connections.list(connection);
    let key = listed.key();
    let task = spawn_local(join(client, instance, talk, place, listed));
    worker.connections.ended_by(key, task.abort_handle());
    switching(response, protocol)
}

fn switching(response: Response<Incoming>, protocol: HeaderValue) -> Response<ResponseBody> {
    let (mut head, _) = response.into_parts();
    hygiene::strip_hop_by_hop(&mut head.headers);
    hygiene::ask_upgrade(&mut head.headers, protocol);
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    Response::from_parts(head, ResponseBody::Own(None))
}

async fn join(client: OnUpgrade, instance: OnUpgrade, talk: Talk, mut place: Place, listed: Listed) {
    if let (Ok(client), Ok(instance)) = tokio::join!(client, instance) {
        let (client, instance) = (TokioIo::new(client), TokioIo::new(instance));
        if pump::join(client, instance, talk, place.reply.ticket()).await == Ended::Told {
            place.flight.ends(Ending::Cut);
        }
    }
    drop((place, listed));
}

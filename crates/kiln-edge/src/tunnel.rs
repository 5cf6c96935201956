//! Upgraded connections (websockets and the like): bytes both ways until either side ends. In flight all the while.

use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::task::spawn_local;

use crate::body::ResponseBody;
use crate::connection::Listed;
use crate::counts::Ending;
use crate::hygiene;
use crate::lease::Place;
use crate::refusal::Refusal;
use crate::worker::Worker;

/// Passes an instance's 101 on and joins the two connections once both have left HTTP behind.
pub(crate) fn open(
    worker: &Worker,
    client: Option<OnUpgrade>,
    mut response: Response<Incoming>,
    mut place: Place,
) -> Response<ResponseBody> {
    let protocol = hygiene::upgrade_asked(response.headers());
    let (Some(client), Some(protocol)) = (client, protocol) else {
        // Nobody asked for it, or it does not say what to.
        place.fail();
        return Refusal::Garbage.response();
    };
    let instance = hyper::upgrade::on(&mut response);
    place.flight.ends(Ending::Answered);
    let connection = place.reply.connection().clone();
    let listed = worker.connections.list(connection);
    let key = listed.key();
    let task = spawn_local(join(client, instance, place, listed));
    worker.connections.ended_by(key, task.abort_handle());
    switching(response, protocol)
}

fn switching(response: Response<Incoming>, protocol: hyper::header::HeaderValue) -> Response<ResponseBody> {
    let (mut head, _) = response.into_parts();
    hygiene::strip_hop_by_hop(&mut head.headers);
    hygiene::ask_upgrade(&mut head.headers, protocol);
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    Response::from_parts(head, ResponseBody::Own(None))
}

/// Ends when both directions have, or when either breaks: an upgraded connection has no failures that HTTP knows of.
async fn join(client: OnUpgrade, instance: OnUpgrade, place: Place, listed: Listed) {
    if let (Ok(client), Ok(instance)) = tokio::join!(client, instance) {
        let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
        let _ = copy_bidirectional(&mut client, &mut instance).await;
    }
    drop((place, listed));
}

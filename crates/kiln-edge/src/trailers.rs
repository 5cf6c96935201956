//! Fields that follow a body: the same for both directions, and for all versions of HTTP.

use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TRAILER};

use crate::hygiene;

/// A piece of a body as it goes on, behind a head that has `named` these as being about its connection. Trailers of which
/// nothing may go on are no piece at all.
pub(crate) fn passed_on<E>(
    mut piece: Option<Result<Frame<Bytes>, E>>,
    named: &[HeaderName],
) -> Option<Result<Frame<Bytes>, E>> {
    if let Some(Ok(frame)) = &mut piece
        && let Some(trailers) = frame.trailers_mut()
    {
        clean(trailers, named);
        if trailers.is_empty() {
            return None;
        }
    }
    piece
}

/// Leaves out what has no meaning behind a body, and would be given one by somebody: what is about a connection, frames or
/// addresses the message, or says where it came from (RFC 9110, 6.5.1). HTTP/2 would refuse to send the first of it.
fn clean(trailers: &mut HeaderMap, named: &[HeaderName]) {
    hygiene::strip_hop_by_hop(trailers);
    for name in named.iter().chain(&[CONTENT_LENGTH, HOST, TRAILER]) {
        trailers.remove(name);
    }
    let about_origin = |name: &&HeaderName| hygiene::is_about_origin(name.as_str());
    let about_origin: Vec<HeaderName> = trailers.keys().filter(about_origin).cloned().collect();
    for name in about_origin {
        trailers.remove(name);
    }
}

//! An ordinary request of HTTP/2 on its way to an instance of HTTP/1.1: said as if it had come in HTTP/1.1.

use httparse::Header;
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, COOKIE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Request, Version};

use super::errand::Express;
use super::request::{self, FIELDS};
use crate::connection::Connection;
use crate::inbound;
use crate::worker::Worker;

/// A request of HTTP/2 without a body, which may be asked again and whose client takes no trailers. None if anything in it
/// is out of the ordinary; that is looked at elsewhere.
pub(crate) fn direct<B: Body>(
    request: &Request<B>,
    connection: &Connection,
    worker: &Worker,
) -> Option<Express<Parts>> {
    let headers = request.headers();
    let is_plain = request.version() == Version::HTTP_2
        && super::carries(worker)
        && request.method().is_safe()
        && request.body().is_end_stream()
        && headers.len() < FIELDS.min(worker.limits.header_count)
        && !headers.contains_key(CONTENT_LENGTH)
        && inbound::weight(request) <= worker.limits.header_bytes;
    if !is_plain {
        return None;
    }
    let target = request.uri().path_and_query()?.as_str();
    let host = request.uri().authority()?.as_str();
    let cookies = gathered(headers);
    let fields = fields(host, headers, cookies.as_deref());
    let word = connection.peer().word();
    let request = request::Request::of(request.method().as_str(), target, &fields, word)?;
    Express::new(&request, &[], connection, &worker.random)
}

/// The cookies of a request that spreads them over several fields.
fn gathered(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut crumbs = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let (first, second) = (crumbs.next()?, crumbs.next()?);
    Some(crumbs.fold([first, b"; ", second].concat(), |all, crumb| [&all, &b"; "[..], crumb].concat()))
}

/// The fields as a head of HTTP/1.1 has them. `cookies`: instead of those that are there.
fn fields<'b>(host: &'b str, headers: &'b HeaderMap, cookies: Option<&'b [u8]>) -> Vec<Header<'b>> {
    let mut fields = Vec::with_capacity(headers.len() + 1);
    fields.push(Header { name: "host", value: host.as_bytes() });
    let stays = |name: &HeaderName| cookies.is_none() || *name != COOKIE;
    let own = headers.iter().filter(|(name, _)| stays(name));
    fields.extend(own.map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() }));
    fields.extend(cookies.map(|value| Header { name: COOKIE.as_str(), value }));
    fields
}

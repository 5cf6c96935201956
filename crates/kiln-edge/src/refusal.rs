//! The edge's own answers: short, and saying which of the things that can go wrong did.

use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::body::ResponseBody;

/// Why a request was not answered by an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request is not one that can be passed on.
    Malformed(&'static str),
    /// It has more header fields than anybody needs, or larger ones.
    TooManyFields,
    /// Its body is larger than its route takes.
    TooLarge,
    /// Its body is in a coding that the edge would lose.
    UnknownCoding,
    /// The route wants it asked again over HTTPS.
    OnlyHttps,
    /// The instance's time was up before it answered.
    Retired,
    /// CONNECT: this is no forward proxy.
    NoTunnels,
    /// No route takes it.
    NoRoute,
    /// The client stopped sending.
    ClientTooSlow,
    /// The client left: nobody hears the answer.
    ClientLeft,
    /// The route has no target with a share.
    NoTarget,
    /// No instance may receive requests.
    NoInstance,
    /// The fleet is at its limit, and so is the queue before it.
    Overloaded,
    /// The app is paused, and it has waited long enough.
    Paused,
    /// The edge may have no more descriptors, and could connect to nobody.
    Exhausted,
    /// Nobody made a socket to connect by.
    NoSocket,
    /// No instance could be connected to.
    Unreachable,
    /// The instance said that it does not begin with it, and there was nobody else or too much to be said again.
    Declined,
    /// The connection ended before the answer, and the request may have been carried out.
    Lost,
    /// What came back is not HTTP.
    Garbage,
    /// No connection within the limit.
    ConnectTimeout,
    /// No answer within the limit.
    ResponseTimeout,
}

impl Refusal {
    /// What [`Self::cause`] may say.
    pub(crate) const CAUSES: [&'static str; 22] = [
        "malformed",
        "too_many_fields",
        "too_large",
        "unknown_coding",
        "only_https",
        "retired",
        "no_tunnels",
        "no_route",
        "client_too_slow",
        "client_left",
        "no_target",
        "no_instance",
        "overloaded",
        "paused",
        "exhausted",
        "no_socket",
        "unreachable",
        "declined",
        "lost",
        "garbage",
        "connect_timeout",
        "response_timeout",
    ];

    /// In one word, for figures and logs.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooManyFields => "too_many_fields",
            Self::TooLarge => "too_large",
            Self::UnknownCoding => "unknown_coding",
            Self::OnlyHttps => "only_https",
            Self::Retired => "retired",
            Self::NoTunnels => "no_tunnels",
            Self::NoRoute => "no_route",
            Self::ClientTooSlow => "client_too_slow",
            Self::ClientLeft => "client_left",
            Self::NoTarget => "no_target",
            Self::NoInstance => "no_instance",
            Self::Overloaded => "overloaded",
            Self::Paused => "paused",
            Self::Exhausted => "exhausted",
            Self::NoSocket => "no_socket",
            Self::Unreachable => "unreachable",
            Self::Declined => "declined",
            Self::Lost => "lost",
            Self::Garbage => "garbage",
            Self::ConnectTimeout => "connect_timeout",
            Self::ResponseTimeout => "response_timeout",
        }
    }

    /// Whether the instance it happened with is to blame.
    pub(crate) fn blames_instance(self) -> bool {
        matches!(
            self,
            Self::Unreachable
                | Self::Declined
                | Self::Lost
                | Self::Garbage
                | Self::ConnectTimeout
                | Self::ResponseTimeout
        )
    }

    /// Whether this host is short of something, which says nothing of any instance or release.
    pub(crate) fn is_the_hosts(self) -> bool {
        matches!(self, Self::Exhausted | Self::NoSocket)
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::OnlyHttps => StatusCode::PERMANENT_REDIRECT,
            Self::Retired => StatusCode::BAD_GATEWAY,
            Self::NoTunnels | Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::ClientTooSlow => StatusCode::REQUEST_TIMEOUT,
            // A number that nobody is sent, and everybody knows from logs.
            Self::ClientLeft => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::NoTarget
            | Self::NoInstance
            | Self::Overloaded
            | Self::Paused
            | Self::Exhausted
            | Self::NoSocket => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable | Self::Declined | Self::Lost | Self::Garbage => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whether it is the service's failure and not the client's.
    pub(crate) fn is_failure(self) -> bool {
        self.status().is_server_error() && self.status() != StatusCode::NOT_IMPLEMENTED
    }

    fn words(self) -> &'static str {
        match self {
            Self::Malformed(what) => what,
            Self::TooManyFields => "the request has too many header fields, or too large ones",
            Self::TooLarge => "the body is larger than this service takes",
            Self::UnknownCoding => "the body is in a transfer coding that is not known here",
            Self::OnlyHttps => "this is served over https",
            Self::Retired => "the instance was retired before it answered",
            Self::NoTunnels => "CONNECT is not supported here",
            Self::NoRoute => "no route takes this host and path",
            Self::ClientTooSlow => "the request did not arrive in time",
            Self::ClientLeft => "the request did not arrive whole",
            Self::NoTarget => "this route has no release to go to",
            Self::NoInstance => "no instance of this service is healthy",
            Self::Overloaded => "this service has as much to do as it may have",
            Self::Paused => "this service is paused for a moment; ask again",
            Self::Exhausted => "this host has as much to do as it may have",
            Self::NoSocket => "this host connects to no instance just now",
            Self::Unreachable => "no instance of this service could be connected to",
            Self::Declined => "no instance of this service took the request",
            Self::Lost => "the instance broke off before it answered",
            Self::Garbage => "the instance did not answer in HTTP",
            Self::ConnectTimeout => "no instance could be connected to in time",
            Self::ResponseTimeout => "the instance did not answer in time",
        }
    }

    /// The answer to a request for this host and path; it may have a place to go to.
    pub(crate) fn response_at(
        self,
        https_port: u16,
        host: Option<&str>,
        path: &str,
    ) -> Response<ResponseBody> {
        let mut response = self.response();
        if self == Self::OnlyHttps
            && let Some(location) = host.and_then(|host| over_https(https_port, host, path))
        {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }

    pub(crate) fn response(self) -> Response<ResponseBody> {
        let status = self.status();
        let reason = status.canonical_reason().unwrap_or_default();
        let words = format!("{} {reason}: {}\n", status.as_u16(), self.words());
        let mut response = Response::new(ResponseBody::Own(Some(Bytes::from(words))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(self, Self::Malformed(_) | Self::ClientTooSlow | Self::ClientLeft | Self::UnknownCoding) {
            // What follows on this connection cannot be trusted to be a request.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The same place, over HTTPS.
fn over_https(port: u16, host: &str, path: &str) -> Option<HeaderValue> {
    let name = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    let port = match port {
        0 | 443 => String::new(),
        port => format!(":{port}"),
    };
    // What is asked of the server as a whole has no path (RFC 9112, 3.2.4).
    let path = if path == "*" { "" } else { path };
    HeaderValue::try_from(format!("https://{name}{port}{path}")).ok()
}

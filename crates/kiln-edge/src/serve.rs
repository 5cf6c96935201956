//! One client's connection, from its first request to its end.

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::pin;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};

use crate::body::ResponseBody;
use crate::client_io::ClientIo;
use crate::connection::Connection;
use crate::express;
use crate::forward;
use crate::greet::Greeted;
use crate::lease::Reply;
use crate::metrics::Reason;
use crate::refusal::Refusal;
use crate::store;
use crate::tasks::PerRequest;
use crate::tcp;
use crate::unread;
use crate::worker::Worker;

/// Requests of one client under way at once over HTTP/2.
const STREAMS_AT_MOST: u32 = 128;
/// What a client may send ahead over HTTP/2, for each request and in all.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What waits for a client over HTTP/2 that takes its answers slowly.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves until either side ends it.
pub(crate) async fn serve(worker: Rc<Worker>, connection: Rc<Connection>, greeted: Greeted) {
    match greeted {
        Greeted::Http1(io) => {
            if let Some(io) = express::serve(&worker, &connection, io).await {
                Box::pin(one_at_a_time(worker, connection, io)).await;
            }
        }
        Greeted::Metrics(io) => Box::pin(figures(worker, io)).await,
        Greeted::Tcp(stream, port) => Box::pin(tcp::pass(&worker, &connection, stream, port)).await,
        Greeted::Store(stream, caller) => {
            Box::pin(store::pass(&worker, &connection, &caller, stream)).await;
        }
        Greeted::Http2(io) => Box::pin(many_at_once(worker, connection, io)).await,
    }
}

/// Begins a request now, and not when its answer is first asked for: over HTTP/2 its task is started next, and its
/// ticket is to learn of it.
fn begin(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + use<> {
    let reply = Reply::begin(worker.clone(), connection.clone(), request.version());
    let answer = forward::answer(worker.clone(), reply, request);
    async move { Ok(answer.await) }
}

async fn one_at_a_time(worker: Rc<Worker>, connection: Rc<Connection>, io: ClientIo) {
    let (at, from) = (worker.clone(), connection.clone());
    let service = service_fn(move |request| begin(&at, &from, request));
    let limits = &worker.limits;
    let mut builder = http1::Builder::new();
    builder.max_headers(limits.header_count).max_header_size(limits.header_bytes);
    let ended = {
        let mut http = pin!(builder.serve_connection(io, service).with_upgrades());
        tokio::select! {
            ended = http.as_mut() => ended,
            () = worker.closing() => {
                http.as_mut().graceful_shutdown();
                http.await
            }
        }
    };
    // By now the socket has gone and has left behind what it knows of a head that was not read.
    if let Err(error) = ended {
        unread::account(&worker, &connection, &error);
    }
}

/// Answers one question about figures.
async fn figures(worker: Rc<Worker>, io: ClientIo) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut response = match request.uri().path() {
            "/metrics" | "/" => {
                Response::new(ResponseBody::Own(Some(worker.registry.text(&worker.totals).into())))
            }
            _ => Refusal::NoRoute.response(),
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let _ = http1::Builder::new().keep_alive(false).serve_connection(io, service).await;
}

async fn many_at_once(worker: Rc<Worker>, connection: Rc<Connection>, io: ClientIo) {
    connection.marks.multiplex();
    let (at, from) = (worker.clone(), connection.clone());
    // Boxed: hyper moves it several times until its task is made, and it is large.
    let service = service_fn(move |request| Box::pin(begin(&at, &from, request)));
    // What h2 refuses by itself nobody hears of: heads that are somewhat too large are to be refused here.
    let heads_at_most = worker.limits.header_bytes.saturating_mul(2);
    let mut builder = http2::Builder::new(PerRequest(connection.clone()));
    builder
        .max_concurrent_streams(STREAMS_AT_MOST)
        .max_header_list_size(u32::try_from(heads_at_most).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    let mut http = pin!(builder.serve_connection(io, service));
    let ended = tokio::select! {
        ended = http.as_mut() => Some(ended),
        // Tells the client to begin nothing more here; what it has begun goes on.
        () = worker.leaving() => None,
        () = connection.retired.notified() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Some(reason) = ended.err().and_then(|error| sent_away(&error)) {
        worker.registry.turned_away.count(reason);
    }
}

/// Why h2 has ended a connection, if it did so for what the client does.
fn sent_away(error: &hyper::Error) -> Option<Reason> {
    let error = error.source()?.downcast_ref::<h2::Error>().filter(|error| error.is_library())?;
    match error.reason()? {
        h2::Reason::NO_ERROR | h2::Reason::INTERNAL_ERROR => None,
        h2::Reason::ENHANCE_YOUR_CALM => Some(Reason::Excessive),
        _ => Some(Reason::Malformed),
    }
}

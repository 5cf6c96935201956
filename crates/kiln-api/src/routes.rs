//! The routes, each a few words around one [`Command`].

use std::str::FromStr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use kiln_control::contract::{Caller, Host, Unheard};
use kiln_model::{Answer, AppName, Command, ExitCode, Failure, InstanceId};
use serde::Deserialize;
use serde_json::json;

use crate::asked::{Asked, NAME, UnderWay};
use crate::caller::Peer;
use crate::session::exec;
use crate::stream::{Sender, stream};
use crate::wire::Line;

pub(crate) type Door = Arc<dyn Host>;

/// All routes before `host`.
pub(crate) fn routes(host: Door) -> Router {
    Router::new()
        .route("/v1/commands", post(commands))
        .route("/v1/commands/{name}", delete(give_up))
        .route("/v1/exec", post(exec))
        .route("/v1/health", get(health))
        .route("/v1/metrics", get(metrics))
        .route("/v1/apps/{app}/status", get(status))
        .route("/v1/apps/{app}/releases", get(releases))
        .route("/v1/apps/{app}/releases/{release}", get(release))
        .route("/v1/apps/{app}/releases/{release}/diff/{to}", get(release_diff))
        .route("/v1/apps/{app}/instances", get(instances))
        .route("/v1/apps/{app}/secrets", get(secrets))
        .route("/v1/instances/{instance}/diff", get(diff))
        .route("/v1/apps/{app}/log", get(log))
        .fallback(async || refused(StatusCode::NOT_FOUND, usage("there is nothing at this address")))
        .layer(Extension(Asked::default()))
        .with_state(host)
}

async fn health() -> Json<serde_json::Value> {
    Json(json!({"host": "ready", "version": env!("CARGO_PKG_VERSION")}))
}

async fn commands(
    State(host): State<Door>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(asked): Extension<Asked>,
    head: HeaderMap,
    body: Bytes,
) -> Response {
    let command: Command = match serde_json::from_slice(&body) {
        Ok(command) => command,
        Err(e) => {
            let failure = usage("the request's body is not a command").because(e.to_string());
            return refused(StatusCode::BAD_REQUEST, failure);
        }
    };
    let under_way = asked.begin(head.get(NAME).and_then(|name| name.to_str().ok()));
    let (sender, body) = stream(under_way.wanted.clone());
    tokio::spawn(run(host, command, peer.says(&head), sender, under_way));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Runs a command on a thread of its own and sends the last line, whatever happens there.
async fn run(host: Door, command: Command, by: Caller, sender: Sender, _under_way: UnderWay) {
    let sender = Arc::new(sender);
    let events = Arc::clone(&sender);
    let done = tokio::task::spawn_blocking(move || host.run(command, by, &*events)).await;
    sender.send(&Line::last(done.unwrap_or_else(|e| Err(bug(&e)))));
}

/// Whoever asked for something wants it no more.
async fn give_up(Extension(asked): Extension<Asked>, Path(name): Path<String>) -> Response {
    match asked.give_up(&name) {
        true => StatusCode::NO_CONTENT.into_response(),
        false => refused(StatusCode::NOT_FOUND, usage("no command that is under way is called so")),
    }
}

/// The figures of the edge, for Prometheus.
async fn metrics(State(host): State<Door>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    match tokio::task::spawn_blocking(move || host.run(Command::Metrics, peer.0, &Unheard)).await {
        Ok(Ok(Answer::Metrics(text))) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
        }
        Ok(Ok(other)) => document(other),
        Ok(Err(failure)) => refused(status_of(failure.code), failure),
        Err(e) => refused(StatusCode::INTERNAL_SERVER_ERROR, bug(&e)),
    }
}

#[derive(Deserialize)]
struct LogQuery {
    limit: Option<u32>,
}

async fn status(host: State<Door>, peer: ConnectInfo<Peer>, app: Path<String>) -> Response {
    ask(host, peer, app, |app| Command::Status { app }).await
}

async fn releases(host: State<Door>, peer: ConnectInfo<Peer>, app: Path<String>) -> Response {
    ask(host, peer, app, |app| Command::Releases { app }).await
}

async fn release(
    host: State<Door>,
    peer: ConnectInfo<Peer>,
    Path((app, release)): Path<(String, String)>,
) -> Response {
    ask(host, peer, Path(app), |app| Command::ReleaseShow { app, release }).await
}

async fn release_diff(
    host: State<Door>,
    peer: ConnectInfo<Peer>,
    Path((app, from, to)): Path<(String, String, String)>,
) -> Response {
    ask(host, peer, Path(app), |app| Command::ReleaseDiff { app, from, to }).await
}

#[derive(Deserialize)]
struct InstancesQuery {
    #[serde(default)]
    all: bool,
}

async fn instances(
    host: State<Door>,
    peer: ConnectInfo<Peer>,
    app: Path<String>,
    Query(query): Query<InstancesQuery>,
) -> Response {
    ask(host, peer, app, |app| Command::Instances { app, all: query.all }).await
}

async fn diff(State(host): State<Door>, ConnectInfo(peer): ConnectInfo<Peer>, id: Path<String>) -> Response {
    match InstanceId::from_str(&id.0) {
        Ok(instance) => told(host, peer, Command::Diff { instance }).await,
        Err(e) => refused(StatusCode::BAD_REQUEST, usage(&e.to_string())),
    }
}

async fn secrets(host: State<Door>, peer: ConnectInfo<Peer>, app: Path<String>) -> Response {
    ask(host, peer, app, |app| Command::SecretList { app }).await
}

async fn log(
    host: State<Door>,
    peer: ConnectInfo<Peer>,
    app: Path<String>,
    Query(query): Query<LogQuery>,
) -> Response {
    ask(host, peer, app, |app| Command::Log { app, limit: query.limit }).await
}

/// Asks one question about an app and gives the answer as one document.
async fn ask(
    State(host): State<Door>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(app): Path<String>,
    command: impl FnOnce(Option<AppName>) -> Command,
) -> Response {
    let command = match AppName::from_str(&app) {
        Ok(app) => command(Some(app)),
        Err(e) => return refused(StatusCode::BAD_REQUEST, usage(&e.to_string())),
    };
    told(host, peer, command).await
}

async fn told(host: Door, peer: Peer, command: Command) -> Response {
    match tokio::task::spawn_blocking(move || host.run(command, peer.0, &Unheard)).await {
        Ok(Ok(answer)) => document(answer),
        Ok(Err(failure)) => refused(status_of(failure.code), failure),
        Err(e) => refused(StatusCode::INTERNAL_SERVER_ERROR, bug(&e)),
    }
}

/// The document itself, without the word that says which one it is: whoever asked knows.
fn document(answer: Answer) -> Response {
    match answer {
        Answer::Status(status) => Json(status).into_response(),
        Answer::Releases(releases) => Json(releases).into_response(),
        Answer::Secrets(secrets) => Json(secrets).into_response(),
        Answer::Release(release) => Json(release).into_response(),
        Answer::ReleaseDiff(diff) => Json(diff).into_response(),
        Answer::Diff(diff) => Json(diff).into_response(),
        Answer::Instances(instances) => Json(instances).into_response(),
        Answer::Log(log) => Json(log).into_response(),
        other => Json(other).into_response(),
    }
}

pub(crate) fn refused(status: StatusCode, failure: Failure) -> Response {
    let body = Body::from(Line::Failure { failure }.encode());
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

pub(crate) fn status_of(code: ExitCode) -> StatusCode {
    match code {
        ExitCode::Usage => StatusCode::BAD_REQUEST,
        ExitCode::Spec | ExitCode::Bake | ExitCode::Check => StatusCode::UNPROCESSABLE_ENTITY,
        ExitCode::Policy => StatusCode::FORBIDDEN,
        ExitCode::Busy => StatusCode::CONFLICT,
        ExitCode::Host => StatusCode::SERVICE_UNAVAILABLE,
        ExitCode::Bug | ExitCode::Deploy => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(crate) fn usage(message: &str) -> Failure {
    Failure::new(ExitCode::Usage, message)
}

pub(crate) fn bug(error: &tokio::task::JoinError) -> Failure {
    Failure::new(ExitCode::Bug, "the host broke off while it ran the command").because(error.to_string())
}

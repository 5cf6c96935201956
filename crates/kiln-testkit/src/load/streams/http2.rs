//! HTTP/2 from the first byte of a connection, which is kept as long as the service lets it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use h2::client::SendRequest;
use h2::{Error, Reason};
use hyper::Request;
use hyper::body::Bytes;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::ledger::{Loss, Outcome};
use super::run::{PATIENCE, Shared};

type Connection = SendRequest<Bytes>;

/// Between two short requests beside a download.
const PACE: Duration = Duration::from_millis(20);

/// What one client asks for again and again.
pub(super) struct Client<'a> {
    pub(super) shared: &'a Shared,
    pub(super) kind: &'static str,
    pub(super) long: &'a str,
    pub(super) bytes: usize,
    pub(super) short: &'a str,
}

impl Client<'_> {
    /// Round after round, over another connection where the last one cannot be used any more.
    pub(super) async fn go_on(&self) {
        let mut kept: Option<Connection> = None;
        while let Some(_turn) = self.shared.turn().await {
            let connection = match kept.take() {
                Some(connection) => Ok(connection),
                None => self.open().await,
            };
            match connection {
                Ok(connection) => kept = self.round(connection).await,
                Err(what) => {
                    self.shared.ledger.began(self.kind);
                    self.shared.ended(self.kind, &Err(Loss::Failed(what))).await;
                }
            }
        }
    }

    async fn open(&self) -> Result<Connection, String> {
        let opening = async {
            let stream =
                TcpStream::connect(self.shared.plan.address).await.map_err(|e| format!("connecting: {e}"))?;
            h2::client::handshake(stream).await.map_err(|e| format!("beginning with HTTP/2: {e}"))
        };
        let opened = timeout(PATIENCE, opening).await.map_err(|_| "connecting timed out")?;
        let (requests, connection) = opened?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(requests)
    }

    /// A download, and short requests until it has ended; the connection if it can be used again.
    async fn round(&self, connection: Connection) -> Option<Connection> {
        let is_over = Cell::new(false);
        let download = async {
            let is_whole = self.account(&connection, self.long, Some(self.bytes)).await;
            is_over.set(true);
            is_whole
        };
        let beside = async {
            while !is_over.get() {
                if !self.account(&connection, self.short, None).await {
                    return false;
                }
                sleep(PACE).await;
            }
            true
        };
        let (a, b) = tokio::join!(download, beside);
        (a && b).then_some(connection)
    }

    /// One request, in the books. Whether it was answered as it should.
    async fn account(&self, connection: &Connection, path: &str, bytes: Option<usize>) -> bool {
        self.shared.ledger.began(self.kind);
        let asked = timeout(PATIENCE, self.ask(connection.clone(), path, bytes)).await;
        let late = |_| Err(Loss::Failed(format!("no end within {PATIENCE:?}")));
        let outcome = asked.unwrap_or_else(late).map_err(|loss| match loss {
            Loss::Failed(what) => Loss::Failed(format!("GET {path}: {what}")),
            Loss::Declined => Loss::Declined,
        });
        self.shared.ended(self.kind, &outcome).await;
        outcome.is_ok()
    }

    async fn ask(&self, connection: Connection, path: &str, bytes: Option<usize>) -> Outcome {
        let url = format!("http://{}{path}", self.shared.plan.host);
        let request = Request::get(url).body(()).map_err(|e| e.to_string())?;
        let asked = Instant::now();
        let mut connection = connection.ready().await.map_err(unanswered)?;
        let (answer, _) = connection.send_request(request, true).map_err(unanswered)?;
        let answer = answer.await.map_err(unanswered)?;
        let (waited, status) = (asked.elapsed(), answer.status());
        let (mut body, mut length) = (answer.into_body(), 0);
        while let Some(data) = body.data().await {
            let data = data.map_err(|e| format!("cut after {length} bytes: {e}"))?;
            length += data.len();
            body.flow_control().release_capacity(data.len()).map_err(|e| e.to_string())?;
        }
        if status != 200 || bytes.is_some_and(|bytes| bytes != length) {
            return Err(format!("answered {status} with {length} bytes").into());
        }
        Ok(waited)
    }
}

/// The service may decline what it has not begun, if it says so: every client asks again then.
fn unanswered(error: Error) -> Loss {
    let went_away = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    if error.is_remote() && (went_away || refused) {
        return Loss::Declined;
    }
    Loss::Failed(format!("no answer: {error}"))
}

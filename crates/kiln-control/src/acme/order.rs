//! One order, from its beginning to the certificate.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use kiln_edge::Certificate;
use serde::Deserialize;
use serde_json::json;

use super::ProofKind;
use super::authority::{Answer, Authority, AuthorityError, failed};
use super::csr;

/// How long an authority may take to look at a proof, or to sign.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is asked, unless it says when.
const LOOK: Duration = Duration::from_millis(500);
/// Who tells us to wait longer is not waited for in one piece.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is to be shown to whoever looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) kind: ProofKind,
    pub(crate) name: String,
    pub(crate) token: String,
    /// The token and the thumbprint of the account's key.
    pub(crate) says: String,
}

/// Whoever shows proofs.
pub(crate) trait Proofs {
    /// Returns when it is shown.
    fn show(&self, challenge: &Challenge) -> Result<(), String>;
    /// Nothing is shown any more.
    fn withdraw(&self);
    /// Lets some time pass; false if there is none left.
    fn pause(&self, span: Duration) -> bool;
}

#[derive(Debug, Deserialize)]
struct Order {
    status: String,
    #[serde(default)]
    authorizations: Vec<String>,
    finalize: String,
    #[serde(default)]
    certificate: Option<String>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Authorization {
    status: String,
    #[serde(default)]
    challenges: Vec<Offered>,
}

#[derive(Debug, Deserialize)]
struct Offered {
    #[serde(rename = "type")]
    kind: String,
    url: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

/// A certificate for `name`, with a key of its own.
pub(crate) fn obtain(
    authority: &mut Authority<'_>,
    name: &str,
    kind: ProofKind,
    proofs: &dyn Proofs,
) -> Result<Certificate, AuthorityError> {
    let begun = authority.order(name)?;
    let address = begun.location.clone().ok_or_else(|| failed("order a certificate", "it has no address"))?;
    let order: Order = begun.read("order a certificate")?;
    let proved = order.authorizations.iter().try_for_each(|url| prove(authority, url, name, kind, proofs));
    proofs.withdraw();
    proved?;
    let attempted = "have it signed";
    let (key, request) = csr::request(name).map_err(|e| failed(attempted, e))?;
    authority.post(attempted, &order.finalize, Some(&json!({"csr": BASE64.encode(request)})))?;
    let is_done = |answer: &Answer| -> Result<Option<String>, AuthorityError> {
        let order: Order = answer.read(attempted)?;
        match order.status.as_str() {
            "valid" => Ok(order.certificate),
            "pending" | "ready" | "processing" => Ok(None),
            other => Err(failed(attempted, format!("the order is {other}: {}", words(order.error.as_ref())))),
        }
    };
    let url = wait_for(authority, attempted, &address, proofs, is_done)?;
    let chain = authority.get("fetch it", &url)?.text("fetch it")?;
    let certificate = Certificate { chain, key: key.serialize_pem() };
    certificate.inspect().map_err(|e| failed("use it", e))?;
    Ok(certificate)
}

fn prove(
    authority: &mut Authority<'_>,
    url: &str,
    name: &str,
    kind: ProofKind,
    proofs: &dyn Proofs,
) -> Result<(), AuthorityError> {
    let attempted = format!("prove that {name} is ours by {}", kind.as_str());
    let authorization: Authorization = authority.get(&attempted, url)?.read(&attempted)?;
    if authorization.status == "valid" {
        return Ok(());
    }
    let offered = authorization.challenges.iter().find(|offered| offered.kind == kind.as_str());
    let offered = offered.ok_or_else(|| failed(&attempted, "it does not take that proof"))?;
    let is_token = |c: u8| c.is_ascii_alphanumeric() || b"-_".contains(&c);
    if offered.token.is_empty() || offered.token.len() > 256 || !offered.token.bytes().all(is_token) {
        return Err(failed(&attempted, "its token is none"));
    }
    let says = format!("{}.{}", offered.token, authority.thumbprint());
    let challenge = Challenge { kind, name: name.to_owned(), token: offered.token.clone(), says };
    proofs.show(&challenge).map_err(|e| failed(&attempted, e))?;
    authority.post(&attempted, &offered.url, Some(&json!({})))?;
    let is_done = |answer: &Answer| -> Result<Option<()>, AuthorityError> {
        let authorization: Authorization = answer.read(&attempted)?;
        let error = authorization.challenges.iter().find_map(|c| c.error.as_ref());
        match authorization.status.as_str() {
            "valid" => Ok(Some(())),
            "pending" => Ok(None),
            other => Err(failed(&attempted, format!("it is {other}: {}", words(error)))),
        }
    };
    wait_for(authority, &attempted, url, proofs, is_done)
}

/// Asks again and again until it is done.
fn wait_for<T>(
    authority: &mut Authority<'_>,
    attempted: &str,
    url: &str,
    proofs: &dyn Proofs,
    is_done: impl Fn(&Answer) -> Result<Option<T>, AuthorityError>,
) -> Result<T, AuthorityError> {
    let begun = Instant::now();
    loop {
        let answer = authority.get(attempted, url)?;
        if let Some(done) = is_done(&answer)? {
            return Ok(done);
        }
        if begun.elapsed() > PATIENCE || !proofs.pause(answer.retry_after.unwrap_or(LOOK).min(LONGEST_PAUSE))
        {
            return Err(failed(attempted, "it took too long"));
        }
    }
}

fn words(error: Option<&serde_json::Value>) -> String {
    let detail = error.and_then(|e| e["detail"].as_str().or(e["type"].as_str()));
    detail.unwrap_or("no reason is given").to_owned()
}

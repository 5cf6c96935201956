//! An authority: signed requests and their answers.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use ureq::Agent;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::account::{AccountKey, Signer};

/// No answer of an authority is larger.
const LARGEST: u64 = 1 << 20;
/// Nonces go stale; who is refused for that asks again.
const ATTEMPTS: usize = 5;

/// What an authority would not do, or could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{attempted}: {why}")]
pub(crate) struct AuthorityError {
    pub(crate) attempted: String,
    pub(crate) why: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    new_order: String,
}

/// A problem document (RFC 7807), as far as it is shown.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    detail: String,
}

/// An answer that was no refusal.
pub(super) struct Answer {
    pub(super) location: Option<String>,
    pub(super) retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Answer {
    pub(super) fn read<T: DeserializeOwned>(&self, attempted: &str) -> Result<T, AuthorityError> {
        serde_json::from_slice(&self.body)
            .map_err(|e| failed(attempted, format!("the answer does not read: {e}")))
    }

    pub(super) fn text(self, attempted: &str) -> Result<String, AuthorityError> {
        String::from_utf8(self.body).map_err(|_| failed(attempted, "the answer is no text"))
    }
}

pub(super) fn failed(attempted: &str, why: impl ToString) -> AuthorityError {
    AuthorityError { attempted: attempted.to_owned(), why: why.to_string() }
}

/// An authority, with an account there.
pub(crate) struct Authority<'a> {
    agent: Agent,
    directory: Directory,
    key: &'a AccountKey,
    account: String,
    nonce: Option<String>,
}

impl<'a> Authority<'a> {
    /// Finds the authority at `url`, and the account of `key` there, which is made if there is none. `roots` are the
    /// certificates (PEM) its own is believed by, if not those of the web.
    pub(crate) fn find(
        url: &str,
        roots: Option<&str>,
        contact: Option<&str>,
        key: &'a AccountKey,
    ) -> Result<Self, AuthorityError> {
        let attempted = "find the authority";
        let agent = agent(roots).map_err(|e| failed(attempted, e))?;
        let mut answer = agent.get(url).call().map_err(|e| failed(attempted, e))?;
        let body = body(&mut answer).map_err(|e| failed(attempted, e))?;
        if !answer.status().is_success() {
            return Err(failed(attempted, format!("{url} answers {}", answer.status())));
        }
        let directory = serde_json::from_slice(&body);
        let directory =
            directory.map_err(|e| failed(attempted, format!("{url} is no directory of ACME: {e}")))?;
        let mut authority = Self { agent, directory, key, account: String::new(), nonce: None };
        let mut wanted = json!({"termsOfServiceAgreed": true});
        if let Some(contact) = contact {
            wanted["contact"] = json!([format!("mailto:{contact}")]);
        }
        let url = authority.directory.new_account.clone();
        let answer = authority.post("make an account", &url, Some(&wanted))?;
        authority.account = answer.location.ok_or_else(|| failed("make an account", "it has no address"))?;
        Ok(authority)
    }

    /// Begins an order.
    pub(super) fn order(&mut self, name: &str) -> Result<Answer, AuthorityError> {
        let url = self.directory.new_order.clone();
        self.post(
            "order a certificate",
            &url,
            Some(&json!({"identifiers": [{"type": "dns", "value": name}]})),
        )
    }

    pub(super) fn thumbprint(&self) -> String {
        self.key.thumbprint()
    }

    /// What is there now.
    pub(super) fn get(&mut self, attempted: &str, url: &str) -> Result<Answer, AuthorityError> {
        self.post(attempted, url, None)
    }

    /// A signed request.
    pub(super) fn post(
        &mut self,
        attempted: &str,
        url: &str,
        payload: Option<&Value>,
    ) -> Result<Answer, AuthorityError> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let nonce = self.nonce(attempted)?;
            let account = self.account.clone();
            let signer = if account.is_empty() { Signer::Key } else { Signer::Account(&account) };
            let signed = self.key.sign(&signer, &nonce, url, payload).map_err(|e| failed(attempted, e))?;
            let request = self.agent.post(url).header("content-type", "application/jose+json");
            let mut answer = request.send(&signed[..]).map_err(|e| failed(attempted, e))?;
            self.nonce = header(answer.headers(), "replay-nonce");
            let body = body(&mut answer).map_err(|e| failed(attempted, e))?;
            if answer.status().is_success() {
                let location = header(answer.headers(), "location");
                let seconds = header(answer.headers(), "retry-after").and_then(|s| s.parse().ok());
                return Ok(Answer { location, retry_after: seconds.map(Duration::from_secs), body });
            }
            let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
            last = format!("it answers {}: {} {}", answer.status(), problem.kind, problem.detail);
            if !problem.kind.ends_with(":badNonce") {
                break;
            }
        }
        Err(failed(attempted, last))
    }

    fn nonce(&mut self, attempted: &str) -> Result<String, AuthorityError> {
        if let Some(nonce) = self.nonce.take() {
            return Ok(nonce);
        }
        let answer = self.agent.head(&self.directory.new_nonce).call().map_err(|e| failed(attempted, e))?;
        header(answer.headers(), "replay-nonce").ok_or_else(|| failed(attempted, "it gives no nonce"))
    }
}

fn agent(roots: Option<&str>) -> Result<Agent, String> {
    let mut tls = TlsConfig::builder();
    if let Some(roots) = roots {
        let certificate =
            Certificate::from_pem(roots.as_bytes()).map_err(|e| format!("the roots do not read: {e}"))?;
        tls = tls.root_certs(RootCerts::new_with_certs(&[certificate]));
    }
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_global(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .user_agent("kiln");
    Ok(config.build().new_agent())
}

fn body(answer: &mut Response<ureq::Body>) -> Result<Vec<u8>, String> {
    answer.body_mut().with_config().limit(LARGEST).read_to_vec().map_err(|e| e.to_string())
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

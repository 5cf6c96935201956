//! Asking one repository of a registry: again where that may help, and saying who is asking when it wants to know.

use std::io::Read;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::RegistryReference;
use ureq::http::{Response, StatusCode, Uri, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

use super::auth::{self, Challenge};
use super::credentials::{self, Credentials, Secret};
use super::registry::RegistryError;
use super::way::Way;
use crate::fetch::CONNECTIONS;
use crate::looked_up::LookedUp;

/// How long to wait before each further attempt, unless the registry says.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(3), Duration::from_secs(6)];
/// A registry that wants to be left alone for longer is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const LARGEST_TOKEN: u64 = 1 << 20;
/// So much of what a registry says of a refusal is shown.
const SHOWN: usize = 300;

/// What is to be done with a repository; tokens are given for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Pull,
    Push,
}

/// A client of one repository. Shared between threads.
pub(crate) struct Http<'a> {
    agent: Agent,
    scheme: &'static str,
    repository: &'a RegistryReference,
    wish: Wish,
    /// `Authorization` as it was accepted last.
    accepted: Mutex<Option<String>>,
    credentials: OnceLock<Option<Credentials>>,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// What a request comes to, before anybody looks at its status.
pub(crate) type Answered = Result<Response<Body>, ureq::Error>;

impl<'a> Http<'a> {
    pub(crate) fn new(
        repository: &'a RegistryReference,
        wish: Wish,
        cancelled: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Self, RegistryError> {
        let way = Way::to(&repository.host, &repository.repository)?;
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(way.roots).build())
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .timeout_per_write(Some(Duration::from_secs(30)))
            .max_idle_connections_per_host(CONNECTIONS)
            .http_status_as_error(false)
            // Digests are of the bytes as they are kept.
            .accept_encoding("identity")
            .user_agent("kiln")
            .build();
        let connector = ureq::unversioned::transport::DefaultConnector::default();
        Ok(Self {
            agent: Agent::with_parts(config, connector, LookedUp::default()),
            scheme: way.scheme,
            repository,
            wish,
            accepted: Mutex::default(),
            credentials: OnceLock::new(),
            cancelled,
        })
    }

    /// The address of something of the repository.
    pub(crate) fn url(&self, rest: &str) -> String {
        let RegistryReference { host, repository, .. } = self.repository;
        format!("{}://{host}/v2/{repository}/{rest}", self.scheme)
    }

    /// The address that a `Location` names.
    pub(crate) fn location(&self, location: &str) -> String {
        let host = &self.repository.host;
        match location.starts_with('/') {
            true => format!("{}://{host}{location}", self.scheme),
            false => location.to_owned(),
        }
    }

    /// Whether an address is the registry's own: nobody else is shown who is asking.
    pub(crate) fn is_own(&self, url: &str) -> bool {
        let host = &self.repository.host;
        url.starts_with(&format!("{}://{host}/", self.scheme))
    }

    /// The answer to a request that succeeded, or one of `others`. `send` makes it, with `Authorization` if given.
    pub(crate) fn ask(
        &self,
        asked: &str,
        others: &[u16],
        send: &dyn Fn(&Agent, Option<&str>) -> Answered,
    ) -> Result<Response<Body>, RegistryError> {
        let mut pauses = PAUSES.iter();
        let mut attempts = 0;
        let mut identified = false;
        loop {
            attempts += 1;
            let shown = self.accepted.lock().unwrap_or_else(|e| e.into_inner()).clone();
            let answered = send(&self.agent, shown.as_deref());
            if (self.cancelled)() {
                return Err(RegistryError::Cancelled);
            }
            let response = match answered {
                Ok(response) => response,
                Err(error) => {
                    let Some(pause) = pauses.next().filter(|_| is_passing(&error)) else {
                        return Err(RegistryError::Unreachable {
                            asked: asked.into(),
                            source: Box::new(error),
                        });
                    };
                    self.pause(*pause)?;
                    continue;
                }
            };
            let status = response.status().as_u16();
            match status {
                200..=299 => return Ok(response),
                status if others.contains(&status) => return Ok(response),
                401 if !identified => {
                    identified = true;
                    self.identify(asked, response, shown.as_deref())?;
                }
                401 | 403 => return Err(self.denied(asked, response)),
                404 => return Err(RegistryError::NotFound { asked: asked.into() }),
                429 | 500..=599 => {
                    let wanted = retry_after(&response);
                    let pause = pauses.next().map(|pause| wanted.unwrap_or(*pause));
                    match pause.filter(|pause| *pause <= LONGEST_WAIT) {
                        Some(pause) => self.pause(pause)?,
                        None => return Err(busy(asked, response, attempts, wanted)),
                    }
                }
                status => {
                    let said = said(response);
                    return Err(RegistryError::Status { asked: asked.into(), status, said });
                }
            }
        }
    }

    fn pause(&self, pause: Duration) -> Result<(), RegistryError> {
        // Nobody wakes this thread: the pause is a deadline, looked at often enough to be called off.
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if (self.cancelled)() {
                return Err(RegistryError::Cancelled);
            }
            thread::park_timeout(left.min(Duration::from_millis(50)));
        }
        Ok(())
    }

    fn credentials(&self) -> Result<Option<&Credentials>, RegistryError> {
        if let Some(known) = self.credentials.get() {
            return Ok(known.as_ref());
        }
        let found = credentials::find(&self.repository.host, &self.repository.repository)?;
        Ok(self.credentials.get_or_init(|| found).as_ref())
    }

    fn denied(&self, asked: &str, response: Response<Body>) -> RegistryError {
        let as_whom = match self.credentials.get().and_then(Option::as_ref) {
            Some(credentials) => format!("with the credentials of {}", credentials.from.display()),
            None => "without credentials".into(),
        };
        let status = response.status().as_u16();
        RegistryError::Denied { asked: asked.into(), status, as_whom, said: said(response) }
    }

    /// Does what the registry wants before it answers.
    fn identify(
        &self,
        asked: &str,
        response: Response<Body>,
        refused: Option<&str>,
    ) -> Result<(), RegistryError> {
        let mut accepted = self.accepted.lock().unwrap_or_else(|e| e.into_inner());
        // Another thread may have done so meanwhile.
        if accepted.as_deref() != refused {
            return Ok(());
        }
        let challenge = Challenge::of(response.headers()).ok_or_else(|| RegistryError::Challenge {
            asked: asked.into(),
            problem: "it wants neither a name and password nor a token".into(),
        })?;
        let authorization = match &challenge {
            Challenge::Basic => match self.credentials()?.and_then(auth::basic) {
                Some(basic) => basic,
                None => return Err(self.denied(asked, response)),
            },
            Challenge::Bearer { realm, service, scope } => {
                let token = self.token(asked, realm, service.as_deref(), scope.as_deref())?;
                format!("Bearer {token}")
            }
        };
        *accepted = Some(authorization);
        Ok(())
    }

    /// A token from the server that the registry names. A secret only goes where it is as safe as on its way to the
    /// registry itself.
    fn token(
        &self,
        asked: &str,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<String, RegistryError> {
        let problem = |problem: String| RegistryError::Challenge { asked: asked.into(), problem };
        let uri: Uri = realm.parse().map_err(|_| problem("it names no token server".into()))?;
        let safe = uri.scheme_str() == Some("https") || self.scheme == "http";
        if !safe {
            return Err(problem(format!("its token server {realm} is not reached by https")));
        }
        let actions = if self.wish == Wish::Push { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.repository.repository);
        let scope = scope.unwrap_or(&own);
        let credentials = self.credentials()?;
        let answered = match credentials.map(|c| &c.secret) {
            Some(Secret::Token(token)) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("client_id", "kiln"),
                    ("service", service.unwrap_or_default()),
                    ("scope", scope),
                    ("refresh_token", token),
                ];
                self.agent.post(realm).send_form(form)
            }
            _ => {
                let mut url = format!(
                    "{realm}{}scope={}",
                    if realm.contains('?') { "&" } else { "?" },
                    auth::encoded(scope)
                );
                if let Some(service) = service {
                    url.push_str(&format!("&service={}", auth::encoded(service)));
                }
                let mut request = self.agent.get(&url);
                if let Some(basic) = credentials.and_then(auth::basic) {
                    request = request.header(header::AUTHORIZATION, basic);
                }
                request.call()
            }
        };
        let response = answered.map_err(|source| RegistryError::Unreachable {
            asked: format!("GET {realm}"),
            source: Box::new(source),
        })?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.denied(&format!("GET {realm}"), response));
            }
            status => return Err(problem(format!("its token server {realm} answered with {status}"))),
        }
        let bytes = body(&format!("GET {realm}"), response, LARGEST_TOKEN)?;
        auth::token(&bytes).ok_or_else(|| problem(format!("its token server {realm} gave no token")))
    }
}

/// A whole body of at most `limit` bytes.
pub(crate) fn body(asked: &str, response: Response<Body>, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let read = response.into_body().into_reader().take(limit + 1).read_to_end(&mut bytes);
    if let Err(error) = read {
        let source = Box::new(ureq::Error::Io(error));
        return Err(RegistryError::Unreachable { asked: asked.into(), source });
    }
    if bytes.len() as u64 > limit {
        let problem = format!("it is larger than {limit} bytes");
        return Err(RegistryError::Contradiction { asked: asked.into(), problem });
    }
    Ok(bytes)
}

fn busy(asked: &str, response: Response<Body>, attempts: usize, wanted: Option<Duration>) -> RegistryError {
    let wait = match wanted.filter(|wanted| *wanted > LONGEST_WAIT) {
        Some(wanted) => format!(", and wants to be asked again in {} seconds", wanted.as_secs()),
        None => String::new(),
    };
    let status = response.status().as_u16();
    RegistryError::Busy { asked: asked.into(), status, attempts, wait, said: said(response) }
}

/// The beginning of what a registry says of a refusal, to stand behind it.
fn said(response: Response<Body>) -> String {
    let mut bytes = Vec::new();
    let _ = response.into_body().into_reader().take(SHOWN as u64).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    match text.trim() {
        "" => String::new(),
        text => format!(": {}", shown(text)),
    }
}

/// In one line, with nothing a terminal would obey.
fn shown(text: &str) -> String {
    let plain = |c: char| matches!(c, '"' | '\'' | '\\');
    text.chars().flat_map(|c| if plain(c) { vec![c] } else { c.escape_debug().collect() }).collect()
}

/// Seconds, or a moment by the clocks of both.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment =
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.replace("GMT", "+0000")).ok()?;
    let left = moment.as_second().saturating_sub(jiff::Timestamp::now().as_second());
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

/// Whether the same request may succeed a moment later. A certificate that is not trusted, or an answer that is no TLS,
/// will be the same then.
fn is_passing(error: &ureq::Error) -> bool {
    use ureq::Error::{ConnectionFailed, Io, Protocol, Timeout};
    match error {
        Io(e) => e.kind() != std::io::ErrorKind::InvalidData,
        error => matches!(error, Timeout(_) | ConnectionFailed | Protocol(_)),
    }
}

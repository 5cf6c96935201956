//! Getting bytes from a mirror. What comes is checked against what was promised before anyone sees it.

use std::io::Read;
use std::thread;
use std::time::Duration;

use kiln_model::Sha256;

use crate::looked_up::LookedUp;

/// So many files are fetched at once, at most.
pub(crate) const CONNECTIONS: usize = 6;
/// How long to wait before each further attempt.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(3)];

/// Bytes that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The mirror does not have them.
    #[error("{url} is not there")]
    NotFound {
        /// The address.
        url: String,
    },
    /// The mirror does not answer, or answers with an error.
    #[error("could not fetch {url}")]
    Unreachable {
        /// The address.
        url: String,
        /// What happened, the last time.
        source: Box<ureq::Error>,
    },
    /// There are more or fewer bytes than promised.
    #[error("{url} has {found} bytes and not the {expected} that were promised")]
    Size {
        /// The address.
        url: String,
        /// The size promised.
        expected: u64,
        /// The size found (or one more than promised, if it is larger).
        found: u64,
    },
    /// They are not the bytes that were promised.
    #[error("{url} has sha256 {found} and not {expected}")]
    Hash {
        /// The address.
        url: String,
        /// The digest promised.
        expected: Sha256,
        /// The digest found.
        found: Sha256,
    },
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

/// A client of mirrors. Connections are kept and shared between threads.
pub(crate) struct Client<'a> {
    agent: ureq::Agent,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Client<'a> {
    pub(crate) fn new(cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            // Each thread's connection waits for its next package: looking the mirror up again takes longer.
            .max_idle_connections(2 * CONNECTIONS)
            .max_idle_connections_per_host(CONNECTIONS)
            .user_agent("kiln")
            .build();
        let connector = ureq::unversioned::transport::DefaultConnector::default();
        Self { agent: ureq::Agent::with_parts(config, connector, LookedUp::default()), cancelled }
    }

    /// All there is at `url`, at most `limit` bytes, where nothing else is known of it.
    pub(crate) fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        self.again_and_again(url, || self.read(url, limit, &|_| {}))
    }

    /// The very bytes that have this size and digest. `news` is told of each piece as it arrives.
    pub(crate) fn get_verified(
        &self,
        url: &str,
        size: u64,
        sha256: Sha256,
        news: &dyn Fn(u64),
    ) -> Result<Vec<u8>, FetchError> {
        let bytes = self.again_and_again(url, || self.read(url, size + 1, news))?;
        let found = bytes.len() as u64;
        if found != size {
            return Err(FetchError::Size { url: url.into(), expected: size, found });
        }
        let found = Sha256::of(&bytes);
        if found != sha256 {
            return Err(FetchError::Hash { url: url.into(), expected: sha256, found });
        }
        Ok(bytes)
    }

    fn read(&self, url: &str, limit: u64, news: &dyn Fn(u64)) -> Result<Vec<u8>, ureq::Error> {
        let response = self.agent.get(url).call()?;
        let mut body = response.into_body().into_reader().take(limit);
        let (mut bytes, mut piece) = (Vec::new(), vec![0; 128 << 10]);
        loop {
            let n = body.read(&mut piece)?;
            if n == 0 || (self.cancelled)() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&piece[..n]);
            news(n as u64);
        }
    }

    /// Tries once more where that may help.
    fn again_and_again(
        &self,
        url: &str,
        attempt: impl Fn() -> Result<Vec<u8>, ureq::Error>,
    ) -> Result<Vec<u8>, FetchError> {
        let mut pauses = PAUSES.iter();
        loop {
            let result = attempt();
            if (self.cancelled)() {
                return Err(FetchError::Cancelled);
            }
            let error = match result {
                Ok(bytes) => return Ok(bytes),
                Err(ureq::Error::StatusCode(404 | 410)) => {
                    return Err(FetchError::NotFound { url: url.into() });
                }
                Err(error) => error,
            };
            match pauses.next().filter(|_| is_passing(&error)) {
                // Nobody wakes this thread: the pause is a deadline, and coming back early does no harm.
                Some(pause) => thread::park_timeout(*pause),
                None => return Err(FetchError::Unreachable { url: url.into(), source: Box::new(error) }),
            }
        }
    }
}

/// Whether the same request may succeed a moment later.
fn is_passing(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::StatusCode(code) => *code == 429 || *code >= 500,
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
        ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

//! Addresses of mirrors, each looked up once.
//!
//! The HTTP client asks for the address at every request, pooled connection or not: a hundred packages would be a
//! hundred questions to a name server, and one lost answer costs seconds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Looks names up as the system does, and remembers the answers for as long as the client lives.
#[derive(Debug, Default)]
pub(crate) struct LookedUp {
    system: DefaultResolver,
    known: Mutex<HashMap<String, Vec<SocketAddr>>>,
}

impl Resolver for LookedUp {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let key =
            format!("{}://{}", uri.scheme_str().unwrap_or(""), uri.authority().map_or("", |a| a.as_str()));
        // Held while asking: threads that start together need one answer between them.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(addresses) = known.get(&key) {
            let mut answer = self.empty();
            addresses.iter().for_each(|a| answer.push(*a));
            return Ok(answer);
        }
        let answer = self.system.resolve(uri, config, timeout)?;
        known.insert(key, answer.to_vec());
        Ok(answer)
    }
}

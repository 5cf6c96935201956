//! Certificates that the host gets itself: which are wanted, which are due, and what became of trying.
//!
//! The account's key and every certificate with its key are documents of the store that only its owner reads. A new
//! certificate is written down before anybody is shown it, and the one before is shown until then: nothing that goes
//! wrong takes anybody's service away.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use kiln_edge::{Certificate, Proof};
use kiln_model::{Millis, Release, Timestamp, Waiting};
use kiln_store::Store;
use serde::{Deserialize, Serialize};

use super::certificate_names::Names;
use super::driver::Driver;
use super::processes::Processes;
use crate::acme::{self, AccountKey, Authority, Challenge, ProofKind, Proofs};
use crate::core::Core;
use crate::shelf::time_of_day;
use crate::sync::lock;
use crate::world::Clock;

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeOptions {
    /// The authority's directory.
    pub directory: String,
    /// A file with the certificate (PEM) that the authority's own is signed with, if it is not one of the web's.
    pub roots: Option<PathBuf>,
    /// An address that the authority may write to.
    pub contact: Option<String>,
    /// The only proof there is to be; both in turn, if absent.
    pub proof: Option<ProofKind>,
}

/// A certificate as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    chain: String,
    key: String,
}

/// The account as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptAccount {
    pkcs8: Vec<u8>,
}

/// What became of trying, as long as it did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempts {
    failures: u32,
    since: Timestamp,
    until: Timestamp,
    why: String,
}

/// After the first failure; twice as long after each further one. Authorities count failures.
const FIRST: u64 = 30_000;
const LONGEST: u64 = 6 * 3_600_000;
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

impl Attempts {
    fn after(before: Option<Self>, now: Timestamp, why: String) -> Self {
        let failures = before.as_ref().map_or(0, |b| b.failures) + 1;
        let wait = Millis((FIRST << (failures - 1).min(20)).min(LONGEST));
        Self { failures, since: before.map_or(now, |b| b.since), until: now.after(wait), why }
    }
}

/// The certificates of one host.
pub(crate) struct Renewals {
    options: AcmeOptions,
    store: Store,
    attempts: Mutex<BTreeMap<String, Attempts>>,
    names: Mutex<Names>,
}

impl Renewals {
    pub(crate) fn new(options: AcmeOptions, store: Store) -> Self {
        Self { options, store, attempts: Mutex::default(), names: Mutex::default() }
    }

    /// Gets what is due, again and again, as long as the host runs.
    pub(crate) fn run(&self, driver: &Driver, processes: &Processes, clock: &dyn Clock) {
        while !driver.is_stopped() {
            let names = Names::of(&serving(&lock(&driver.core)), &processes.names_of_certificates());
            let to_get: Vec<String> = names.to_get().map(str::to_owned).collect();
            lock(&self.attempts).retain(|name, _| to_get.contains(name));
            *lock(&self.names) = names;
            for name in &to_get {
                if !driver.is_stopped() && self.is_due(name, clock.now()) {
                    let obtained = self.obtain(name, &Shown { driver, processes });
                    if let Err(why) = &obtained {
                        processes.complain(&format!("no certificate was got for {name}: {why}"));
                    }
                    self.note(name, obtained, clock.now());
                    // The orders behind it may take long to fail.
                    self.show(&to_get, processes);
                }
            }
            self.show(&to_get, processes);
            driver.pause_for(LOOK);
        }
    }

    fn show(&self, names: &[String], processes: &Processes) {
        processes.show_automatic(names.iter().filter_map(|name| self.kept(name)).collect());
    }

    /// What is waited for, for people.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        let attempts = lock(&self.attempts);
        let waiting = attempts.iter().map(|(name, a)| Waiting {
            what: format!("the next attempt at a certificate for {name}, after {}", failures(a.failures)),
            since: a.since,
            until: Some(a.until),
        });
        waiting.collect()
    }

    /// What people should know: what cannot be got, and why.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let (attempts, names) = (lock(&self.attempts), lock(&self.names));
        let warning = |(name, a): (&String, &Attempts)| {
            let words = format!(
                "no certificate can be got for {name} since {} ({}): {}",
                a.since,
                failures(a.failures),
                a.why
            );
            if names.is_preview(name) { words + OF_A_PREVIEW } else { words }
        };
        attempts.iter().map(warning).chain(names.doubts()).collect()
    }

    fn is_due(&self, name: &str, now: Timestamp) -> bool {
        if lock(&self.attempts).get(name).is_some_and(|a| a.until > now) {
            return false;
        }
        // Its time is one of the world, however this host's clock was set meanwhile.
        let is_good = |c: Certificate| c.inspect().is_ok_and(|d| !d.validity.is_due(time_of_day()));
        !self.kept(name).is_some_and(is_good)
    }

    fn kept(&self, name: &str) -> Option<Certificate> {
        let kept: Option<Kept> = self.store.private_state(&document(name)).ok()?;
        kept.map(|Kept { chain, key }| Certificate { chain, key })
    }

    fn obtain(&self, name: &str, proofs: &Shown<'_>) -> Result<(), String> {
        let key = self.account()?;
        let roots = self.options.roots.as_ref().map(std::fs::read_to_string).transpose();
        let roots = roots.map_err(|e| format!("the authority's root certificates cannot be read: {e}"))?;
        let contact = self.options.contact.as_deref();
        let found = Authority::find(&self.options.directory, roots.as_deref(), contact, &key);
        let mut authority = found.map_err(|e| e.to_string())?;
        let certificate =
            acme::obtain(&mut authority, name, self.proof(name), proofs).map_err(|e| e.to_string())?;
        let kept = Kept { chain: certificate.chain, key: certificate.key };
        self.store.put_private_state(&document(name), &kept).map_err(|e| e.to_string())
    }

    /// With nothing said, the one that has not failed last.
    fn proof(&self, name: &str) -> ProofKind {
        let failures = lock(&self.attempts).get(name).map_or(0, |a| a.failures);
        let in_turn = if failures.is_multiple_of(2) { ProofKind::Http01 } else { ProofKind::TlsAlpn01 };
        self.options.proof.unwrap_or(in_turn)
    }

    fn account(&self) -> Result<AccountKey, String> {
        const ACCOUNT: &str = "acme-account";
        let kept: Option<KeptAccount> = self.store.private_state(ACCOUNT).map_err(|e| e.to_string())?;
        if let Some(kept) = kept {
            return AccountKey::decode(&kept.pkcs8);
        }
        let key = AccountKey::make()?;
        let kept = KeptAccount { pkcs8: key.encode().to_vec() };
        self.store.put_private_state(ACCOUNT, &kept).map_err(|e| e.to_string())?;
        Ok(key)
    }

    fn note(&self, name: &str, obtained: Result<(), String>, now: Timestamp) {
        let mut attempts = lock(&self.attempts);
        let before = attempts.remove(name);
        if let Err(why) = obtained {
            attempts.insert(name.to_owned(), Attempts::after(before, now, why));
        }
    }
}

/// What can be done about a preview that has no certificate.
const OF_A_PREVIEW: &str = "; it is a host of previews, which a canary has with `preview = true`: let the name lead here, or ask \
                            with the header field X-Kiln-Preview and leave it";

fn document(name: &str) -> String {
    format!("certificate-{name}")
}

/// The releases that serve.
fn serving(core: &Core) -> Vec<Release> {
    let serving = core.apps().values().flat_map(|state| match &state.traffic {
        kiln_model::Traffic::Shifting { from, to, .. } => vec![from, to],
        traffic => traffic.live().into_iter().collect(),
    });
    serving.filter_map(|id| core.release(id)).cloned().collect()
}

/// Proofs, shown by the edge.
struct Shown<'a> {
    driver: &'a Driver,
    processes: &'a Processes,
}

impl Proofs for Shown<'_> {
    fn show(&self, challenge: &Challenge) -> Result<(), String> {
        let Challenge { kind, name, token, says } = challenge.clone();
        let proof = match kind {
            ProofKind::Http01 => Proof::Http { token, says },
            ProofKind::TlsAlpn01 => Proof::Alpn { certificate: acme::alpn_proof(&name, &says)?, name },
        };
        self.processes.show_proofs(&[proof]).map_err(|trouble| trouble.0)
    }

    fn withdraw(&self) {
        // What stays shown for want of an answer is worth nothing any more.
        let _ = self.processes.show_proofs(&[]);
    }

    fn pause(&self, span: Duration) -> bool {
        self.driver.pause_for(span);
        !self.driver.is_stopped()
    }
}

fn failures(count: u32) -> String {
    format!("{count} {}", if count == 1 { "failure" } else { "failures" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_followed_by_longer_and_longer_waits() {
        let mut attempts = None;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let next = Attempts::after(attempts.take(), Timestamp(1000), "no".into());
            waits.push(next.until.0 - 1000);
            attempts = Some(next);
        }
        assert_eq!(waits[..3], [30_000, 60_000, 120_000]);
        assert_eq!(waits[11], LONGEST);
    }
}

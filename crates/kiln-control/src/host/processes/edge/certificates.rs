//! Certificates, from the files of the host to the edge, which may open none; and what people should know of them.
//!
//! One that has expired is shown all the same. Whether that matters is the client's to say: some do not look, some ask
//! their user, and to all others a closed door would say less than the certificate does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};

use kiln_edge::Certificate;
use kiln_edge::certificate::Details;
use kiln_model::{CertificatePaths, Standing, Timestamp};

/// No certificate is larger.
const LARGEST: u64 = 1 << 20;

/// A certificate that can be shown, and what it says.
struct Good {
    certificate: Certificate,
    details: Details,
}

/// What was read of them, and what of that the edge has.
#[derive(Default)]
pub(super) struct Shelf {
    good: BTreeMap<CertificatePaths, Good>,
    in_force: Vec<Certificate>,
}

/// What a look at the files has brought.
#[derive(Default)]
pub(super) struct Look {
    /// What the edge is to have.
    pub(super) certificates: Vec<Certificate>,
    /// What people should know.
    pub(super) warnings: Vec<String>,
}

impl Shelf {
    /// With what an edge has already.
    pub(super) fn of(in_force: Vec<Certificate>) -> Self {
        Self { in_force, ..Self::default() }
    }

    pub(super) fn in_force(&self) -> &[Certificate] {
        &self.in_force
    }

    pub(super) fn put_in_force(&mut self, certificates: Vec<Certificate>) {
        self.in_force = certificates;
    }

    /// Reads the files. One that cannot be used any more is replaced by what it was before: a renewal that goes wrong
    /// takes nobody's service away. Those that the host got itself come along.
    pub(super) fn look(
        &mut self,
        wanted: &[CertificatePaths],
        automatic: &[Certificate],
        now: Timestamp,
    ) -> Look {
        self.good.retain(|paths, _| wanted.contains(paths));
        let (mut look, mut is_unknown) = (Look::default(), false);
        for paths in wanted {
            let problem = self.read(paths).err();
            if let Some(good) = self.good.get(paths) {
                look.certificates.push(good.certificate.clone());
                look.warnings.extend(warning(&at(paths), &good.details, now));
            } else {
                is_unknown = true;
            }
            look.warnings.extend(problem.map(|problem| {
                format!("{problem}; clients are shown what was there before, as long as anybody knows it")
            }));
        }
        for certificate in automatic {
            let details = certificate.inspect().ok();
            look.warnings.extend(details.and_then(|details| warning(OF_THIS_HOST, &details, now)));
            look.certificates.push(certificate.clone());
        }
        if is_unknown {
            // What it was before, the edge may still have from a control plane that could read it.
            let others = self.in_force.iter().filter(|c| !look.certificates.contains(c)).cloned();
            let others: Vec<_> = others.collect();
            look.certificates.extend(others);
        }
        look
    }

    /// What these are for, as they are shown.
    pub(super) fn names(&mut self, wanted: &[CertificatePaths]) -> BTreeSet<String> {
        // One that cannot be used now is what it was before.
        wanted.iter().for_each(|paths| drop(self.read(paths)));
        let good = wanted.iter().filter_map(|paths| self.good.get(paths));
        good.flat_map(|good| good.details.names.iter().cloned()).collect()
    }

    /// Takes account of what stands in the files now.
    fn read(&mut self, paths: &CertificatePaths) -> Result<(), String> {
        let certificate = text(paths)?;
        // Most of the time it is what it was a second ago.
        if self.good.get(paths).is_none_or(|good| good.certificate != certificate) {
            let details = inspected(paths, &certificate)?;
            self.good.insert(paths.clone(), Good { certificate, details });
        }
        Ok(())
    }
}

/// What the certificate is for that a spec names; nothing if it cannot be used.
pub(in crate::host) fn names(paths: &CertificatePaths) -> Vec<String> {
    text(paths).and_then(|certificate| certificate.inspect()).map_or_else(|_| Vec::new(), |of| of.names)
}

/// What people should know of a certificate that a spec names, if anything.
///
/// # Errors
/// Why it cannot be used.
pub(in crate::host) fn inspect(paths: &CertificatePaths, now: Timestamp) -> Result<Option<String>, String> {
    let details = inspected(paths, &text(paths)?)?;
    Ok(warning(&at(paths), &details, now))
}

fn inspected(paths: &CertificatePaths, certificate: &Certificate) -> Result<Details, String> {
    certificate.inspect().map_err(|problem| format!("{} and {}: {problem}", paths.cert, paths.key))
}

fn text(CertificatePaths { cert, key }: &CertificatePaths) -> Result<Certificate, String> {
    let read = |path: &str| -> Result<String, String> {
        let whole = |path: &str| -> io::Result<String> {
            let mut text = String::new();
            File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
            Ok(text)
        };
        whole(path).map_err(|e| format!("{path} cannot be read: {e}"))
    };
    Ok(Certificate { chain: read(cert)?, key: read(key)? })
}

fn at(paths: &CertificatePaths) -> String {
    format!("in {}", paths.cert)
}

/// Where certificates are that are in no file of a spec.
const OF_THIS_HOST: &str = "that this host got itself";

/// What people should know of a certificate. The words do not change until it stands differently.
fn warning(place: &str, details: &Details, now: Timestamp) -> Option<String> {
    let name = details.names.first().map_or(String::new(), |name| format!(" for {name}"));
    let (from, until) = (details.validity.from, details.validity.until);
    let state = match details.validity.standing(now) {
        Standing::Good => return None,
        Standing::EndsSoon => format!("ends on {until}, and there is no newer one"),
        Standing::Expired => format!("expired on {until}; it is shown all the same, and clients refuse it"),
        Standing::NotYet => {
            format!(
                "is good from {from} on, and this host's clock is not there yet; it is shown all the same"
            )
        }
    };
    Some(format!("the certificate{name} {place} {state}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600_000;

    fn made(name: &str) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        // 90 days.
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        Certificate { chain: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// So many days after the first of January 2026.
    fn day(n: u64) -> Timestamp {
        Timestamp(1_767_225_600_000 + n * DAY)
    }

    /// Files of certificates, and a shelf that looks at them.
    struct Files(tempfile::TempDir, Shelf);

    impl Files {
        fn paths(&self, name: &str) -> CertificatePaths {
            let path = |kind: &str| self.0.path().join(format!("{name}.{kind}")).display().to_string();
            CertificatePaths { cert: path("cert"), key: path("key") }
        }

        fn write(&self, name: &str, Certificate { chain, key }: &Certificate) {
            std::fs::write(self.paths(name).cert, chain).unwrap();
            std::fs::write(self.paths(name).key, key).unwrap();
        }

        fn look(&mut self, names: &[&str], automatic: &[Certificate], now: Timestamp) -> Look {
            let wanted: Vec<_> = names.iter().map(|name| self.paths(name)).collect();
            let look = self.1.look(&wanted, automatic, now);
            self.1.put_in_force(look.certificates.clone());
            look
        }
    }

    fn files() -> Files {
        Files(tempfile::TempDir::new().unwrap(), Shelf::default())
    }

    #[test]
    fn one_that_is_not_good_at_the_moment_is_shown_and_told_of() {
        let (mut files, a, own) = (files(), made("a.example.com"), made("own.example.com"));
        files.write("a", &a);
        let place = files.paths("a").cert;
        for (now, tells) in [
            (day(10), None),
            (day(89), Some("ends on 2026-04-01T00:00:00.000Z")),
            (day(91), Some("expired on 2026-04-01T00:00:00.000Z")),
            (Timestamp(0), Some("is good from 2026-01-01T00:00:00.000Z on")),
        ] {
            let look = files.look(&["a"], std::slice::from_ref(&own), now);
            assert_eq!(look.certificates, [a.clone(), own.clone()], "at {now}");
            let words =
                |name: &str, place: &str| Some(format!("the certificate for {name} {place} {}", tells?));
            let expected = [
                words("a.example.com", &format!("in {place}")),
                words("own.example.com", "that this host got itself"),
            ];
            let expected: Vec<String> = expected.into_iter().flatten().collect();
            assert_eq!(look.warnings.len(), expected.len(), "{:?}", look.warnings);
            let told = look.warnings.iter().zip(&expected).all(|(told, begin)| told.starts_with(begin));
            assert!(told, "{:?}", look.warnings);
            assert_eq!(inspect(&files.paths("a"), now).unwrap().is_some(), tells.is_some());
        }
    }

    #[test]
    fn a_renewal_that_goes_wrong_is_told_of_and_takes_nothing_away() {
        let (mut files, old, new, other) =
            (files(), made("a.example.com"), made("a.example.com"), made("b.example.com"));
        files.write("a", &old);
        files.write("b", &other);
        assert_eq!(files.look(&["a", "b"], &[], day(1)).certificates, [old.clone(), other.clone()]);
        // Half of it is written: the key is not yet the one of the certificate.
        files.write("a", &Certificate { key: old.key.clone(), ..new.clone() });
        let look = files.look(&["a", "b"], &[], day(1));
        assert_eq!(look.certificates, [old.clone(), other.clone()]);
        assert!(look.warnings[0].contains("not that of the certificate"), "{:?}", look.warnings);
        // The next control plane does not know what it was before; the edge does.
        let in_force = files.1.in_force().to_vec();
        files.1 = Shelf::of(in_force);
        let look = files.look(&["a", "b"], &[], day(1));
        assert_eq!(look.certificates, [other.clone(), old], "what is on the disk comes first");
        assert_eq!(look.warnings.len(), 1, "{:?}", look.warnings);
        files.write("a", &new);
        let look = files.look(&["a", "b"], &[], day(1));
        assert_eq!((look.certificates, look.warnings), (vec![new, other.clone()], vec![]));
        assert_eq!(
            files.look(&["b"], &[], day(1)).certificates,
            [other],
            "who is named no more is shown no more"
        );
    }
}

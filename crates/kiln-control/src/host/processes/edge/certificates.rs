//! Certificates, from the files of the host to the edge, which may open none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use kiln_edge::Certificate;
use kiln_model::CertificatePaths;

/// No certificate is larger.
const LARGEST: u64 = 1 << 20;

/// What was read of them, and what of that the edge has.
#[derive(Default)]
pub(super) struct Shelf {
    good: BTreeMap<CertificatePaths, Certificate>,
    in_force: Vec<Certificate>,
    /// What was wrong when last looked, so that it is complained of once.
    wrong: BTreeMap<CertificatePaths, String>,
}

/// What a look at the files has brought.
pub(super) struct Look {
    /// What the edge is to have.
    pub(super) certificates: Vec<Certificate>,
    /// What is wrong and was not when last looked.
    pub(super) complaints: Vec<String>,
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
    /// takes nobody's service away.
    pub(super) fn look(&mut self, wanted: &[CertificatePaths]) -> Look {
        self.good.retain(|paths, _| wanted.contains(paths));
        let mut look = Look { certificates: Vec::new(), complaints: Vec::new() };
        for paths in wanted {
            match read(paths) {
                Ok(certificate) => {
                    self.wrong.remove(paths);
                    self.good.insert(paths.clone(), certificate);
                }
                Err(problem) => {
                    if self.wrong.insert(paths.clone(), problem.clone()).as_ref() != Some(&problem) {
                        look.complaints.push(problem);
                    }
                }
            }
            look.certificates.extend(self.good.get(paths).cloned());
        }
        look
    }
}

/// What is wrong with a certificate, if anything.
pub(crate) fn inspect(paths: &CertificatePaths) -> Result<(), String> {
    read(paths).map(drop)
}

fn read(paths: &CertificatePaths) -> Result<Certificate, String> {
    let certificate = Certificate { chain: text(&paths.cert)?, key: text(&paths.key)? };
    match certificate.inspect() {
        Ok(_) => Ok(certificate),
        Err(problem) => Err(format!("{} and {}: {problem}", paths.cert, paths.key)),
    }
}

fn text(path: &str) -> Result<String, String> {
    let read = |path: &str| -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
        Ok(text)
    };
    read(path).map_err(|e| format!("{path} cannot be read: {e}"))
}

//! The spec: `kiln.toml` as it is written ([`SpecFile`]) and what it means ([`Spec`]).
//!
//! ```text
//! text ── document ── shape ──────── SpecFile ── resolve ── Spec ── release
//!         (TOML, with  (keys and      (serde)     (defaults,
//!          places)      types, by                  references,
//!                       the schema)                refusals)
//! ```
//! Each arrow reports everything it finds wrong, with places; the next one is only tried when nothing was.

mod document;
mod file;
mod policy;
mod problem;
mod release;
mod resolve;
mod resolved;
mod schema;
mod shape;

pub use file::*;
pub use policy::{Policy, PolicyRule, Refused, Rule};
pub use problem::{SpecError, SpecProblem};
pub use release::{Ingredients, NotReleasable};
pub use resolved::{
    Base, BuildNetwork, BuildStep, CopySpec, DirSpec, HealthSpec, ImageSpec, LinkSpec, RouteSpec,
    ServiceSpec, Sources, Spec, SuiteSpec, UserSpec,
};
pub use schema::schema;

use crate::AppName;
use document::{Document, Place, Problems};
use problem::{Found, located};

impl SpecFile {
    /// Reads `text`, which is the content of the file that people know as `file`. Only its shape is looked at.
    ///
    /// # Errors
    /// What is no TOML, what is no key, what is missing, and what has the wrong type.
    pub fn parse(file: &str, text: &str) -> Result<Self, SpecError> {
        shaped(text).map(|(spec, _)| spec).map_err(|found| located(file, text, found))
    }
}

impl Spec {
    /// Reads `text`, which is the content of the file that people know as `file`, fills in what is not said and
    /// looks up what is referred to.
    ///
    /// # Errors
    /// Everything that is wrong with it, as far as it could be read; also what this version of Kiln cannot do.
    pub fn parse(file: &str, text: &str) -> Result<Self, SpecError> {
        let failed = |found| located(file, text, found);
        let (spec, document) = shaped(text).map_err(failed)?;
        let mut problems = Problems::new(&document);
        let resolved = resolve::spec(&spec, &mut problems);
        match resolved {
            Some(spec) if problems.found.is_empty() => Ok(spec),
            _ => Err(failed(problems.found)),
        }
    }
}

/// The name of the app, from the text of a spec that may have anything else wrong with it.
pub fn app_name(text: &str) -> Option<AppName> {
    let document = Document::parse(text).ok()?;
    document.root.get_ref().as_table()?.get("app")?.get_ref().as_str()?.parse().ok()
}

fn shaped(text: &str) -> Result<(SpecFile, Document<'_>), Vec<Found>> {
    let document = Document::parse(text)?;
    let mut problems = Problems::new(&document);
    shape::inspect(&document, schema(), &mut problems);
    if !problems.found.is_empty() {
        return Err(problems.found);
    }
    match toml::from_str(text) {
        Ok(spec) => Ok((spec, document)),
        Err(e) => Err(vec![Found::new(e.span().unwrap_or(0..0), e.message())]),
    }
}

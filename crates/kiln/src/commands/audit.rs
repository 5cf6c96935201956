//! `kiln audit`

use std::collections::BTreeSet;

use clap::Args;
use kiln_model::{
    Answer, AppName, AuditAnswer, AuditEntry, Command, Failure, ImageDigest, PackageRule, ReleaseId,
    ReleaseState,
};

use crate::context::{Context, unexpected};
use crate::table::table;
use crate::{output, words};

const EXAMPLES: &str = "\
Examples:
  kiln audit                                what is recorded of everything that runs or can be gone back to
  kiln audit --package openssl              who holds it, in which version, and who does not
  kiln audit --package 'openssl<3.0.11'     who still holds an old one";

/// What is inside of what runs, from the record: no instance is entered
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Audit {
    /// The package that is asked about, maybe with a bound on its version (<, <=, =, >=, >)
    #[arg(long, value_name = "NAME[<VERSION]")]
    package: Option<PackageRule>,
    /// Only this app
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,
}

pub(crate) fn run(args: &Audit, context: &Context) -> Result<(), Failure> {
    let command = Command::Audit { app: args.app.clone(), package: args.package.clone() };
    match context.ask(&command)? {
        Answer::Audit(audit) => {
            let told = |(release, damage): (&ReleaseId, &String)| {
                format!("nothing can be said of release {}: {damage}", release.short())
            };
            let told_image = |(image, damage): (&ImageDigest, &String)| {
                format!("nothing can be said of image {}: {damage}", image.short())
            };
            let releases = audit.damaged.iter().map(told);
            output::warn(&releases.chain(audit.damaged_images.iter().map(told_image)).collect::<Vec<_>>());
            context.output.result(&audit, || words_for(&audit))
        }
        other => Err(unexpected(&other)),
    }
}

fn words_for(audit: &AuditAnswer) -> String {
    if audit.services.is_empty() {
        return "no release has served yet".into();
    }
    match &audit.package {
        None => table(
            ["APP", "RELEASE", "STATE", "SERVICE", "INSTANCES", "IMAGE", "PACKAGES", "CHECKS", "POLICY"],
            &audit.services.iter().map(summary).collect::<Vec<_>>(),
        ),
        Some(rule) => asked_for(audit, rule),
    }
}

fn summary(entry: &AuditEntry) -> [String; 9] {
    let [app, release, state, service, instances] = place(entry);
    let count = |n: usize| n.to_string();
    let counts = [entry.packages.len(), entry.checks.len(), entry.policy.len()].map(count);
    let [packages, checks, policy] = counts;
    let image = if entry.handmade.is_some() { "handmade" } else { "baked" };
    [app, release, state, service, instances, image.to_owned(), packages, checks, policy]
}

fn asked_for(audit: &AuditAnswer, rule: &PackageRule) -> String {
    let (holding, lacking): (Vec<&AuditEntry>, Vec<&AuditEntry>) =
        audit.services.iter().partition(|s| !s.packages.is_empty());
    let row = |entry: &&AuditEntry| {
        let versions: BTreeSet<&str> = entry.packages.iter().map(|p| p.version.as_str()).collect();
        let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
        let [app, release, state, service, instances] = place(entry);
        let found = if versions.is_empty() { "no".to_owned() } else { versions };
        [app, release, state, service, instances, found]
    };
    let rows: Vec<[String; 6]> = holding.iter().chain(&lacking).map(row).collect();
    let title = rule.to_string();
    let running: usize = holding.iter().map(|s| s.instances.len()).sum();
    format!(
        "{}\n\n{title}: in {} of {}, {} of them",
        table(["APP", "RELEASE", "STATE", "SERVICE", "INSTANCES", &title], &rows),
        holding.len(),
        words::count(audit.services.len() as u64, "service"),
        words::count(running as u64, "running instance"),
    )
}

fn place(entry: &AuditEntry) -> [String; 5] {
    let state = match entry.state {
        ReleaseState::Live => "live",
        ReleaseState::Warm => "warm",
        ReleaseState::Stored => "stored",
    };
    [
        entry.app.to_string(),
        entry.release.short().to_owned(),
        state.to_owned(),
        entry.service.to_string(),
        entry.instances.len().to_string(),
    ]
}

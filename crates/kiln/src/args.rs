//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use kiln_control::{AcmeOptions, EdgeOptions, ProofKind};
use kiln_edge::Network;
use kiln_model::ByteSize;

use crate::commands::{
    audit, bake, cancel, commit, completions, deploy, diff, down, edge, exec, export, gc, image, import,
    instances, keeper, lock, log, logs, odds, pause, pin, plan, releases, resume, rollback, schema, secret,
    serve, status, up, verify, wait,
};

const EXAMPLES: &str = "\
Examples:
  kiln up examples/hello      try an app: bake, check, deploy, serve; Ctrl-C removes all of it
  kiln deploy                 make what is in this directory serve, or leave things as they are
  kiln rollback               back to the release that served before
  kiln status                 what runs, and where

Exit codes:
  0  done, and true           5  a check of the image failed
  1  a bug in Kiln            6  the deploy failed; the previous release still serves
  2  wrong usage              7  refused by policy
  3  spec or lock invalid     8  someone else is deploying this app
  4  a bake failed            9  the host could not be reached, or lacks what is needed";

/// Immutable infrastructure in one binary
///
/// Bake an image once, prove it, boot a fresh fleet of it beside the old one, move the traffic in one step, and keep
/// every release one command away.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Commands,
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// One JSON document on stdout (one object a line for streams); people's words go to stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The host that is meant: its socket, state directory or address [env: KILN_HOST] [default: the only one
    /// that runs here]
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) host: Option<String>,
    /// The state directory [env: KILN_ROOT] [default: that of the host that is meant, or /var/lib/kiln; `kiln up`:
    /// DIR/.kiln]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// No progress, only results and failures
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Commands {
    Up(up::Up),
    Serve(serve::Serve),
    Bake(bake::Bake),
    Lock(lock::Lock),
    Plan(plan::Plan),
    Deploy(deploy::Deploy),
    Rollback(rollback::Rollback),
    Wait(wait::Wait),
    Cancel(cancel::Cancel),
    Pause(pause::Pause),
    Resume(resume::Resume),
    Status(status::Status),
    Releases(releases::Releases),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Image(image::Image),
    Instances(instances::Instances),
    Exec(exec::Exec),
    Diff(diff::Diff),
    Commit(commit::Commit),
    Log(log::Log),
    Logs(logs::Logs),
    Secret(secret::Secret),
    Audit(audit::Audit),
    Verify(verify::Verify),
    Export(export::Export),
    Import(import::Import),
    Gc(gc::Gc),
    Down(down::Down),
    Odds(odds::Odds),
    Schema(schema::Schema),
    Completions(completions::Completions),
    #[command(hide = true)]
    Keeper(keeper::Keeper),
    #[command(hide = true)]
    Edge(edge::Edge),
}

/// The app's directory, for commands that read the spec.
#[derive(Debug, Clone, Args)]
pub(crate) struct Directory {
    /// Where the app is; `kiln.toml` is looked for there and upwards
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) directory: PathBuf,
}

/// What the edge of a host does, for commands that start one.
#[derive(Debug, Clone, Args)]
pub(crate) struct EdgeArgs {
    /// Where the apps are reached
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Where they are reached over https, with the certificates that their specs name
    #[arg(long, value_name = "ADDR")]
    listen_tls: Option<SocketAddr>,
    /// Believe what peers in this network say of where a request came from (X-Forwarded-For, Forwarded); may be given
    /// more than once
    #[arg(long, value_name = "NETWORK")]
    trust: Vec<Network>,
    /// Connections from trusted peers begin with a PROXY protocol header, version 1 or 2
    #[arg(long, requires = "trust")]
    proxy_protocol: bool,
    /// Where the edge tells Prometheus its figures, at /metrics
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// A line of JSON for each request in run/access.log of the state directory
    #[arg(long)]
    access_log: bool,
    /// Get certificates for apps that say `[tls] automatic = true`, from the authority whose ACME directory this is
    #[arg(long, value_name = "URL", requires = "listen_tls")]
    acme: Option<String>,
    /// An address that the authority may write to
    #[arg(long, value_name = "MAIL", requires = "acme")]
    acme_contact: Option<String>,
    /// The certificate (PEM) the authority's own is signed with, if it is not one of the web's
    #[arg(long, value_name = "FILE", requires = "acme")]
    acme_roots: Option<PathBuf>,
    /// Prove names in this way only, `http-01` (needs port 80) or `tls-alpn-01` (needs port 443) [default: in turn]
    #[arg(long, value_name = "PROOF", requires = "acme")]
    acme_proof: Option<ProofKind>,
    /// How large that becomes before another one is begun; four old ones stay
    #[arg(long, value_name = "SIZE", default_value = "64MiB", requires = "access_log")]
    access_log_size: ByteSize,
}

impl EdgeArgs {
    /// Where certificates come from, if the host gets any itself.
    pub(crate) fn acme(&self) -> Option<AcmeOptions> {
        let (roots, contact) = (self.acme_roots.clone(), self.acme_contact.clone());
        let directory = self.acme.clone()?;
        Some(AcmeOptions { directory, roots, contact, proof: self.acme_proof })
    }

    pub(crate) fn options(&self) -> EdgeOptions {
        EdgeOptions {
            listen_tls: self.listen_tls,
            trust: self.trust.clone(),
            proxy_protocol: self.proxy_protocol,
            metrics: self.metrics,
            access_log: self.access_log.then_some(self.access_log_size),
        }
    }
}

/// The app's name, for commands that ask about what runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct Named {
    /// The app [default: the one of the kiln.toml here or upwards, else the only one of the host]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) app: Option<kiln_model::AppName>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");

    /// The help of every command, as the reference shows it.
    fn reference() -> String {
        let mut page = String::from(
            "# The command line\n\nThis page is the program's own help. It is generated: \
             `KILN_BLESS=1 cargo test -p kiln reference` writes it.\n",
        );
        let mut top = Cli::command().term_width(100);
        top.build();
        section(&mut page, "kiln", &mut top.clone());
        for command in top.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
            let name = format!("kiln {}", command.get_name());
            section(&mut page, &name, &mut command.clone());
            for inner in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
                section(&mut page, &format!("{name} {}", inner.get_name()), &mut inner.clone());
            }
        }
        page
    }

    fn section(page: &mut String, title: &str, command: &mut clap::Command) {
        let help = command.render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        page.push_str(&format!("\n## `{title}`\n```text\n{}\n```\n", lines.join("\n").trim()));
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_reference_in_docs_is_current() {
        let current = reference();
        if std::env::var_os("KILN_BLESS").is_some() {
            std::fs::write(REFERENCE, &current).unwrap();
        }
        let written = std::fs::read_to_string(REFERENCE).unwrap_or_default();
        assert!(written == current, "docs/cli.md is out of date: KILN_BLESS=1 cargo test -p kiln reference");
    }
}

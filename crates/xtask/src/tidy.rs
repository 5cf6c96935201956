//! Rules of the code that can be checked by a program: budgets, arrows between crates, words that stay out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::{cargo, output, workspace};

/// The longest a source file may be. Most are half of it.
const MAX_LINES: usize = 500;

/// Which crate may depend on which of ours, tests aside. A line more here is a decision for ARCHITECTURE.md.
const ARROWS: [(&str, &[&str]); 11] = [
    ("kiln-model", &[]),
    ("kiln-mount", &["kiln-model"]),
    ("kiln-store", &["kiln-model"]),
    ("kiln-bake", &["kiln-model", "kiln-mount", "kiln-store"]),
    ("kiln-engine", &["kiln-model", "kiln-mount"]),
    ("kiln-edge", &["kiln-model"]),
    ("kiln-control", &["kiln-bake", "kiln-edge", "kiln-engine", "kiln-model", "kiln-store"]),
    ("kiln-api", &["kiln-control", "kiln-model"]),
    (
        "kiln",
        &["kiln-api", "kiln-bake", "kiln-control", "kiln-edge", "kiln-engine", "kiln-model", "kiln-store"],
    ),
    (
        "kiln-testkit",
        &["kiln-bake", "kiln-control", "kiln-edge", "kiln-engine", "kiln-model", "kiln-mount", "kiln-store"],
    ),
    ("xtask", &[]),
];

/// Crates `kiln-model` must not use: it has no I/O, no clock, no randomness.
const NOT_IN_MODEL: [&str; 6] = ["tokio", "rustix", "libc", "rand", "hyper", "ureq"];

pub(crate) fn run() -> Result<()> {
    let mut findings = Vec::new();
    check_sources(&mut findings)?;
    check_arrows(&mut findings)?;
    check_specification(&mut findings)?;
    if findings.is_empty() {
        return Ok(());
    }
    bail!("the code is not tidy:\n  {}", findings.join("\n  "))
}

fn sources(below: &Path) -> Result<Vec<PathBuf>> {
    let listed =
        output(cargo_git().args(["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.rs"]))?;
    Ok(listed.lines().map(|l| below.join(l)).filter(|p| p.exists()).collect())
}

fn cargo_git() -> std::process::Command {
    let mut git = std::process::Command::new("git");
    git.current_dir(workspace());
    git
}

fn check_sources(findings: &mut Vec<String>) -> Result<()> {
    let root = workspace();
    for path in sources(&root)? {
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let name = path.strip_prefix(&root).unwrap_or(&path).display();
        let lines = text.lines().count();
        if lines > MAX_LINES {
            findings.push(format!(
                "{name} has {lines} lines: which nouns share this room? (at most {MAX_LINES})"
            ));
        }
        if !path.ends_with("tidy.rs") {
            for word in ["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "FIXME"] {
                if text.contains(word) {
                    findings.push(format!("{name} contains {word}"));
                }
            }
        }
    }
    Ok(())
}

fn check_arrows(findings: &mut Vec<String>) -> Result<()> {
    let metadata = output(cargo().args(["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    for package in metadata["packages"].as_array().context("cargo metadata without packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = allowed.get(name) else {
            findings.push(format!("crate {name} has no line in the table of arrows"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let is_dev = dependency["kind"] == "dev";
            let on = dependency["name"].as_str().unwrap_or_default();
            let is_ours = on.starts_with("kiln-") || on == "kiln";
            if is_ours && !is_dev && !allowed.contains(&on) {
                findings.push(format!("{name} must not depend on {on}"));
            }
            if name == "kiln-model" && !is_dev && NOT_IN_MODEL.contains(&on) {
                findings.push(format!("kiln-model must not depend on {on}: it does no I/O"));
            }
        }
    }
    Ok(())
}

/// Every test that SPECIFICATION.md names as the one that enforces a promise exists.
fn check_specification(findings: &mut Vec<String>) -> Result<()> {
    let root = workspace();
    let text = std::fs::read_to_string(root.join("SPECIFICATION.md")).context("reading SPECIFICATION.md")?;
    let mut sources_text = String::new();
    for path in sources(&root)? {
        sources_text.push_str(&std::fs::read_to_string(path)?);
    }
    for name in text.split('`').filter_map(|w| w.strip_prefix("test:")) {
        if !sources_text.contains(&format!("fn {name}(")) {
            findings.push(format!("SPECIFICATION.md names the test {name}, which does not exist"));
        }
    }
    Ok(())
}

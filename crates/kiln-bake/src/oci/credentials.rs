//! Who is asking a registry: the files that `docker login` and `podman login` write.
//!
//! ```json
//! {"auths": {"registry.example.com": {"auth": "dXNlcjpwYXNz"}}, "credHelpers": {"other.example.com": "pass"},
//!  "credsStore": "secretservice"}
//! ```
//! A helper NAME is the program `docker-credential-NAME`: it is given the host and prints name and secret.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::registry::RegistryError;

/// How long a helper may take to answer; some ask a person.
const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: u64 = 1 << 20;
/// What a helper gives as the name when the secret is a token to exchange.
const IS_TOKEN: &str = "<token>";

/// Name and password, or a token that stands for both.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    Password { user: String, password: String },
    Token(String),
}

/// Who is asking.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) secret: Secret,
    /// Where they are from, for messages.
    pub(crate) from: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
}

/// The credentials for a repository of a host, from the first of the usual files that has some.
pub(crate) fn find(host: &str, repository: &str) -> Result<Option<Credentials>, RegistryError> {
    for path in places(&|name| env::var_os(name).map(PathBuf::from)) {
        match fs::read(&path) {
            Ok(bytes) => {
                if let Some(found) = of_file(&path, &bytes, host, repository)? {
                    return Ok(Some(found));
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(e) => return Err(RegistryError::Credentials { path, problem: e.to_string() }),
        }
    }
    Ok(None)
}

fn places(env: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let below = |name: &str, rest: &str| env(name).map(|dir| dir.join(rest));
    let all = [
        env("REGISTRY_AUTH_FILE"),
        below("XDG_RUNTIME_DIR", "containers/auth.json"),
        below("XDG_CONFIG_HOME", "containers/auth.json").or(below("HOME", ".config/containers/auth.json")),
        below("DOCKER_CONFIG", "config.json").or(below("HOME", ".docker/config.json")),
    ];
    all.into_iter().flatten().collect()
}

fn of_file(
    path: &Path,
    bytes: &[u8],
    host: &str,
    repository: &str,
) -> Result<Option<Credentials>, RegistryError> {
    let failed = |problem: String| RegistryError::Credentials { path: path.into(), problem };
    // What a parser says may quote the file.
    let file: ConfigFile =
        serde_json::from_slice(bytes).map_err(|e| failed(format!("it is no JSON at line {}", e.line())))?;
    let helper = file.cred_helpers.get(host).map(String::as_str);
    let secret = match helper {
        Some(helper) => ask(helper, host).map_err(failed)?,
        None => {
            match matching(&file.auths, host, repository).map(decoded).transpose().map_err(failed)?.flatten()
            {
                None if !file.creds_store.is_empty() => ask(&file.creds_store, host).map_err(failed)?,
                found => found,
            }
        }
    };
    Ok(secret.map(|secret| Credentials { secret, from: path.into() }))
}

/// The entry for the longest beginning of `host/repository`.
fn matching<'a>(auths: &'a BTreeMap<String, Auth>, host: &str, repository: &str) -> Option<&'a Auth> {
    let whole = format!("{host}/{repository}/");
    let plain = |key: &str| {
        let key = key.split_once("://").map_or(key, |(_, rest)| rest);
        let key = key.trim_end_matches('/');
        key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key).to_owned()
    };
    let fitting = auths.iter().map(|(key, auth)| (plain(key), auth));
    let fitting = fitting.filter(|(key, _)| whole.starts_with(&format!("{key}/")));
    fitting.max_by_key(|(key, _)| key.len()).map(|(_, auth)| auth)
}

fn decoded(auth: &Auth) -> Result<Option<Secret>, String> {
    if !auth.identitytoken.is_empty() {
        return Ok(Some(Secret::Token(auth.identitytoken.clone())));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let bytes = STANDARD.decode(auth.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match bytes.as_deref().map(|text| text.trim_end_matches('\0')).and_then(|text| text.split_once(':')) {
        Some((user, password)) => {
            Ok(Some(Secret::Password { user: user.to_owned(), password: password.to_owned() }))
        }
        None => Err("an entry is not base64 of `user:password`".into()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    username: String,
    secret: String,
}

fn ask(helper: &str, host: &str) -> Result<Option<Secret>, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if helper.is_empty() || !helper.chars().all(allowed) {
        return Err(format!("`{}` is not the name of a credential helper", helper.escape_debug()));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |e: std::io::Error| format!("could not run `{program}`: {e}");
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    // Dropped at once: its end is the end of the question. One that does not read it has not asked.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(host.as_bytes()));
    let stdout = child.stdout.take();
    let answer = thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.map(|out| out.take(LARGEST_ANSWER).read_to_string(&mut text));
        read.and_then(Result::ok).map(|_| text)
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if begun.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("`{program}` did not answer in {} seconds", PATIENCE.as_secs()));
            }
            None => thread::park_timeout(Duration::from_millis(10)),
        }
    };
    let text = answer.join().ok().flatten().unwrap_or_default();
    if !status.success() {
        // The convention for "I have none" is this text and a failure.
        let none = text.contains("credentials not found");
        return if none { Ok(None) } else { Err(format!("`{program}` ended with {status}")) };
    }
    let told: Told =
        serde_json::from_str(&text).map_err(|_| format!("`{program}` did not answer in JSON"))?;
    Ok(Some(match told.username.as_str() {
        IS_TOKEN => Secret::Token(told.secret),
        _ => Secret::Password { user: told.username, password: told.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, host: &str) -> Result<Option<Secret>, String> {
        let found = of_file(Path::new("f"), file.as_bytes(), host, "team/app");
        found.map(|c| c.map(|c| c.secret)).map_err(|e| e.to_string())
    }

    fn password(user: &str, password: &str) -> Option<Secret> {
        Some(Secret::Password { user: user.into(), password: password.into() })
    }

    #[test]
    fn the_longest_entry_that_fits_counts() {
        let file = r#"{"auths":{"https://a.example/v1/":{"auth":"dTpw"},"a.example/team":{"auth":"dDpxOnI="},
            "a.example/te":{"auth":"eDp4"},"b.example":{"identitytoken":"t"},"c.example":{}}}"#;
        assert!(found(file, "a.example") == Ok(password("t", "q:r")));
        assert!(found(file, "b.example") == Ok(Some(Secret::Token("t".into()))));
        assert!(found(file, "c.example") == Ok(None) && found(file, "d.example") == Ok(None));
        assert!(found(&file.replace("a.example/team", "z"), "a.example") == Ok(password("u", "p")));
    }

    #[test]
    fn what_cannot_be_read_is_said_without_its_content() {
        let said = |file: &str| found(file, "a").err().unwrap_or_default();
        assert!(said(r#"{"auths":{"a":{"auth":"c2VjcmV0"}}}"#).ends_with("not base64 of `user:password`"));
        assert!(said("{secret").ends_with("no JSON at line 1"));
        assert!(said(r#"{"credsStore":"../../bin/sh"}"#).contains("is not the name of a credential helper"));
    }
}

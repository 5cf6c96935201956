//! What a registry asks of who it does not know: `WWW-Authenticate`, and tokens.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::{HeaderMap, header};

use super::credentials::{Credentials, Secret};

/// What is to be shown with the next request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password.
    Basic,
    /// A token from elsewhere.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The best that the answer offers.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let all = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        let mut known: Vec<Self> = all.filter_map(parse).collect();
        known.sort_by_key(|c| *c == Self::Basic);
        known.into_iter().next()
    }
}

fn parse(text: &str) -> Option<Challenge> {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    for (name, value) in parameters(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// `name="value",name=value`; a comma inside quotes is part of the value.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        all.push((name.trim_matches([' ', ',']).to_owned(), value.to_owned()));
        rest = next;
    }
    all
}

/// `Authorization` with name and password.
pub(crate) fn basic(credentials: &Credentials) -> Option<String> {
    match &credentials.secret {
        Secret::Password { user, password } => {
            Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        }
        Secret::Token(_) => None,
    }
}

/// The token in what a token server answered.
pub(crate) fn token(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let token = answer.token.or(answer.access_token)?;
    let plain = !token.is_empty() && token.bytes().all(|c| (0x21..0x7f).contains(&c));
    plain.then_some(token)
}

/// A value as it goes into the query of an address.
pub(crate) fn encoded(text: &str) -> String {
    let one = |c: u8| match c {
        c if c.is_ascii_alphanumeric() || b"-._~".contains(&c) => char::from(c).to_string(),
        c => format!("%{c:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(Challenge::of(&headers), None);
        headers.append(header::WWW_AUTHENTICATE, "Basic realm=\"x\"".parse().unwrap());
        assert_eq!(Challenge::of(&headers), Some(Challenge::Basic));
        let bearer = r#"bearer realm="https://a/token",service=b, scope="repository:c/d:pull,push""#;
        headers.append(header::WWW_AUTHENTICATE, bearer.parse().unwrap());
        let expected = Challenge::Bearer {
            realm: "https://a/token".into(),
            service: Some("b".into()),
            scope: Some("repository:c/d:pull,push".into()),
        };
        assert_eq!(Challenge::of(&headers), Some(expected));
        assert_eq!(parse("Bearer service=\"b\""), None);
        assert_eq!(parse("Negotiate x"), None);
    }

    #[test]
    fn tokens_are_read() {
        assert_eq!(token(br#"{"access_token":"a.b"}"#).as_deref(), Some("a.b"));
        assert_eq!(token(br#"{"token":"a\r\nX: y"}"#), None);
        assert_eq!(token(b"no"), None);
        assert_eq!(encoded("a:b/c d"), "a%3Ab%2Fc%20d");
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_or_passed_over(text in "\\PC*") {
            let _ = parse(&format!("Bearer {text}"));
        }
    }
}

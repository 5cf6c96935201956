//! W3C trace context: what a client says about the trace it is part of is passed on untouched, if it is well formed;
//! else a trace begins here.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::random::{Random, hex};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Makes sure that `headers` name one trace.
pub(crate) fn pass_on(headers: &mut HeaderMap, random: &Random) {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let is_sound = given.next().is_some_and(|v| is_traceparent(v.as_bytes())) && given.next().is_none();
    if is_sound {
        return;
    }
    // The state of a trace that is not known means nothing.
    headers.remove(TRACESTATE);
    let mut begun = Vec::with_capacity(55);
    begin(&mut begun, random);
    if let Ok(value) = HeaderValue::from_bytes(&begun) {
        headers.insert(TRACEPARENT, value);
    }
}

/// Writes what begins a trace.
pub(crate) fn begin(text: &mut Vec<u8>, random: &Random) {
    text.extend_from_slice(b"00-");
    random.write_id(text);
    text.push(b'-');
    text.extend_from_slice(&hex(random.next().max(1)));
    text.extend_from_slice(b"-00");
}

/// The id of the trace that `headers` name.
pub(crate) fn id(headers: &HeaderMap) -> Option<String> {
    traced(headers.get(TRACEPARENT)?.to_str().ok()?)
}

/// The id of the trace in a field that is sound.
pub fn traced(traceparent: &str) -> Option<String> {
    traceparent.get(3..35).map(str::to_owned)
}

/// `VERSION-TRACE-PARENT-FLAGS` in lower-case hex; later versions may say more after that.
pub fn is_traceparent(text: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &[u8]| hex(part) && part.iter().any(|c| *c != b'0');
    if text.len() < 55 || text[2] != b'-' || text[35] != b'-' || text[52] != b'-' {
        return false;
    }
    let version = &text[..2];
    let length_fits = if version == b"00" { text.len() == 55 } else { text.len() == 55 || text[55] == b'-' };
    hex(version)
        && version != b"ff"
        && id(&text[3..35])
        && id(&text[36..52])
        && hex(&text[53..55])
        && length_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_sound_trace_goes_through_untouched() {
        for text in [SOUND, "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later"] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, HeaderValue::from_static(text));
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            pass_on(&mut headers, &Random::new());
            assert_eq!((headers[TRACEPARENT].to_str().unwrap(), headers.len()), (text, 2));
        }
    }

    #[test]
    fn an_unsound_one_is_replaced_and_its_state_forgotten() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, HeaderValue::from_str(text).unwrap());
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            pass_on(&mut headers, &Random::new());
            let now = headers[TRACEPARENT].to_str().unwrap();
            assert!(is_traceparent(now.as_bytes()) && now != text, "{text:?} became {now:?}");
            assert!(!headers.contains_key(TRACESTATE));
        }
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, HeaderValue::from_static(SOUND));
        twice.append(TRACEPARENT, HeaderValue::from_static(SOUND));
        pass_on(&mut twice, &Random::new());
        assert_eq!(twice.get_all(TRACEPARENT).iter().count(), 1);
    }
}

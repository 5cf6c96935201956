#![no_main]

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName, HeaderValue};
use kiln_edge::Trust;
use kiln_edge::forwarded::of_line;
use kiln_edge::origin::{Peer, Scheme};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let trust = Trust(vec!["10.0.0.0/8".parse().unwrap()]);
    let peer = Peer::new("10.0.0.1:80".parse().unwrap(), Scheme::Http, &trust);
    for (name, own) in [(FORWARDED_FOR, "192.0.2.9"), (FORWARDED, "for=192.0.2.9;proto=https")] {
        let one = [bytes, b", ", own.as_bytes()].concat();
        let (Ok(lie), Ok(one)) = (HeaderValue::from_bytes(bytes), HeaderValue::from_bytes(&one)) else {
            return;
        };
        // Whatever a client has written, a trusted proxy that appends who asked is believed: in a line of its own or not.
        for lines in [vec![lie, HeaderValue::from_static(own)], vec![one]] {
            let headers: HeaderMap = lines.into_iter().map(|line| (name.clone(), line)).collect();
            assert_eq!(peer.origin(&headers, &trust).ip.to_string(), "192.0.2.9");
        }
    }
    for element in of_line(bytes) {
        let _ = element.address();
    }
});

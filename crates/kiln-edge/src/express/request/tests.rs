use super::*;
use crate::spoilt::Numbers;

/// What is made of `bytes`: `Partial`, `Foreign`, or the head as it is passed on, and the lengths.
fn read(bytes: &[u8], word: Word) -> Result<(String, (usize, usize)), &'static str> {
    let mut room = [MaybeUninit::uninit(); FIELDS];
    match parse(bytes, &mut room, word) {
        Parsed::Partial => Err("partial"),
        Parsed::Foreign => Err("foreign"),
        Parsed::Whole(request) => {
            let mut head = Vec::new();
            let places = request.write(&mut head);
            assert_eq!(&head[places.host], request.host.as_bytes());
            assert_eq!(&head[places.target], request.target.as_bytes());
            assert!(request.target.as_bytes().starts_with(&head[places.path]));
            Ok((String::from_utf8_lossy(&head).into_owned(), request.length))
        }
    }
}

const PLAIN: &str = "POST /a/b?c=%20d HTTP/1.1\r\nUser-Agent: x\r\nHost: a.com:80\r\nConnection: Keep-Alive\r\n\
                     X-Forwarded-For: 6.6.6.6\r\nContent-Length: 4\r\nCookie: a=b\r\n\r\nbody";

#[test]
fn what_is_passed_on_is_what_came_less_what_is_about_the_connection() {
    let (head, length) = read(PLAIN.as_bytes(), Word::Nothing).unwrap();
    assert_eq!(
        head,
        "POST /a/b?c=%20d HTTP/1.1\r\nhost: a.com:80\r\nUser-Agent: x\r\nContent-Length: 4\r\nCookie: a=b\r\n"
    );
    assert_eq!(length, (PLAIN.len() - 4, 4));
    // Whoever is believed says something that is looked at elsewhere.
    assert_eq!(read(PLAIN.as_bytes(), Word::Taken), Err("foreign"));
}

#[test]
fn every_beginning_of_a_head_is_partial() {
    let end = PLAIN.len() - 4;
    assert!((0..end).all(|n| read(&PLAIN.as_bytes()[..n], Word::Nothing) == Err("partial")));
    // A body that has not come with its head is for those who can wait for it.
    assert!((end..PLAIN.len()).all(|n| read(&PLAIN.as_bytes()[..n], Word::Nothing) == Err("foreign")));
}

#[test]
fn whatever_is_out_of_the_ordinary_is_foreign() {
    for head in [
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\"x\" HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: not fit\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\ntracestate: a=b\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        assert_eq!(read(head.as_bytes(), Word::Nothing), Err("foreign"), "{head:?}");
    }
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(FIELDS));
    assert_eq!(read(many.as_bytes(), Word::Nothing), Err("foreign"));
}

/// Whatever the bytes: what is taken says one length, names one host, has no line that ends otherwise, and is
/// understood in the same way when it is read again.
#[test]
fn what_is_taken_of_mutated_heads_means_one_thing() {
    let odd = b"\r\n\t :;,#*\"\0chunkedTransfer-Encoding";
    let (mut numbers, mut taken) = (Numbers::from(5), 0);
    for _ in 0..100_000 {
        let bytes = numbers.spoil(PLAIN.as_bytes(), 2, |numbers| odd[numbers.below(odd.len())]);
        let Ok((head, (end, body))) = read(&bytes, Word::Nothing) else { continue };
        taken += 1;
        assert!(end + body <= bytes.len());
        let lower = head.to_ascii_lowercase();
        assert_eq!(head.matches('\n').count(), head.matches("\r\n").count(), "{head:?}");
        assert_eq!(lower.matches("\r\nhost: ").count(), 1, "{head:?}");
        assert!(lower.matches("\r\ncontent-length:").count() <= 1, "{head:?}");
        assert!(!lower.contains("\r\ntransfer-encoding:"), "{head:?}");
        let again = format!("{head}\r\n{}", "b".repeat(body));
        let (same, _) = read(again.as_bytes(), Word::Nothing).unwrap();
        assert_eq!(head, same);
    }
    assert!(taken > 1000, "{taken}");
}

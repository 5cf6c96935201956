use super::*;
use crate::spoilt::Numbers;

/// The head as it is passed on and how its body ends, or what it is instead.
fn read(bytes: &[u8], method: &str) -> Result<(String, Framing, bool), &'static str> {
    let mut room = [MaybeUninit::uninit(); FIELDS];
    match parse(bytes, &mut room, method, 100) {
        Parsed::Partial => Err("partial"),
        Parsed::Garbage => Err("garbage"),
        Parsed::Interim(_) => Err("interim"),
        Parsed::Whole(answer) => {
            let mut head = Vec::new();
            answer.write(&mut head);
            Ok((String::from_utf8_lossy(&head).into_owned(), answer.framing, answer.keeps))
        }
    }
}

fn said(fields: &str) -> String {
    format!("HTTP/1.1 200 All Right\r\nDate: now\r\n{fields}\r\n")
}

#[test]
fn what_is_about_the_instances_connection_is_left_out() {
    let head = said(
        "Connection: X-Secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nX-Kept: 1\r\nContent-Length: 2\r\nContent-Length: 2\r\n",
    );
    let kept = "HTTP/1.1 200 All Right\r\nDate: now\r\nX-Kept: 1\r\nContent-Length: 2\r\n";
    assert_eq!(read(head.as_bytes(), "GET"), Ok((kept.into(), Framing::Length(2), true)));
    assert!((0..head.len()).all(|n| read(&head.as_bytes()[..n], "GET") == Err("partial")));
}

#[test]
fn the_end_of_a_body_is_known_in_one_way() {
    let chunked = "HTTP/1.1 200 All Right\r\nDate: now\r\ntransfer-encoding: chunked\r\n";
    let framing = |fields: &str, method: &str| read(said(fields).as_bytes(), method).map(|(_, f, k)| (f, k));
    assert_eq!(framing("", "GET"), Ok((Framing::Close, false)));
    assert_eq!(framing("Content-Length: 0\r\n", "GET"), Ok((Framing::Nothing, true)));
    assert_eq!(framing("Content-Length: 7\r\n", "HEAD"), Ok((Framing::Nothing, true)));
    assert_eq!(framing("Content-Length: 7\r\nConnection: Close\r\n", "GET"), Ok((Framing::Length(7), false)));
    // Whoever says both means the chunks, and what is passed on says one.
    let both = said("Content-Length: 7\r\nTransfer-Encoding: Chunked\r\n");
    assert_eq!(read(both.as_bytes(), "GET"), Ok((chunked.into(), Framing::Chunks, true)));
    for wrong in [
        "Content-Length: 7\r\nContent-Length: 8\r\n",
        "Content-Length: x\r\n",
        "Content-Length: -1\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Bad Name: x\r\n",
    ] {
        assert_eq!(framing(wrong, "GET"), Err("garbage"), "{wrong}");
    }
}

#[test]
fn what_is_no_answer_is_garbage() {
    for head in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 2 OK\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        &said(&"X: y\r\n".repeat(101)),
    ] {
        assert_eq!(read(head.as_bytes(), "GET"), Err("garbage"), "{head:?}");
    }
    assert_eq!(read(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "GET"), Err("interim"));
}

#[test]
fn what_is_passed_on_of_mutated_heads_says_one_length() {
    let seed = said("Connection: a\r\nContent-Length: 12\r\nX: y\r\nTransfer-Encoding: chunked\r\n");
    let odd = b"\r\n\t :;,#*\"\0chunked1234Transfer-Encoding";
    let (mut numbers, mut taken) = (Numbers::from(11), 0);
    for _ in 0..100_000 {
        let bytes = numbers.spoil(seed.as_bytes(), 2, |numbers| odd[numbers.below(odd.len())]);
        let Ok((head, framing, _)) = read(&bytes, "GET") else { continue };
        taken += 1;
        let lower = head.to_ascii_lowercase();
        let says = |name: &str| lower.matches(name).count();
        let lengths = (says("\r\ncontent-length:"), says("\r\ntransfer-encoding:"));
        let expected = match framing {
            Framing::Chunks | Framing::Close => (0, 1),
            Framing::Length(_) => (1, 0),
            Framing::Nothing => (lengths.0.min(1), 0),
        };
        assert_eq!(lengths, expected, "{head:?}");
    }
    assert!(taken > 1000, "{taken}");
}

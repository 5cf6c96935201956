//! A mirror is not trusted: what it changes, withholds or mixes up shows.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use common::{order, try_lock};
use kiln_bake::Sources;
use kiln_model::Failure;
use kiln_store::Store;

/// The root of the host's own archive.
fn archive() -> String {
    let output =
        Command::new("apt-get").args(["indextargets", "--format", "$(SITE)", "Codename: bookworm"]).output();
    let text =
        String::from_utf8(output.expect("this test asks apt-get for the host's mirror").stdout).unwrap();
    text.lines().next().expect("the host's apt has a source of bookworm").trim_end_matches('/').to_owned()
}

/// What the host's mirror has at `path`.
fn fetched(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let response = ureq::get(format!("{}{path}", archive())).call().expect("the host's mirror");
    response.into_body().into_reader().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Locks against a mirror that answers one path, and nothing else.
fn refused_by(path: &'static str, answer: Vec<u8>) -> Failure {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mirror = format!("http://{}/debian", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            let found = request.split(' ').nth(1) == Some(&format!("/debian{path}"));
            let (status, body) =
                if found { ("200 OK", answer.as_slice()) } else { ("404 Not Found", &b""[..]) };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
        }
    });
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = order(project.path(), &["nginx-light"]);
    order.sources = Sources { mirror: Some(mirror), check_valid_until: None };
    try_lock(&order, &store).unwrap_err()
}

fn said(failure: &Failure) -> String {
    format!("{}: {}", failure.message, failure.causes.join(": "))
}

const INDEX: &str = "/dists/bookworm/InRelease";

#[test]
fn one_changed_letter_is_noticed() {
    let changed = String::from_utf8(fetched(INDEX)).unwrap().replacen("Origin: Debian", "Origin: Debiam", 1);
    let said = said(&refused_by(INDEX, changed.into_bytes()));
    assert!(said.contains("signature") && said.contains("is not valid"), "{said}");
    let unsigned = refused_by(INDEX, b"Origin: Debian\nCodename: bookworm\n".to_vec());
    assert!(format!("{unsigned:?}").contains("not a clear-signed text"), "{unsigned:?}");
}

#[test]
fn a_signed_index_is_good_for_its_own_suite_only() {
    let other = fetched("/dists/bookworm-updates/InRelease");
    let said = said(&refused_by(INDEX, other));
    assert!(said.contains("not of `bookworm`"), "{said}");
}

#[test]
fn a_true_index_is_accepted_and_what_it_lists_is_missed() {
    let said = said(&refused_by(INDEX, fetched(INDEX)));
    assert!(said.contains("could not fetch the index of `bookworm`") && said.contains("by-hash"), "{said}");
}

//! Bodies and tunnels: passed on as they come, never held back.

use std::thread;

use kiln_edge::Limits;

use crate::harness::Edge;
use crate::instance::{Instance, ok};

#[test]
fn an_answer_in_chunks_comes_chunk_by_chunk() {
    // Each chunk is sent only after the client has said that it saw the one before.
    let (seen, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let instance = Instance::new(move |_, connection| {
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..5 {
            connection.send("5\r\nhello\r\n");
            wait.lock().unwrap().recv().unwrap();
        }
        connection.send("0\r\n\r\n");
        true
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_head().unwrap().header("transfer-encoding"), Some("chunked"));
    for _ in 0..5 {
        assert_eq!(client.chunk().unwrap().unwrap(), b"hello");
        assert_eq!(edge.count().in_flight, 1);
        seen.send(()).unwrap();
    }
    assert_eq!(client.chunk(), Some(None));
    assert_eq!(edge.drained().served, 1);
}

#[test]
fn an_upload_in_chunks_goes_chunk_by_chunk() {
    let instance = Instance::raw(|connection| {
        connection.read_head().unwrap();
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while let Some(Some(chunk)) = connection.chunk() {
            connection.send(format!("{:x}\r\n", chunk.len())).send(chunk).send("\r\n");
        }
        connection.send("0\r\n\r\n");
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.read_head().unwrap();
    for word in ["one", "twelve"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len()));
        assert_eq!(client.chunk().unwrap().unwrap(), word.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk(), Some(None));
}

#[test]
fn a_get_with_a_body_keeps_it() {
    let instance = Instance::new(|request, connection| {
        connection.send(ok(request.text()));
        true
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    let head = "GET / HTTP/1.1\r\nHost: a\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    assert_eq!(client.send(chunked).read().text(), "hi");
    assert_eq!(client.send(format!("{head}Content-Length: 2\r\n\r\nho")).read().text(), "ho");
    assert_eq!(client.get("/").text(), "");
}

#[test]
fn large_bodies_pass_whole_in_both_directions_at_once() {
    const SIZE: usize = 48 << 20;
    let instance = Instance::raw(|connection| {
        connection.read_head().unwrap();
        let mut back = connection.reader.get_ref().try_clone().unwrap();
        use std::io::{Read, Write};
        write!(back, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").unwrap();
        std::io::copy(&mut (&mut connection.reader).take(SIZE as u64), &mut back).unwrap();
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"));
    let mut upload = crate::wire::Client::new(client.reader.get_ref().try_clone().unwrap());
    let block: Vec<u8> = (0..=255u8).cycle().take(1 << 20).collect();
    let sent = block.clone();
    let sender = thread::spawn(move || {
        for _ in 0..SIZE >> 20 {
            upload.send(&sent);
        }
    });
    let answer = client.read();
    sender.join().unwrap();
    assert_eq!(answer.body.len(), SIZE);
    assert!(answer.body.chunks(1 << 20).all(|chunk| chunk == block));
}

#[test]
fn an_instance_is_not_read_faster_than_its_client_reads() {
    let (sent, progress) = std::sync::mpsc::channel::<usize>();
    let instance = Instance::raw(move |connection| {
        connection.read_head().unwrap();
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let stream = connection.reader.get_mut();
        stream.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let block = vec![b'x'; 1 << 16];
        let mut total = 0;
        // Until the edge takes no more: its buffers and the kernel's are full.
        while std::io::Write::write_all(stream, b"10000\r\n").is_ok()
            && std::io::Write::write_all(stream, &block).is_ok()
            && std::io::Write::write_all(stream, b"\r\n").is_ok()
        {
            total += block.len();
            assert!(total < 1 << 30, "the edge swallows everything");
        }
        sent.send(total).unwrap();
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head().unwrap();
    let total = progress.recv().unwrap();
    assert!(total < 64 << 20, "{total} bytes were taken for a client that reads nothing");
}

#[test]
fn who_expects_to_be_told_to_go_on_is_told() {
    let instance = Instance::new(|request, connection| {
        connection.send(ok(request.text()));
        true
    });
    let edge = Edge::serving(&[&instance]);
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_head().unwrap().status(), 100);
    assert_eq!(client.send("body").read().text(), "body");
}

/// An instance that goes over to a protocol of lines, each sent back.
fn echo() -> Instance {
    Instance::raw(|connection| {
        let head = connection.read_head().unwrap();
        assert_eq!(head.header("upgrade"), Some("echo"));
        assert_eq!(head.header("connection"), Some("upgrade"));
        connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello\r\n",
        );
        while let Some(line) = connection.line() {
            connection.send(format!("{line}!\r\n"));
        }
    })
}

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";

#[test]
fn an_upgraded_connection_is_a_tunnel_and_in_flight_until_it_ends() {
    // Shorter than the tunnel lives: it is no idle keep-alive connection.
    let limits = Limits { keep_alive: std::time::Duration::from_millis(40), ..Limits::default() };
    let edge = Edge::with(limits, 2);
    edge.serve(&[&echo()]);
    let mut client = edge.connect();
    let head = client.send(UPGRADE).read_head().unwrap();
    assert_eq!((head.status(), head.header("upgrade")), (101, Some("echo")));
    assert_eq!(client.line().unwrap(), "hello");
    let resting = edge.connect();
    for word in ["a", "b", "c"] {
        assert_eq!(client.send(format!("{word}\r\n")).line().unwrap(), format!("{word}!"));
        assert_eq!(edge.count().in_flight, 1);
    }
    // By when this one has been closed for resting, the tunnel would have been, too.
    assert!({ resting }.is_at_end());
    assert_eq!(client.send("d\r\n").line().unwrap(), "d!");
    client.half_close();
    assert!(client.is_at_end());
    let count = edge.drained();
    assert_eq!((count.served, count.failed), (1, 0));
}

#[test]
fn an_upgrade_nobody_asked_for_is_refused() {
    let instance = Instance::raw(|connection| {
        connection.read_head().unwrap();
        connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    });
    let edge = Edge::serving(&[&instance]);
    assert_eq!(edge.connect().get("/").status(), 502);
}

#[test]
fn an_upgrade_the_instance_declines_is_an_ordinary_answer() {
    let edge = Edge::serving(&[&Instance::saying("no")]);
    let mut client = edge.connect();
    assert_eq!(client.send(UPGRADE).read().text(), "no");
    assert_eq!(client.get("/").text(), "no");
}

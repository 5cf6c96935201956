//! Instances: small servers that do what a test tells them, well or badly.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::wire::{Client, Message};

/// A server on a port of its own. Its connections are counted, and the requests it was sent are kept.
pub struct Instance {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
    connections: Arc<AtomicUsize>,
}

impl Instance {
    /// Each connection is given to `serve`.
    pub fn raw(serve: impl Fn(&mut Client) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let (serve, counted) = (Arc::new(serve), connections.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                thread::spawn(move || serve(&mut Client::new(stream.unwrap())));
            }
        });
        Self { address, seen: Arc::default(), connections }
    }

    /// One whose answer never ends.
    pub fn endless() -> Self {
        Self::raw(|connection| {
            connection.read_head();
            connection.send("HTTP/1.1 200 OK\r\n\r\n");
            let block = vec![0; 1 << 16];
            while std::io::Write::write_all(connection.reader.get_mut(), &block).is_ok() {}
        })
    }

    /// Each request, read whole, is given to `answer`, which may write to the connection; false ends it.
    pub fn new(answer: impl Fn(&Message, &mut Client) -> bool + Send + Sync + 'static) -> Self {
        let seen = Arc::<Mutex<Vec<Message>>>::default();
        let noted = seen.clone();
        let instance = Self::raw(move |connection| {
            while let Some(request) = connection.try_read() {
                noted.lock().unwrap().push(request.clone());
                if !answer(&request, connection) {
                    break;
                }
            }
        });
        Self { seen, ..instance }
    }

    /// Answers everything with these words.
    pub fn saying(words: &'static str) -> Self {
        Self::new(move |_, connection| {
            connection.send(ok(words));
            true
        })
    }

    /// A port at which nobody listens.
    pub fn refusing() -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
    }

    /// Whatever is there.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, seen: Arc::default(), connections: Arc::default() }
    }

    pub fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub fn ok(words: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{words}", words.len())
}

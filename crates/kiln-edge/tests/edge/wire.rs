//! HTTP as bytes, without a library that would smooth over what is to be tested.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Nothing in these tests takes that long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message's head, and its body if it was read.
#[derive(Debug, Default, Clone)]
pub struct Message {
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One end of a connection.
pub struct Client {
    pub reader: BufReader<TcpStream>,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
        self
    }

    pub fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n")).read()
    }

    /// The whole response to anything but HEAD.
    pub fn read(&mut self) -> Message {
        self.try_read().expect("a whole response")
    }

    pub fn try_read(&mut self) -> Option<Message> {
        let mut message = self.read_head()?;
        message.body = self.read_body(&message)?;
        Some(message)
    }

    pub fn read_head(&mut self) -> Option<Message> {
        let start = self.line()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(Message { start, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// None if the body ends before it should.
    pub fn read_body(&mut self, head: &Message) -> Option<Vec<u8>> {
        if head.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks();
        }
        let is_request = !head.start.starts_with("HTTP/");
        let length = match head.header("content-length") {
            Some(length) => length.parse().ok()?,
            None if is_request || matches!(head.status(), 101 | 204 | 304) => 0,
            None => {
                let mut rest = Vec::new();
                self.reader.read_to_end(&mut rest).ok()?;
                return Some(rest);
            }
        };
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).ok()?;
        Some(body)
    }

    fn read_chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk()? {
            body.extend(chunk);
        }
        Some(body)
    }

    /// The next chunk; the inner None is the last one.
    pub fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let size = usize::from_str_radix(self.line()?.split(';').next()?, 16).ok()?;
        let mut chunk = vec![0; size];
        self.reader.read_exact(&mut chunk).ok()?;
        self.line()?;
        Some((size > 0).then_some(chunk))
    }

    /// One line without its end; None at the end of the stream.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(n) if n > 0 => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
            _ => None,
        }
    }

    pub fn is_at_end(&mut self) -> bool {
        matches!(self.reader.fill_buf(), Ok([]) | Err(_))
    }

    /// Reads on until the end, whatever comes.
    pub fn hear_out(&mut self) {
        while !self.is_at_end() {
            let heard = self.reader.buffer().len();
            self.reader.consume(heard);
        }
    }

    /// Whether nothing comes, nor the end, for `time`.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.reader.get_ref().set_read_timeout(Some(time)).unwrap();
        let silent = self.reader.fill_buf().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        self.reader.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    pub fn half_close(&self) {
        self.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Closes so that the peer sees a reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(self.reader.get_ref(), Some(Duration::ZERO)).unwrap();
    }
}

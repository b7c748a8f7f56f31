//! A server for tests: HTTP/1.1 on loopback, one answer for each request.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

/// A request as it came.
pub(crate) struct Asked {
    /// The request line and the headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> String {
        let begins = format!("{name}: ");
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&begins));
        line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }

    pub(crate) fn bearer(&self) -> String {
        self.header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A field of a form, decoded.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let text = String::from_utf8(self.body.clone()).unwrap();
        let value = text
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)?
            .1
            .to_owned();
        let mut out = Vec::new();
        let mut bytes = value.bytes();
        while let Some(byte) = bytes.next() {
            if byte == b'%' {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                out.push(if byte == b'+' { b' ' } else { byte });
            }
        }
        Some(String::from_utf8(out).unwrap())
    }
}

/// What is answered.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, kind: "application/json", body: body.to_string() }
    }
}

/// Answers as an MCP server with one tool, which takes any arguments and says what `call` does.
pub(crate) fn mcp(asked: &Asked, call: impl FnOnce(&Value) -> String) -> Reply {
    let message = asked.json();
    let result =
        |result: Value| Reply::json(200, &json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }));
    match message["method"].as_str() {
        Some("initialize") => result(json!({
            "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
            "serverInfo": { "name": "api", "version": "1" },
        })),
        Some("tools/list") => {
            let schema = json!({ "type": "object", "properties": { "repo": { "type": "string" } } });
            result(json!({ "tools": [{ "name": "read", "description": "reads", "inputSchema": schema }] }))
        }
        Some("tools/call") => {
            let text = call(&message["params"]["arguments"]);
            result(json!({ "content": [{ "type": "text", "text": text }] }))
        }
        Some(_) if message["id"].is_null() => Reply { status: 202, kind: "text/plain", body: String::new() },
        _ => Reply { status: 405, kind: "text/plain", body: String::new() },
    }
}

/// Serves on a port of its own, until the test has ended.
pub(crate) fn serve(answer: impl Fn(&Asked) -> Reply + Clone + Send + 'static) -> u16 {
    serve_with(move |asked, mut out| {
        let Reply { status, kind, body } = answer(asked);
        let head =
            format!("HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        out.write_all(format!("{head}{body}").as_bytes()).ok()
    })
}

/// The same, where whatever is answered is written by hand. The connection ends after `None`.
pub(crate) fn serve_with(answer: impl Fn(&Asked, &TcpStream) -> Option<()> + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || while one(&stream, &answer).is_some() {});
        }
    });
    port
}

fn one(stream: &TcpStream, answer: &impl Fn(&Asked, &TcpStream) -> Option<()>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut asked = Asked { head, body: Vec::new() };
    asked.body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut asked.body).ok()?;
    answer(&asked, stream)
}

//! An OpenTelemetry collector on this machine, as far as spans go: OTLP/HTTP with protocol buffers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A span that came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Span {
    pub trace: Vec<u8>,
    pub id: Vec<u8>,
    /// Empty where it has none.
    pub parent: Vec<u8>,
    pub name: String,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Export {
    pub path: String,
    pub content_type: String,
    pub service: String,
    pub spans: Vec<Span>,
    pub bytes: Vec<u8>,
}

/// The collector.
pub struct Collector {
    pub port: u16,
    exports: Arc<Mutex<Vec<Export>>>,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let exports = Arc::<Mutex<Vec<Export>>>::default();
        let kept = Arc::clone(&exports);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || answer(stream, &kept));
            }
        });
        Self { port, exports }
    }

    pub fn exports(&self) -> Vec<Export> {
        self.exports.lock().unwrap().clone()
    }
}

/// Takes requests of one connection until it is closed.
fn answer(mut stream: TcpStream, kept: &Mutex<Vec<Export>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let path = line.split(' ').nth(1).unwrap().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let mut bytes = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut bytes).unwrap();
        let (service, spans) = read(&bytes);
        let content_type = headers["content-type"].clone();
        kept.lock().unwrap().push(Export { path, content_type, service, spans, bytes });
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
    }
}

/// A field of a message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self {
            Field::Bytes(bytes) => bytes,
            Field::Number(number) => panic!("{number} where bytes were expected"),
        }
    }

    fn number(&self) -> u64 {
        match self {
            Field::Number(number) => *number,
            Field::Bytes(bytes) => panic!("{bytes:?} where a number was expected"),
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("a number ends");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a number of more than 64 bits");
}

fn cut<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (value, rest) = bytes.split_at(len);
    *bytes = rest;
    value
}

/// The fields of a message by their numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(cut(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let len = varint(&mut bytes) as usize;
                Field::Bytes(cut(&mut bytes, len))
            }
            5 => Field::Number(u32::from_le_bytes(cut(&mut bytes, 4).try_into().unwrap()).into()),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

fn all(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).into_iter().filter(move |(at, _)| *at == number).map(|(_, field)| field.bytes())
}

/// `KeyValue`, with its value as text.
fn attribute(message: &[u8]) -> (String, String) {
    let key = all(message, 1).next().map(|key| String::from_utf8(key.to_vec()).unwrap()).unwrap();
    let value = all(message, 2).next().unwrap_or_default();
    let value = fields(value).into_iter().next().map(|(kind, value)| match kind {
        1 => value.text(),
        _ => match value {
            Field::Number(number) => number.to_string(),
            Field::Bytes(bytes) => format!("{bytes:?}"),
        },
    });
    (key, value.unwrap_or_default())
}

/// `ExportTraceServiceRequest`.
fn read(message: &[u8]) -> (String, Vec<Span>) {
    let (mut service, mut spans) = (String::new(), Vec::new());
    for resource_spans in all(message, 1) {
        for resource in all(resource_spans, 1) {
            let attributes: BTreeMap<String, String> = all(resource, 1).map(attribute).collect();
            service = attributes.get("service.name").cloned().unwrap_or_default();
        }
        for scope_spans in all(resource_spans, 2) {
            spans.extend(all(scope_spans, 2).map(span));
        }
    }
    (service, spans)
}

fn span(message: &[u8]) -> Span {
    let mut span = Span::default();
    for (number, field) in fields(message) {
        match number {
            1 => span.trace = field.bytes().to_vec(),
            2 => span.id = field.bytes().to_vec(),
            4 => span.parent = field.bytes().to_vec(),
            5 => span.name = field.text(),
            7 => span.start = field.number(),
            8 => span.end = field.number(),
            9 => span.attributes.extend([attribute(field.bytes())]),
            _ => {}
        }
    }
    span
}

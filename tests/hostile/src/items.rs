//! Lines of `--items`.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use omniburn::Cancel;
use omniburn_cli::inputs::{Entry, Feed, Sources, Tracks, item};

/// A folder that is not there: hostile paths lead nowhere.
const NOWHERE: &str = "no-such-folder";

/// Every line as an item; one input in sixteen also through the thread that reads a stream.
pub fn body(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        check(&item(line, Path::new(NOWHERE), "line", &Tracks::default()));
    }
    if data.len().is_multiple_of(16) {
        let stream = Box::new(Cursor::new(data.to_vec()));
        let items = Some((stream as Box<dyn std::io::Read + Send>, "items".to_owned(), PathBuf::from(NOWHERE)));
        let sources = Sources { typed: Vec::new(), items, lines: None, live: false, tracks: Tracks::default() };
        let mut feed = Feed::start(sources).expect("a thread can be started");
        let cancel = Cancel::new();
        while let Some(entry) = feed.next(&cancel).expect("memory can be read") {
            check(&entry);
        }
    }
}

/// An id is one JSON value and no structure; a fault is a sentence.
fn check(entry: &Entry) {
    if let Some(id) = &entry.id {
        let id = id.get();
        assert!(!id.starts_with(['{', '[']), "an id is no structure: {id}");
        // A number may be longer than any type holds; it comes back as it was.
        let text = serde_json::from_str::<String>(id);
        assert!(!id.starts_with('"') || text.is_ok(), "an id is text: {id}");
    }
    if let Err(fault) = &entry.input {
        assert!(!fault.message.is_empty(), "a fault says what it is");
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        "{\"text\":\"a red bicycle\"}",
        "{\"id\": 1.50, \"image\": \"a.png\"}\n{\"audio\":\"a.wav\",\"id\":\"x\\u0041\"}",
        "{\"video\":\"a.mp4\",\"id\":null}\r\n\r\n{\"video\":[\"0.png\",\"1.png\"],\"id\":true}",
        "{\"text\":\"\",\"id\":123456789012345678901234567890}",
        "{\"text\":\"\\ud83d\\ude00 \u{e9}\u{1f600}\"}\n{\"id\":7}",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

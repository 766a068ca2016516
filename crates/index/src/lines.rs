//! What an export is made of: one line for the index, one for each content, one for each file, whatever they are written as.

use serde::{Deserialize, Serialize};

use crate::crawl::Rules;
use crate::error::IndexError;

/// Of what stands in the lines below.
pub(crate) const FORMAT: u32 = 1;

/// Where an export goes.
pub(crate) trait Sink {
    /// Writes a line.
    fn put(&mut self, line: Line) -> Result<(), IndexError>;

    /// Writes what is still held, and the end.
    fn finish(&mut self) -> Result<(), IndexError>;
}

/// What an import comes from.
pub(crate) trait Source {
    /// The next line.
    fn next(&mut self) -> Result<Option<Line>, IndexError>;

    /// An error at the line that was read last.
    fn wrong(&self, what: String) -> IndexError;
}

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Index(IndexLine),
    Content(ContentLine),
    File(FileLine),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IndexLine {
    pub format: u32,
    pub identity: String,
    pub model: String,
    pub dim: usize,
    pub roots: Vec<RootLine>,
    /// When the last update was complete, in nanoseconds since 1970.
    pub updated_ns: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootLine {
    pub path: PathText,
    pub rules: Rules,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContentLine {
    /// Of its bytes, in hexadecimal digits.
    pub digest: String,
    pub kind: String,
    pub title: Option<String>,
    pub taken_ns: Option<i64>,
    /// Where a photograph was taken: latitude and longitude in degrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinates: Option<(f64, f64)>,
    pub chunks: Vec<ChunkLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChunkLine {
    /// Which kind of place, and its two numbers, as the database keeps them.
    pub place: (i64, f64, f64),
    pub text: String,
    pub modality: Option<String>,
    pub vector: Option<Vec<f32>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileLine {
    pub path: PathText,
    pub size: i64,
    pub mtime_ns: i64,
    pub seen_ns: i64,
    /// The content that it has.
    pub digest: Option<String>,
    pub fault: Option<FaultLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultLine {
    pub kind: String,
    pub message: String,
}

/// A path, as text where it is some.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum PathText {
    Text(String),
    Bytes {
        /// In hexadecimal digits.
        bytes: String,
    },
}

impl PathText {
    pub fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => PathText::Text(text),
            Err(error) => PathText::Bytes { bytes: hex(error.as_bytes()) },
        }
    }

    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            PathText::Text(text) => Some(text.into_bytes()),
            PathText::Bytes { bytes } => of_hex(&bytes),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

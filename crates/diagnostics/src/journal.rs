//! What calls note of themselves, so that they can be done again: one entry for the call, one a unit, one an item.
//!
//! An entry holds digests and settings, no content and no path; but whoever guesses an input can tell by its digest that the
//! guess is right. Where entries go is the caller's business; doing a call again is `replay`'s.

use std::fmt;
use std::num::NonZeroU32;

use omniburn::kernels::Isa;
use omniburn::probe::{Answered, CallBegun, CallEvent, ItemDone, Sha256Digest, UnitRan};
use omniburn::{
    Dtype, Embedded, Embedding, ErrorKind, InputDigest, ItemError, Modality, Priority, Request, Role, Truncation,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The number of the layout of entries; it changes when an entry means something else than before.
pub const JOURNAL_FORMAT: u32 = 1;

/// What this is built for, as the compiler names it; kernels and their bits differ between architectures.
const ARCHITECTURE: &str = match () {
    () if cfg!(target_arch = "x86_64") => "x86_64",
    () if cfg!(target_arch = "aarch64") => "aarch64",
    () => "another architecture",
};
const SYSTEM: &str = match () {
    () if cfg!(target_os = "linux") => "linux",
    () if cfg!(target_os = "macos") => "macos",
    () if cfg!(target_os = "windows") => "windows",
    () => "another system",
};

/// One line of a journal; as JSON it is an object whose `event` is `open`, `unit` or `item`.
///
/// A call writes [`JournalOpen`] first, then, window by window, each [`JournalUnit`] as it has run and each
/// [`JournalItem`] in input order. Calls that share a journal and run side by side mix their entries; `call` tells them
/// apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JournalEntry {
    /// A call has begun.
    Open(JournalOpen),
    /// A unit has run.
    Unit(JournalUnit),
    /// An item has its result.
    Item(JournalItem),
}

/// What a call is computed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalOpen {
    /// [`JOURNAL_FORMAT`].
    pub format: u32,
    /// Which of the engine's calls with a journal it is, from 0.
    pub call: u64,
    /// Version of this library.
    pub version: String,
    /// The embedding identity: record and task.
    pub identity: String,
    /// Where it computes.
    pub device: String,
    /// The type it computes products in.
    pub dtype: Dtype,
    /// Threads the CPU backend computes with; none where it is one a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The processor's instructions it computes with; none on a device that is no CPU, and in journals from before they
    /// were noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<Isa>,
    /// Processor family and operating system.
    pub platform: String,
}

/// One unit of work: the plan as it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalUnit {
    /// The call it belongs to.
    pub call: u64,
    /// Its class of priority.
    #[serde(with = "Class")]
    pub class: Priority,
    /// What it computes: `text`, `patches`, `mel`, `backbone` (of a medium), `images` or `speech`.
    pub stage: String,
    /// The items computed together, in their order; an item longer than a unit stands in several.
    pub items: Vec<InputDigest>,
    /// Tokens, patches or frames it begins with: those of all items, but for `images` and `speech`, which are computed
    /// one image or window after the other.
    pub rows: u64,
    /// Why it gave nothing; its items were then tried alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorKind>,
}

/// One item: what went in, how it was asked for, what came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalItem {
    /// The call it belongs to.
    pub call: u64,
    /// Its place among the inputs of the call.
    pub index: u64,
    /// What [`Input::digest`](omniburn::Input::digest) gives; none for a file that could not be read.
    pub digest: Option<InputDigest>,
    /// What kind of input it is.
    pub modality: Modality,
    /// Its role.
    pub role: Role,
    /// The task it was embedded for.
    pub task: String,
    /// The dimension asked for; none for the full width.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// What was to happen to a text that is too long.
    #[serde(with = "Cut")]
    pub truncation: Truncation,
    /// Frames asked for; none for the record's own number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<NonZeroU32>,
    /// Rows that entered the backbone; none where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Who computed it.
    pub answered: Answered,
    /// What came of it.
    pub result: ItemOutcome,
}

/// What came of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemOutcome {
    /// A vector.
    Vector(VectorDigest),
    /// The vector of the whole, and one for each of several segments.
    Segments(Vec<VectorDigest>),
    /// An error.
    Error(ErrorKind),
}

/// SHA-256 of a vector's values as little-endian f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VectorDigest(Sha256Digest);

impl VectorDigest {
    /// The digest of a vector.
    pub fn of(vector: &Embedding) -> Self {
        let mut digest = Sha256::new();
        vector.as_slice().iter().for_each(|value| digest.update(value.to_le_bytes()));
        Self(Sha256Digest(digest.finalize().into()))
    }
}

impl fmt::Display for VectorDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl ItemOutcome {
    fn of(result: &Result<Embedded, ItemError>) -> Self {
        match result {
            Err(e) => ItemOutcome::Error(e.kind()),
            Ok(found) if found.segments.len() > 1 => {
                let all = std::iter::once(&found.embedding).chain(found.segments.iter().map(|s| &s.embedding));
                ItemOutcome::Segments(all.map(VectorDigest::of).collect())
            }
            Ok(found) => ItemOutcome::Vector(VectorDigest::of(&found.embedding)),
        }
    }
}

impl fmt::Display for ItemOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ItemOutcome::Vector(digest) => write!(f, "vector {digest}"),
            ItemOutcome::Segments(all) => {
                f.write_str("vectors")?;
                all.iter().try_for_each(|digest| write!(f, " {digest}"))
            }
            ItemOutcome::Error(kind) => write!(f, "error {kind}"),
        }
    }
}

/// [`Priority`] by its name.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Priority", rename_all = "snake_case")]
enum Class {
    Interactive,
    Background,
}

/// [`Truncation`] by its name.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Truncation", rename_all = "snake_case")]
enum Cut {
    Error,
    Right,
    Left,
}

/// The same request, whose calls are noted: `write` is called on the thread of the caller, and waited for. Every input is read
/// once more for its digest. It takes the place of [`Request::on_event`].
#[must_use]
pub fn journal(request: Request, write: impl Fn(&JournalEntry) + Send + Sync + 'static) -> Request {
    request.on_event(move |event| {
        if let Some(entry) = entry(event) {
            write(&entry);
        }
    })
}

/// The entry of an event; `None` for one that a journal does not hold.
fn entry(event: &CallEvent<'_>) -> Option<JournalEntry> {
    match event {
        CallEvent::Begun(begun) => Some(JournalEntry::Open(begun.into())),
        CallEvent::Unit(unit) => Some(JournalEntry::Unit(unit.into())),
        CallEvent::Item(item) => Some(JournalEntry::Item(item.into())),
        _ => None,
    }
}

impl From<&CallBegun<'_>> for JournalOpen {
    fn from(begun: &CallBegun<'_>) -> Self {
        Self {
            format: JOURNAL_FORMAT,
            call: begun.call,
            version: env!("CARGO_PKG_VERSION").into(),
            identity: begun.identity.into(),
            device: begun.device.into(),
            dtype: begun.dtype,
            threads: begun.threads,
            instructions: begun.instructions,
            platform: platform(),
        }
    }
}

impl From<&UnitRan<'_>> for JournalUnit {
    fn from(unit: &UnitRan<'_>) -> Self {
        Self {
            call: unit.call,
            class: unit.class,
            stage: unit.stage.into(),
            items: unit.items.to_vec(),
            rows: unit.rows,
            error: unit.error.map(ItemError::kind),
        }
    }
}

impl From<&ItemDone<'_>> for JournalItem {
    fn from(item: &ItemDone<'_>) -> Self {
        Self {
            call: item.call,
            index: item.index as u64,
            digest: item.digest,
            modality: item.modality,
            role: item.role,
            task: item.task.into(),
            dim: item.dim,
            truncation: item.truncation,
            frames: item.frames.and_then(NonZeroU32::new),
            tokens: item.result.as_ref().ok().map(|found| found.tokens),
            answered: item.answered,
            result: ItemOutcome::of(item.result),
        }
    }
}

/// Processor family and operating system of this build.
pub(crate) fn platform() -> String {
    format!("{ARCHITECTURE} {SYSTEM}")
}

#[cfg(test)]
mod tests {
    use omniburn::Input;

    use super::*;

    fn item() -> JournalItem {
        let vector = Embedding::from_raw(vec![3.0, 4.0]).unwrap();
        JournalItem {
            call: 2,
            index: 7,
            digest: Input::text("a").digest(),
            modality: Modality::Text,
            role: Role::Query,
            task: "base".into(),
            dim: None,
            truncation: Truncation::Left,
            frames: NonZeroU32::new(8),
            tokens: Some(3),
            answered: Answered::EqualTo(4),
            result: ItemOutcome::Vector(VectorDigest::of(&vector)),
        }
    }

    #[test]
    fn entries_are_lines_of_json_that_read_back() {
        let unit = JournalUnit {
            call: 2,
            class: Priority::Background,
            stage: "text".into(),
            items: vec![Input::text("a").digest().unwrap()],
            rows: 3,
            error: Some(ErrorKind::NotFinite),
        };
        let failed = JournalItem { result: ItemOutcome::Error(ErrorKind::TooLong), tokens: None, ..item() };
        for entry in [JournalEntry::Item(item()), JournalEntry::Unit(unit), JournalEntry::Item(failed)] {
            let line = serde_json::to_string(&entry).unwrap();
            assert_eq!(serde_json::from_str::<JournalEntry>(&line).unwrap(), entry, "{line}");
        }
        // printf '\x9a\x99\x19\x3f\xcd\xcc\x4c\x3f' | sha256sum: 0.6 and 0.8.
        let line = serde_json::to_string(&JournalEntry::Item(item())).unwrap();
        let (vector, digest) =
            (VectorDigest::of(&Embedding::from_raw(vec![3.0, 4.0]).unwrap()), item().digest.unwrap());
        assert_eq!(vector.to_string(), "9d2c143dc5e2c8df311211d38cb9ed78357a179827854314aec553e5da319145");
        assert_eq!(
            line,
            format!(
                "{{\"event\":\"item\",\"call\":2,\"index\":7,\"digest\":\"{digest}\",\"modality\":\"text\",\
                 \"role\":\"query\",\"task\":\"base\",\"truncation\":\"left\",\"frames\":8,\"tokens\":3,\
                 \"answered\":{{\"equal_to\":4}},\"result\":{{\"vector\":\"{vector}\"}}}}"
            )
        );
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let line = serde_json::to_string(&JournalEntry::Item(item())).unwrap();
        let digest = item().digest.unwrap().to_string();
        let wrong = [
            line.replace("item", "page"),
            line.replace("query", "quarry"),
            line.replace("\"frames\":8", "\"frames\":0"),
            line.replace("\"call\":2", "\"call\":2,\"more\":1"),
            line.replace(&digest, &digest[1..]),
            line.replace(&digest, &digest.to_uppercase()),
            line.replace(&digest, "é"),
        ];
        for wrong in wrong {
            assert_ne!(wrong, line);
            assert!(serde_json::from_str::<JournalEntry>(&wrong).is_err(), "{wrong}");
        }
    }
}

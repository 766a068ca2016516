//! What becomes an input, and by which rule.
//!
//! Nothing here looks at a model. An input that cannot be one is a [`Fault`] in its place, so that the others go on.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use omniburn::media::{FileKind as Medium, OTHER_TEXT, TextEncoding, sniff};
use omniburn::{Cancel, ErrorKind, Input, ItemError, Modality, Role, TrackChoice};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// One input as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypedInput {
    /// A path or a text.
    Either(OsString),
    /// A text, said outright.
    Text(String),
    /// An image file, said outright.
    Image(PathBuf),
    /// An audio file, said outright.
    Audio(PathBuf),
    /// A video file, said outright.
    Video(PathBuf),
}

/// Which tracks are meant of files that do not say it themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Of audio.
    pub audio: Option<TrackChoice>,
    /// Of video.
    pub video: Option<TrackChoice>,
}

impl Tracks {
    fn of(&self, input: Input) -> Input {
        let track = match input.modality() {
            Modality::Audio => &self.audio,
            Modality::Video => &self.video,
            _ => &None,
        };
        match track {
            Some(track) => input.track(track.clone()),
            None => input,
        }
    }
}

/// A track by its number from 0, or by its language: two or more letters, and what BCP 47 has behind them.
pub fn track_of(text: &str) -> Option<TrackChoice> {
    if let Ok(index) = text.parse() {
        return Some(TrackChoice::Index(index));
    }
    let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let language = letters >= 2 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    language.then(|| TrackChoice::Language(text.to_owned()))
}

/// Why an input failed, as its line says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind, one of a fixed list.
    pub kind: ErrorKind,
    /// What was found and what was expected.
    pub message: String,
}

impl Fault {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<&ItemError> for Fault {
    fn from(error: &ItemError) -> Self {
        Fault::new(error.kind(), error.to_string())
    }
}

/// One input with what its line says beside the vector.
#[derive(Debug)]
pub struct Entry {
    /// The caller's own name for it, as JSON, exactly as it was given.
    pub id: Option<Box<RawValue>>,
    /// What it is, for people.
    pub label: String,
    /// The input, or why there is none.
    pub input: Result<Input, Fault>,
    /// The files that it is read from.
    pub files: Vec<PathBuf>,
    /// Its role, where the line says one.
    pub role: Option<Role>,
    /// The task it is embedded for, where the line says one.
    pub task: Option<String>,
    /// What it is wanted for, where the line says it.
    pub instruction: Option<String>,
}

impl Entry {
    /// An input that is treated as all others.
    fn new(label: String, input: Result<Input, Fault>, files: Vec<PathBuf>) -> Self {
        Self { id: None, label, input, files, role: None, task: None, instruction: None }
    }

    /// What was typed, as an input.
    pub fn of(typed: &TypedInput, tracks: &Tracks) -> Self {
        let (label, input) = match typed {
            TypedInput::Either(value) => (value.to_string_lossy().into_owned(), either(value)),
            TypedInput::Text(text) => (text.clone(), Ok(Input::text(text))),
            TypedInput::Image(path) => named(path, Medium::Image),
            TypedInput::Audio(path) => named(path, Medium::Audio),
            TypedInput::Video(path) => named(path, Medium::Video),
        };
        let input = input.map(|input| tracks.of(input));
        Self::new(label, input, typed.file().map(Path::to_path_buf).into_iter().collect())
    }
}

impl Entry {
    fn without_input(label: &str, fault: Fault) -> Self {
        Self::new(label.into(), Err(fault), Vec::new())
    }
}

impl TypedInput {
    /// The file that is read, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            TypedInput::Text(_) => None,
            // A text is no file, and then nothing of its name is there.
            TypedInput::Either(value) => Some(Path::new(value)).filter(|path| path.is_file()),
            TypedInput::Image(path) | TypedInput::Audio(path) | TypedInput::Video(path) => Some(path),
        }
    }
}

fn named(path: &Path, medium: Medium) -> (String, Result<Input, Fault>) {
    (path.display().to_string(), only_file(path).map(|()| file_input(medium, path)))
}

/// Largest text file and longest line that are read whole.
const MAX_TEXT_BYTES: u64 = 16 << 20;
/// Bytes of a file that tell its format.
const SNIFF_BYTES: u64 = 1024;

/// Files that are known, and are none of the media.
const OTHER_ENDINGS: &[&str] = &[
    "pdf",
    "doc",
    "docx",
    "odt",
    "ppt",
    "pptx",
    "xls",
    "xlsx",
    "epub",
    "zip",
    "gz",
    "tar",
    "7z",
    "safetensors",
    "bin",
    "npy",
    "parquet",
];

/// The input of a file that the engine reads.
fn file_input(medium: Medium, path: &Path) -> Input {
    match medium {
        Medium::Image => Input::image_file(path),
        Medium::Audio => Input::audio_file(path),
        Medium::Video => Input::video_file(path),
        Medium::Text => unreachable!("a text file is read here, not by the engine"),
    }
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(OsStr::to_str);
    ending.is_some_and(|ending| endings.iter().any(|known| known.eq_ignore_ascii_case(ending)))
}

/// No white space, and a separator or a known file ending.
fn looks_like_a_path(text: &str) -> bool {
    let path = Path::new(text);
    let known = || Medium::of_ending(path).is_some() || has_ending(path, OTHER_ENDINGS);
    !text.contains(char::is_whitespace) && (text.contains(std::path::is_separator) || known())
}

/// A path where such a file exists, else a text, unless it looks like a path. What is there and is no file, a link that leads
/// nowhere included, is no text.
fn either(value: &OsStr) -> Result<Input, Fault> {
    let path = Path::new(value);
    let if_text = |fault: Fault| Fault::new(fault.kind, format!("{}; if it is a text, say --text", fault.message));
    if value == "-" {
        let how = "`--lines` reads texts from standard input and `--items -` JSON lines";
        return Err(Fault::new(ErrorKind::BadItem, format!("-: {how}; if it is a text, say --text=-")));
    }
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => existing(path, meta.len()),
        Ok(_) => only_file(path).map(|()| Input::image_file(path)).map_err(if_text),
        Err(why) => match value.to_str() {
            // What is too long for a name is none.
            Some(text) if why.kind() == io::ErrorKind::InvalidFilename => Ok(Input::text(text)),
            Some(text) if !looks_like_a_path(text) && !path.is_symlink() => Ok(Input::text(text)),
            _ => Err(if_text(absent(path, &why))),
        },
    }
}

/// Why there is no file at a path.
fn absent(path: &Path, why: &io::Error) -> Fault {
    let name = path.display();
    let message = match fs::read_link(path) {
        Ok(to) if why.kind() == io::ErrorKind::NotFound => {
            format!("{name}: a symbolic link to {}, and no such file is there", to.display())
        }
        Ok(to) => format!("{name}: a symbolic link to {}, which cannot be followed: {why}", to.display()),
        Err(_) if why.kind() == io::ErrorKind::NotFound => format!("{name}: no such file"),
        Err(_) => format!("{name}: {why}"),
    };
    Fault::new(ErrorKind::NotFound, message)
}

/// A file that is there, by what it holds.
fn existing(path: &Path, bytes: u64) -> Result<Input, Fault> {
    let unreadable =
        |e: io::Error| Fault::new(ErrorKind::NotFound, format!("{}: the file cannot be read: {e}", path.display()));
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(SNIFF_BYTES).read_to_end(&mut head)).map_err(unreadable)?;
    let (format, ending) = (sniff(&head), Medium::of_ending(path));
    match Medium::decide(format, ending).map(|medium| medium.looked_into(path, format)) {
        Some(Medium::Text) => read_text(path, bytes, &head, format).map(Input::text),
        Some(medium) => Ok(file_input(medium, path)),
        None if bytes == 0 => {
            Err(Fault::new(ErrorKind::Empty, format!("{}: found nothing, expected at least one byte", path.display())))
        }
        None => Err(no_medium(path, &head, format)),
    }
}

/// Why a file that is none of the media, or is called a text, is not read.
fn no_medium(path: &Path, head: &[u8], format: Option<&str>) -> Fault {
    let name = path.display();
    let mut fault = match format {
        Some(OTHER_TEXT) => {
            // In UTF-8 the escapes of ISO-2022 would be letters.
            let escape = || head.iter().position(|&byte| byte == 0x1b).unwrap_or_default();
            let at = std::str::from_utf8(head).map_or_else(|e| e.valid_up_to(), |_| escape());
            let byte = head.get(at).copied().unwrap_or_default();
            let why = format!("found {OTHER_TEXT}: byte {at} is 0x{byte:02X}; convert it to UTF-8, as with iconv");
            Fault::new(ErrorKind::UnknownFormat, format!("{name}: {why}"))
        }
        None => match (std::str::from_utf8(head).is_ok(), head.iter().position(|&byte| byte == 0)) {
            (true, Some(at)) => {
                let why = format!("found a NUL at byte {at}, expected UTF-8 text, which holds none");
                Fault::new(ErrorKind::UnknownFormat, format!("{name}: {why}"))
            }
            _ => unknown_format(path, format),
        },
        Some(_) => return unknown_format(path, format),
    };
    let ascii = head.iter().filter(|byte| byte.is_ascii()).count();
    if TextEncoding::may_be_utf16(head) && (format.is_none() || 2 * ascii < head.len()) {
        fault.message.push_str("; if it is UTF-16 text, it lacks its byte order mark");
    }
    fault
}

fn unknown_format(path: &Path, format: Option<&str>) -> Fault {
    let found = match format {
        None => "no known format".into(),
        Some(format @ ("office document (docx, xlsx or pptx)" | "ole document")) => format!("an {format}"),
        Some(format) => format!("{format} data"),
    };
    let expected = "an image (PNG, JPEG, WebP, GIF, BMP or TIFF), audio, video or UTF-8 text";
    Fault::new(ErrorKind::UnknownFormat, format!("{}: found {found}, expected {expected}", path.display()))
}

/// The content of a text file, without a byte order mark and without its last line break.
fn read_text(path: &Path, bytes: u64, head: &[u8], format: Option<&str>) -> Result<String, Fault> {
    if bytes > MAX_TEXT_BYTES {
        let message = format!("{}: found {bytes} bytes of text, expected at most {MAX_TEXT_BYTES}", path.display());
        return Err(Fault::new(ErrorKind::TooLarge, message));
    }
    if bytes > 0 && format.is_none_or(|format| Medium::of_format(format).is_none()) {
        return Err(no_medium(path, head, format));
    }
    let content = fs::read(path).map_err(|e| Fault::new(ErrorKind::NotFound, format!("{}: {e}", path.display())))?;
    let encoding = TextEncoding::of_wide(head).unwrap_or(TextEncoding::Utf8);
    let text = encoding.decode(&content).map_err(|wrong| {
        let (name, encoding, at) = (path.display(), encoding.name(), wrong.at);
        let message = format!("{name}: the text is not {encoding} from byte {at} on: found {}", wrong.found);
        Fault::new(ErrorKind::Corrupt, message)
    })?;
    if let Some(at) = text.find('\0') {
        let before = text[..at].chars().count();
        let message =
            format!("{}: found a NUL after {before} characters, expected text, which holds none", path.display());
        return Err(Fault::new(ErrorKind::Corrupt, message));
    }
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(text.into())
}

/// What is no file is refused before the engine sees it: of folders and links there is more to say here.
fn only_file(path: &Path) -> Result<(), Fault> {
    let found = match fs::metadata(path) {
        Ok(meta) if meta.is_file() => return Ok(()),
        Ok(meta) if meta.is_dir() => {
            "a folder, expected a file; `omniburn index` will take folders, once a release has it"
        }
        Ok(_) => "a pipe, socket or device, expected a file",
        Err(why) if path.is_symlink() => return Err(absent(path, &why)),
        // The engine names what is missing.
        Err(_) => return Ok(()),
    };
    Err(Fault::new(ErrorKind::NotAFile, format!("{}: found {found}", path.display())))
}

/// A line of `--items`: one medium or several parts, and perhaps an id, a track, a role, a task and an instruction.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    #[serde(default, deserialize_with = "given")]
    id: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "given")]
    text: Option<String>,
    #[serde(default, deserialize_with = "given")]
    image: Option<PathBuf>,
    #[serde(default, deserialize_with = "given")]
    audio: Option<PathBuf>,
    #[serde(default, deserialize_with = "given")]
    video: Option<VideoPart>,
    #[serde(default, deserialize_with = "given")]
    parts: Option<Vec<Part>>,
    #[serde(default, deserialize_with = "given")]
    track: Option<ItemTrack>,
    #[serde(default, deserialize_with = "given")]
    role: Option<Role>,
    #[serde(default, deserialize_with = "given")]
    task: Option<String>,
    #[serde(default, deserialize_with = "given")]
    instruction: Option<String>,
}

/// One of the parts of an item: one medium.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(default, deserialize_with = "given")]
    text: Option<String>,
    #[serde(default, deserialize_with = "given")]
    image: Option<PathBuf>,
    #[serde(default, deserialize_with = "given")]
    audio: Option<PathBuf>,
    #[serde(default, deserialize_with = "given")]
    video: Option<VideoPart>,
}

impl Part {
    /// How many media it names.
    fn given(&self) -> usize {
        let given = [self.text.is_some(), self.image.is_some(), self.audio.is_some(), self.video.is_some()];
        given.into_iter().filter(|&given| given).count()
    }

    /// The files it is read from.
    fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let video = match &self.video {
            Some(VideoPart::File(path)) => std::slice::from_ref(path),
            Some(VideoPart::Frames(frames)) => frames,
            None => &[],
        };
        self.image.iter().chain(&self.audio).chain(video).map(|path| folder.join(path)).collect()
    }

    /// The one medium it names, with a name for people; `None` where it names none.
    fn input(self, folder: &Path) -> Option<(String, Result<Input, Fault>)> {
        Some(match self {
            Part { text: Some(text), .. } => (text.clone(), Ok(Input::text(text))),
            Part { image: Some(path), .. } => file_of(folder, &path, Medium::Image),
            Part { audio: Some(path), .. } => file_of(folder, &path, Medium::Audio),
            Part { video: Some(VideoPart::File(path)), .. } => file_of(folder, &path, Medium::Video),
            Part { video: Some(VideoPart::Frames(frames)), .. } => frames_of(folder, &frames),
            Part { text: None, image: None, audio: None, video: None } => return None,
        })
    }
}

/// One item of several parts; a part that is none is named by its place.
fn parts_of(folder: &Path, parts: Vec<Part>, bad: impl Fn(String) -> Fault) -> (String, Result<Input, Fault>) {
    let (mut labels, mut inputs, mut fault) = (Vec::new(), Vec::new(), None);
    for (at, part) in parts.into_iter().enumerate() {
        let given = part.given();
        match part.input(folder) {
            Some((label, input)) if given == 1 => {
                labels.push(label);
                match input {
                    Ok(input) => inputs.push(input),
                    Err(why) => fault = fault.or(Some(why)),
                }
            }
            _ => {
                let why = bad(format!("parts[{at}]: found {given} of text, image, audio and video, expected one"));
                fault = fault.or(Some(why));
            }
        }
    }
    let input = match fault {
        Some(fault) => Err(fault),
        None if inputs.is_empty() => Err(bad("parts: found none, expected at least one".into())),
        None => Ok(Input::parts(inputs)),
    };
    (labels.join(" + "), input)
}

/// A track of a line: a number from 0, or a language.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ItemTrack {
    Number(u32),
    Text(String),
}

#[derive(Debug)]
enum VideoPart {
    File(PathBuf),
    Frames(Vec<PathBuf>),
}

impl<'de> Deserialize<'de> for VideoPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = VideoPart;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a path, or a list of paths of frames")
            }
            fn visit_str<E>(self, path: &str) -> Result<VideoPart, E> {
                Ok(VideoPart::File(path.into()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut frames: A) -> Result<VideoPart, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = frames.next_element()? {
                    paths.push(path);
                }
                Ok(VideoPart::Frames(paths))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A key that is there has a value of its type: `null` is no absence.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Only the id, where the rest of a line is wrong.
#[derive(Debug, Deserialize)]
struct OnlyId {
    #[serde(default, deserialize_with = "given")]
    id: Option<Box<RawValue>>,
}

/// An id is no structure, and a string among them is text: it goes into the output as it is, where half a surrogate pair
/// would make a line that no strict reader takes.
fn is_usable(id: &RawValue) -> bool {
    let id = id.get();
    !id.starts_with(['{', '[']) && (!id.starts_with('"') || serde_json::from_str::<String>(id).is_ok())
}

/// One line of `--items`; `place` names the line in messages, and relative paths begin at `folder`.
///
/// A file takes the track of its line, else that of `tracks`; a list of frames has none.
pub fn item(line: &[u8], folder: &Path, place: &str, tracks: &Tracks) -> Entry {
    let bad = |message: String| Fault::new(ErrorKind::BadItem, format!("{place}: {message}"));
    match serde_json::from_slice::<Item>(line) {
        Ok(mut item) => {
            let (role, task, instruction) = (item.role.take(), item.task.take(), item.instruction.take());
            let parts = item.parts.take();
            let only = Part { text: item.text, image: item.image, audio: item.audio, video: item.video };
            let given = only.given() + usize::from(parts.is_some());
            let wrong_id = item.id.as_deref().is_some_and(|id| !is_usable(id));
            let id = if wrong_id { None } else { item.id };
            let fault = |message: &str| Err(bad(message.into()));
            let files = parts.iter().flatten().chain([&only]).flat_map(|part| part.files(folder)).collect();
            let has_track = item.track.is_some();
            let a_file = only.audio.is_some() || matches!(only.video, Some(VideoPart::File(_)));
            let track = match &item.track {
                Some(ItemTrack::Number(index)) => Some(TrackChoice::Index(*index)),
                Some(ItemTrack::Text(text)) => track_of(text),
                None => None,
            };
            let wrong_track = has_track && (!a_file || track.is_none());
            let tracks = match track {
                Some(track) => &Tracks { audio: Some(track.clone()), video: Some(track) },
                None if matches!(only.video, Some(VideoPart::Frames(_))) => &Tracks::default(),
                None => tracks,
            };
            let (label, input) = match parts {
                _ if wrong_id => (place.into(), fault("id: expected a string of text, a number, true, false or null")),
                _ if given > 1 => {
                    (place.into(), fault("found several of text, image, audio, video and parts, expected one"))
                }
                _ if wrong_track && a_file => (place.into(), fault("track: expected a number from 0, or a language")),
                _ if wrong_track => (place.into(), fault("found a track, which only a file of audio or video has")),
                Some(parts) => parts_of(folder, parts, bad),
                None => only.input(folder).unwrap_or_else(|| {
                    (place.into(), fault("found none of text, image, audio, video and parts, expected one"))
                }),
            };
            Entry { id, label, input: input.map(|input| tracks.of(input)), files, role, task, instruction }
        }
        Err(e) => {
            let only = serde_json::from_slice::<OnlyId>(line).ok().and_then(|only| only.id);
            let message = match not_text(line) {
                None => e.to_string().replace("line 1 column", "column"),
                Some(why) => why,
            };
            let id = only.filter(|id| is_usable(id));
            Entry { id, ..Entry::without_input(place, bad(message)) }
        }
    }
}

/// Why the bytes of a line are no text.
fn not_text(line: &[u8]) -> Option<String> {
    if let Some(at) = line.iter().position(|&byte| byte == 0) {
        return Some(format!("found a NUL at byte {at}: is this UTF-16 without a byte order mark? expected UTF-8"));
    }
    let at = std::str::from_utf8(line).err()?.valid_up_to();
    let byte = line[at];
    // What a transcoded stream holds in place of half a surrogate pair; see `Transcoder`.
    let found = if byte == Transcoder::WRONG { " (of UTF-16, half of a surrogate pair)" } else { "" };
    Some(format!("not UTF-8 from byte {at} on: found 0x{byte:02X}{found}"))
}

fn in_folder(folder: &Path, path: &Path) -> Result<PathBuf, Fault> {
    if path.as_os_str().is_empty() {
        return Err(Fault::new(ErrorKind::NotFound, "found an empty path, expected that of a file"));
    }
    let path = folder.join(path);
    only_file(&path).map(|()| path)
}

fn file_of(folder: &Path, path: &Path, medium: Medium) -> (String, Result<Input, Fault>) {
    (path.display().to_string(), in_folder(folder, path).map(|path| file_input(medium, &path)))
}

fn frames_of(folder: &Path, frames: &[PathBuf]) -> (String, Result<Input, Fault>) {
    let label = frames.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
    let paths: Result<Vec<_>, _> = frames.iter().map(|frame| in_folder(folder, frame)).collect();
    (label, paths.map(Input::video_frame_files))
}

/// Where entries come from, in this order.
pub struct Sources {
    /// What was typed.
    pub typed: Vec<TypedInput>,
    /// A stream of JSON lines, the name it has in messages, and the folder relative paths begin at.
    pub items: Option<(Box<dyn Read + Send>, String, PathBuf)>,
    /// A stream of texts, one a line.
    pub lines: Option<Box<dyn Read + Send>>,
    /// Whether somebody may be typing: then a pause ends a batch.
    pub live: bool,
    /// Which tracks are meant of files that do not say it themselves.
    pub tracks: Tracks,
}

/// Entries read ahead by a thread of their own, so that a slow stream neither delays what is ready nor an interruption.
pub struct Feed {
    entries: Receiver<io::Result<Entry>>,
    reader: Option<JoinHandle<()>>,
    live: bool,
}

/// Entries that may wait to be taken.
const READ_AHEAD: usize = 64;
/// A pause of this length in a live stream ends a batch.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a reader that waits looks whether it was interrupted.
const POLL: Duration = Duration::from_millis(50);

impl Feed {
    /// Starts reading.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(sources: Sources) -> io::Result<Self> {
        let (sender, entries) = sync_channel(READ_AHEAD);
        let live = sources.live;
        let reader = std::thread::Builder::new().name("omniburn-inputs".into()).spawn(move || {
            // A closed channel means that nobody wants more.
            let _ = send_all(sources, &sender);
        })?;
        Ok(Self { entries, reader: Some(reader), live })
    }

    /// The next entry, waiting as long as it takes; `None` at the end of the inputs or once cancelled.
    ///
    /// # Errors
    /// When a stream cannot be read.
    pub fn next(&mut self, cancel: &Cancel) -> io::Result<Option<Entry>> {
        loop {
            if cancel.is_cancelled() {
                return Ok(None);
            }
            match self.entries.recv_timeout(POLL) {
                Ok(entry) => return entry.map(Some),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
        }
    }

    /// The next entry of a batch that has begun: `None` also where a live stream pauses.
    ///
    /// # Errors
    /// As [`Feed::next`].
    pub fn next_of_batch(&mut self, cancel: &Cancel) -> io::Result<Option<Entry>> {
        if !self.live {
            return self.next(cancel);
        }
        match self.entries.recv_timeout(PAUSE) {
            Ok(entry) => entry.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => self.end(),
        }
    }

    /// The channel is closed: the end of the inputs, unless the reader panicked.
    fn end(&mut self) -> io::Result<Option<Entry>> {
        match self.reader.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => Ok(None),
        }
    }
}

/// Nobody takes entries any more.
struct Gone;

type Sent = Result<(), Gone>;

fn send(to: &SyncSender<io::Result<Entry>>, entry: io::Result<Entry>) -> Sent {
    to.send(entry).map_err(|_| Gone)
}

fn send_all(sources: Sources, to: &SyncSender<io::Result<Entry>>) -> Sent {
    for typed in &sources.typed {
        send(to, Ok(Entry::of(typed, &sources.tracks)))?;
    }
    if let Some((stream, name, folder)) = sources.items {
        let context = format!("{name}: ");
        for_each_line(stream, &context, to, |number, line| {
            let place = format!("{name} line {number}");
            match line {
                Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => None,
                // Files that were joined have their marks in the middle, where JSON has none.
                Line::Whole(line) => {
                    Some(item(line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line), &folder, &place, &sources.tracks))
                }
                Line::TooLong => Some(Entry::without_input(&place, too_long(&place))),
            }
        })?;
    }
    if let Some(stream) = sources.lines {
        for_each_line(stream, "standard input: ", to, |number, line| {
            let place = format!("line {number}");
            Some(match line {
                Line::Whole(line) => match (not_text(line), std::str::from_utf8(line)) {
                    (None, Ok(text)) => Entry::new(text.to_string(), Ok(Input::text(text)), Vec::new()),
                    (why, _) => {
                        let message = format!("{place}: {}", why.unwrap_or_default());
                        Entry::without_input(&place, Fault::new(ErrorKind::BadItem, message))
                    }
                },
                Line::TooLong => Entry::without_input(&place, too_long(&place)),
            })
        })?;
    }
    Ok(())
}

fn too_long(place: &str) -> Fault {
    Fault::new(ErrorKind::TooLarge, format!("{place}: found more than {MAX_TEXT_BYTES} bytes in one line"))
}

enum Line<'a> {
    Whole(&'a [u8]),
    TooLong,
}

/// A stream in UTF-8 without its byte order mark. One in UTF-16 or UTF-32 that has its mark is translated: shells of Windows
/// write such files. Waits for no more bytes than the mark may have.
fn as_utf8(mut stream: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    let begins = |head: &[u8], mark: &[u8]| mark.len() > head.len() && mark.starts_with(head);
    let marks = [
        TextEncoding::Utf8,
        TextEncoding::Utf16Le,
        TextEncoding::Utf16Be,
        TextEncoding::Utf32Le,
        TextEncoding::Utf32Be,
    ];
    while marks.iter().any(|mark| begins(&head, mark.mark())) {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => head.push(byte[0]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let encoding = TextEncoding::of_mark(&head);
    let marked = encoding.map_or(0, |encoding| encoding.mark().len());
    let stream = Box::new(io::Cursor::new(head.split_off(marked)).chain(stream));
    Ok(match encoding {
        None | Some(TextEncoding::Utf8) => stream,
        Some(encoding) => Box::new(Transcoder { stream, encoding, waiting: Vec::new(), made: Vec::new(), taken: 0 }),
    })
}

/// UTF-16 or UTF-32 as UTF-8, as it comes. What is no character becomes a byte that is none of UTF-8, so that its line fails
/// and no other.
struct Transcoder {
    stream: Box<dyn Read + Send>,
    encoding: TextEncoding,
    /// Bytes that are no whole character yet.
    waiting: Vec<u8>,
    made: Vec<u8>,
    /// How many of `made` were given away.
    taken: usize,
}

impl Transcoder {
    const WRONG: u8 = 0xff;

    /// Translates what waits, but for a character that is not whole unless this is the end.
    fn translate(&mut self, at_end: bool) {
        let mut rest = self.waiting.as_slice();
        while !rest.is_empty() {
            // A mark is no character at the beginning of what is decoded, so characters go one by one.
            let unit = self.encoding.unit_bytes();
            let high = |pair: &[u8]| match self.encoding {
                TextEncoding::Utf16Le => pair[1] & 0xfc == 0xd8,
                TextEncoding::Utf16Be => pair[0] & 0xfc == 0xd8,
                _ => false,
            };
            let wanted = if rest.len() >= unit && high(rest) { 2 * unit } else { unit };
            if rest.len() < wanted && !at_end {
                break;
            }
            let (one, whole) = (rest.get(..unit), rest.get(..wanted));
            let decode = |bytes: Option<&[u8]>| match bytes {
                Some(mark) if mark == self.encoding.mark() => Some("\u{feff}".to_owned()),
                Some(bytes) => self.encoding.decode(bytes).ok(),
                None => None,
            };
            match decode(whole) {
                Some(text) => {
                    self.made.extend(text.as_bytes());
                    rest = &rest[wanted..];
                }
                None => {
                    self.made.push(Self::WRONG);
                    rest = one.map_or(&[], |one| &rest[one.len()..]);
                }
            }
        }
        self.waiting = rest.to_vec();
    }
}

impl Read for Transcoder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.made.len() {
            self.made.clear();
            self.taken = 0;
            let mut buffer = [0; 8192];
            let read = self.stream.read(&mut buffer)?;
            self.waiting.extend(&buffer[..read]);
            self.translate(read == 0);
            if read == 0 && self.made.is_empty() {
                return Ok(0);
            }
        }
        let count = into.len().min(self.made.len() - self.taken);
        into[..count].copy_from_slice(&self.made[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// Sends what `make` gives for each line: numbered from 1, without line break, carriage return or byte order mark.
fn for_each_line(
    stream: Box<dyn Read + Send>,
    context: &str,
    to: &SyncSender<io::Result<Entry>>,
    mut make: impl FnMut(usize, Line<'_>) -> Option<Entry>,
) -> Sent {
    let mut reader = match as_utf8(stream) {
        Ok(stream) => BufReader::new(stream),
        Err(e) => return send(to, Err(io::Error::new(e.kind(), format!("{context}{e}")))),
    };
    let mut line = Vec::new();
    for number in 1usize.. {
        line.clear();
        let read = (&mut reader).take(MAX_TEXT_BYTES + 2).read_until(b'\n', &mut line);
        let too_long = match read {
            Ok(0) => break,
            Ok(_) if line.ends_with(b"\n") => false,
            Ok(read) if read as u64 > MAX_TEXT_BYTES + 1 => {
                if let Err(e) = skip_line(&mut reader) {
                    send(to, Err(io::Error::new(e.kind(), format!("{context}{e}"))))?;
                    break;
                }
                true
            }
            Ok(_) => false,
            Err(e) => {
                send(to, Err(io::Error::new(e.kind(), format!("{context}{e}"))))?;
                break;
            }
        };
        let content: &[u8] = line.strip_suffix(b"\n").unwrap_or(&line);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let content =
            if too_long || content.len() as u64 > MAX_TEXT_BYTES { Line::TooLong } else { Line::Whole(content) };
        if let Some(entry) = make(number, content) {
            send(to, Ok(entry))?;
        }
    }
    Ok(())
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Ok(());
        }
        let (used, done) = match piece.iter().position(|&b| b == b'\n') {
            Some(at) => (at + 1, true),
            None => (piece.len(), false),
        };
        reader.consume(used);
        if done {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(input: &Result<Input, Fault>) -> &'static str {
        match input {
            Ok(input) => input.modality().name(),
            Err(fault) => fault.kind.name(),
        }
    }

    fn line(line: &str) -> Entry {
        item(line.as_bytes(), Path::new(""), "items line 1", &Tracks::default())
    }

    #[test]
    fn a_text_is_what_does_not_look_like_a_path() {
        for path in ["photo.jpg", "a/b", "x.HEIC", "notes.md", "clip.webm", "voice.opus", "report.pdf", "/", "./x"] {
            assert!(looks_like_a_path(path), "{path}");
            assert_eq!(kind(&either(OsStr::new(&format!("no-such-folder/{path}")))), "not_found", "{path}");
        }
        for text in
            ["", "bicycle", "a red bicycle", "either / or", "see photo.jpg", "3.14", "v1.2", "e.g.", "end.", ".png"]
        {
            assert!(!looks_like_a_path(text), "{text}");
        }
    }

    #[test]
    fn content_decides_except_where_the_ending_knows_better() {
        use Medium::{Audio, Image, Text, Video};
        let cases = [
            (Some("png"), None, Some(Image)),
            (Some("png"), Some(Text), Some(Image)),
            (Some("jpeg"), Some(Video), Some(Image)),
            (Some("text"), None, Some(Text)),
            (Some("text"), Some(Image), Some(Image)),
            (Some("mkv"), Some(Audio), Some(Audio)),
            (Some("ogg"), Some(Video), Some(Video)),
            (Some("wav"), Some(Image), Some(Audio)),
            (Some("pdf"), None, None),
            (Some("pdf"), Some(Image), Some(Image)),
            (None, Some(Image), Some(Image)),
            (None, None, None),
        ];
        for (format, ending, expected) in cases {
            assert_eq!(Medium::decide(format, ending), expected, "{format:?} {ending:?}");
        }
    }

    #[test]
    fn a_text_file_is_its_content_without_the_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        for (content, text) in [("a\r\nb\r\n", "a\r\nb"), ("\u{feff}a\n\n", "a\n"), ("", ""), ("a", "a")] {
            fs::write(&path, content).unwrap();
            assert_eq!(read_text(&path, content.len() as u64, content.as_bytes(), Some("text")).as_deref(), Ok(text));
        }
        fs::write(&path, [b'a', 0xff]).unwrap();
        assert_eq!(read_text(&path, 2, b"a", Some("text")).unwrap_err().kind, ErrorKind::Corrupt);
        assert_eq!(kind(&either(path.as_os_str())), "unknown_format");
        assert_eq!(kind(&either(folder.path().as_os_str())), "not_a_file");
    }

    #[test]
    fn items_are_read_strictly_and_their_ids_come_back_as_given() {
        let good = [
            (r#"{"text":"a"}"#, "text", None),
            (r#" {"id": 1.50, "image": "a.png"} "#, "image", Some("1.50")),
            (r#"{"audio":"a.wav","id":"x\u0041"}"#, "audio", Some(r#""x\u0041""#)),
            (r#"{"video":"a.mp4","id":null}"#, "video", Some("null")),
            (r#"{"video":["0.png","1.png"],"id":true}"#, "video", Some("true")),
            (r#"{"text":"","id":123456789012345678901234567890}"#, "text", Some("123456789012345678901234567890")),
        ];
        for (text, expected, id) in good {
            let entry = line(text);
            assert_eq!(kind(&entry.input), expected, "{text}");
            assert_eq!(entry.id.as_deref().map(RawValue::get), id, "{text}");
        }
        let bad = [
            ("{", None),
            ("[]", None),
            ("{}", None),
            ("3", None),
            (r#"{"text":null}"#, None),
            (r#"{"id":7,"text":5}"#, Some("7")),
            (r#"{"id":7,"picture":"a.png"}"#, Some("7")),
            (r#"{"id":7,"text":"a","image":"a.png"}"#, Some("7")),
            (r#"{"id":7}"#, Some("7")),
            (r#"{"text":"a","text":"b"}"#, None),
            (r#"{"video":[1]}"#, None),
            (r#"{"video":{}}"#, None),
            (r#"{"text":"a","id":[1]}"#, None),
            (r#"{"text":"a"} {"text":"b"}"#, None),
            (r#"{"text":"\ud800"}"#, None),
            (r#"{"text":"a","id":"\ud800"}"#, None),
            (r#"{"text":5,"id":"\ud800"}"#, None),
        ];
        for (text, id) in bad {
            let entry = line(text);
            assert_eq!(kind(&entry.input), "bad_item", "{text}");
            assert!(entry.input.unwrap_err().message.starts_with("items line 1: "), "{text}");
            assert_eq!(entry.id.as_deref().map(RawValue::get), id, "{text}");
        }
        assert_eq!(kind(&item(b"{\"text\":\"\xff\"}", Path::new(""), "x", &Tracks::default()).input), "bad_item");
        assert_eq!(kind(&line(r#"{"image":""}"#).input), "not_found");
    }

    fn read(sources: Sources) -> Vec<String> {
        let mut feed = Feed::start(sources).unwrap();
        let cancel = Cancel::new();
        let mut found = Vec::new();
        while let Some(entry) = feed.next(&cancel).unwrap() {
            found.push(match entry.input {
                Ok(_) => entry.label,
                Err(fault) => format!("{}!", fault.kind),
            });
        }
        found
    }

    #[test]
    fn streams_are_read_in_order_with_marks_and_breaks_of_every_kind() {
        let items = b"\xef\xbb\xbf{\"text\":\"one\"}\r\n\r\n  \n{\"text\":2}\n{\"text\":\"three\"}".as_slice();
        let lines = b"\xef\xbb\xbffour\r\n\nfi\xffve\nsix".as_slice();
        let sources = Sources {
            typed: vec![TypedInput::Text("zero".into())],
            items: Some((Box::new(items), "items".into(), PathBuf::new())),
            lines: Some(Box::new(lines)),
            live: false,
            tracks: Tracks::default(),
        };
        assert_eq!(read(sources), ["zero", "one", "bad_item!", "three", "four", "", "bad_item!", "six"]);
    }

    #[test]
    fn a_line_may_say_which_track_of_its_file_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.mkv", "f.png"] {
            fs::write(folder.path().join(name), b"x").unwrap();
        }
        let path = folder.path().join("a.mkv");
        let of = |line: &str, tracks: &Tracks| item(line.as_bytes(), folder.path(), "line 1", tracks).input;
        let digest = |input: Input| input.digest().unwrap();
        let (none, all) = (
            Tracks::default(),
            Tracks { audio: Some(TrackChoice::Index(2)), video: Some(TrackChoice::Language("deu".into())) },
        );
        let audio = |track| digest(Input::audio_file(&path).track(track));
        let video = |track| digest(Input::video_file(&path).track(track));
        let (index, language) = (TrackChoice::Index, |text: &str| TrackChoice::Language(text.into()));
        for (line, tracks, wanted) in [
            (r#"{"audio":"a.mkv"}"#, &none, audio(TrackChoice::Default)),
            (r#"{"audio":"a.mkv","track":0}"#, &none, audio(index(0))),
            (r#"{"audio":"a.mkv","track":"eng"}"#, &none, audio(language("ENG"))),
            (r#"{"audio":"a.mkv"}"#, &all, audio(index(2))),
            (r#"{"audio":"a.mkv","track":1}"#, &all, audio(index(1))),
            (r#"{"video":"a.mkv"}"#, &all, video(language("deu"))),
            (r#"{"video":"a.mkv","track":1}"#, &none, video(index(1))),
            (r#"{"video":["f.png"]}"#, &all, digest(Input::video_frame_files(vec![folder.path().join("f.png")]))),
        ] {
            assert_eq!(digest(of(line, tracks).unwrap()), wanted, "{line}");
        }
        assert_ne!(audio(index(0)), audio(TrackChoice::Default));
        assert_ne!(audio(index(0)), audio(index(1)));
        assert_ne!(audio(index(0)), video(index(0)));
        for line in [
            r#"{"text":"a","track":0}"#,
            r#"{"image":"f.png","track":0}"#,
            r#"{"video":["f.png"],"track":0}"#,
            r#"{"audio":"a.mkv","track":-1}"#,
            r#"{"audio":"a.mkv","track":"?"}"#,
            r#"{"audio":"a.mkv","track":null}"#,
        ] {
            assert_eq!(of(line, &none).unwrap_err().kind, ErrorKind::BadItem, "{line}");
        }
    }

    #[test]
    fn a_line_without_end_costs_its_own_place_only() {
        let long = io::repeat(b'a').take(MAX_TEXT_BYTES + 1_000_000).chain(b"\nnext\n".as_slice());
        let tracks = Tracks::default();
        let sources = Sources { typed: Vec::new(), items: None, lines: Some(Box::new(long)), live: false, tracks };
        assert_eq!(read(sources), ["too_large!", "next"]);
    }
}

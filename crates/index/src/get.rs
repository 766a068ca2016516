//! A hit opened: lines or a page as text, seconds of audio as WAV, the frame of a video or a page as PNG, or the file as it is;
//! and what a file says of itself.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::embedder::Content;
use crate::error::{Fault, IndexError};
use crate::extract::{self, Photograph};
use crate::kind::{Kind, Modality, SNIFF_BYTES};
use crate::locator::Locator;
use crate::part;
use crate::search::prefix_range;
use crate::store::{FileRow, Store, Which};

/// Characters of a text that its likes are sought by: more than a model reads.
const MOST_CHARACTERS: usize = 20_000;

/// What was opened.
#[derive(Debug, Clone, PartialEq)]
pub enum Opened {
    /// Text: lines of a file, a page, or all of it.
    Text {
        /// The file.
        path: PathBuf,
        /// The text.
        text: String,
    },
    /// A file that is no text, as a whole.
    File {
        /// The file.
        path: PathBuf,
        /// Its kind.
        kind: Kind,
    },
    /// A part of a file that is no text, as a file of its own.
    Part {
        /// The file.
        path: PathBuf,
        /// What the part is: audio or an image.
        kind: Kind,
        /// WAV, or PNG.
        bytes: Vec<u8>,
    },
}

/// A file as something to be embedded; of a text its beginning.
///
/// # Errors
/// [`Fault`] for a file that cannot be read, or is of no kind that is embedded.
pub fn content_of_file(path: &Path) -> Result<Content, Fault> {
    let mut head = Vec::new();
    let open = std::fs::File::open(path).map_err(|e| Fault::of_io(&e))?;
    open.take(SNIFF_BYTES).read_to_end(&mut head).map_err(|e| Fault::of_io(&e))?;
    let kind = Kind::of(path, omniburn_media::sniff(&head));
    let kind = kind.ok_or_else(|| Fault::new("unknown_format", "found no text, image, audio or video in it"))?;
    Ok(match kind.modality() {
        Modality::Image => Content::Image(path.into()),
        Modality::Audio => Content::Audio(path.into()),
        Modality::Video => Content::Video(path.into()),
        Modality::Text => {
            let sections = extract::text_of(path, kind)?.sections;
            let drawn = sections.iter().find(|section| section.image).and_then(|section| section.page);
            let text: Vec<String> = sections.into_iter().map(|section| section.text).collect();
            let text: String = text.join("\n").trim_start().chars().take(MOST_CHARACTERS).collect();
            match drawn {
                Some(page) if text.is_empty() => return extract::Drawing::open(path)?.page(page).map(Content::Pixels),
                _ if text.is_empty() => return Err(Fault::new("empty", "found no text in it")),
                _ => {}
            }
            Content::Text(text)
        }
    })
}

/// The file whose id begins so.
pub(crate) fn file_of(db: &dyn Store, id: &str) -> Result<FileRow, IndexError> {
    let unknown = || IndexError::UnknownId { id: id.into() };
    let digit = |c: u8| (c as char).to_digit(16).map(|digit| digit as u8);
    let digits: Option<Vec<u8>> = id.bytes().map(digit).collect();
    let digits = digits.filter(|digits| (4..=16).contains(&digits.len())).ok_or_else(unknown)?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|two| two[0] << 4 | two[1]).collect();
    let (from, to) = prefix_range(&bytes);
    let found = db.files(Which::Short(&from, to.as_deref()))?;
    let hex = |file: &FileRow| file.short.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut found: Vec<FileRow> = found.into_iter().filter(|file| hex(file).starts_with(&id.to_lowercase())).collect();
    match found.len() {
        0 => Err(unknown()),
        1 => Ok(found.swap_remove(0)),
        _ => Err(IndexError::AmbiguousId { id: id.into(), ids: found.iter().map(hex).collect() }),
    }
}

/// The image of a page of a PDF, as PNG.
pub(crate) fn page_image(path: &Path, kind: Kind, page: u32) -> Result<Opened, IndexError> {
    let drawn = || {
        if kind != Kind::Pdf {
            return Err(Fault::new("bad_item", format!("{kind} has no pages that can be drawn")));
        }
        part::png_bytes(&extract::Drawing::open(path)?.page(page)?)
    };
    let bytes = drawn().map_err(|fault| IndexError::File { path: path.into(), fault })?;
    Ok(Opened::Part { path: path.into(), kind: Kind::Image, bytes })
}

/// What a file says of itself, as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// The file.
    pub path: PathBuf,
    /// Its kind.
    pub kind: Kind,
    /// Bytes.
    pub size: i64,
    /// When it was changed, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its title.
    pub title: Option<String>,
    /// When a photograph was taken, in nanoseconds since 1970.
    pub taken_ns: Option<i64>,
    /// Tags of audio and video.
    pub tags: Vec<omniburn_media::MediaTag>,
    /// Where a photograph was taken: latitude and longitude in degrees, as the index has it, else as the file says. Only where it is
    /// asked for.
    pub place: Option<(f64, f64)>,
}

/// What a file says of itself.
pub(crate) fn about(db: &dyn Store, file: FileRow, with_place: bool) -> Result<About, IndexError> {
    let FileRow { path, kind, size, mtime_ns, title, content, .. } = file;
    let image = kind == Kind::Image;
    let Photograph { taken_ns, coordinates } = if image { extract::photograph(&path) } else { Photograph::default() };
    let place = if with_place { db.coordinates_of(content)?.or(coordinates) } else { None };
    let tags = if kind.modality() == Modality::Text || image { Vec::new() } else { omniburn_media::media_tags(&path) };
    Ok(About { taken_ns, place, path, kind, size, mtime_ns, title, tags })
}

/// Opens a place of a file, as it is now.
pub(crate) fn open(path: &Path, kind: Kind, locator: Locator) -> Result<Opened, IndexError> {
    let file_fault =
        |kind: &str, message: String| IndexError::File { path: path.into(), fault: Fault::new(kind, message) };
    if kind.modality() != Modality::Text {
        return match (locator, kind) {
            (Locator::Whole, _) => Ok(Opened::File { path: path.into(), kind }),
            (Locator::Time { start_s, end_s }, Kind::Audio) => part::seconds(path, start_s, end_s)
                .map(|bytes| Opened::Part { path: path.into(), kind: Kind::Audio, bytes })
                .map_err(|fault| IndexError::File { path: path.into(), fault }),
            (Locator::Time { start_s, end_s }, Kind::Video) => part::frame(path, (start_s + end_s) / 2.0)
                .map(|bytes| Opened::Part { path: path.into(), kind: Kind::Image, bytes })
                .map_err(|fault| IndexError::File { path: path.into(), fault }),
            (other, _) => {
                Err(file_fault("bad_item", format!("{kind} has no place `{}` that can be opened", other.shown())))
            }
        };
    }
    let text = extract::text_of(path, kind).map_err(|fault| IndexError::File { path: path.into(), fault })?;
    let pages = text.sections.iter().filter(|section| section.page.is_some()).count();
    let text = match locator {
        Locator::Whole => text.sections.into_iter().map(|section| section.text).collect::<Vec<_>>().join("\n\u{c}"),
        Locator::Page(page) => {
            let found = text.sections.into_iter().find(|section| section.page == Some(page));
            let found =
                found.ok_or_else(|| file_fault("not_found", format!("page {page} is not there: it has {pages}")))?;
            if found.image {
                match page_image(path, kind, page) {
                    // What cannot be drawn has its text, where there is some.
                    Err(_) if !found.text.is_empty() => {}
                    drawn => return drawn,
                }
            }
            found.text
        }
        Locator::Lines { first, last } if pages == 0 => {
            let all: Vec<&str> = text.sections.iter().flat_map(|section| section.text.lines()).collect();
            if first as usize > all.len() {
                return Err(file_fault("not_found", format!("line {first} is not there: it has {}", all.len())));
            }
            all[first as usize - 1..(last as usize).min(all.len())].join("\n")
        }
        Locator::Lines { .. } => return Err(file_fault("bad_item", "its places are pages: say page=N".into())),
        Locator::Time { .. } => return Err(file_fault("bad_item", format!("{kind} has no times"))),
    };
    Ok(Opened::Text { path: path.into(), text })
}

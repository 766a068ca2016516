//! Files as texts with places, or as what the model takes whole.
//!
//! What others wrote is read here: sizes are bounded before anything is unpacked, and a reader that panics is a fault of that
//! one file. Archives are not entered; documents that are archives are read for the parts that hold their text.

mod archive;
#[cfg(feature = "pdf")]
mod draw;
mod exif;
mod html;
mod mail;
mod office;
#[cfg(feature = "pdf")]
mod pdf;
mod rtf;
mod section;
mod tags;
mod text;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

pub(crate) use exif::{Photograph, photograph};
use omniburn_media::RgbImage;
use section::Text;
pub(crate) use tags::tags_of;

use crate::error::Fault;
use crate::kind::Kind;

/// Bytes of a document that is read whole.
const MAX_DOCUMENT_BYTES: u64 = 1 << 30;

/// Raised with every change of what is extracted: contents of before are then read anew.
pub(crate) const VERSION: u32 = 2;

/// The text of a file of a kind that has some.
///
/// # Errors
/// [`Fault`] naming what was found.
pub(crate) fn text_of(path: &Path, kind: Kind) -> Result<Text, Fault> {
    let read = || match kind {
        Kind::Text | Kind::Code => text::read(path).map(|text| Text::of(None, text)),
        Kind::Html => text::read(path).map(|text| html::text_of(&text)),
        #[cfg(feature = "pdf")]
        Kind::Pdf => pdf::text_of(whole(path)?),
        #[cfg(not(feature = "pdf"))]
        Kind::Pdf => {
            Err(Fault::new("unknown_format", "found a PDF, which this build does not read: its feature `pdf` is off"))
        }
        Kind::Document => document(path),
        Kind::Spreadsheet | Kind::Presentation => office::text_of(path),
        Kind::Book => office::book(path),
        Kind::Mail => mail::text_of(&whole(path)?),
        Kind::Image | Kind::Audio | Kind::Video => unreachable!("the model takes it whole"),
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<&str>().map(ToString::to_string);
        let why = why.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Fault::new("panicked", format!("the reader of {kind} files gave up: {why}")))
    })
}

/// The pages of a PDF as images.
pub(crate) struct Drawing {
    #[cfg(feature = "pdf")]
    pdf: pdf::Drawing,
}

impl Drawing {
    /// Of a PDF.
    ///
    /// # Errors
    /// [`Fault`] for a file that cannot be read, is damaged or encrypted.
    #[cfg(feature = "pdf")]
    pub fn open(path: &Path) -> Result<Self, Fault> {
        Ok(Self { pdf: pdf::Drawing::open(whole(path)?)? })
    }

    /// Always an error: the feature `pdf` is off.
    #[cfg(not(feature = "pdf"))]
    pub fn open(_: &Path) -> Result<Self, Fault> {
        Err(Fault::new("unknown_format", "found a PDF, which this build does not draw: its feature `pdf` is off"))
    }

    /// The image of a page, from 1.
    ///
    /// # Errors
    /// [`Fault`] for a page that is not there, or takes too much to be drawn.
    #[cfg(feature = "pdf")]
    pub fn page(&self, number: u32) -> Result<RgbImage, Fault> {
        self.pdf.page(number)
    }

    #[cfg(not(feature = "pdf"))]
    pub fn page(&self, _: u32) -> Result<RgbImage, Fault> {
        unreachable!("nothing is opened without the feature `pdf`")
    }
}

fn document(path: &Path) -> Result<Text, Fault> {
    let mut head = [0; 8];
    let mut file = std::fs::File::open(path).map_err(|e| Fault::of_io(&e))?;
    let read = std::io::Read::read(&mut file, &mut head).map_err(|e| Fault::of_io(&e))?;
    match &head[..read] {
        [b'{', b'\\', b'r', b't', b'f', ..] => rtf::text_of(&whole(path)?),
        [0xd0, 0xcf, 0x11, 0xe0, ..] => Err(Fault::new(
            "unknown_format",
            "found a password-protected document, or one of the older binary formats; expected one without a password",
        )),
        _ => office::text_of(path),
    }
}

/// Every byte of a document.
fn whole(path: &Path) -> Result<Vec<u8>, Fault> {
    let size = std::fs::metadata(path).map_err(|e| Fault::of_io(&e))?.len();
    if size > MAX_DOCUMENT_BYTES {
        let message = format!("found {size} bytes, expected at most {MAX_DOCUMENT_BYTES} of a document");
        return Err(Fault::new("too_large", message));
    }
    std::fs::read(path).map_err(|e| Fault::of_io(&e))
}

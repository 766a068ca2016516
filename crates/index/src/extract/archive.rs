//! Documents that are ZIP archives of XML: their parts, bounded before they are unpacked, and the text between tags.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use zip::ZipArchive;
use zip::result::ZipError;

use super::section::MAX_TEXT_BYTES;
use crate::error::Fault;

/// An open document.
pub(super) struct Parts {
    archive: ZipArchive<BufReader<File>>,
    /// Bytes that may still be unpacked.
    left: u64,
}

fn fault(error: ZipError) -> Fault {
    match error {
        ZipError::Io(error) => Fault::of_io(&error),
        error => Fault::new("corrupt", format!("found a broken archive: {error}")),
    }
}

impl Parts {
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let file = File::open(path).map_err(|e| Fault::of_io(&e))?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(fault)?;
        Ok(Self { archive, left: 4 * MAX_TEXT_BYTES })
    }

    /// Names of the parts.
    pub fn names(&self) -> Vec<String> {
        self.archive.file_names_raw().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// A part as text; `None` where there is none of this name.
    pub fn part(&mut self, name: &str) -> Result<Option<String>, Fault> {
        let part = match self.archive.by_name(name) {
            Ok(part) => part,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(fault(error)),
        };
        let mut bytes = Vec::new();
        // What the archive says of the size is not believed.
        part.take(self.left + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Fault::new("corrupt", format!("the part {name} cannot be unpacked: {e}")))?;
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            let message =
                format!("unpacks to more than {} bytes, which is what one document may have", 4 * MAX_TEXT_BYTES);
            Fault::new("too_large", message)
        })?;
        super::text::decode(bytes).map(Some)
    }

    /// A part that must be there.
    pub fn needed(&mut self, name: &str) -> Result<String, Fault> {
        let missing = || Fault::new("corrupt", format!("the part {name} is missing"));
        self.part(name)?.ok_or_else(missing)
    }
}

/// What happens in an XML text; names are without prefixes.
pub(super) enum Xml<'a> {
    Open(&'a str, &'a BytesStart<'a>),
    Close(&'a str),
    Words(&'a str),
}

/// Goes through an XML text. An empty element opens and closes.
///
/// # Errors
/// [`Fault`] where it is no XML.
pub(super) fn walk(xml: &str, mut each: impl FnMut(Xml<'_>)) -> Result<(), Fault> {
    let mut reader = Reader::from_str(xml);
    // Other programs write what no one minds.
    reader.config_mut().check_end_names = false;
    loop {
        let event = reader.read_event();
        match event
            .map_err(|e| Fault::new("corrupt", format!("found broken XML at byte {}: {e}", reader.error_position())))?
        {
            Event::Eof => return Ok(()),
            Event::Start(start) => each(Xml::Open(start.local_name().as_ref(), &start)),
            Event::Empty(start) => {
                each(Xml::Open(start.local_name().as_ref(), &start));
                each(Xml::Close(start.local_name().as_ref()));
            }
            Event::End(end) => each(Xml::Close(end.local_name().as_ref())),
            Event::Text(words) => each(Xml::Words(&words.xml10_content())),
            Event::CData(words) => each(Xml::Words(&words.xml10_content())),
            Event::GeneralRef(name) => {
                let c = match &*name.xml10_content() {
                    "amp" => Some('&'),
                    "lt" => Some('<'),
                    "gt" => Some('>'),
                    "quot" => Some('"'),
                    "apos" => Some('\''),
                    // Of pages that are XML and use what HTML has.
                    "nbsp" => Some(' '),
                    _ => name.resolve_char_ref().ok().flatten(),
                };
                if let Some(c) = c {
                    each(Xml::Words(c.encode_utf8(&mut [0; 4])));
                }
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

/// The value of an attribute by its name without a prefix.
pub(super) fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = start.attributes().flatten().find(|attribute| attribute.key.local_name().as_ref() == name)?;
    found.normalized_value(quick_xml::XmlVersion::Implicit1_0).ok().map(|value| value.into_owned())
}

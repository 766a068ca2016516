//! What kinds of files there are, as people name them in searches.

use std::ffi::OsStr;
use std::path::Path;

use omniburn_media::FileKind;

/// Bytes at the beginning of a file that tell its format.
pub(crate) const SNIFF_BYTES: u64 = 1024;

/// What a file is, by its content and its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Notes, Markdown, logs, tables of plain text.
    Text,
    /// Source code and settings.
    Code,
    /// A web page.
    Html,
    /// A PDF.
    Pdf,
    /// A word processor's document: DOCX, ODT, RTF.
    Document,
    /// XLSX, ODS.
    Spreadsheet,
    /// PPTX, ODP.
    Presentation,
    /// EPUB.
    Book,
    /// A message with its headers.
    Mail,
    /// A still image.
    Image,
    /// Audio.
    Audio,
    /// Video, animations included.
    Video,
}

/// What a vector was made from: cosines are compared within a modality, and calibrated scores across them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Modality {
    /// Text of any kind of file.
    Text,
    /// An image.
    Image,
    /// Audio.
    Audio,
    /// Video.
    Video,
}

impl Modality {
    /// Every modality, in the order in which it is stored.
    pub const ALL: [Modality; 4] = [Modality::Text, Modality::Image, Modality::Audio, Modality::Video];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Modality::Text => "text",
            Modality::Image => "image",
            Modality::Audio => "audio",
            Modality::Video => "video",
        }
    }
}

/// Endings of source code and of settings.
const CODE_ENDINGS: &[&str] = &[
    "rs", "py", "pyi", "js", "mjs", "cjs", "ts", "tsx", "jsx", "c", "h", "cc", "cpp", "cxx", "hpp", "hh", "go", "java",
    "kt", "kts", "swift", "rb", "php", "cs", "fs", "scala", "clj", "hs", "ml", "mli", "erl", "ex", "exs", "lua", "pl",
    "pm", "r", "jl", "sh", "bash", "zsh", "fish", "ps1", "bat", "sql", "vue", "svelte", "css", "scss", "less", "toml",
    "yaml", "yml", "json", "ini", "cfg", "conf", "xml", "cmake", "gradle", "proto", "zig", "nim", "dart", "asm", "s",
    "cu", "cl", "wgsl", "glsl", "tf", "nix", "el", "vim", "m", "mm",
];

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 12] = [
        Kind::Text,
        Kind::Code,
        Kind::Html,
        Kind::Pdf,
        Kind::Document,
        Kind::Spreadsheet,
        Kind::Presentation,
        Kind::Book,
        Kind::Mail,
        Kind::Image,
        Kind::Audio,
        Kind::Video,
    ];

    /// The name that people type.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Code => "code",
            Kind::Html => "html",
            Kind::Pdf => "pdf",
            Kind::Document => "document",
            Kind::Spreadsheet => "spreadsheet",
            Kind::Presentation => "presentation",
            Kind::Book => "book",
            Kind::Mail => "mail",
            Kind::Image => "image",
            Kind::Audio => "audio",
            Kind::Video => "video",
        }
    }

    /// Every name.
    pub fn names() -> Vec<&'static str> {
        Self::ALL.map(Self::name).to_vec()
    }

    /// The kind of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// What its vectors are made from.
    pub fn modality(self) -> Modality {
        match self {
            Kind::Image => Modality::Image,
            Kind::Audio => Modality::Audio,
            Kind::Video => Modality::Video,
            _ => Modality::Text,
        }
    }

    /// Of a file by its format, as [`omniburn_media::sniff`] names it from the first bytes, and its ending; `None` for what
    /// has no text, image, audio or video in it.
    pub fn of(path: &Path, format: Option<&str>) -> Option<Self> {
        let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        let ending = ending.as_str();
        match (format, ending) {
            (Some("pdf"), _) => return Some(Kind::Pdf),
            (Some("rtf"), _) => return Some(Kind::Document),
            (Some("epub"), _) => return Some(Kind::Book),
            // The first file of an archive need not tell; the ending does, and the content is checked when it is read.
            (Some("zip" | "opendocument" | "office document (docx, xlsx or pptx)"), "docx" | "docm" | "odt") => {
                return Some(Kind::Document);
            }
            (Some("zip" | "opendocument" | "office document (docx, xlsx or pptx)"), "xlsx" | "xlsm" | "ods") => {
                return Some(Kind::Spreadsheet);
            }
            (Some("zip" | "opendocument" | "office document (docx, xlsx or pptx)"), "pptx" | "pptm" | "odp") => {
                return Some(Kind::Presentation);
            }
            (Some("zip"), "epub") => return Some(Kind::Book),
            // An office document under a password is no archive.
            (Some("ole document"), "docx" | "xlsx" | "pptx") => return Some(Kind::Document),
            (Some("text" | "html" | "xml" | "utf-16 text" | "utf-32 text") | Some(omniburn_media::OTHER_TEXT), _) => {
                return match ending {
                    "eml" => Some(Kind::Mail),
                    "html" | "htm" | "xhtml" => Some(Kind::Html),
                    _ if CODE_ENDINGS.contains(&ending) => Some(Kind::Code),
                    _ if format == Some("html") => Some(Kind::Html),
                    _ => match FileKind::of_ending(path) {
                        // Called an image or audio, and is text: broken, and said so by whoever reads it.
                        Some(FileKind::Image) if ending != "svg" => Some(Kind::Image),
                        Some(FileKind::Audio) => Some(Kind::Audio),
                        Some(FileKind::Video) if ending != "mts" => Some(Kind::Video),
                        _ => Some(Kind::Text),
                    },
                };
            }
            _ => {}
        }
        match FileKind::decide(format, FileKind::of_ending(path))?.looked_into(path, format) {
            FileKind::Image => Some(Kind::Image),
            FileKind::Audio => Some(Kind::Audio),
            FileKind::Video => Some(Kind::Video),
            // Called a text, and is none.
            FileKind::Text => None,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_and_the_ending_only_where_content_leaves_it_open() {
        let of = |name: &str, format| Kind::of(Path::new(name), format);
        assert_eq!(of("a.txt", Some("text")), Some(Kind::Text));
        assert_eq!(of("a.rs", Some("text")), Some(Kind::Code));
        assert_eq!(of("a.md", Some("text")), Some(Kind::Text));
        assert_eq!(of("a", Some("html")), Some(Kind::Html));
        assert_eq!(of("a.txt", Some("pdf")), Some(Kind::Pdf));
        assert_eq!(of("a.docx", Some("office document (docx, xlsx or pptx)")), Some(Kind::Document));
        assert_eq!(of("a.zip", Some("zip")), None);
        assert_eq!(of("a.bin", Some("elf")), None);
        assert_eq!(of("a.txt", Some("elf")), None);
        assert_eq!(of("a.txt", Some("jpeg")), Some(Kind::Image));
        assert_eq!(of("a.jpg", Some("text")), Some(Kind::Image));
        assert_eq!(of("a.eml", Some("text")), Some(Kind::Mail));
    }

    #[test]
    fn every_name_is_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(&kind.name().to_uppercase()), Some(kind));
        }
        assert_eq!(Kind::named("picture"), None);
    }
}

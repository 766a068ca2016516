//! A PDF, page by page: glyphs with their places, put into lines, and the image of a page whose text layer is missing or thin.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hayro_interpret::font::GlyphRun;
use hayro_interpret::hayro_cmap::BfString;
use hayro_interpret::hayro_syntax::page::Page;
use hayro_interpret::hayro_syntax::{DecryptionError, LoadPdfError, Pdf};
use hayro_interpret::kurbo::{Affine, BezPath, Point, Rect};
use hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps, InterpreterCache,
    InterpreterSettings, SoftMask, interpret_page,
};
use omniburn_media::RgbImage;

use super::draw::page_image;
use super::section::{MAX_TEXT_BYTES, Text};
use crate::error::Fault;

/// Characters of a text layer that says what a page shows: with fewer the image of the page counts too.
const THIN_CHARACTERS: usize = 50;
/// The text of every page, and whether its image counts.
pub(super) fn text_of(bytes: Vec<u8>) -> Result<Text, Fault> {
    let pdf = open(bytes)?;
    let title = pdf.metadata().title.as_ref().map(|bytes| title_of(bytes));
    let cache = InterpreterCache::new();
    let (mut pages, mut total) = (Vec::new(), 0);
    for page in pdf.pages().iter() {
        let glyphs = Glyphs::of(page, &pdf, &cache);
        let text = glyphs.text();
        total += text.len() as u64;
        if total > MAX_TEXT_BYTES {
            let message = format!("found more than {MAX_TEXT_BYTES} bytes of text, which is what one file may have");
            return Err(Fault::new("too_large", message));
        }
        let image = glyphs.says_too_little(&text);
        pages.push((text, image));
    }
    Ok(Text::of_drawn_pages(title, pages))
}

fn open(bytes: Vec<u8>) -> Result<Pdf, Fault> {
    Pdf::new(bytes).map_err(|error| match error {
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => {
            Fault::new("unknown_format", "found a password-protected PDF, expected one without a password")
        }
        LoadPdfError::Decryption(error) => {
            Fault::new("unknown_format", format!("found a PDF whose encryption is not read: {error:?}"))
        }
        LoadPdfError::Invalid => Fault::new("corrupt", "found a PDF that is damaged beyond repair"),
    })
}

/// A PDF whose pages are drawn.
pub(crate) struct Drawing(Pdf);

impl Drawing {
    /// Of the bytes of a PDF.
    ///
    /// # Errors
    /// [`Fault`] for what is damaged or encrypted.
    pub fn open(bytes: Vec<u8>) -> Result<Self, Fault> {
        catch_unwind(AssertUnwindSafe(|| open(bytes))).unwrap_or_else(|_| Err(gave_up())).map(Self)
    }

    /// The image of a page, from 1, on white; its longer side has 1024 pixels.
    ///
    /// # Errors
    /// [`Fault`] for a page that is not there, or would take more than a page may.
    pub fn page(&self, number: u32) -> Result<RgbImage, Fault> {
        catch_unwind(AssertUnwindSafe(|| self.drawn(number))).unwrap_or_else(|_| Err(gave_up()))
    }

    fn drawn(&self, number: u32) -> Result<RgbImage, Fault> {
        let pages = self.0.pages();
        let page = (number as usize)
            .checked_sub(1)
            .and_then(|at| pages.get(at))
            .ok_or_else(|| Fault::new("not_found", format!("page {number} is not there: it has {}", pages.len())))?;
        page_image(page, &self.0)
    }
}

fn gave_up() -> Fault {
    Fault::new("panicked", "the reader of PDF gave up on the page")
}

/// A text string of PDF: UTF-16 with its mark, UTF-8 with its mark, else bytes that are mostly Latin-1.
///
/// # Source
/// ISO 32000-2, 7.9.2.2.
fn title_of(bytes: &[u8]) -> String {
    match bytes {
        [0xfe, 0xff, rest @ ..] => {
            let units = rest.as_chunks::<2>().0.iter().map(|two| u16::from_be_bytes(*two));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        bytes => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// One glyph with its characters.
struct Placed {
    text: String,
    /// Where its baseline begins, on the page; y grows upwards.
    x: f64,
    y: f64,
    /// Height of the letters.
    size: f64,
    /// Where the next glyph would begin, as far as the font tells.
    end: f64,
}

/// The glyphs of a page, in the order in which they are drawn, and how much else there is.
#[derive(Default)]
struct Glyphs {
    placed: Vec<Placed>,
    /// Glyphs without characters, lines, areas and images.
    beside: u64,
}

impl Device<'_> for Glyphs {
    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'_>, _: &DrawMode) {
        self.beside += 1;
    }
    fn push_clip_path(&mut self, _: &ClipPath) {}
    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'_>>, _: BlendMode) {}
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, '_>, props: DrawProps<'_>, _: &DrawMode) {
        let from = self.placed.len();
        for glyph in run.glyphs() {
            let text = match glyph.as_unicode() {
                Some(BfString::Char(c)) => c.to_string(),
                Some(BfString::String(text)) => text,
                None => {
                    self.beside += 1;
                    continue;
                }
            };
            let transform = props.transform * glyph.transform();
            let at = transform * Point::ZERO;
            // Letters are a thousandth of their font's unit: one unit up is one thousandth of the size.
            let up = transform * Point::new(0.0, 1000.0);
            let size = (up - at).hypot();
            if let Some(before) = self.placed.get_mut(from..).and_then(<[Placed]>::last_mut)
                && at.x > before.x
                && (at.y - before.y).abs() < 0.3 * size
            {
                // Within a run the next glyph says where this one ends, unless a gap is meant: letters are at most so wide.
                before.end = at.x.min(before.x + 1.1 * before.size);
            }
            self.placed.push(Placed { text, x: at.x, y: at.y, size, end: at.x + 0.5 * size });
        }
    }
    fn draw_image(&mut self, _: Image<'_, '_>, _: ImageDrawProps<'_>) {
        self.beside += 1;
    }
    fn pop_clip(&mut self) {}
    fn pop_transparency_group(&mut self) {}
}

impl Glyphs {
    fn of<'a>(page: &'a Page<'a>, pdf: &'a Pdf, cache: &InterpreterCache<'a>) -> Self {
        // Where things lie on the page is all that counts; nothing is drawn.
        let bounds = Rect::new(0.0, 0.0, 1.0, 1.0);
        let mut context = Context::new(Affine::IDENTITY, bounds, cache, pdf.xref(), InterpreterSettings::default());
        let mut glyphs = Self::default();
        interpret_page(page, &mut context, &mut glyphs);
        glyphs
    }

    /// Whether a page shows more than its text.
    fn says_too_little(&self, text: &str) -> bool {
        self.beside > 0 && text.chars().filter(|c| !c.is_whitespace()).take(THIN_CHARACTERS).count() < THIN_CHARACTERS
    }

    /// Lines from glyphs: another baseline begins another line, a gap is a space.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut last: Option<&Placed> = None;
        for glyph in &self.placed {
            if let Some(last) = last {
                let size = last.size.max(glyph.size).max(1e-6);
                let (down, gap) = (last.y - glyph.y, glyph.x - last.end);
                if down.abs() > 0.6 * size {
                    // More than two lines apart is a paragraph.
                    text.push_str(if down > 2.2 * size { "\n\n" } else { "\n" });
                } else if (gap > 0.18 * size || gap < -2.0 * size)
                    && !text.ends_with(char::is_whitespace)
                    && !glyph.text.starts_with(char::is_whitespace)
                {
                    text.push(' ');
                }
            }
            text.extend(glyph.text.chars().filter(|c| !c.is_control()));
            last = Some(glyph);
        }
        joined(&text)
    }
}

/// Words that were cut at the ends of lines as one.
fn joined(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    let mut lines = text.lines().map(str::trim_end).peekable();
    while let Some(line) = lines.next() {
        let goes_on = lines.peek().is_some_and(|next| next.chars().next().is_some_and(char::is_lowercase));
        match line.strip_suffix(['-', '\u{2010}', '\u{ad}']) {
            Some(part) if goes_on && part.chars().next_back().is_some_and(char::is_lowercase) => joined.push_str(part),
            _ => {
                joined.push_str(line);
                joined.push('\n');
            }
        }
    }
    joined.truncate(joined.trim_end().len());
    joined
}

#[cfg(test)]
mod tests {
    use omniburn_media::{Height, Width};

    use super::*;

    /// A PDF of pages with lines of Helvetica.
    fn pdf(pages: &[&[&str]]) -> Vec<u8> {
        let mut objects = vec!["<< /Type /Catalog /Pages 2 0 R >>".to_string()];
        let kids: Vec<String> = (0..pages.len()).map(|i| format!("{} 0 R", 4 + 2 * i)).collect();
        objects.push(format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), pages.len()));
        objects.push("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".into());
        for (i, lines) in pages.iter().enumerate() {
            let body: String = lines.iter().map(|line| format!("({line}) Tj T*\n")).collect();
            let body = format!("BT /F1 12 Tf 14 TL 72 720 Td\n{body}ET");
            objects.push(format!(
                "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {} 0 R /Resources << /Font << /F1 3 0 R >> >> >>",
                5 + 2 * i
            ));
            objects.push(format!("<< /Length {} >>\nstream\n{body}\nendstream", body.len()));
        }
        let (mut file, mut places) = (b"%PDF-1.4\n".to_vec(), Vec::new());
        for (i, object) in objects.iter().enumerate() {
            places.push(file.len());
            file.extend(format!("{} 0 obj\n{object}\nendobj\n", i + 1).bytes());
        }
        let table = file.len();
        file.extend(format!("xref\n0 {}\n0000000000 65535 f \n", places.len() + 1).bytes());
        places.iter().for_each(|at| file.extend(format!("{at:010} 00000 n \n").bytes()));
        file.extend(format!("trailer << /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF", places.len() + 1).bytes());
        file
    }

    #[test]
    fn the_text_of_each_page_is_found_in_lines() {
        let found =
            text_of(pdf(&[&["The first line of a report", "and a hyphen-", "ated word."], &["Page two"]])).unwrap();
        let pages: Vec<(Option<u32>, &str)> = found.sections.iter().map(|s| (s.page, s.text.as_str())).collect();
        assert_eq!(pages, [(Some(1), "The first line of a report\nand a hyphenated word."), (Some(2), "Page two")]);
    }

    /// A page with a black rectangle over its lower left quarter and a word.
    fn drawing(side_pt: u32, times: usize) -> Vec<u8> {
        let areas = format!("0 0 {0} {0} re f\n", side_pt / 2).repeat(times);
        let text = String::from_utf8(pdf(&[&["x"]])).unwrap();
        let body = format!("{areas}BT /F1 12 Tf 20 150 Td (Few words) Tj ET");
        let (before, rest) = text.split_once("<< /Length ").unwrap();
        let after = &rest[rest.find("\nendstream").unwrap()..];
        let page = before.replace("612 792", &format!("{side_pt} {side_pt}"));
        // The places of objects do not fit any more: they are looked for.
        format!("{page}<< /Length {} >>\nstream\n{body}{after}", body.len()).into_bytes()
    }

    #[test]
    fn a_page_that_shows_more_than_its_text_has_an_image() {
        let text = text_of(drawing(200, 1)).unwrap();
        assert_eq!((text.sections[0].text.as_str(), text.sections[0].image), ("Few words", true));
        let image = Drawing::open(drawing(200, 1)).unwrap().page(1).unwrap();
        assert_eq!((image.width(), image.height()), (Width(1024), Height(1024)));
        let at = |x: usize, y: usize| image.pixels()[3 * (y * 1024 + x)];
        assert_eq!((at(100, 900), at(900, 900), at(700, 100)), (0, 255, 255));
        // Words alone are all that a page of words shows.
        let words = text_of(pdf(&[&["One line"]])).unwrap();
        assert!(!words.sections[0].image);
        assert_eq!(Drawing::open(drawing(200, 1)).unwrap().page(2).unwrap_err().kind, "not_found");
    }

    #[test]
    fn a_page_that_is_too_much_has_no_image() {
        // An area of a quarter of the page again and again, and a page of six kilometres.
        for bytes in [drawing(200, 20_000), drawing(400_000, 1)] {
            assert_eq!(Drawing::open(bytes).unwrap().page(1).unwrap_err().kind, "too_large");
        }
        let whole = drawing(200, 1);
        for cut in (0..whole.len()).step_by(29) {
            let _ = Drawing::open(whole[..cut].to_vec()).and_then(|pdf| pdf.page(1));
        }
    }

    #[test]
    fn damaged_files_are_named() {
        assert_eq!(text_of(b"%PDF-1.4\nnothing".to_vec()).unwrap_err().kind, "corrupt");
        let whole = pdf(&[&["Some words"]]);
        for cut in (0..whole.len()).step_by(37) {
            let _ = text_of(whole[..cut].to_vec());
        }
    }

    #[test]
    fn titles_are_read_in_both_encodings() {
        assert_eq!(title_of(b"\xfe\xff\0A\0b"), "Ab");
        assert_eq!(title_of(b"A\xe9"), "Aé");
    }
}

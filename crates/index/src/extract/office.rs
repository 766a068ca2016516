//! Documents of offices and books: DOCX, PPTX, XLSX, ODT, ODS, ODP, EPUB.
//!
//! # Source
//! ECMA-376 (Office Open XML), OASIS OpenDocument 1.3, EPUB 3.3.

use std::path::Path;

use super::archive::{Parts, Xml, attribute, walk};
use super::html;
use super::section::Text;
use crate::error::Fault;

/// Cells that a table may repeat: an empty row "repeated" a million times is how tables end.
const MAX_REPEATED: usize = 16;

/// The text of an office document, recognised by the parts it has.
pub(super) fn text_of(path: &Path) -> Result<Text, Fault> {
    let mut parts = Parts::open(path)?;
    let names = parts.names();
    let has = |name: &str| names.iter().any(|there| there == name);
    if has("META-INF/manifest.xml") && parts.needed("META-INF/manifest.xml")?.contains("encryption-data") {
        return Err(Fault::new(
            "unknown_format",
            "found a password-protected document, expected one without a password",
        ));
    }
    let title = match (has("docProps/core.xml"), has("meta.xml")) {
        (true, _) => title_of(&parts.needed("docProps/core.xml")?),
        (_, true) => title_of(&parts.needed("meta.xml")?),
        _ => None,
    };
    if has("word/document.xml") {
        let mut text = String::new();
        for name in ["word/document.xml", "word/footnotes.xml", "word/endnotes.xml"] {
            if let Some(part) = parts.part(name)? {
                paragraphs(&part, &mut text)?;
            }
        }
        return Ok(Text::of(title, text));
    }
    if has("ppt/presentation.xml") {
        let mut slides = numbered(&names, "ppt/slides/slide");
        slides.sort_unstable();
        let mut pages = Vec::new();
        for (_, name) in slides {
            let mut text = String::new();
            paragraphs(&parts.needed(&name)?, &mut text)?;
            pages.push(text);
        }
        return Ok(Text::of_pages(title, pages));
    }
    if has("xl/workbook.xml") {
        return Ok(Text::of(title, workbook(&mut parts, &names)?));
    }
    if has("content.xml") {
        return open_document(&parts.needed("content.xml")?, title);
    }
    Err(Fault::new("unknown_format", "found an archive that holds no document of a known kind"))
}

/// Parts such as `ppt/slides/slide12.xml` with their numbers.
fn numbered(names: &[String], stem: &str) -> Vec<(u32, String)> {
    let number = |name: &String| Some((name.strip_prefix(stem)?.strip_suffix(".xml")?.parse().ok()?, name.clone()));
    names.iter().filter_map(number).collect()
}

/// `dc:title` of the properties of a document; broken ones have none.
fn title_of(xml: &str) -> Option<String> {
    let (mut inside, mut title) = (false, String::new());
    walk(xml, |event| match event {
        Xml::Open("title", _) => inside = true,
        Xml::Close("title") => inside = false,
        Xml::Words(words) if inside => title.push_str(words),
        _ => {}
    })
    .ok()?;
    Some(title)
}

/// Runs of text (`t`), a paragraph (`p`) a line: what Word and PowerPoint share.
fn paragraphs(xml: &str, text: &mut String) -> Result<(), Fault> {
    let mut inside = 0usize;
    walk(xml, |event| match event {
        Xml::Open("t", _) => inside += 1,
        Xml::Close("t") => inside = inside.saturating_sub(1),
        Xml::Words(words) if inside > 0 => text.push_str(words),
        Xml::Open("tab", _) if !text.ends_with('\n') => text.push('\t'),
        Xml::Open("br" | "cr", _) | Xml::Close("p") => text.push('\n'),
        _ => {}
    })
}

/// Every sheet: its name on a line, and a row a line.
fn workbook(parts: &mut Parts, names: &[String]) -> Result<String, Fault> {
    let mut shared: Vec<String> = Vec::new();
    if let Some(xml) = parts.part("xl/sharedStrings.xml")? {
        let (mut inside, mut phonetic) = (0usize, 0usize);
        walk(&xml, |event| match event {
            Xml::Open("si", _) => shared.push(String::new()),
            Xml::Open("rPh", _) => phonetic += 1,
            Xml::Close("rPh") => phonetic = phonetic.saturating_sub(1),
            Xml::Open("t", _) => inside += 1,
            Xml::Close("t") => inside = inside.saturating_sub(1),
            Xml::Words(words) if inside > 0 && phonetic == 0 => {
                if let Some(last) = shared.last_mut() {
                    last.push_str(words);
                }
            }
            _ => {}
        })?;
    }
    let mut titles = Vec::new();
    walk(&parts.needed("xl/workbook.xml")?, |event| {
        if let Xml::Open("sheet", start) = event {
            titles.push(attribute(start, "name").unwrap_or_default());
        }
    })?;
    let mut sheets = numbered(names, "xl/worksheets/sheet");
    sheets.sort_unstable();
    let mut text = String::new();
    for (at, (_, name)) in sheets.into_iter().enumerate() {
        text.push_str(titles.get(at).map_or("", String::as_str));
        text.push('\n');
        sheet(&parts.needed(&name)?, &shared, &mut text)?;
    }
    Ok(text)
}

fn sheet(xml: &str, shared: &[String], text: &mut String) -> Result<(), Fault> {
    let (mut kind, mut value, mut inside) = (String::new(), String::new(), false);
    walk(xml, |event| match event {
        Xml::Open("c", start) => {
            kind = attribute(start, "t").unwrap_or_default();
            value.clear();
        }
        Xml::Open("v" | "t", _) => inside = true,
        Xml::Close("v" | "t") => inside = false,
        Xml::Words(words) if inside => value.push_str(words),
        Xml::Close("c") => {
            let value = match kind.as_str() {
                "s" => value.trim().parse::<usize>().ok().and_then(|at| shared.get(at)).map_or("", String::as_str),
                _ => value.as_str(),
            };
            if !value.is_empty() {
                if !text.ends_with('\n') {
                    text.push('\t');
                }
                text.push_str(value);
            }
        }
        Xml::Close("row") => text.push('\n'),
        _ => {}
    })
}

/// Paragraphs, rows of tables, and slides of an OpenDocument.
fn open_document(xml: &str, title: Option<String>) -> Result<Text, Fault> {
    let mut pages = vec![String::new()];
    let (mut slides, mut inside, mut cells) = (0usize, 0usize, 0usize);
    walk(xml, |event| {
        let text = pages.last_mut().expect("there is one from the beginning");
        match event {
            Xml::Open("page", _) => {
                slides += 1;
                if slides > 1 {
                    pages.push(String::new());
                }
            }
            Xml::Open("p" | "h", _) => inside += 1,
            Xml::Close("p" | "h") => {
                inside = inside.saturating_sub(1);
                text.push(if cells > 0 { ' ' } else { '\n' });
            }
            Xml::Open("table-cell", _) => {
                cells += 1;
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\t');
                }
            }
            Xml::Close("table-cell") => {
                cells = cells.saturating_sub(1);
                text.truncate(text.trim_end_matches([' ', '\t']).len());
            }
            Xml::Close("table-row") if !text.ends_with('\n') => text.push('\n'),
            Xml::Open("s", start) if inside > 0 => {
                let count = attribute(start, "c").and_then(|count| count.parse().ok()).unwrap_or(1usize);
                text.extend(std::iter::repeat_n(' ', count.min(MAX_REPEATED)));
            }
            Xml::Open("tab", _) if inside > 0 => text.push('\t'),
            Xml::Open("line-break", _) if inside > 0 => text.push('\n'),
            Xml::Words(words) if inside > 0 => text.push_str(words),
            _ => {}
        }
    })?;
    if slides > 0 {
        return Ok(Text::of_pages(title, pages));
    }
    Ok(Text::of(title, pages.concat()))
}

/// The chapters of a book, in the order in which they are read; each is a page.
pub(super) fn book(path: &Path) -> Result<Text, Fault> {
    let mut parts = Parts::open(path)?;
    if let Some(xml) = parts.part("META-INF/encryption.xml")? {
        // Fonts are often obscured; a chapter under a key is one that cannot be read.
        if xml.contains(".xhtml") || xml.contains(".html") {
            return Err(Fault::new(
                "unknown_format",
                "found a book whose chapters are encrypted, expected one without a lock",
            ));
        }
    }
    let mut package = None;
    walk(&parts.needed("META-INF/container.xml")?, |event| {
        if let Xml::Open("rootfile", start) = event {
            package = package.take().or_else(|| attribute(start, "full-path"));
        }
    })?;
    let package = package.ok_or_else(|| Fault::new("corrupt", "the book names no package of its parts"))?;
    let folder = package.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
    let xml = parts.needed(&package)?;
    let (mut items, mut order) = (std::collections::HashMap::new(), Vec::new());
    walk(&xml, |event| match event {
        Xml::Open("item", start) => {
            if let (Some(id), Some(href)) = (attribute(start, "id"), attribute(start, "href")) {
                items.insert(id, href);
            }
        }
        Xml::Open("itemref", start) => order.extend(attribute(start, "idref")),
        _ => {}
    })?;
    let mut pages = Vec::new();
    for id in order {
        let Some(href) = items.get(&id) else {
            return Err(Fault::new("corrupt", format!("the book has no part `{id}`")));
        };
        let page = parts.needed(&resolved(&folder, href))?;
        pages.push(html::text_of(&page).sections.into_iter().map(|section| section.text).collect());
    }
    Ok(Text::of_pages(title_of(&xml), pages))
}

/// A reference within the archive: escapes undone, `..` followed.
fn resolved(folder: &str, href: &str) -> String {
    let href = href.split('#').next().unwrap_or_default();
    let (mut bytes, mut rest) = (Vec::new(), href.as_bytes());
    while let [first, more @ ..] = rest {
        let escaped = match (first, more) {
            (b'%', [high, low, ..]) => {
                std::str::from_utf8(&[*high, *low]).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &more[2..] } else { more };
    }
    let mut steps: Vec<&str> = folder.split('/').filter(|step| !step.is_empty()).collect();
    let path = String::from_utf8_lossy(&bytes).into_owned();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    steps.join("/")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive(parts: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut archive = zip::ZipWriter::new(file.reopen().unwrap());
        for (name, text) in parts {
            archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(text.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
        file
    }

    #[test]
    fn a_word_document_is_its_paragraphs() {
        let file = archive(&[
            (
                "word/document.xml",
                "<w:document><w:p><w:r><w:t>One </w:t></w:r><w:r><w:t>a &amp; b</w:t><w:tab/></w:r></w:p><w:p><w:t>Two</w:t><w:br/><w:instrText>no</w:instrText></w:p></w:document>",
            ),
            ("docProps/core.xml", "<p><dc:title>A  title</dc:title></p>"),
        ]);
        let text = text_of(file.path()).unwrap();
        assert_eq!(text.title.as_deref(), Some("A title"));
        assert_eq!(text.sections[0].text, "One a & b\t\nTwo\n\n");
    }

    #[test]
    fn slides_are_pages_in_the_order_of_their_numbers() {
        let slide = |words: &str| format!("<p:sld><a:p><a:r><a:t>{words}</a:t></a:r></a:p></p:sld>");
        let (two, ten) = (slide("two"), slide("ten"));
        let file = archive(&[
            ("ppt/presentation.xml", "<p/>"),
            ("ppt/slides/slide10.xml", &ten),
            ("ppt/slides/slide2.xml", &two),
        ]);
        let pages = text_of(file.path()).unwrap().sections;
        assert_eq!(
            pages.iter().map(|page| (page.page.unwrap(), page.text.trim())).collect::<Vec<_>>(),
            [(1, "two"), (2, "ten")]
        );
    }

    #[test]
    fn a_workbook_is_its_rows() {
        let file = archive(&[
            ("xl/workbook.xml", "<workbook><sheets><sheet name='Costs'/></sheets></workbook>"),
            ("xl/sharedStrings.xml", "<sst><si><t>bread</t></si><si><r><t>oat</t></r><r><t>meal</t></r></si></sst>"),
            (
                "xl/worksheets/sheet1.xml",
                "<worksheet><row><c t='s'><v>1</v></c><c><v>2.5</v></c></row><row><c t='inlineStr'><is><t>x</t></is></c><c t='s'><v>9</v></c></row></worksheet>",
            ),
        ]);
        assert_eq!(text_of(file.path()).unwrap().sections[0].text, "Costs\noatmeal\t2.5\nx\n");
    }

    #[test]
    fn open_documents_are_paragraphs_rows_and_slides() {
        let text = archive(&[(
            "content.xml",
            "<o><text:h>Head</text:h><text:p>a<text:s text:c='3'/>b<text:tab/>c</text:p></o>",
        )]);
        assert_eq!(text_of(text.path()).unwrap().sections[0].text, "Head\na   b\tc\n");
        let table = archive(&[(
            "content.xml",
            "<o><table:table-row><table:table-cell><text:p>1</text:p></table:table-cell><table:table-cell><text:p>2</text:p></table:table-cell></table:table-row></o>",
        )]);
        assert_eq!(text_of(table.path()).unwrap().sections[0].text, "1\t2\n");
        let slides = archive(&[(
            "content.xml",
            "<o><draw:page><text:p>one</text:p></draw:page><draw:page><text:p>two</text:p></draw:page></o>",
        )]);
        assert_eq!(text_of(slides.path()).unwrap().sections.len(), 2);
    }

    #[test]
    fn a_book_is_read_in_its_order() {
        let file = archive(&[
            ("META-INF/container.xml", "<c><rootfile full-path='OPS/p.opf'/></c>"),
            (
                "OPS/p.opf",
                "<p><dc:title>B</dc:title><item id='a' href='one%20x.xhtml'/><item id='b' href='../two.xhtml'/><itemref idref='b'/><itemref idref='a'/></p>",
            ),
            ("OPS/one x.xhtml", "<html><body><p>one</p></body></html>"),
            ("two.xhtml", "<html><body><p>two</p></body></html>"),
        ]);
        let text = book(file.path()).unwrap();
        assert_eq!(text.title.as_deref(), Some("B"));
        assert_eq!(text.sections.iter().map(|page| page.text.as_str()).collect::<Vec<_>>(), ["two", "one"]);
    }

    #[test]
    fn what_is_locked_broken_or_something_else_is_named() {
        let kind = |parts: &[(&str, &str)]| text_of(archive(parts).path()).unwrap_err();
        assert!(kind(&[("a.txt", "x")]).message.contains("no document"));
        assert!(
            kind(&[("META-INF/manifest.xml", "<encryption-data/>"), ("content.xml", "x")]).message.contains("password")
        );
        assert_eq!(kind(&[("word/document.xml", "<w:p><")]).kind, "corrupt");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"PK\x03\x04 and no more").unwrap();
        assert_eq!(text_of(file.path()).unwrap_err().kind, "corrupt");
    }

    #[test]
    fn an_archive_that_unpacks_to_too_much_is_stopped() {
        let zeros = " ".repeat(32 << 20);
        let parts: Vec<(String, &str)> =
            (1..=9).map(|i| (format!("ppt/slides/slide{i}.xml"), zeros.as_str())).collect();
        let mut all = vec![("ppt/presentation.xml", "<p/>")];
        all.extend(parts.iter().map(|(name, text)| (name.as_str(), *text)));
        let file = archive(&all);
        assert!(file.path().metadata().unwrap().len() < 2 << 20);
        assert_eq!(text_of(file.path()).unwrap_err().kind, "too_large");
    }
}

//! The text of a file with its places.

/// Bytes of text that one file may give.
pub(crate) const MAX_TEXT_BYTES: u64 = 64 << 20;
/// A text, or the text of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// Page, slide or chapter, from 1; none where lines are the places.
    pub page: Option<u32>,
    pub text: String,
    /// Whether the page shows what its text does not say, so that its image counts too.
    pub image: bool,
}

/// The text of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Text {
    pub title: Option<String>,
    pub sections: Vec<Section>,
}

impl Text {
    /// Without pages.
    pub fn of(title: Option<String>, text: String) -> Self {
        Self { title: title.and_then(tidy_title), sections: vec![Section { page: None, text, image: false }] }
    }

    /// With pages, from 1.
    pub fn of_pages(title: Option<String>, pages: Vec<String>) -> Self {
        Self::of_drawn_pages(title, pages.into_iter().map(|text| (text, false)).collect())
    }

    /// With pages, from 1, and whether the image of each counts.
    pub fn of_drawn_pages(title: Option<String>, pages: Vec<(String, bool)>) -> Self {
        let section = |(at, (text, image))| Section { page: Some(at as u32 + 1), text, image };
        Self { title: title.and_then(tidy_title), sections: pages.into_iter().enumerate().map(section).collect() }
    }
}

/// A title on one line, or none.
pub(super) fn tidy_title(title: String) -> Option<String> {
    let words: Vec<&str> = title.split_whitespace().collect();
    let title: String = words.join(" ").chars().filter(|c| !c.is_control()).take(300).collect();
    (!title.is_empty()).then_some(title)
}

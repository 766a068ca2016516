//! What audio and video files say of themselves, as words.

use std::path::Path;

use omniburn_media::media_tags;

use super::section::tidy_title;

/// The title of a file and all of its tags, a line each; nothing of a file without tags.
pub(crate) fn tags_of(path: &Path) -> (Option<String>, String) {
    let tags = media_tags(path);
    let title = tags.iter().find(|tag| tag.name == "title").and_then(|tag| tidy_title(tag.value.clone()));
    let lines: Vec<&str> = tags.iter().map(|tag| tag.value.as_str()).collect();
    (title, lines.join("\n"))
}

//! Web pages as text: what a reader sees, a block a line.

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Token, Tokenizer};

use super::section::Text;

/// Elements whose content nobody reads.
const UNREAD: [&[u8]; 6] = [b"script", b"style", b"noscript", b"template", b"svg", b"math"];
/// Elements that stand on lines of their own.
const BLOCKS: [&[u8]; 34] = [
    b"p",
    b"div",
    b"br",
    b"li",
    b"ul",
    b"ol",
    b"dl",
    b"dt",
    b"dd",
    b"tr",
    b"table",
    b"h1",
    b"h2",
    b"h3",
    b"h4",
    b"h5",
    b"h6",
    b"section",
    b"article",
    b"header",
    b"footer",
    b"nav",
    b"main",
    b"aside",
    b"pre",
    b"blockquote",
    b"figure",
    b"figcaption",
    b"hr",
    b"form",
    b"title",
    b"body",
    b"option",
    b"summary",
];

/// The text of a page and its title.
pub(super) fn text_of(page: &str) -> Text {
    let mut emitter = DefaultEmitter::default();
    // Scripts are raw text, whatever looks like a tag in them.
    emitter.naively_switch_states(true);
    let (mut text, mut title) = (String::new(), None::<String>);
    let (mut unread, mut in_title, mut verbatim) = (0usize, false, 0usize);
    let mut in_head_title = String::new();
    for token in Tokenizer::new_with_emitter(page, emitter) {
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) => {
                let name: &[u8] = &tag.name;
                if UNREAD.contains(&name) && !tag.self_closing {
                    unread += 1;
                }
                in_title |= name == b"title" && unread == 0 && title.is_none();
                verbatim += usize::from(name == b"pre");
                if BLOCKS.contains(&name) {
                    break_line(&mut text);
                }
                if matches!(name, b"td" | b"th") && !text.ends_with(['\n', '\t']) {
                    text.push('\t');
                }
                // What is said of an image stands for it.
                if name == b"img" && unread == 0 {
                    let said = tag.attributes.iter().find(|(key, _)| key.as_slice() == b"alt");
                    if let Some((_, said)) = said {
                        push(&mut text, &String::from_utf8_lossy(said), false);
                    }
                }
            }
            Token::EndTag(tag) => {
                let name: &[u8] = &tag.name;
                if UNREAD.contains(&name) {
                    unread = unread.saturating_sub(1);
                }
                if name == b"title" && in_title {
                    in_title = false;
                    title = Some(std::mem::take(&mut in_head_title));
                }
                if name == b"pre" {
                    verbatim = verbatim.saturating_sub(1);
                }
                if BLOCKS.contains(&name) {
                    break_line(&mut text);
                }
            }
            Token::String(words) if unread == 0 => {
                let words = String::from_utf8_lossy(&words);
                if in_title {
                    in_head_title.push_str(&words);
                } else {
                    push(&mut text, &words, verbatim > 0);
                }
            }
            _ => {}
        }
    }
    Text::of(title, text.trim().to_string())
}

fn break_line(text: &mut String) {
    text.truncate(text.trim_end_matches([' ', '\t']).len());
    if !text.is_empty() && !text.ends_with("\n\n") && !text.ends_with('\n') {
        text.push('\n');
    }
}

/// Adds words, runs of white space as one space unless they are meant.
fn push(text: &mut String, words: &str, verbatim: bool) {
    if verbatim {
        text.push_str(words);
        return;
    }
    for c in words.chars() {
        if !c.is_whitespace() {
            text.push(c);
        } else if !text.is_empty() && !text.ends_with(char::is_whitespace) {
            text.push(' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_its_reader_sees() {
        let page = "<!doctype html><html><head><title>A  page</title><style>p { color: red }</style></head><body>
            <h1>Head&amp;line</h1><script>if (a < b) { document.write('<p>no</p>') }</script>
            <p>One <b>two</b>
            three</p><ul><li>first<li>second</ul><pre>a
  b</pre><img src=x alt='a cat'><table><tr><td>1<td>2</table>";
        let text = text_of(page);
        assert_eq!(text.title.as_deref(), Some("A page"));
        assert_eq!(text.sections[0].text, "Head&line\nOne two three\nfirst\nsecond\na\n  b\na cat\n1\t2");
    }

    #[test]
    fn broken_pages_give_what_is_there() {
        for page in ["", "<", "<p", "</p></p>", "<script>", "<title>x", "&#xFFFFFFFF;", "<!--", "<![CDATA["] {
            text_of(page);
        }
    }
}

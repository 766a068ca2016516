//! A text as pieces of so many tokens of the model, cut between sentences or lines, each beginning a little before the end of
//! the one before.
//!
//! Tokens are counted once of a short text, else once a sentence or line and once a piece. What is longer than a piece alone is
//! cut between words.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use crate::error::Fault;

/// Tokens of a piece at most, those around every text included: a place in a file is found the better the less else is in it.
const TARGET_TOKENS: usize = 224;
/// Which share of a piece is also in the next one.
const OVERLAP: usize = 8;

/// Bytes a token: a text of no more than so many for a piece may be one, and is counted as a whole first.
const SHORT_TEXT: usize = 6;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its lines, from 1.
    pub first_line: u32,
    pub last_line: u32,
    pub text: String,
}

/// What counts tokens.
pub(crate) type Count<'a> = dyn Fn(&str) -> Result<usize, Fault> + 'a;

/// Cuts a text. With `lines` only whole lines are cut apart, as source code wants it, else sentences too.
///
/// # Errors
/// Whatever counting gives.
pub(crate) fn pieces(text: &str, lines: bool, max_tokens: usize, count: &Count<'_>) -> Result<Vec<Piece>, Fault> {
    let target = TARGET_TOKENS.min(max_tokens);
    let mut breaks = Lines { text, at: 0, line: 1 };
    if text.len() <= SHORT_TEXT * target && count(text)? <= target {
        return Ok(breaks.piece(0..text.len()).into_iter().collect());
    }
    // What stands around every text, such as a first and a last token, and a prompt.
    let around = count("a")?.saturating_sub(1);
    let room = target.saturating_sub(around).max(1);
    let mut units: Vec<(Range<usize>, usize)> = Vec::new();
    let whole = |range: Range<usize>| if lines { vec![range] } else { sentences(text, range) };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        for unit in whole(at..at + line.len()) {
            add_unit(text, unit, room, around, count, &mut units)?;
        }
        at += line.len();
    }
    let mut found = Vec::new();
    let mut start = 0;
    while start < units.len() {
        let (mut end, mut sum) = (start + 1, units[start].1);
        while end < units.len() && sum + units[end].1 <= room {
            sum += units[end].1;
            end += 1;
        }
        // Joined, a text may have other tokens than its parts have.
        while end > start + 1 && count(&text[units[start].0.start..units[end - 1].0.end])? > target {
            end -= 1;
        }
        found.extend(breaks.piece(units[start].0.start..units[end - 1].0.end));
        if end == units.len() {
            break;
        }
        let (mut next, mut shared) = (end, 0);
        while next - 1 > start && shared + units[next - 1].1 <= room / OVERLAP {
            next -= 1;
            shared += units[next].1;
        }
        start = next;
    }
    Ok(found)
}

/// Sentences of a line.
fn sentences(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let base = range.start;
    let found = text[range].split_sentence_bound_indices();
    found.map(|(at, sentence)| base + at..base + at + sentence.len()).collect()
}

/// Adds a sentence or line with its tokens, cut between words, then between characters, where it is longer than a piece.
fn add_unit(
    text: &str,
    unit: Range<usize>,
    room: usize,
    around: usize,
    count: &Count<'_>,
    units: &mut Vec<(Range<usize>, usize)>,
) -> Result<(), Fault> {
    let body = &text[unit.clone()];
    if body.trim().is_empty() {
        units.push((unit, 0));
        return Ok(());
    }
    // No token is shorter than nothing: a megabyte on one line is cut before it is counted.
    let tokens = if body.len() > 64 * room { usize::MAX } else { count(body)?.saturating_sub(around).max(1) };
    if tokens <= room || body.chars().nth(1).is_none() {
        units.push((unit, tokens.min(room)));
        return Ok(());
    }
    let middle = body.len() / 2;
    let spaces = body.char_indices().filter(|(at, c)| *at > 0 && c.is_whitespace()).map(|(at, c)| at + c.len_utf8());
    let near = |at: &usize| at.abs_diff(middle);
    let cut = spaces.filter(|at| *at < body.len()).min_by_key(near).filter(|at| near(at) < body.len() / 4);
    let cut = cut.unwrap_or_else(|| (middle..body.len()).find(|at| *at > 0 && body.is_char_boundary(*at)).unwrap_or(0));
    // A character of several bytes at the end has its boundary before it.
    let cut =
        if cut == 0 || cut == body.len() { body.char_indices().nth(1).map_or(body.len(), |(at, _)| at) } else { cut };
    add_unit(text, unit.start..unit.start + cut, room, around, count, units)?;
    add_unit(text, unit.start + cut..unit.end, room, around, count, units)
}

/// The range without blank lines before it and white space behind it; `None` of what is blank.
fn without_blanks(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let body = &text[range.clone()];
    let first = body.find(|c: char| !c.is_whitespace())?;
    // The indentation of the first line stays.
    let begins = body[..first].rfind('\n').map_or(0, |at| at + 1);
    Some(range.start + begins..range.start + body.trim_end().len())
}

/// Line numbers of places that mostly ascend.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl Lines<'_> {
    /// What stands in a range with its lines; `None` of what is blank.
    fn piece(&mut self, range: Range<usize>) -> Option<Piece> {
        let range = without_blanks(self.text, range)?;
        Some(Piece {
            first_line: self.line_of(range.start),
            last_line: self.line_of(range.end - 1),
            text: self.text[range].to_string(),
        })
    }

    fn line_of(&mut self, place: usize) -> u32 {
        let bytes = self.text.as_bytes();
        let breaks = |range: Range<usize>| bytes[range].iter().filter(|byte| **byte == b'\n').count() as u32;
        if place >= self.at {
            self.line += breaks(self.at..place);
        } else {
            self.line -= breaks(place..self.at);
        }
        self.at = place;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word is a token, and two stand around every text.
    fn count(text: &str) -> Result<usize, Fault> {
        Ok(text.split_whitespace().count() + 2)
    }

    fn of(text: &str, lines: bool, most: usize) -> Vec<Piece> {
        pieces(text, lines, most, &count).unwrap()
    }

    #[test]
    fn a_short_text_is_one_piece() {
        assert_eq!(
            of("\n\n  one two\nthree\n\n", false, 20),
            [Piece { first_line: 3, last_line: 4, text: "  one two\nthree".into() }]
        );
        assert_eq!(of(" \n\t\n", false, 20), []);
        assert_eq!(of("", true, 20), []);
    }

    #[test]
    fn sentences_stay_whole_and_neighbours_share_their_ends() {
        let sentence = |i: usize| format!("Sentence number {i} is here. ");
        let text: String = (0..40).map(sentence).collect();
        let pieces = of(&text, false, 52);
        assert!(pieces.len() > 3);
        for two in pieces.windows(2) {
            assert!(two[0].text.ends_with('.') && two[1].text.starts_with("Sentence"));
            let last = two[0].text.rsplit(". ").next().unwrap();
            assert!(two[1].text.contains(last), "{} | {}", two[0].text, two[1].text);
        }
        assert!(pieces.iter().all(|piece| count(&piece.text).unwrap() <= 52));
        for i in 0..40 {
            assert!(pieces.iter().any(|piece| piece.text.contains(sentence(i).trim())));
        }
    }

    #[test]
    fn lines_of_code_stay_whole_and_are_numbered() {
        let text: String = (1..=300).map(|i| format!("    let x{i} = {i};\n")).collect();
        let pieces = of(&text, true, 62);
        let lines: Vec<&str> = text.lines().collect();
        for piece in &pieces {
            let expected = lines[piece.first_line as usize - 1..piece.last_line as usize].join("\n");
            assert_eq!(piece.text, expected);
        }
        assert_eq!((pieces[0].first_line, pieces.last().unwrap().last_line), (1, 300));
    }

    #[test]
    fn whatever_the_text_no_piece_is_too_long_and_nothing_is_lost() {
        let mut random = fastrand::Rng::with_seed(5);
        for most in [3, 4, 10, 60] {
            for _ in 0..60 {
                let ends = [" ", ". ", "\n", "\n\n", "! ", "  ", "\t"];
                let words: Vec<String> = (0..random.usize(..400)).map(|i| format!("é東{i}x")).collect();
                let text: String =
                    words.iter().flat_map(|word| [word.as_str(), ends[random.usize(..ends.len())]]).collect();
                let pieces = of(&text, random.bool(), most);
                assert!(pieces.iter().all(|piece| count(&piece.text).unwrap() <= most));
                for word in words {
                    assert!(pieces.iter().any(|piece| piece.text.contains(&word)), "`{word}` is lost");
                }
            }
        }
    }

    #[test]
    fn a_line_without_spaces_is_cut_between_characters() {
        let by_characters = |text: &str| Ok(text.chars().filter(|c| !c.is_whitespace()).count());
        let pieces = pieces(&"é".repeat(5000), false, 100, &by_characters).unwrap();
        assert!(pieces.iter().all(|piece| piece.text.chars().count() <= 100));
        assert!(pieces.len() >= 50);
    }
}

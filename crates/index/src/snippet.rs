//! A few words of a chunk around what was searched for.

use std::ops::Range;

/// Characters of a snippet at most.
const CHARACTERS: usize = 220;

/// Words of a chunk on one line, with the ranges of bytes in it that match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snippet {
    /// The text.
    pub text: String,
    /// What matches, in order.
    pub lit: Vec<Range<usize>>,
    /// Line breaks of the chunk before the first match; 0 where nothing matches.
    pub(crate) lines_before: u32,
}

/// Where the terms stand in a text, in order: ranges of bytes.
fn found(text: &str, terms: &[String]) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    for term in terms {
        let term: Vec<char> =
            term.trim_matches(|c: char| !c.is_alphanumeric()).chars().flat_map(char::to_lowercase).collect();
        if term.is_empty() {
            continue;
        }
        let unspaced = crate::script::is_unspaced(&term.iter().collect::<String>());
        let chars: Vec<(usize, char)> = text.char_indices().collect();
        let lower = |at: usize| chars[at].1.to_lowercase().next().unwrap_or(chars[at].1);
        let mut at = 0;
        while at + term.len() <= chars.len() {
            let begins = unspaced || at == 0 || !chars[at - 1].1.is_alphanumeric();
            let ends = unspaced || chars.get(at + term.len()).is_none_or(|(_, c)| !c.is_alphanumeric());
            if begins && ends && (0..term.len()).all(|i| lower(at + i) == term[i]) {
                let end = chars.get(at + term.len()).map_or(text.len(), |(byte, _)| *byte);
                all.push(chars[at].0..end);
                at += term.len();
            } else {
                at += 1;
            }
        }
    }
    all.sort_by_key(|range| range.start);
    all.dedup_by(|later, earlier| later.start < earlier.end);
    all
}

impl Snippet {
    /// Of a chunk: the stretch with the most matches, or its beginning.
    pub fn of(text: &str, terms: &[String]) -> Self {
        let lit = found(text, terms);
        let lines_before = lit.first().map_or(0, |first| text[..first.start].matches('\n').count() as u32);
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let place = |byte: usize| starts.partition_point(|at| *at < byte);
        // A window begins a little before a match; the one with the most matches is shown, the first of equal ones.
        let windows = lit.iter().map(|range| {
            let from = place(range.start).saturating_sub(CHARACTERS / 5);
            let inside =
                lit.iter().filter(|other| other.start >= starts[from] && place(other.end) <= from + CHARACTERS);
            (from, inside.count())
        });
        let from = windows.fold((0, 0), |best, next| if next.1 > best.1 { next } else { best }).0;
        let from = from.min((starts.len() - 1).saturating_sub(CHARACTERS));
        let to = (from + CHARACTERS).min(starts.len() - 1);
        let mut snippet = Self { lines_before, ..Self::default() };
        if from > 0 {
            snippet.text.push('…');
        }
        let mut space = true;
        for (at, c) in text[starts[from]..starts[to]].char_indices() {
            let at = starts[from] + at;
            for range in &lit {
                if at == range.start {
                    snippet.lit.push(snippet.text.len()..snippet.text.len());
                }
                if let Some(open) = snippet.lit.last_mut().filter(|_| range.contains(&at)) {
                    open.end = snippet.text.len() + if c.is_whitespace() { 1 } else { c.len_utf8() };
                }
            }
            let blank = c.is_whitespace() || c.is_control();
            if !(blank && space) {
                snippet.text.push(if blank { ' ' } else { c });
            }
            space = blank;
        }
        snippet.text.truncate(snippet.text.trim_end().len());
        if to < starts.len() - 1 {
            snippet.text.push('…');
        }
        let length = snippet.text.len();
        snippet.lit.retain(|range| range.start < range.end && range.end <= length);
        snippet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    fn lit(snippet: &Snippet) -> Vec<&str> {
        snippet.lit.iter().map(|range| &snippet.text[range.clone()]).collect()
    }

    #[test]
    fn matches_are_whole_words_in_any_case() {
        let snippet = Snippet::of("The Ship\nand its shipping, under SAIL.", &terms(&["ship", "sail"]));
        assert_eq!(snippet.text, "The Ship and its shipping, under SAIL.");
        assert_eq!(lit(&snippet), ["Ship", "SAIL"]);
    }

    #[test]
    fn a_long_text_is_cut_around_the_most_matches() {
        let text = format!("ship {} ship and sail {}", "word ".repeat(200), "more ".repeat(200));
        let snippet = Snippet::of(&text, &terms(&["ship", "sail"]));
        assert_eq!(lit(&snippet), ["ship", "sail"]);
        assert!(snippet.text.starts_with('…') && snippet.text.ends_with('…'));
        assert!(snippet.text.chars().count() <= CHARACTERS + 2);
        assert_eq!(Snippet::of("", &terms(&["a"])), Snippet::default());
    }

    #[test]
    fn the_line_of_the_first_match_is_known() {
        assert_eq!(Snippet::of("one\ntwo\nthree", &terms(&["three"])).lines_before, 2);
        assert_eq!(Snippet::of("東京タワー\n東京", &terms(&["タワー"])).lines_before, 0);
    }

    #[test]
    fn any_text_gives_a_snippet_whose_ranges_are_of_characters() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..500 {
            let text: String = (0..random.usize(..600))
                .map(|_| random.choice(['a', ' ', '\n', 'é', '東', 'B', '.']).unwrap())
                .collect();
            let snippet = Snippet::of(&text, &terms(&["a", "b", "東"]));
            for range in &snippet.lit {
                assert!(!snippet.text[range.clone()].is_empty());
            }
        }
    }
}

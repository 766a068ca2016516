//! Chunks of a text that is read whole: whole sentences, or words of one, of so many tokens at most.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Rows of a chunk, and its bytes.
type Chunk = (Range<usize>, Range<usize>);

/// Chunks of a text by their rows and by their bytes, in order, each with a token at least and `most` at most, those that stand
/// around the text apart; together they hold every row. `places` are the bytes of each row's token, where it has some.
///
/// A chunk ends at the end of a sentence where that goes, else at the beginning of a word, else between tokens.
pub(crate) fn chunks(text: &str, places: &[Option<Range<usize>>], most: usize) -> Vec<Chunk> {
    let tokens: Vec<(usize, &Range<usize>)> =
        places.iter().enumerate().filter_map(|(row, place)| Some((row, place.as_ref()?))).collect();
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return Vec::new() };
    let begins = |bounds: Vec<usize>| -> Vec<bool> {
        // Whether some bound lies before what a token stands for, and not before the token ahead of it.
        let mut bounds = bounds.into_iter().peekable();
        let mut begins = Vec::with_capacity(tokens.len());
        for (_, place) in &tokens {
            let mut found = false;
            while bounds.next_if(|bound| *bound < place.end).is_some() {
                found = true;
            }
            begins.push(found);
        }
        begins
    };
    let sentences = begins(text.split_sentence_bound_indices().map(|(at, _)| at).collect());
    let words = begins(text.unicode_word_indices().map(|(at, _)| at).collect());
    let mut starts = vec![0];
    let mut start = 0;
    while tokens.len() - start > most {
        let end = start + most;
        let at = |begins: &[bool]| (start + 1..=end).rev().find(|at| begins[*at]);
        start = at(&sentences).or_else(|| at(&words)).unwrap_or(end);
        starts.push(start);
    }
    let rows_end = places.len();
    let chunk = |(index, &start): (usize, &usize)| {
        let end = starts.get(index + 1).copied();
        // What stands around the text belongs to its ends.
        let from = if index == 0 { 0 } else { tokens[start].0 };
        let to = end.map_or(rows_end, |end| tokens[end].0);
        let bytes = if index == 0 { first.1.start } else { tokens[start].1.start };
        (from..to, bytes..end.map_or(last.1.end, |end| tokens[end].1.start.max(bytes)))
    };
    starts.iter().enumerate().map(chunk).collect()
}

/// Chunks of a text by their rows and by their bytes, each of which begins at one of `starts`, ascending bytes of the text; a
/// token that reaches over a start belongs to the chunk behind it. `places` are as for [`chunks`].
///
/// # Errors
/// The number of the first chunk without a token.
pub(crate) fn chunks_at(starts: &[usize], places: &[Option<Range<usize>>]) -> Result<Vec<Chunk>, usize> {
    let mut found: Vec<(Range<usize>, Range<usize>)> = Vec::with_capacity(starts.len());
    let mut tokens = places.iter().enumerate().filter_map(|(row, place)| Some((row, place.as_ref()?))).peekable();
    for (index, &start) in starts.iter().enumerate() {
        let next = starts.get(index + 1).copied();
        let mut last = None;
        let first = tokens.peek().map_or(places.len(), |(row, _)| *row);
        while let Some((_, place)) = tokens.next_if(|(_, place)| next.is_none_or(|next| place.end <= next)) {
            last = Some(place.end);
        }
        let last = last.ok_or(index)?;
        let bytes = start..next.unwrap_or(last);
        if let Some((rows, _)) = found.last_mut() {
            rows.end = first;
        }
        // What stands around the text belongs to its ends.
        let from = if index == 0 { 0 } else { first };
        found.push((from..places.len(), bytes));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token a word with the space before it, between one special token in front and one behind.
    fn words(text: &str) -> Vec<Option<Range<usize>>> {
        let mut places = vec![None];
        let mut start = 0;
        for (at, _) in text.match_indices(' ').skip(1).chain([(text.len(), "")]) {
            places.push(Some(start..at));
            start = at;
        }
        places.push(None);
        places
    }

    #[test]
    fn chunks_are_whole_sentences_where_that_goes() {
        let text = " One two three. Four five. Six seven eight nine ten.";
        let found = chunks(text, &words(text), 5);
        let texts: Vec<&str> = found.iter().map(|(_, bytes)| &text[bytes.clone()]).collect();
        assert_eq!(texts, [" One two three. Four five.", " Six seven eight nine ten."]);
        assert_eq!(found.iter().map(|(rows, _)| rows.clone()).collect::<Vec<_>>(), [0..6, 6..12]);
        // A sentence that is too long is cut between words.
        let found = chunks(text, &words(text), 3);
        let texts: Vec<&str> = found.iter().map(|(_, bytes)| &text[bytes.clone()]).collect();
        assert_eq!(texts, [" One two three.", " Four five.", " Six seven eight", " nine ten."]);
    }

    #[test]
    fn every_row_belongs_to_one_chunk() {
        let text = "a b c d e f g h i j k l m n o p q r s t u v w x y z. And so on and on.";
        for most in 1..40 {
            let found = chunks(text, &words(text), most);
            let rows: Vec<usize> = found.iter().flat_map(|(rows, _)| rows.clone()).collect();
            assert_eq!(rows, (0..words(text).len()).collect::<Vec<_>>(), "{most}");
            assert!(found.iter().all(|(rows, bytes)| !rows.is_empty() && bytes.start < bytes.end), "{most}: {found:?}");
            // One special token at either end.
            assert!(found.iter().all(|(rows, _)| rows.len() <= most + 2), "{most}: {found:?}");
        }
        assert!(chunks("", &[None, None], 4).is_empty());
    }

    #[test]
    fn chunks_begin_where_they_are_told_to() {
        let text = "one two three four five";
        let places = words(text);
        // The space in front of a word is of its token, which begins before the chunk does.
        assert_eq!(chunks_at(&[0, 8, 14], &places), Ok(vec![(0..2, 0..8), (2..3, 8..14), (3..6, 14..23)]));
        assert_eq!(chunks_at(&[0], &places), Ok(vec![(0..6, 0..23)]));
        assert_eq!(chunks_at(&[0, 8, 9], &places), Err(1));
        assert_eq!(chunks_at(&[0, 14, 8], &places), Err(1));
        assert_eq!(chunks_at(&[0, 23], &places), Err(1));
        assert_eq!(chunks_at(&[0], &[None, None]), Err(0));
    }
}

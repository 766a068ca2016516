//! Text into token ids, with the tokenizer file of a checkpoint and nothing added to it.
//!
//! Prefixes and prompts are chosen by the caller; what belongs here is that a prefix and its text are one string, what
//! the tokenizer puts behind every text, and how a text that is too long is cut.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{
    DecoderWrapper, Encoding, Model, NormalizerWrapper, PostProcessor, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer, TokenizerImpl, TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};

use crate::error::{Cause, MediaError};
use crate::file::open_file;

/// What happens to a text that is longer than the model reads.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Truncation {
    /// It is refused with both lengths.
    #[default]
    Error,
    /// Its end is cut; the special tokens behind it stay.
    Right,
    /// Its beginning is cut; the prefix before it and the special tokens around it stay.
    Left,
}

/// The ids of one text, and whether something of it was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextIds {
    /// Token ids, special tokens included: `[tokens]`.
    pub ids: Vec<u32>,
    /// True if the text did not fit and was cut.
    pub truncated: bool,
}

/// The ids of one text, each with where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedIds {
    /// Token ids, special tokens included: `[tokens]`.
    pub ids: Vec<u32>,
    /// Bytes of the text that each stands for, `[tokens]`; `None` of a special token and of the prefix.
    pub places: Vec<Option<std::ops::Range<usize>>>,
    /// True if the text did not fit and was cut.
    pub truncated: bool,
}

/// A token of a text, as the tokenizer gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextToken {
    /// Its id.
    pub id: u32,
    /// Its own text, such as `##ing`.
    pub token: String,
    /// Characters of the text that it stands for; `None` of a special token that the tokenizer puts around texts.
    pub chars: Option<std::ops::Range<usize>>,
}

/// The ids of a query and a document as one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairIds {
    /// Token ids, special tokens included: `[tokens]`.
    pub ids: Vec<u32>,
    /// Token types, as the tokenizer's template for pairs gives them: `[tokens]`; empty where no template was used.
    pub types: Vec<u32>,
    /// What did not fit.
    pub cut: PairCut,
}

/// Which texts of a pair were cut.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct PairCut {
    /// Whether some of the query is missing.
    pub query: bool,
    /// Whether some of the document is missing.
    pub document: bool,
}

/// A query and a document in a prompt.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PromptPair<'a> {
    /// What is in front, cut into tokens apart.
    pub before: &'a str,
    /// The query with whatever stands around it, up to the document.
    pub query: &'a str,
    /// The document, one string with the query.
    pub document: &'a str,
    /// What is behind, cut into tokens apart.
    pub behind: &'a str,
}

/// A Hugging Face `tokenizer.json`, without the padding and truncation it may ask for.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
    specials: Specials,
    vocab_size: usize,
}

/// What the post-processor puts around every text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Specials {
    leading: Vec<u32>,
    trailing: Vec<u32>,
}

impl TextTokenizer {
    /// Opens a `tokenizer.json`.
    ///
    /// # Errors
    /// [`MediaError::NotFound`], [`MediaError::NotAFile`] or [`MediaError::Unreadable`] for the path, otherwise as
    /// [`TextTokenizer::from_bytes`].
    pub fn from_file(path: &Path) -> Result<Self, MediaError> {
        let (mut file, _) = open_file(path)?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes)
            .map_err(|source| MediaError::Unreadable { path: path.to_owned(), source })?;
        Self::open(&bytes, &path.display().to_string())
    }

    /// Opens the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`MediaError::Empty`] without bytes; [`MediaError::Tokenizer`] if they are no tokenizer, or one whose special
    /// tokens do not simply stand before and behind a text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MediaError> {
        Self::open(bytes, "tokenizer.json")
    }

    /// A tokenizer that gives no id for any text, for models that read none.
    #[must_use]
    pub fn without_tokens() -> Self {
        let none = br#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{},"merges":[]}}"#;
        let inner = read(none).expect("a tokenizer without tokens is one");
        Self { inner, specials: Specials { leading: Vec::new(), trailing: Vec::new() }, vocab_size: 0 }
    }

    fn open(bytes: &[u8], name: &str) -> Result<Self, MediaError> {
        if bytes.is_empty() {
            return Err(MediaError::Empty { name: name.to_owned(), expected: "byte" });
        }
        let refused = |source: Cause| MediaError::Tokenizer { name: name.to_owned(), source };
        // A file whose decoder is of no known shape makes tokenizers 0.23.2 panic as it reads.
        let read = catch_unwind(|| read(bytes));
        let mut inner = read.unwrap_or_else(|_| Err("the tokenizer library gave up on it".into())).map_err(refused)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(refused)?;
        let specials = find_specials(&inner)?
            .ok_or_else(|| refused("its special tokens are not one run before and one run behind the text".into()))?;
        let vocab_size = vocab_size(&inner);
        Ok(Self { inner, specials, vocab_size })
    }

    /// The ids of a text with the special tokens that the tokenizer puts around it: `[tokens]`.
    ///
    /// # Errors
    /// [`MediaError::Encode`] if the tokenizer refuses the text.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, MediaError> {
        encode(&self.inner, text, true)
    }

    /// The ids of a text alone: `[tokens]`. Special tokens written out in the text still count as such.
    ///
    /// # Errors
    /// [`MediaError::Encode`] if the tokenizer refuses the text.
    pub fn ids_bare(&self, text: &str) -> Result<Vec<u32>, MediaError> {
        encode(&self.inner, text, false)
    }

    /// The tokens of a text with where each stands: `[tokens]`; with the special tokens around it where `specials` is set.
    ///
    /// # Errors
    /// [`MediaError::Encode`] if the tokenizer refuses the text.
    pub fn tokens(&self, text: &str, specials: bool) -> Result<Vec<TextToken>, MediaError> {
        let encoded = catch_unwind(AssertUnwindSafe(|| self.inner.encode_char_offsets(text, specials)));
        let encoded = encoded.unwrap_or_else(|_| Err("the tokenizer library gave up on it".into()));
        let encoded = encoded.map_err(|source| MediaError::Encode { bytes: text.len(), source })?;
        let around = encoded.get_special_tokens_mask();
        let token = |(at, (id, token)): (usize, (&u32, &String))| {
            let place = encoded.get_offsets().get(at).filter(|_| around.get(at).is_none_or(|mask| *mask == 0));
            TextToken { id: *id, token: token.clone(), chars: place.map(|&(start, end)| start..end) }
        };
        Ok(encoded.get_ids().iter().zip(encoded.get_tokens()).enumerate().map(token).collect())
    }

    /// The ids that the tokenizer puts behind every text; a media sequence ends with them too. Often empty.
    #[must_use]
    pub fn trailing_specials(&self) -> &[u32] {
        &self.specials.trailing
    }

    /// The ids that the tokenizer puts before every text. Often empty.
    #[must_use]
    pub fn leading_specials(&self) -> &[u32] {
        &self.specials.leading
    }

    /// One more than the highest id, added tokens included: the rows that a token table must have at least.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Rows of a prefix encoded alone with special tokens, without the last one where that is special: the rows that a
    /// pooling without the prompt leaves out.
    ///
    /// # Source
    /// sentence-transformers 6.2.0, `Transformer._get_prompt_length`.
    /// # Errors
    /// [`MediaError::Encode`] if the tokenizer refuses the prefix.
    pub fn prefix_rows(&self, prefix: &str) -> Result<usize, MediaError> {
        let ids = self.ids(prefix)?;
        let special = |id: &u32| {
            let token = self.inner.id_to_token(*id);
            self.specials.trailing.contains(id)
                || token.is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
        };
        Ok(ids.len() - usize::from(ids.last().is_some_and(special)))
    }

    /// The text of these ids, special tokens included.
    ///
    /// # Errors
    /// [`MediaError::Encode`] if the tokenizer refuses an id.
    pub fn text_of(&self, ids: &[u32]) -> Result<String, MediaError> {
        self.inner.decode(ids, false).map_err(|source| MediaError::Encode { bytes: 4 * ids.len(), source })
    }

    /// The text of a token by its id, added tokens included.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token by its exact text, added tokens included.
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The ids of `prefix` and `text` as one string with special tokens, at most `max_tokens` of them.
    ///
    /// One string, because the space that ends a prefix merges with the first word of the text. Where something is cut,
    /// the special tokens stay: `Right` cuts the end of the string, as Hugging Face does; `Left` cuts the beginning of
    /// the text and puts the ids of the prefix alone before what is left.
    ///
    /// # Errors
    /// [`MediaError::TooLong`] if the sequence is longer than `max_tokens` and `truncation` is [`Truncation::Error`], or
    /// if what must stay leaves no room; [`MediaError::Encode`] if the tokenizer refuses the text.
    pub fn text_ids(
        &self,
        prefix: &str,
        text: &str,
        max_tokens: usize,
        truncation: Truncation,
    ) -> Result<TextIds, MediaError> {
        self.text_ids_before(prefix, text, "", max_tokens, truncation)
    }

    /// [`TextTokenizer::text_ids`] with `suffix` behind the text, one string with it. Where the end of the text is cut, the ids
    /// of the suffix alone are put behind what is left.
    ///
    /// # Errors
    /// As [`TextTokenizer::text_ids`].
    pub fn text_ids_before(
        &self,
        prefix: &str,
        text: &str,
        suffix: &str,
        max_tokens: usize,
        truncation: Truncation,
    ) -> Result<TextIds, MediaError> {
        let ids = self.ids(&[prefix, text, suffix].concat())?;
        if ids.len() <= max_tokens {
            return Ok(TextIds { ids, truncated: false });
        }
        let Specials { leading, trailing } = &self.specials;
        let body = &ids[leading.len()..ids.len() - trailing.len()];
        let too_long = MediaError::TooLong { found: ids.len(), limit: max_tokens };
        let (kept_prefix, kept_body, kept_suffix) = match truncation {
            Truncation::Error => return Err(too_long),
            Truncation::Right => {
                let suffix = if suffix.is_empty() { Vec::new() } else { self.ids_bare(suffix)? };
                let Some(room) = max_tokens.checked_sub(leading.len() + suffix.len() + trailing.len()) else {
                    return Err(too_long);
                };
                (Vec::new(), &body[..room.min(body.len())], suffix)
            }
            Truncation::Left => {
                let prefix = self.ids_bare(prefix)?;
                let kept = leading.len() + prefix.len() + trailing.len();
                let Some(room) = max_tokens.checked_sub(kept) else {
                    return Err(too_long);
                };
                (prefix, &body[body.len() - room..], Vec::new())
            }
        };
        Ok(TextIds { ids: [leading, &kept_prefix, kept_body, &kept_suffix, trailing].concat(), truncated: true })
    }

    /// [`TextTokenizer::text_ids`] with where each id stands in the text.
    ///
    /// # Errors
    /// As [`TextTokenizer::text_ids`]. A text that does not fit is cut at its end alone: of [`Truncation::Left`] it is refused.
    pub fn placed_ids(
        &self,
        prefix: &str,
        text: &str,
        max_tokens: usize,
        truncation: Truncation,
    ) -> Result<PlacedIds, MediaError> {
        let whole = [prefix, text].concat();
        let encoded = catch_unwind(AssertUnwindSafe(|| self.inner.encode(whole.as_str(), true)));
        let encoded = encoded.unwrap_or_else(|_| Err("the tokenizer library gave up on it".into()));
        let encoded = encoded.map_err(|source| MediaError::Encode { bytes: whole.len(), source })?;
        let Specials { leading, trailing } = &self.specials;
        let (found, body) = (encoded.len(), leading.len()..encoded.len().saturating_sub(trailing.len()));
        let place = |(at, &(start, end)): (usize, &(usize, usize))| {
            (body.contains(&at) && end > prefix.len()).then(|| start.saturating_sub(prefix.len())..end - prefix.len())
        };
        let mut ids = encoded.get_ids().to_vec();
        let mut places: Vec<_> = encoded.get_offsets().iter().enumerate().map(place).collect();
        let truncated = found > max_tokens;
        if truncated {
            let room = max_tokens.checked_sub(trailing.len()).filter(|room| *room > leading.len());
            let (Truncation::Right, Some(room)) = (truncation, room) else {
                return Err(MediaError::TooLong { found, limit: max_tokens });
            };
            ids.drain(room..found - trailing.len());
            places.drain(room..found - trailing.len());
        }
        Ok(PlacedIds { ids, places, truncated })
    }

    /// The ids of a query and a document as the tokenizer's template for pairs lays them, at most `max_tokens` of them.
    ///
    /// Where something is cut, the longer text loses tokens until both are equally long, and then both lose them; special
    /// tokens stay. `Right` cuts ends, `Left` cuts beginnings.
    ///
    /// # Source
    /// tokenizers 0.23.2, `truncate_encodings` with `LongestFirst`, which is what sentence-transformers' `CrossEncoder`
    /// asks for.
    /// # Errors
    /// [`MediaError::PairTooLong`] if the sequence is longer than `max_tokens` and `truncation` is [`Truncation::Error`], or
    /// if the special tokens leave no room; [`MediaError::Encode`] if the tokenizer refuses a text;
    /// [`MediaError::Tokenizer`] if its template for pairs does not hold both texts once.
    pub fn pair_ids(
        &self,
        query: &str,
        document: &str,
        max_tokens: usize,
        truncation: Truncation,
    ) -> Result<PairIds, MediaError> {
        let bytes = query.len() + document.len();
        let (mut query, mut document) = (encoding(&self.inner, query, false)?, encoding(&self.inner, document, false)?);
        let lengths = [query.len(), document.len()];
        let around = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        let found = lengths.iter().sum::<usize>() + around;
        let too_long = MediaError::PairTooLong { query: lengths[0], document: lengths[1], found, limit: max_tokens };
        if found > max_tokens {
            let direction = match truncation {
                Truncation::Error => return Err(too_long),
                Truncation::Right => TruncationDirection::Right,
                Truncation::Left => TruncationDirection::Left,
            };
            let Some(max_length) = max_tokens.checked_sub(around) else { return Err(too_long) };
            let params =
                TruncationParams { direction, max_length, strategy: TruncationStrategy::LongestFirst, stride: 0 };
            let cut = truncate_encodings(query, Some(document), &params);
            let (first, second) = cut.map_err(|source| MediaError::Encode { bytes, source })?;
            (query, document) = (first, second.unwrap_or_default());
            // What was cut off is kept beside it otherwise, and laid out as well.
            drop((query.take_overflowing(), document.take_overflowing()));
        }
        let cut = PairCut { query: query.len() < lengths[0], document: document.len() < lengths[1] };
        let whole = query.len() + document.len() + around;
        let laid = catch_unwind(AssertUnwindSafe(|| self.inner.post_process(query, Some(document), true)));
        let laid = laid.unwrap_or_else(|_| Err("the tokenizer library gave up on the pair".into()));
        let laid = laid.map_err(|source| MediaError::Encode { bytes, source })?;
        if laid.len() != whole {
            let source = "its template for pairs does not hold both texts once".into();
            return Err(MediaError::Tokenizer { name: "tokenizer.json".into(), source });
        }
        Ok(PairIds { ids: laid.get_ids().to_vec(), types: laid.get_type_ids().to_vec(), cut })
    }

    /// The ids of a query and a document in a prompt, at most `max_tokens` of them. What is in front, the middle and what is
    /// behind are cut into tokens apart, without special tokens of the tokenizer's own; where the whole is too long, the end
    /// of the middle is left out.
    ///
    /// # Source
    /// Model card of Qwen3-Reranker, `process_inputs`.
    /// # Errors
    /// [`MediaError::PairTooLong`] if the sequence is longer than `max_tokens` and `cut` is false, or if what stands around
    /// the middle leaves no room; [`MediaError::Encode`] if the tokenizer refuses a text.
    pub fn prompt_pair_ids(&self, pair: &PromptPair<'_>, max_tokens: usize, cut: bool) -> Result<PairIds, MediaError> {
        let (before, behind) = (self.ids_bare(pair.before)?, self.ids_bare(pair.behind)?);
        let middle = [pair.query, pair.document].concat();
        let mut ids = self.ids_bare(&middle)?;
        let around = before.len() + behind.len();
        let found = ids.len() + around;
        let mut missing = PairCut::default();
        if found > max_tokens {
            let query = self.ids_bare(pair.query)?.len();
            let too_long = || {
                let document = ids.len().saturating_sub(query);
                MediaError::PairTooLong { query, document, found, limit: max_tokens }
            };
            let room = max_tokens.checked_sub(around).filter(|room| cut && *room > 0).ok_or_else(too_long)?;
            let tokenized = catch_unwind(AssertUnwindSafe(|| self.inner.encode(middle.as_str(), false)));
            let tokenized = tokenized.unwrap_or_else(|_| Err("the tokenizer library gave up on it".into()));
            let offsets = tokenized.map_err(|source| MediaError::Encode { bytes: middle.len(), source })?;
            let end = offsets.get_offsets().get(room - 1).map_or(0, |(_, end)| *end);
            ids.truncate(room);
            missing = PairCut { query: end < pair.query.trim_end().len(), document: true };
        }
        Ok(PairIds { ids: [before, ids, behind].concat(), types: Vec::new(), cut: missing })
    }
}

/// A tokenizer with a model of the kind `M`, as tokenizers reads and runs it.
type Of<M> = TokenizerImpl<M, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Reads a `tokenizer.json`.
///
/// `Tokenizer::from_bytes` finds out which model it has before it by keeping all of the file as values first, and makes
/// its maps of those: 196 ms for 151,000 tokens and as many merges, 14 ms for 30,000 word pieces. Read as the model that
/// it is, from the bytes into the maps, the same file gives the same tokenizer in 86 and 6 ms. What is neither of the two
/// common models, and every file that is refused, goes the long way, so that nothing changes but the time.
fn read(bytes: &[u8]) -> Result<Tokenizer, Cause> {
    let bpe = serde_json::from_slice::<Of<BPE>>(bytes).map(Tokenizer::from);
    let read = bpe.or_else(|_| serde_json::from_slice::<Of<WordPiece>>(bytes).map(Tokenizer::from));
    read.or_else(|_| Tokenizer::from_bytes(bytes))
}

/// One more than the highest id.
fn vocab_size(tokenizer: &Tokenizer) -> usize {
    let model = tokenizer.get_model();
    let tokens = model.get_vocab_size();
    // As many ids as tokens, none left out: the highest is known without a copy of all of them.
    let dense = (0..tokens).all(|id| u32::try_from(id).is_ok_and(|id| model.id_to_token(id).is_some()));
    let own = if dense { tokens } else { model.get_vocab().values().max().map_or(0, |id| *id as usize + 1) };
    let added = tokenizer.get_added_vocabulary().get_vocab().values().max();
    own.max(added.map_or(0, |id| *id as usize + 1))
}

/// One text into ids; offsets are not computed.
fn encode(tokenizer: &Tokenizer, text: &str, specials: bool) -> Result<Vec<u32>, MediaError> {
    Ok(encoding(tokenizer, text, specials)?.get_ids().to_vec())
}

/// [`encode`] with what else the library tells of the ids.
fn encoding(tokenizer: &Tokenizer, text: &str, specials: bool) -> Result<Encoding, MediaError> {
    // What a file asks for may be impossible only for some texts. Nothing is changed by encoding but a cache of words,
    // which is behind a lock that a panic leaves unusable and unused.
    let encoded = catch_unwind(AssertUnwindSafe(|| tokenizer.encode_fast(text, specials)));
    let encoding = encoded.unwrap_or_else(|_| Err("the tokenizer library gave up on it".into()));
    encoding.map_err(|source| MediaError::Encode { bytes: text.len(), source })
}

/// What the tokenizer puts around a text, by difference: several texts are encoded with and without special tokens, and
/// the one split that explains them all is taken. A single text can be explained twice when its own id is also the id of
/// a special token, or when an unknown letter encodes to nothing.
fn find_specials(tokenizer: &Tokenizer) -> Result<Option<Specials>, MediaError> {
    const PROBES: [&str; 5] = ["x", "a", "The quick brown fox, 42!", "0", "\u{4e2d}\u{6587}"];
    let mut candidates: Option<Vec<Specials>> = None;
    for probe in PROBES {
        let bare = encode(tokenizer, probe, false)?;
        let full = encode(tokenizer, probe, true)?;
        if bare.is_empty() {
            continue;
        }
        let splits: Vec<Specials> = full
            .windows(bare.len())
            .enumerate()
            .filter(|(_, window)| *window == bare)
            .map(|(at, _)| Specials { leading: full[..at].to_vec(), trailing: full[at + bare.len()..].to_vec() })
            .collect();
        candidates = Some(match candidates {
            None => splits,
            Some(before) => before.into_iter().filter(|s| splits.contains(s)).collect(),
        });
    }
    Ok(candidates.and_then(|left| left.into_iter().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word-level tokenizer with the given post-processor section.
    fn words(post_processor: &str, padding: &str, truncation: &str) -> Vec<u8> {
        format!(
            r#"{{"version":"1.0","truncation":{truncation},"padding":{padding},
            "added_tokens":[
              {{"id":9,"content":"[B]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}},
              {{"id":12,"content":"[E]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}],
            "normalizer":null,"pre_tokenizer":{{"type":"Whitespace"}},"post_processor":{post_processor},"decoder":null,
            "model":{{"type":"WordLevel","vocab":{{"u":0,"a":1,"b":2,"c":3,"d":4,"q":5}},"unk_token":"u"}}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn a_tokenizer_without_tokens_gives_no_ids() {
        let none = TextTokenizer::without_tokens();
        assert_eq!(none.ids("a text").unwrap(), [0; 0]);
        assert_eq!((none.ids_bare("").unwrap().len(), none.vocab_size()), (0, 0));
        assert!(none.leading_specials().is_empty() && none.trailing_specials().is_empty());
    }

    const BOTH: &str = r#"{"type":"TemplateProcessing",
        "single":[{"SpecialToken":{"id":"[B]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[E]","type_id":0}}],
        "pair":[],"special_tokens":{"[B]":{"id":"[B]","ids":[9],"tokens":["[B]"]},"[E]":{"id":"[E]","ids":[12],"tokens":["[E]"]}}}"#;

    /// A post-processor that appends the id of an ordinary word, `u`, which unknown letters encode to as well.
    const SAME_AS_A_WORD: &str = r#"{"type":"TemplateProcessing",
        "single":[{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"u","type_id":0}}],
        "pair":[],"special_tokens":{"u":{"id":"u","ids":[0],"tokens":["u"]}}}"#;

    const PADDING: &str = r#"{"strategy":{"Fixed":20},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"u"}"#;
    const CUTTING: &str = r#"{"direction":"Right","max_length":3,"strategy":"LongestFirst","stride":0}"#;

    #[test]
    fn the_short_way_gives_the_tokenizer_that_the_long_way_gives() {
        let root = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..");
        let stored = |path: &str| std::fs::read(root.join(path)).unwrap();
        let pairs = stored("tests/golden/checkpoints/omni-small-tiny/tokenizer.json");
        let pieces = stored("models/mini/record/tokenizer.json");
        assert!(serde_json::from_slice::<Of<BPE>>(&pairs).is_ok(), "the checkpoint has byte pairs");
        assert!(serde_json::from_slice::<Of<BPE>>(&pieces).is_err(), "the model that ships has none");
        assert!(serde_json::from_slice::<Of<WordPiece>>(&pieces).is_ok(), "the model that ships has word pieces");
        // Without its type a model is what it can be read as, in the same order.
        let untyped = |file: &[u8], kind: &str| {
            let text = String::from_utf8(file.to_vec()).unwrap();
            let mut file: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(file["model"].as_object_mut().unwrap().remove("type").unwrap(), kind);
            serde_json::to_vec(&file).unwrap()
        };
        let (bare_pairs, bare_pieces) = (untyped(&pairs, "BPE"), untyped(&pieces, "WordPiece"));
        for file in [pairs, pieces, bare_pairs, bare_pieces, words(BOTH, PADDING, CUTTING)] {
            let (short, long) = (read(&file).unwrap(), Tokenizer::from_bytes(&file).unwrap());
            assert_eq!(short.to_string(false).unwrap(), long.to_string(false).unwrap());
            let highest = long.get_vocab(true).values().max().copied();
            assert_eq!(Some(vocab_size(&short)), highest.map(|id| id as usize + 1));
        }
    }

    #[test]
    fn padding_and_truncation_of_the_file_are_switched_off() {
        let tokenizer = TextTokenizer::from_bytes(&words(BOTH, PADDING, CUTTING)).unwrap();
        assert_eq!(tokenizer.ids("a b c d").unwrap(), [9, 1, 2, 3, 4, 12], "neither 20 nor 3 ids");
        assert_eq!(tokenizer.ids_bare("a b").unwrap(), [1, 2]);
    }

    #[test]
    fn tokens_say_which_characters_they_stand_for() {
        let tokenizer = TextTokenizer::from_bytes(&words(BOTH, "null", "null")).unwrap();
        let found = tokenizer.tokens("a \u{e9} b", true).unwrap();
        let ids: Vec<u32> = found.iter().map(|token| token.id).collect();
        assert_eq!(ids, tokenizer.ids("a \u{e9} b").unwrap());
        let places: Vec<_> = found.iter().map(|token| token.chars.clone()).collect();
        assert_eq!(places, [None, Some(0..1), Some(2..3), Some(4..5), None]);
        assert_eq!((found[0].token.as_str(), found[1].token.as_str()), ("[B]", "a"));
        assert_eq!(tokenizer.tokens("a b", false).unwrap().len(), 2);
    }

    #[test]
    fn leading_specials_are_tolerated_and_are_not_trailing() {
        let tokenizer = TextTokenizer::from_bytes(&words(BOTH, "null", "null")).unwrap();
        assert_eq!(tokenizer.trailing_specials(), [12]);
        assert_eq!(tokenizer.specials.leading, [9]);
        let none = TextTokenizer::from_bytes(&words("null", "null", "null")).unwrap();
        assert!(none.trailing_specials().is_empty());
    }

    #[test]
    fn a_trailing_special_that_is_also_a_word_is_found_by_another_probe() {
        // "x" is unknown here, so it encodes to [0] and [0, 0]: two explanations. "a" leaves one.
        let tokenizer = TextTokenizer::from_bytes(&words(SAME_AS_A_WORD, "null", "null")).unwrap();
        assert_eq!(tokenizer.trailing_specials(), [0]);
        assert!(tokenizer.specials.leading.is_empty());
    }

    /// Both found by the target `tokenizer` of omniburn-hostile.
    #[test]
    fn a_file_that_the_library_panics_at_is_an_error() {
        let words = String::from_utf8(words(BOTH, "null", "null")).unwrap();
        let no_decoder = words.replace(r#""decoder":null"#, r#""decoder":5"#);
        let no_such_special = words.replace(r#""special_tokens":{"[B]":"#, r#""special_tokens":{"[C]":"#);
        for file in [no_decoder, no_such_special] {
            assert_ne!(file, words);
            let error = TextTokenizer::from_bytes(file.as_bytes()).unwrap_err();
            assert!(matches!(error, MediaError::Tokenizer { .. } | MediaError::Encode { .. }), "{error}");
            assert_eq!(error.kind(), "corrupt");
        }
    }

    #[test]
    fn the_vocabulary_counts_to_the_highest_id() {
        let tokenizer = TextTokenizer::from_bytes(&words(BOTH, "null", "null")).unwrap();
        // 6 words, 2 added tokens, but the highest id stands at 7: added ids follow the words.
        let highest = ["a", "q", "[B]", "[E]"].iter().map(|t| tokenizer.token_id(t).unwrap()).max().unwrap();
        assert_eq!(tokenizer.vocab_size(), highest as usize + 1);
        assert_eq!(tokenizer.token_id("nowhere"), None);
    }

    #[test]
    fn a_long_text_is_refused_with_both_lengths() {
        let tokenizer = TextTokenizer::from_bytes(&words(BOTH, "null", "null")).unwrap();
        let error = tokenizer.text_ids("q ", "a b c d", 6, Truncation::Error).unwrap_err();
        assert_eq!(error.kind(), "too_long");
        assert_eq!(error.to_string(), "the text has 7 tokens, expected at most 6");
        let fits = tokenizer.text_ids("q ", "a b c d", 7, Truncation::Error).unwrap();
        assert_eq!(fits.ids, [9, 5, 1, 2, 3, 4, 12]);
        assert!(!fits.truncated);
    }

    #[test]
    fn right_truncation_cuts_the_end_and_keeps_the_specials() {
        let tokenizer = TextTokenizer::from_bytes(&words(BOTH, "null", "null")).unwrap();
        let cut = |limit| tokenizer.text_ids("q ", "a b c d", limit, Truncation::Right);
        assert_eq!(cut(5).unwrap().ids, [9, 5, 1, 2, 12]);
        assert!(cut(5).unwrap().truncated);
        assert_eq!(cut(2).unwrap().ids, [9, 12]);
        assert_eq!(cut(1).unwrap_err().kind(), "too_long");
    }

    #[test]
    fn left_truncation_keeps_prefix_and_specials_and_the_end_of_the_text() {
        let tokenizer = TextTokenizer::from_bytes(&words(BOTH, "null", "null")).unwrap();
        let cut = |limit| tokenizer.text_ids("q ", "a b c d", limit, Truncation::Left);
        assert_eq!(cut(6).unwrap().ids, [9, 5, 2, 3, 4, 12]);
        assert_eq!(cut(4).unwrap().ids, [9, 5, 4, 12]);
        assert!(cut(4).unwrap().truncated);
        assert_eq!(cut(3).unwrap().ids, [9, 5, 12]);
        assert_eq!(cut(2).unwrap_err().kind(), "too_long");
    }

    /// A template for pairs with two separators between the texts, and a type of its own for the document.
    const PAIRS: &str = r#"{"type":"TemplateProcessing",
        "single":[{"SpecialToken":{"id":"[B]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[E]","type_id":0}}],
        "pair":[{"SpecialToken":{"id":"[B]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[E]","type_id":0}},
                {"SpecialToken":{"id":"[E]","type_id":0}},{"Sequence":{"id":"B","type_id":1}},{"SpecialToken":{"id":"[E]","type_id":1}}],
        "special_tokens":{"[B]":{"id":"[B]","ids":[9],"tokens":["[B]"]},"[E]":{"id":"[E]","ids":[12],"tokens":["[E]"]}}}"#;

    #[test]
    fn a_pair_is_laid_as_the_file_says_and_cut_as_the_library_cuts_it() {
        let file = words(PAIRS, PADDING, CUTTING);
        let tokenizer = TextTokenizer::from_bytes(&file).unwrap();
        let whole = tokenizer.pair_ids("q a", "a b c d", 10, Truncation::Error).unwrap();
        assert_eq!(whole.ids, [9, 5, 1, 12, 12, 1, 2, 3, 4, 12]);
        assert_eq!(whole.types, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!(whole.cut, PairCut::default());
        for limit in 4..10 {
            for (direction, truncation) in
                [(TruncationDirection::Right, Truncation::Right), (TruncationDirection::Left, Truncation::Left)]
            {
                for (query, document) in [("q a", "a b c d"), ("a b c d", "q a"), ("a b c", "b c d"), ("", "a b c d")] {
                    let mut library = Tokenizer::from_bytes(&file).unwrap();
                    library.with_padding(None);
                    let strategy = TruncationStrategy::LongestFirst;
                    let params = TruncationParams { direction, max_length: limit, strategy, stride: 0 };
                    library.with_truncation(Some(params)).unwrap();
                    let want = library.encode_fast((query, document), true).unwrap();
                    let got = tokenizer.pair_ids(query, document, limit, truncation).unwrap();
                    assert_eq!(got.ids, want.get_ids(), "{query:?} {document:?} {limit} {truncation:?}");
                    assert_eq!(got.types, want.get_type_ids());
                    let lengths = [query, document].map(|text| text.split_whitespace().count());
                    let kept = |kind: u32| got.types.iter().filter(|&&k| k == kind).count();
                    assert_eq!(got.cut.query, kept(0) < lengths[0] + 3);
                    assert_eq!(got.cut.document, kept(1) < lengths[1] + 1);
                }
            }
        }
        let cut = tokenizer.pair_ids("q a", "a b c d", 8, Truncation::Right).unwrap();
        assert_eq!((cut.ids.as_slice(), cut.cut.query), (&[9, 5, 1, 12, 12, 1, 2, 12][..], false));
        assert!(cut.cut.document);
    }

    #[test]
    fn a_pair_that_is_too_long_is_refused_with_all_lengths() {
        let tokenizer = TextTokenizer::from_bytes(&words(PAIRS, "null", "null")).unwrap();
        let error = tokenizer.pair_ids("q a", "a b c d", 9, Truncation::Error).unwrap_err();
        assert_eq!(error.kind(), "too_long");
        let said = "the pair has 10 tokens, 2 of the query and 4 of the document, expected at most 9 in all";
        assert_eq!(error.to_string(), said);
        let error = tokenizer.pair_ids("q a", "a b c d", 3, Truncation::Right).unwrap_err();
        assert_eq!(error.kind(), "too_long", "four special tokens are not cut");
        // A template that forgets a text would score something else than the pair.
        let forgetful = TextTokenizer::from_bytes(&words(BOTH, "null", "null")).unwrap();
        let error = forgetful.pair_ids("q a", "a b", 9, Truncation::Error).unwrap_err();
        assert!(matches!(error, MediaError::Tokenizer { .. }), "{error}");
    }

    #[test]
    fn a_prompt_around_a_pair_is_cut_in_its_middle_and_says_whose_end_is_missing() {
        let tokenizer = TextTokenizer::from_bytes(&words("null", "null", "null")).unwrap();
        let pair = PromptPair { before: "q q", query: "a b ", document: "c d", behind: "q" };
        let cut = |limit, cut| tokenizer.prompt_pair_ids(&pair, limit, cut);
        let whole = cut(7, false).unwrap();
        assert_eq!((whole.ids.as_slice(), whole.cut), (&[5, 5, 1, 2, 3, 4, 5][..], PairCut::default()));
        let shorter = cut(6, true).unwrap();
        assert_eq!(shorter.ids, [5, 5, 1, 2, 3, 5]);
        assert_eq!(shorter.cut, PairCut { query: false, document: true });
        let shortest = cut(4, true).unwrap();
        assert_eq!(shortest.ids, [5, 5, 1, 5]);
        assert_eq!(shortest.cut, PairCut { query: true, document: true });
        let said = "the pair has 7 tokens, 2 of the query and 2 of the document, expected at most 6 in all";
        assert_eq!(cut(6, false).unwrap_err().to_string(), said);
        assert_eq!(cut(3, true).unwrap_err().kind(), "too_long");
    }

    #[test]
    fn an_empty_text_without_specials_has_no_ids() {
        let tokenizer = TextTokenizer::from_bytes(&words("null", "null", "null")).unwrap();
        let empty = tokenizer.text_ids("", "", 8, Truncation::Error).unwrap();
        assert!(empty.ids.is_empty() && !empty.truncated);
    }

    #[test]
    fn what_is_no_tokenizer_is_refused_by_name() {
        assert_eq!(TextTokenizer::from_bytes(b"").unwrap_err().kind(), "empty");
        assert_eq!(TextTokenizer::from_bytes(b"{\"model\":3}").unwrap_err().kind(), "corrupt");
        let missing = TextTokenizer::from_file(Path::new("no/such/tokenizer.json")).unwrap_err();
        assert_eq!(missing.kind(), "not_found");
        assert!(missing.to_string().contains("no/such/tokenizer.json"));
        let folder = TextTokenizer::from_file(Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")))
            .unwrap_err();
        assert_eq!(folder.kind(), "not_a_file");
    }
}

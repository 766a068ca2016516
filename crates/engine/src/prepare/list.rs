//! A query and the documents that are read with it: how long each may be, which share a prompt, and the rows of one prompt.

use omniburn_models::family::{ListPrompt, PairForm};
use omniburn_models::record::Modality;

use super::preparer::{Prepared, Preparer};
use crate::call::{Input, Request, Source};
use crate::error::ItemError;
use crate::forms::Sequence;

/// A text of a list as it is read.
#[derive(Debug, Clone)]
pub(crate) struct ListText {
    pub text: String,
    pub tokens: usize,
    /// Whether its end is missing.
    pub cut: bool,
}

/// A query and its documents as they are read.
#[derive(Debug)]
pub(crate) struct ListTexts {
    pub query: ListText,
    /// In their order, each with its own fault.
    pub documents: Vec<Result<ListText, ItemError>>,
    /// Places of the documents of each prompt.
    pub blocks: Vec<Vec<usize>>,
}

impl Preparer {
    /// Cuts texts into tokens, and documents into prompts.
    ///
    /// # Source
    /// jinaai/jina-reranker-v3, `JinaForRanking.rerank`: a prompt ends where it has its number of documents, or where less room is
    /// left than one may need.
    /// # Errors
    /// [`ItemError`] of the query.
    pub(crate) fn list_texts(
        &self,
        prompt: &ListPrompt,
        query: &Input,
        documents: &[Input],
        request: &Request,
    ) -> Result<ListTexts, ItemError> {
        let [most_query, most_document] = prompt.most_tokens;
        let query = self.list_text(prompt, query, most_query, request)?;
        let documents: Vec<_> =
            documents.iter().map(|document| self.list_text(prompt, document, most_document, request)).collect();
        let room = self.header().family.max_tokens().saturating_sub(2 * query.tokens);
        let (mut blocks, mut block, mut left) = (Vec::new(), Vec::new(), room);
        for (at, document) in documents.iter().enumerate() {
            let Ok(document) = document else { continue };
            block.push(at);
            left = left.saturating_sub(document.tokens);
            if block.len() >= prompt.most_documents || left <= most_document {
                blocks.push(std::mem::take(&mut block));
                left = room;
            }
        }
        blocks.extend((!block.is_empty()).then_some(block));
        Ok(ListTexts { query, documents, blocks })
    }

    /// A text of so many tokens at most.
    fn list_text(
        &self,
        prompt: &ListPrompt,
        input: &Input,
        most: usize,
        request: &Request,
    ) -> Result<ListText, ItemError> {
        if let Some(over) = request.over() {
            return Err(over);
        }
        self.take(input)?;
        let Source::Text(text) = &input.0 else {
            let reason = format!("the family `{}` scores texts", self.header().family.name());
            return Err(ItemError::ModalityAbsent { modality: input.modality(), reason });
        };
        let ids = self.tokenizer.ids(text)?;
        if ids.len() > most && !self.cuts_pair(request)? {
            return Err(ItemError::TooLong { tokens: ids.len(), limit: most });
        }
        let (tokens, cut) = (ids.len().min(most), ids.len() > most);
        let text = if ids.len() >= most { self.tokenizer.text_of(&ids[..most])? } else { text.to_string() };
        Ok(ListText { text: prompt.plain(&text), tokens, cut })
    }

    /// One prompt; the first text is the query. Its chunks are the rows of documents and, last, of the query.
    pub(super) fn prepare_list(&self, texts: &[Input], request: &Request) -> Result<Prepared, ItemError> {
        let unread = || ItemError::Request { reason: "the model reads no list of documents".into() };
        let Some(PairForm::List(prompt)) = self.header().family.spec().outputs.pairs() else { return Err(unread()) };
        let text = |input: &Input| match &input.0 {
            Source::Text(text) => Ok(text.clone()),
            _ => Err(unread()),
        };
        let texts = texts.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let [query, documents @ ..] = texts.as_slice() else { return Err(unread()) };
        let documents: Vec<&str> = documents.iter().map(|text| &**text).collect();
        let ids = self.tokenizer.ids(&prompt.of(query, &documents, request.instruction.as_deref()))?;
        let limit = self.header().family.max_tokens();
        if ids.len() > limit {
            return Err(ItemError::TooLong { tokens: ids.len(), limit });
        }
        if documents.is_empty() {
            return Err(ItemError::Empty { modality: Modality::Text });
        }
        let places =
            |wanted: u32| ids.iter().enumerate().filter(move |(_, id)| **id == wanted).map(|(at, _)| at..at + 1);
        let [of_query, of_document] = prompt.ids;
        let mut chunks: Vec<_> = places(of_document).collect();
        let of_documents = chunks.len();
        chunks.extend(places(of_query));
        if of_documents != documents.len() || chunks.len() != of_documents + 1 {
            let [query, document] = &prompt.tokens;
            let reason = format!("a text or the instruction has {query} or {document} in it, which ends texts here");
            return Err(ItemError::Request { reason });
        }
        let sequence = Sequence { ids, chunks, ..Sequence::default() };
        Ok(Prepared::Text { sequence, truncated: false, pair: None, chunks: Vec::new() })
    }
}

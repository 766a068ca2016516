//! The engine as what embeds, and as what reranks.

use std::ops::ControlFlow;

use omniburn::{Cancel, Embedded, Engine, Input, Request, Role, Truncation};

use crate::embedder::{Content, Embedder, EmbedderProfile, Vector};
use crate::error::Fault;
use crate::kind::Modality;
use crate::rerank::Reranker;

/// An engine, and what stops it.
#[derive(Debug, Clone)]
pub struct EngineEmbedder {
    engine: Engine,
    cancel: Cancel,
}

impl EngineEmbedder {
    /// Of an engine; `cancel` stops it at the next unit.
    pub fn new(engine: Engine, cancel: Cancel) -> Self {
        Self { engine, cancel }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Embeds a file as a document: what [`crate::Sought::Like`] searches with. Of a text file the first piece is read.
    ///
    /// # Errors
    /// [`Fault`] where it cannot be.
    pub fn embed_one(&self, content: Content) -> Result<Vec<f32>, Fault> {
        let request = Request::new(Role::Document).truncation(Truncation::Right).cancel(self.cancel.clone());
        let result = self.engine.embed_with(&[input_of(content)], &request).map_err(fault_of_engine)?;
        let embedded =
            result.into_iter().next().ok_or_else(|| Fault::new("panicked", "no result came of one input"))?;
        embedded.map(|embedded| embedded.embedding.into_vec()).map_err(|e| Fault::new(e.kind().name(), e.to_string()))
    }
}

fn fault_of_engine(error: omniburn::EngineError) -> Fault {
    Fault::new("bad_item", error.to_string())
}

fn input_of(content: Content) -> Input {
    match content {
        Content::Text(text) => Input::text(text),
        Content::Image(path) => Input::image_file(path),
        Content::Pixels(image) => Input::image_pixels(image),
        Content::Audio(path) => Input::audio_file(path),
        Content::Video(path) => Input::video_file(path),
    }
}

/// A vector a segment, where there are any.
fn vectors_of(embedded: Embedded) -> Vec<Vector> {
    if embedded.segments.is_empty() {
        return vec![Vector { span: None, values: embedded.embedding.into_vec() }];
    }
    let segments = embedded.segments.into_iter();
    let one = |segment: omniburn::Segment| Vector {
        span: Some((segment.span.start_s, segment.span.end_s)),
        values: segment.embedding.into_vec(),
    };
    segments.map(one).collect()
}

impl Embedder for EngineEmbedder {
    fn profile(&self) -> EmbedderProfile {
        let profile = self.engine.profile();
        let modality = |modality: omniburn::Modality| Modality::ALL.into_iter().find(|m| m.name() == modality.name());
        EmbedderProfile {
            identity: profile.identity,
            model: profile.name,
            dim: profile.default_dim,
            max_tokens: profile.max_tokens,
            modalities: profile.modalities.into_iter().filter_map(modality).collect(),
        }
    }

    fn count_tokens(&self, text: &str) -> Result<usize, Fault> {
        let request = Request::new(Role::Document);
        self.engine.count_tokens(text, &request).map_err(|e| Fault::new(e.kind().name(), e.to_string()))
    }

    fn embed(
        &self,
        contents: &mut dyn Iterator<Item = Content>,
        take: &mut dyn FnMut(Result<Vec<Vector>, Fault>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let request = Request::new(Role::Document).cancel(self.cancel.clone());
        let results = self.engine.embed_iter(contents.map(input_of), request).map_err(fault_of_engine)?;
        for result in results {
            let vectors = result.map(vectors_of).map_err(|e| Fault::new(e.kind().name(), e.to_string()));
            if take(vectors).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn embed_query(&self, text: &str) -> Result<Vec<f32>, Fault> {
        let request = Request::new(Role::Query).truncation(Truncation::Error).cancel(self.cancel.clone());
        let result = self.engine.embed_with(&[Input::text(text)], &request).map_err(fault_of_engine)?;
        let embedded =
            result.into_iter().next().ok_or_else(|| Fault::new("panicked", "no result came of one input"))?;
        embedded.map(|embedded| embedded.embedding.into_vec()).map_err(|e| Fault::new(e.kind().name(), e.to_string()))
    }
}

/// An engine of a reranker, and what stops it. A pair that is longer than the model reads is cut.
#[derive(Debug, Clone)]
pub struct EngineReranker {
    engine: Engine,
    request: Request,
}

impl EngineReranker {
    /// Of an engine; `cancel` stops it at the next unit.
    ///
    /// # Errors
    /// [`omniburn::EngineError::OutputAbsent`] of a model that gives vectors.
    pub fn new(engine: Engine, cancel: Cancel) -> Result<Self, omniburn::EngineError> {
        let request = Request::new(Role::Query).truncation(Truncation::Right).cancel(cancel);
        engine.rerank_with("", &[] as &[Input], &request)?;
        Ok(Self { engine, request })
    }
}

impl Reranker for EngineReranker {
    fn takes_images(&self) -> bool {
        self.engine.profile().modalities.contains(&omniburn::Modality::Image)
    }

    fn scores(&self, query: &str, documents: Vec<Content>) -> Result<Vec<Result<f32, Fault>>, Fault> {
        let documents: Vec<Input> = documents.into_iter().map(input_of).collect();
        let results = self.engine.rerank_with(query, &documents, &self.request).map_err(fault_of_engine)?;
        let score = |result: Result<omniburn::Ranked, omniburn::ItemError>| {
            result.map(|ranked| ranked.score).map_err(|e| Fault::new(e.kind().name(), e.to_string()))
        };
        Ok(results.into_iter().map(score).collect())
    }
}

//! The units of one window of a call: texts packed, pictures through the tower together and the backbone one by one.

use std::sync::Arc;

use burn::tensor::Tensor;
use omniburn_models::batch::Grid;
use omniburn_models::families::omni::OmniText;
use omniburn_models::record::Modality;

use crate::embedding::{Embedding, EmbeddingError};
use crate::engine::Engine;
use crate::error::ItemError;
use crate::forward;
use crate::plan::{Plan, plan_patches, plan_text, tower_bytes};
use crate::prepare::Prepared;
use crate::prompt::Frame;
use crate::request::{Embedded, Request};

/// One result an item, in the order they were prepared.
pub(crate) fn compute(
    engine: &Engine,
    prepared: Vec<Result<Prepared, ItemError>>,
    request: &Request,
) -> Vec<Result<Embedded, ItemError>> {
    let mut run = Run { engine, request, results: prepared.iter().map(|_| None).collect() };
    let (mut texts, mut media) = (Vec::new(), Vec::new());
    for (index, item) in prepared.into_iter().enumerate() {
        match item {
            Ok(Prepared::Text { ids, truncated }) => texts.push(TextItem { index, ids, truncated }),
            Ok(Prepared::Media { modality, values, grid, frame, tokens }) => {
                media.push(MediaItem { index, modality, values, grid, frame, tokens });
            }
            Err(e) => run.fail(index, e),
        }
    }
    if !texts.is_empty() || !media.is_empty() {
        match engine.text_part(request) {
            Ok(text) => {
                run.texts(&text, texts);
                run.media(&text, media);
            }
            Err(e) => {
                let e = Failure::of(e);
                let indices = texts.iter().map(|t| t.index).chain(media.iter().map(|m| m.index));
                indices.for_each(|index| run.fail(index, e.again()));
            }
        }
    }
    run.results.into_iter().map(|r| r.expect("every item was computed or failed")).collect()
}

struct TextItem {
    index: usize,
    ids: Vec<u32>,
    truncated: bool,
}

struct MediaItem {
    index: usize,
    modality: Modality,
    values: Vec<f32>,
    grid: Grid,
    frame: Frame,
    tokens: usize,
}

/// A failure that several items share.
enum Failure {
    Cancelled,
    Panicked(String),
    Device(String),
    Record(Arc<omniburn_models::RecordError>),
    Other(String),
}

impl Failure {
    fn of(error: ItemError) -> Self {
        match error {
            ItemError::Cancelled => Failure::Cancelled,
            ItemError::Panicked { message } => Failure::Panicked(message),
            ItemError::Device { message } => Failure::Device(message),
            ItemError::Record(e) => Failure::Record(e),
            other => Failure::Other(other.to_string()),
        }
    }

    fn again(&self) -> ItemError {
        match self {
            Failure::Cancelled => ItemError::Cancelled,
            Failure::Panicked(message) => ItemError::Panicked { message: message.clone() },
            Failure::Device(message) => ItemError::Device { message: message.clone() },
            Failure::Record(e) => ItemError::Record(Arc::clone(e)),
            Failure::Other(message) => ItemError::Device { message: message.clone() },
        }
    }
}

/// The units of one window.
struct Run<'a> {
    engine: &'a Engine,
    request: &'a Request,
    results: Vec<Option<Result<Embedded, ItemError>>>,
}

impl Run<'_> {
    fn fail(&mut self, index: usize, error: ItemError) {
        self.results[index] = Some(Err(error));
    }

    fn finish(&mut self, index: usize, values: Vec<f32>, modality: Modality, tokens: usize, truncated: bool) {
        let result = embedding(values, self.request.dim)
            .map(|embedding| Embedded { embedding, modality, tokens, truncated })
            .map_err(ItemError::from);
        self.results[index] = Some(result);
    }

    fn unit<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ItemError> + Send + 'static,
    ) -> Result<T, ItemError> {
        self.engine.unit(self.request.resolved_priority(), self.request.cancel.as_ref(), work)?
    }

    fn refuse(&mut self, plan: &Plan, index_of: impl Fn(usize) -> usize) {
        let budget = self.engine.inner.budget.bytes();
        for &(item, needed) in &plan.refused {
            self.fail(index_of(item), ItemError::OverBudget { needed, budget });
        }
    }

    fn texts(&mut self, text: &Arc<OmniText>, items: Vec<TextItem>) {
        let lengths: Vec<usize> = items.iter().map(|t| t.ids.len()).collect();
        let plan = plan_text(&lengths, &self.engine.inner.budget);
        self.refuse(&plan, |i| items[i].index);
        for unit in plan.units {
            self.text_unit(text, &unit.iter().map(|&i| &items[i]).collect::<Vec<_>>());
        }
    }

    fn text_unit(&mut self, text: &Arc<OmniText>, items: &[&TextItem]) {
        let sequences: Vec<Vec<u32>> = items.iter().map(|t| t.ids.clone()).collect();
        let (model, device) = (Arc::clone(text), self.engine.inner.parts.device().clone());
        match self.unit(move || forward::text_unit(&model, &sequences, &device)) {
            Ok(rows) => {
                for (item, values) in items.iter().zip(rows) {
                    self.finish(item.index, values, Modality::Text, item.ids.len(), item.truncated);
                }
            }
            Err(e) if items.len() == 1 => self.fail(items[0].index, e),
            // Somebody in this unit is the culprit: alone, each shows its own result.
            Err(_) => items.iter().for_each(|item| self.text_unit(text, &[item])),
        }
    }

    fn media(&mut self, text: &Arc<OmniText>, items: Vec<MediaItem>) {
        // The backbone's need is known beforehand: refuse before the tower has worked for nothing.
        let budget = &self.engine.inner.budget;
        let (fits, refused): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|m| budget.text_unit(&[m.tokens]) <= budget.bytes());
        for item in refused {
            // The budget named must do for the tower, too.
            let needed = budget.text_unit(&[item.tokens]).max(tower_bytes(&[0], &[item.grid], budget));
            let budget = budget.bytes();
            self.fail(item.index, ItemError::OverBudget { needed, budget });
        }
        let grids: Vec<Grid> = fits.iter().map(|m| m.grid).collect();
        let plan = plan_patches(&grids, &self.engine.inner.budget);
        self.refuse(&plan, |i| fits[i].index);
        let mut items: Vec<Option<MediaItem>> = fits.into_iter().map(Some).collect();
        for unit in plan.units {
            let unit: Vec<MediaItem> = unit.into_iter().filter_map(|i| items[i].take()).collect();
            self.media_unit(text, unit);
        }
    }

    fn media_unit(&mut self, text: &Arc<OmniText>, mut items: Vec<MediaItem>) {
        let parts = Arc::clone(&self.engine.inner.parts);
        if !parts.vision_is_open() {
            let opening = Arc::clone(&parts);
            let opened = self.unit(move || opening.vision().map(|_| ()).map_err(|e| ItemError::Record(Arc::new(e))));
            if let Err(e) = opened {
                let e = Failure::of(e);
                return items.iter().for_each(|item| self.fail(item.index, e.again()));
            }
        }
        match self.tower(items.iter_mut().map(|m| (std::mem::take(&mut m.values), m.grid)).collect()) {
            Ok(features) => {
                for (item, features) in items.into_iter().zip(features) {
                    self.media_item(text, &item, features);
                }
            }
            Err((e, _)) if items.len() == 1 => self.fail(items[0].index, e),
            Err((_, values)) => {
                for (mut item, values) in items.into_iter().zip(values) {
                    item.values = values;
                    self.media_unit(text, vec![item]);
                }
            }
        }
    }

    /// Features of each item; on failure the values come back, so that each can be tried alone.
    #[allow(clippy::type_complexity)] // the two halves of one result
    fn tower(&self, packed: Vec<(Vec<f32>, Grid)>) -> Result<Vec<Tensor<2>>, (ItemError, Vec<Vec<f32>>)> {
        let parts = Arc::clone(&self.engine.inner.parts);
        let kept = if packed.len() > 1 { packed.iter().map(|(v, _)| v.clone()).collect() } else { Vec::new() };
        let work = move || {
            let tower = parts.vision().map_err(|e| ItemError::Record(Arc::new(e)))?;
            let tower = tower.expect("a modality without a tower is refused before");
            forward::tower_unit(&tower, packed, parts.device())
        };
        self.unit(work).map_err(|e| (e, kept))
    }

    fn media_item(&mut self, text: &Arc<OmniText>, item: &MediaItem, features: Tensor<2>) {
        let (model, device) = (Arc::clone(text), self.engine.inner.parts.device().clone());
        let frame = item.frame.clone();
        match self.unit(move || forward::media_unit(&model, features, &frame, &device)) {
            Ok(values) => self.finish(item.index, values, item.modality, item.tokens, false),
            Err(e) => self.fail(item.index, e),
        }
    }
}

/// The unit vector of a pooled row: finite in every value, then cut, then normalised.
fn embedding(mut values: Vec<f32>, dim: Option<usize>) -> Result<Embedding, EmbeddingError> {
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        return Err(EmbeddingError::NotFinite { index });
    }
    values.truncate(dim.unwrap_or(values.len()));
    Embedding::from_raw(values)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::gate::Priority;
    use crate::request::{Input, Role};
    use omniburn_media::RgbImage;
    use omniburn_models::backbone::BackboneConfig;
    use omniburn_models::families::OmniConfig;
    use omniburn_models::record::Dtype;
    use omniburn_models::record::write_random;

    /// An engine on a text-only record of random weights.
    fn engine() -> (tempfile::TempDir, Engine) {
        let text = BackboneConfig {
            hidden: 32,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            inner: 48,
            norm_eps: 1e-6,
            rope_theta: 1e4,
            causal: true,
            qk_norm: true,
            max_tokens: 128,
            vocab: 500,
        };
        let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
        let tokenizer = Path::new(&manifest).join("../../tests/golden/twins/omni-small-tiny/tokenizer.json");
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("record");
        let config = OmniConfig { text, vision: None, audio: None };
        write_random(&out, &config, Dtype::F32, (1, 1), &tokenizer, 3).unwrap();
        let engine = Engine::open(out).unwrap();
        (folder, engine)
    }

    #[test]
    fn a_unit_that_panics_becomes_a_typed_error_and_frees_the_gate() {
        let (_folder, engine) = engine();
        let want = engine.embed_one(Input::text("a"), Role::Query).unwrap();
        let failed: Result<(), ItemError> = engine.unit(Priority::Background, None, || panic!("shapes disagree"));
        let error = failed.unwrap_err();
        assert_eq!(error.kind().name(), "panicked");
        assert!(error.to_string().contains("shapes disagree"));
        assert_eq!(engine.inner.gate.waiting(), (0, 0));
        assert_eq!(engine.embed_one(Input::text("a"), Role::Query).unwrap(), want);
    }

    #[test]
    fn one_culprit_in_a_unit_fails_alone_and_its_neighbours_keep_their_bits() {
        let (_folder, engine) = engine();
        let text = engine.text_part(&Request::default()).unwrap();
        let item = |index, ids: &[u32]| TextItem { index, ids: ids.to_vec(), truncated: false };
        let request = Request::new(Role::None);
        let run = |items: Vec<TextItem>, count: usize| {
            let mut run = Run { engine: &engine, request: &request, results: (0..count).map(|_| None).collect() };
            run.texts(&text, items);
            run.results.into_iter().map(Option::unwrap).collect::<Vec<_>>()
        };
        let alone = run(vec![item(0, &[5, 6, 7])], 1).swap_remove(0).unwrap();
        let mut together = run(vec![item(0, &[5, 6, 7]), item(1, &[9, 999_999]), item(2, &[8])], 3);
        assert_eq!(
            together[1].as_ref().unwrap_err().to_string(),
            "token id 999999 is outside the token table of 500 rows"
        );
        assert!(together[2].is_ok());
        assert_eq!(together.swap_remove(0).unwrap(), alone);
    }

    #[test]
    fn a_row_that_is_not_finite_is_an_error_even_where_it_is_cut_off() {
        let cut = embedding(vec![1.0, 2.0, f32::NAN], Some(2));
        assert_eq!(cut, Err(EmbeddingError::NotFinite { index: 2 }));
        assert_eq!(embedding(vec![0.0, 0.0, 1.0], Some(2)), Err(EmbeddingError::ZeroLength));
        assert_eq!(embedding(vec![3.0, 4.0, 9.0], Some(2)).unwrap().as_slice(), [0.6, 0.8]);
    }

    #[test]
    fn a_record_without_towers_reads_text_and_names_what_it_does_not_read() {
        let (_folder, engine) = engine();
        assert_eq!(engine.profile().modalities, [Modality::Text]);
        let picture = RgbImage::new(omniburn_media::Width(8), omniburn_media::Height(8), vec![7; 192]).unwrap();
        let result = engine.embed_with(&[Input::image_pixels(picture)], &Request::default()).unwrap().swap_remove(0);
        assert_eq!(result.unwrap_err().to_string(), "image is not taken: the record has no picture tower");
        let empty = engine.embed_with(&[Input::text("")], &Request::new(Role::None)).unwrap().swap_remove(0);
        assert_eq!(empty.unwrap_err().kind().name(), "empty");
    }
}

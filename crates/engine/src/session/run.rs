//! The units of one window of a call: texts packed, media through their tower together and the backbone one by one,
//! long audio and video segment by segment.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use omniburn_media::{LogMel, PairCut};
use omniburn_models::family::TextModel;
use omniburn_models::record::Modality;
use omniburn_scheduler::Priority;

use super::open::Session;
use super::plan::{Piece, plan_text, plan_tower};
use crate::call::{
    Answer, CallEvent, Chunk, Embedded, Features, InputDigest, Listed, Request, Role, Scored, Segment, Sparse, Timings,
    UnitRan,
};
use crate::embedding::{Embedding, EmbeddingError};
use crate::error::ItemError;
use crate::forms::{FittedImages, Medium, Pooled, Rows, Sequence, levels};
use crate::memory::{LEAST_UNIT_ROWS, MAX_UNIT_FRAMES, MAX_UNIT_PATCHES, MAX_UNIT_TOKENS, Reservation};
use crate::prepare::{Long, Prepared};
use crate::worker::{
    AudioWindowsUnit, Back, Connector, FittedImagesUnit, Load, MediaUnit, MediumRows, MelPiece, PatchPiece, Spent,
    Stage, Steps, TextSet, TowerPieces, TowerRows, text_body,
};

/// A prepared item of a window with the memory that is spoken for until its vector is there.
pub(crate) struct Item {
    /// Its place in the window.
    pub index: usize,
    /// Of its content, where the call is observed.
    pub digest: Option<InputDigest>,
    pub prepared: Prepared,
    /// How long that took.
    pub prepared_in: Duration,
    pub reserved: Reservation,
}

/// One result an item, with its place.
pub(crate) fn compute(
    session: &Session,
    items: Vec<Item>,
    request: &Request,
) -> Vec<(usize, Result<Answer, ItemError>)> {
    if items.is_empty() {
        return Vec::new();
    }
    let mut run = Run { session, request, spent: Cell::default(), results: Vec::with_capacity(items.len()) };
    let text = match session.text_part(request) {
        Ok(text) => text,
        Err(e) => return items.into_iter().map(|item| (item.index, Err(e.clone()))).collect(),
    };
    let (mut texts, mut media, mut long) = (Vec::new(), Vec::new(), Vec::new());
    let mut took = HashMap::new();
    for Item { index, digest, prepared, prepared_in, reserved } in items {
        took.insert(index, prepared_in);
        match prepared {
            Prepared::Text { sequence, truncated, pair, chunks } => {
                let reserved = Arc::new(reserved);
                texts.push(TextItem { index, digest, sequence, truncated, pair, chunks, reserved });
            }
            Prepared::Media(medium) => media.push((index, Medium { digest, ..medium }, Arc::new(reserved))),
            Prepared::Long(segments) => long.push((index, digest, segments, reserved)),
        }
    }
    run.texts(&text, texts);
    run.timed(|run| run.short_media(&text, media));
    for (index, digest, segments, reserved) in long {
        run.timed(|run| run.long_medium(&text, (index, digest), *segments, Arc::new(reserved)));
    }
    for (index, result) in &mut run.results {
        if let Ok(answer) = result {
            answer.timings_mut().tokenise = took.get(index).copied().unwrap_or_default();
        }
    }
    run.results
}

struct TextItem {
    index: usize,
    digest: Option<InputDigest>,
    sequence: Sequence,
    truncated: bool,
    /// Of a query and a document, what was cut of them.
    pair: Option<PairCut>,
    /// Bytes of each chunk that has a vector of its own.
    chunks: Vec<Range<usize>>,
    reserved: Arc<Reservation>,
}

/// The units of one window.
struct Run<'a> {
    session: &'a Session,
    request: &'a Request,
    /// By all units but those of texts.
    spent: Cell<Spent>,
    results: Vec<(usize, Result<Answer, ItemError>)>,
}

impl Run<'_> {
    /// Gives the results of some work what its units spent.
    fn timed(&mut self, work: impl FnOnce(&mut Self)) {
        let before = self.results.len();
        self.spent.take();
        work(self);
        let Spent { queue, compute } = self.spent.take();
        for answer in self.results[before..].iter_mut().filter_map(|(_, result)| result.as_mut().ok()) {
            let timings = answer.timings_mut();
            *timings = Timings { queue, compute, ..*timings };
        }
    }

    fn finish(&mut self, index: usize, result: Result<Answer, ItemError>) {
        self.results.push((index, result));
    }

    /// Runs a unit of the items with these digests.
    fn unit<S: Steps>(
        &self,
        steps: S,
        digests: impl IntoIterator<Item = Option<InputDigest>>,
    ) -> Result<S::Out, ItemError> {
        let (stage, load) = steps.next();
        let (result, spent) = self.session.worker.timed_steps(self.request, steps);
        self.spend(spent);
        self.note((stage, load.rows), digests, result.as_ref().err());
        result
    }

    fn spend(&self, spent: Spent) {
        let mut all = self.spent.take();
        all += spent;
        self.spent.set(all);
    }

    /// Tells of a unit of the items with these digests, where the call is observed.
    fn note(
        &self,
        (stage, rows): (Stage, f64),
        digests: impl IntoIterator<Item = Option<InputDigest>>,
        error: Option<&ItemError>,
    ) {
        if let Some(observer) = &self.request.observer {
            let items: Vec<InputDigest> = digests.into_iter().flatten().collect();
            observer.tell(&CallEvent::Unit(UnitRan {
                call: observer.call,
                class: self.request.resolved_priority(),
                stage: stage.unit(),
                items: &items,
                rows: rows as u64,
                error,
            }));
        }
    }

    /// Whether rows may share a unit of a stage: background work is cut where a step would take longer than a slice
    /// should, though not below what a product needs to be efficient; a query is not cut.
    fn comfortable(&self, stage: Stage, lengths: &[usize], most: usize) -> bool {
        self.comfortable_in_steps(stage, lengths, most, 1)
    }

    /// [`Run::comfortable`] where a step has so many layers.
    fn comfortable_in_steps(&self, stage: Stage, lengths: &[usize], most: usize, layers: usize) -> bool {
        let rows: usize = lengths.iter().sum();
        let short = || self.session.expected(stage, Load::of(lengths.iter().copied()), layers);
        let background = self.request.resolved_priority() == Priority::Background && !self.request.isolated;
        let target = self.session.time_slice;
        rows <= most && (!background || rows <= LEAST_UNIT_ROWS || short().is_some_and(|time| time <= target))
    }

    fn texts(&mut self, text: &Arc<dyn TextModel>, items: Vec<TextItem>) {
        let lengths: Vec<usize> = items.iter().map(|t| t.sequence.len()).collect();
        let stage = text_body(&**text);
        // Texts that share a unit need no more than the sum of what each has reserved.
        let comfortable = |lengths: &[usize]| {
            let layers = text.step_layers(lengths.iter().sum());
            self.comfortable_in_steps(stage, lengths, MAX_UNIT_TOKENS, layers)
        };
        for unit in plan_text(&lengths, comfortable) {
            let unit: Vec<&TextItem> = unit.iter().map(|&i| &items[i]).collect();
            self.text_unit((text, stage), &unit, !self.request.isolated, Spent::default());
        }
    }

    /// A unit of texts, which may be computed beside those of other callers where `batched` is allowed; `before` is what
    /// they spent in units that failed.
    fn text_unit(
        &mut self,
        (text, stage): (&Arc<dyn TextModel>, Stage),
        items: &[&TextItem],
        batched: bool,
        before: Spent,
    ) {
        let texts = TextSet {
            text: Arc::clone(text),
            sequences: items.iter().map(|t| t.sequence.clone()).collect(),
            wanted: self.session.rows_of(self.request),
            stage,
            reserved: items.iter().map(|t| Arc::clone(&t.reserved)).collect(),
        };
        let Back { rows, mut spent, shared } = self.session.worker.texts(self.request, texts, batched);
        spent += before;
        // Of a pass that was shared, the call notes what was its own.
        let own = items.iter().map(|t| t.sequence.len()).sum::<usize>() as f64;
        self.note((stage, own), items.iter().map(|t| t.digest), rows.as_ref().err());
        match rows {
            Ok(rows) => {
                for (item, pooled) in items.iter().zip(rows) {
                    self.finish(item.index, self.answer(item, pooled, spent));
                }
            }
            Err(e) if gave_up(&e) || (items.len() == 1 && !shared) => {
                items.iter().for_each(|item| self.finish(item.index, Err(e.clone())));
            }
            // Somebody in this pass is the culprit: alone, each shows its own result.
            Err(_) => items.iter().for_each(|item| self.text_unit((text, stage), &[*item], false, spent)),
        }
    }

    /// What a text, or a query and a document, came to.
    fn answer(&self, item: &TextItem, pooled: Pooled, spent: Spent) -> Result<Answer, ItemError> {
        let Spent { queue, compute } = spent;
        let (tokens, timings) = (item.sequence.len(), Timings { queue, compute, ..Timings::default() });
        if let Some(cut) = item.pair {
            return scored(&pooled.values, tokens, cut, timings).map(Answer::Score);
        }
        let Pooled { values, mut chunks, weights, rows, .. } = pooled;
        if item.chunks.is_empty()
            && let Some(query) = chunks.pop()
        {
            let finite = |values: &Vec<f32>| values.iter().position(|value| !value.is_finite());
            let fault = chunks.iter().chain([&query]).find_map(finite);
            return match fault {
                Some(index) => Err(EmbeddingError::NotFinite { index }.into()),
                None => Ok(Answer::List(Listed { query, documents: chunks, tokens, timings })),
            };
        }
        let dim = self.session.dim_of(self.request);
        let chunk = |((values, rows), bytes): ((Vec<f32>, &Range<usize>), &Range<usize>)| {
            Ok::<_, ItemError>(Chunk { bytes: bytes.clone(), tokens: rows.len(), embedding: embedding(values, dim)? })
        };
        let chunks = chunks.into_iter().zip(&item.sequence.chunks).zip(&item.chunks).map(chunk);
        let chunks = chunks.collect::<Result<Vec<_>, _>>()?;
        let embedding = embedding(values, dim)?;
        let forms = self.session.header().family.spec().outputs.rows();
        let unweighted = forms.and_then(|forms| forms.sparse.as_ref());
        let sparse = unweighted.filter(|_| self.request.rows.sparse).map(|unweighted| {
            match weights.iter().position(|weight| !weight.is_finite()) {
                Some(index) => Err(EmbeddingError::NotFinite { index }),
                None => Ok(Sparse::of(&item.sequence.ids, &weights, unweighted)),
            }
        });
        let late = forms.and_then(|forms| forms.late.as_ref()).filter(|_| self.request.role == Role::Document);
        let skipped = |at: usize| late.is_some_and(|late| late.skiplist.contains(&item.sequence.ids[at]));
        let (modality, truncated, segments) = (Modality::Text, item.truncated, Vec::new());
        let (sparse, multi, features) = (sparse.transpose()?, self.multi(&rows, tokens, skipped)?, None);
        Ok(Answer::Vector(Embedded {
            embedding,
            sparse,
            multi,
            features,
            modality,
            tokens,
            truncated,
            segments,
            chunks,
            timings,
        }))
    }

    /// The vectors of an item's rows, where they are wanted and the model gives them, but of those that are skipped; `rows` are
    /// those of so many tokens.
    fn multi(
        &self,
        rows: &[f32],
        tokens: usize,
        skipped: impl Fn(usize) -> bool,
    ) -> Result<Option<Vec<Embedding>>, EmbeddingError> {
        let in_front = self.session.header().family.spec().outputs.rows().and_then(|forms| forms.multi);
        let in_front = in_front.filter(|_| self.session.rows_of(self.request).multi);
        let Some(in_front) = in_front else { return Ok(None) };
        let rows = rows.chunks_exact((rows.len() / tokens.max(1)).max(1)).enumerate().skip(in_front);
        let rows = rows.filter(|(at, _)| !skipped(*at));
        rows.map(|(_, row)| Embedding::from_raw(row.to_vec())).collect::<Result<_, _>>().map(Some)
    }

    fn short_media(&mut self, text: &Arc<dyn TextModel>, items: Vec<(usize, Medium, Arc<Reservation>)>) {
        let (mut indices, mut media, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
        for (index, medium, bytes) in items {
            indices.push(index);
            media.push(medium);
            reserved.push(bytes);
        }
        let pooled = self.media(text, &media, &reserved);
        for ((index, medium), values) in indices.into_iter().zip(&media).zip(pooled) {
            let result = values.and_then(|pooled| match medium.pair {
                Some(cut) => scored(&pooled.values, medium.tokens, cut, Timings::default()).map(Answer::Score),
                None => self.embedded(pooled, medium).map(Answer::Vector),
            });
            self.finish(index, result);
        }
    }

    fn embedded(&self, pooled: Pooled, medium: &Medium) -> Result<Embedded, ItemError> {
        let Pooled { values, rows, features, .. } = pooled;
        let embedding = embedding(values, self.session.dim_of(self.request))?;
        if let Some(Features { rows, deepstack, .. }) = &features
            && let Some(index) = rows.iter().chain(deepstack.iter().flatten()).position(|value| !value.is_finite())
        {
            return Err(EmbeddingError::NotFinite { index }.into());
        }
        let multi = self.multi(&rows, medium.tokens, |_| false)?;
        let (modality, tokens) = (medium.modality, medium.tokens);
        let segment = medium.span.map(|span| Segment { span, embedding: embedding.clone(), tokens });
        Ok(Embedded {
            embedding,
            sparse: None,
            multi,
            features,
            modality,
            tokens,
            truncated: false,
            segments: segment.into_iter().collect(),
            chunks: Vec::new(),
            timings: Timings::default(),
        })
    }

    /// One segment after the other, so that the longest recording needs the memory of two of them: the next is decoded
    /// while the device computes.
    fn long_medium(
        &mut self,
        text: &Arc<dyn TextModel>,
        (index, digest): (usize, Option<InputDigest>),
        mut long: Long,
        reserved: Arc<Reservation>,
    ) {
        let result = self.segments(text, &mut long, digest, &reserved).and_then(|(modality, segments, features)| {
            let embedding = unit_mean(&segments)?;
            let tokens = segments.iter().map(|s| s.tokens).sum();
            let (sparse, multi, timings) = (None, None, Timings::default());
            Ok(Answer::Vector(Embedded {
                embedding,
                sparse,
                multi,
                features,
                modality,
                tokens,
                truncated: false,
                segments,
                chunks: Vec::new(),
                timings,
            }))
        });
        self.finish(index, result);
    }

    fn segments(
        &self,
        text: &Arc<dyn TextModel>,
        long: &mut Long,
        digest: Option<InputDigest>,
        reserved: &Arc<Reservation>,
    ) -> Result<(Modality, Vec<Segment>, Option<Features>), ItemError> {
        let modality = long.modality();
        let mut segments = Vec::new();
        let mut features = self.session.features_of(self.request).then(Features::default);
        let mut current = self.session.preparer.next_segment(long, self.request)?;
        while let Some(medium) = current {
            let medium = Medium { digest, ..medium };
            let (values, next) = std::thread::scope(|scope| {
                let ahead = scope.spawn(|| self.session.preparer.next_segment(long, self.request));
                let values =
                    self.media(text, std::slice::from_ref(&medium), std::slice::from_ref(reserved)).swap_remove(0);
                (values, ahead.join())
            });
            let one = self.embedded(values?, &medium)?;
            segments.extend(one.segments);
            if let (Some(all), Some(own)) = (&mut features, one.features) {
                all.append(own);
            }
            current = next.unwrap_or_else(|panic| Err(ItemError::panicked(panic.as_ref())))?;
        }
        Ok((modality, segments, features))
    }

    /// What the passes of each medium gave, in order; `reserved` is what each has reserved.
    fn media(
        &self,
        text: &Arc<dyn TextModel>,
        media: &[Medium],
        reserved: &[Arc<Reservation>],
    ) -> Vec<Result<Pooled, ItemError>> {
        let parts = media.iter().enumerate().flat_map(|(medium, one)| {
            one.rows.parts().iter().map(move |rows| TowerItem { medium, rows, pieces: Vec::new(), done: false })
        });
        let mut done = Media { run: self, text, media, reserved, items: parts.collect(), results: Vec::new() };
        done.results.resize_with(media.len(), || None);
        for (medium, result) in media.iter().zip(&mut done.results) {
            *result = self.whole(text, medium);
        }
        for tower in [Tower::Vision, Tower::Audio] {
            done.through(tower);
        }
        done.results.into_iter().map(|r| r.expect("every medium was computed or failed")).collect()
    }

    /// The vector of a medium that goes through tower, connector and encoder in one unit; `None` for other forms.
    fn whole(&self, text: &Arc<dyn TextModel>, medium: &Medium) -> Option<Result<Pooled, ItemError>> {
        let vector = match &medium.rows {
            Rows::FittedImages(images) => self.images(text, medium, images),
            Rows::AudioWindows(windows) => self.audio_windows(text, medium, windows),
            Rows::Patches(_) | Rows::Mel(_) | Rows::Parts(_) => return None,
        };
        Some(vector.map(Pooled::from))
    }

    fn images(
        &self,
        text: &Arc<dyn TextModel>,
        medium: &Medium,
        images: &Arc<FittedImages>,
    ) -> Result<Vec<f32>, ItemError> {
        let parts = &self.session.parts;
        let levels = levels(&self.session.header().preprocess);
        let (text, device) = (Arc::clone(text), parts.device().clone());
        let (tower, images) = (parts.image()?.expect(ABSENT), Arc::clone(images));
        self.unit(FittedImagesUnit::new((tower, text), images, levels, device), [medium.digest])
    }

    fn audio_windows(
        &self,
        text: &Arc<dyn TextModel>,
        medium: &Medium,
        windows: &Arc<Vec<LogMel>>,
    ) -> Result<Vec<f32>, ItemError> {
        let parts = &self.session.parts;
        let (text, device) = (Arc::clone(text), parts.device().clone());
        let (tower, windows) = (parts.audio()?.expect(ABSENT), Arc::clone(windows));
        self.unit(
            AudioWindowsUnit { tower, text, windows, device, pass: None, done: 0, sum: Vec::new() },
            [medium.digest],
        )
    }
}

/// Why towers that a medium needs are there.
const ABSENT: &str = "a modality without a tower is refused before, and a tower is opened before its first item";

/// Whether a failure is the caller's own wish, or that of the queue, which trying again would not respect.
fn gave_up(error: &ItemError) -> bool {
    matches!(error, ItemError::Cancelled | ItemError::DeadlinePassed | ItemError::Overloaded { .. })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tower {
    Vision,
    Audio,
}

impl Rows {
    /// The tower that takes rows of several media together; `None` for a form that goes through in one unit.
    fn tower(&self) -> Option<Tower> {
        match self {
            Rows::Patches(_) => Some(Tower::Vision),
            Rows::Mel(_) => Some(Tower::Audio),
            Rows::FittedImages(_) | Rows::AudioWindows(_) | Rows::Parts(_) => None,
        }
    }
}

/// What goes through a tower: a medium, or a part of one.
struct TowerItem<'a> {
    /// Which medium it is of.
    medium: usize,
    rows: &'a Rows,
    /// Pieces that its tower has finished, in order.
    pieces: Vec<TowerRows>,
    /// Whether that is all of them.
    done: bool,
}

/// Media on their way through their towers and the backbone.
struct Media<'a> {
    run: &'a Run<'a>,
    text: &'a Arc<dyn TextModel>,
    media: &'a [Medium],
    reserved: &'a [Arc<Reservation>],
    items: Vec<TowerItem<'a>>,
    results: Vec<Option<Result<Pooled, ItemError>>>,
}

impl Media<'_> {
    fn through(&mut self, tower: Tower) {
        let of_tower = |&i: &usize| self.items[i].rows.tower() == Some(tower);
        let items: Vec<usize> = (0..self.items.len()).filter(of_tower).collect();
        if items.is_empty() {
            return;
        }
        let (run, budget) = (self.run, &self.run.session.estimator.budget);
        let windows: Vec<Vec<usize>> = items.iter().map(|&i| self.windows(i)).collect();
        // What the media have reserved beside their rows: they take turns in it.
        let mut media: Vec<usize> = items.iter().map(|&i| self.items[i].medium).collect();
        media.dedup();
        let room: u64 = media.iter().map(|&i| run.session.estimator.share_of(&self.media[i])).sum();
        let units = plan_tower(&windows, |windows| match tower {
            Tower::Vision => {
                budget.vision_unit(windows) <= room && run.comfortable(Stage::PatchBlock, windows, MAX_UNIT_PATCHES)
            }
            Tower::Audio => {
                let rows: Vec<usize> = windows.iter().map(|frames| frames.div_ceil(2)).collect();
                budget.audio_unit(windows) <= room && run.comfortable(Stage::MelLayer, &rows, MAX_UNIT_FRAMES / 2)
            }
        });
        for unit in units {
            let unit: Vec<Piece> =
                unit.into_iter().map(|p| Piece { item: items[p.item], windows: p.windows }).collect();
            self.unit(tower, &unit, !self.run.request.isolated);
        }
    }

    /// Rows of each window of an item, as its tower counts them.
    fn windows(&self, item: usize) -> Vec<usize> {
        match self.items[item].rows {
            Rows::Patches(patches) => vec![patches.grid().h * patches.grid().w; patches.grid().t],
            Rows::Mel(mel) => {
                let audio = self.run.session.header().family.spec().audio.as_ref();
                audio.and_then(|audio| audio.windows(mel.frames())).unwrap_or_default()
            }
            Rows::FittedImages(_) | Rows::AudioWindows(_) | Rows::Parts(_) => Vec::new(),
        }
    }

    /// One pass of a tower, which may be shared with other callers where `batched` is allowed; media whose last piece it held go
    /// through the backbone.
    fn unit(&mut self, tower: Tower, pieces: &[Piece], batched: bool) {
        let wanted = |p: &&Piece| self.results[self.items[p.item].medium].is_none();
        let pieces: Vec<&Piece> = pieces.iter().filter(wanted).collect();
        if pieces.is_empty() {
            return;
        }
        let Back { rows, spent, shared } = match self.pass(tower, &pieces, batched) {
            Ok(back) => back,
            Err(e) => Back { rows: Err(e), spent: Spent::default(), shared: false },
        };
        self.run.spend(spent);
        match rows {
            Ok(features) => {
                for (piece, features) in pieces.into_iter().zip(features) {
                    let last = piece.windows.end == self.windows(piece.item).len();
                    let item = &mut self.items[piece.item];
                    item.pieces.push(features);
                    item.done = last;
                    let medium = item.medium;
                    if last && self.of(medium).all(|item| item.done) {
                        self.results[medium] = Some(self.backbone(medium));
                    }
                }
            }
            Err(e) if gave_up(&e) || (pieces.len() == 1 && !shared) => {
                for piece in pieces {
                    let medium = self.items[piece.item].medium;
                    self.items.iter_mut().filter(|item| item.medium == medium).for_each(|item| item.pieces.clear());
                    self.results[medium] = Some(Err(e.clone()));
                }
            }
            // Somebody in this pass is the culprit: alone, each shows its own result.
            Err(_) => pieces.into_iter().cloned().for_each(|piece| self.unit(tower, &[piece], false)),
        }
    }

    /// What of a medium goes through towers.
    fn of(&self, medium: usize) -> impl Iterator<Item = &TowerItem<'_>> {
        self.items.iter().filter(move |item| item.medium == medium)
    }

    fn pass(&self, tower: Tower, pieces: &[&Piece], batched: bool) -> Result<Back<TowerRows>, ItemError> {
        let parts = &self.run.session.parts;
        let media = || pieces.iter().map(|p| self.items[p.item].medium);
        let pieces = match tower {
            Tower::Vision => {
                let pieces = pieces.iter().filter_map(|p| self.patch_piece(p)).collect();
                TowerPieces::Vision(parts.image()?.expect(ABSENT), pieces)
            }
            Tower::Audio => {
                let pieces = pieces.iter().filter_map(|p| self.mel_piece(p)).collect();
                TowerPieces::Audio(parts.audio()?.expect(ABSENT), pieces)
            }
        };
        // Of a pass that was shared, the call notes what was its own.
        let (own, [stage, _]) = (pieces.load().rows, pieces.stages());
        let reserved = media().map(|medium| Arc::clone(&self.reserved[medium])).collect();
        let back = self.run.session.worker.tower(self.run.request, pieces, reserved, batched);
        self.run.note((stage, own), media().map(|medium| self.media[medium].digest), back.rows.as_ref().err());
        Ok(back)
    }

    fn patch_piece(&self, piece: &Piece) -> Option<PatchPiece> {
        let Rows::Patches(patches) = self.items[piece.item].rows else { return None };
        Some(PatchPiece { patches: Arc::clone(patches), groups: piece.windows.clone() })
    }

    fn mel_piece(&self, piece: &Piece) -> Option<MelPiece> {
        let Rows::Mel(mel) = self.items[piece.item].rows else { return None };
        let windows = self.windows(piece.item);
        let start: usize = windows[..piece.windows.start].iter().sum();
        let windows = windows[piece.windows.clone()].to_vec();
        Some(MelPiece { mel: Arc::clone(mel), frames: start..start + windows.iter().sum::<usize>(), windows })
    }

    /// The sequence of a medium whose towers are done, through the backbone.
    fn backbone(&mut self, medium: usize) -> Result<Pooled, ItemError> {
        let parts = &self.run.session.parts;
        let mut rows = Vec::new();
        for item in self.items.iter_mut().filter(|item| item.medium == medium) {
            let connector = match item.rows.tower() {
                Some(Tower::Audio) => Connector::Audio(parts.audio()?.expect(ABSENT)),
                _ => Connector::Image,
            };
            rows.push(MediumRows { pieces: std::mem::take(&mut item.pieces), connector });
        }
        let (text, device) = (Arc::clone(self.text), parts.device().clone());
        let medium = &self.media[medium];
        let (session, request) = (&self.run.session, self.run.request);
        let (wanted, features) = (session.rows_of(request), session.features_of(request));
        let alone = session.stops_at_features(request);
        let unit = MediaUnit::new(text, rows, medium.layout.clone(), device).wanting(wanted, features);
        let unit = unit.features_alone(alone);
        self.run.unit(unit, [medium.digest])
    }
}

/// The score of a pair, of what was pooled of it.
fn scored(values: &[f32], tokens: usize, cut: PairCut, timings: Timings) -> Result<Scored, ItemError> {
    let logit = values.first().copied().filter(|logit| logit.is_finite());
    let logit = logit.ok_or(EmbeddingError::NotFinite { index: 0 })?;
    Ok(Scored { logit, cosine: false, tokens, cut, timings })
}

/// The unit mean of segment vectors, each of which counts alike.
fn unit_mean(segments: &[Segment]) -> Result<Embedding, EmbeddingError> {
    let dim = segments.first().map_or(0, |s| s.embedding.as_slice().len());
    let mut sum = vec![0.0f64; dim];
    for segment in segments {
        sum.iter_mut().zip(segment.embedding.as_slice()).for_each(|(sum, v)| *sum += f64::from(*v));
    }
    Embedding::from_raw(sum.into_iter().map(|v| (v / segments.len() as f64) as f32).collect())
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
    use omniburn_models::record::RecordFolder;

    use super::*;
    use crate::call::Role;
    use crate::options::EngineOptions;
    use crate::tests::record;

    #[test]
    fn one_culprit_in_a_unit_fails_alone_and_its_neighbours_keep_their_bits() {
        let (_folder, path) = record();
        let session = Session::open(RecordFolder::open(&path).unwrap(), EngineOptions::default()).unwrap();
        let text = session.text_part(&Request::default()).unwrap();
        let item = |index, ids: &[u32]| {
            let reserved = Arc::new(session.pool.try_reserve(Priority::Background, 1).unwrap());
            let sequence = ids.to_vec().into();
            TextItem { index, digest: None, sequence, truncated: false, pair: None, chunks: Vec::new(), reserved }
        };
        let request = Request::new(Role::None);
        let run = |items: Vec<TextItem>, count: usize| {
            let (spent, results) = (Cell::default(), Vec::new());
            let mut run = Run { session: &session, request: &request, spent, results };
            run.texts(&text, items);
            run.results.sort_by_key(|(index, _)| *index);
            assert_eq!(run.results.len(), count);
            run.results.into_iter().map(|(_, result)| result).collect::<Vec<_>>()
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
}

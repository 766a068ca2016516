//! The index behind the server: searched, opened by id, and kept true in the background.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use bytes::Bytes;
use lru::LruCache;
use omniburn::media::{decode_image, resize_bicubic};
use omniburn::{Cancel, Engine, Height, Input, Request, RgbImage, Role, Truncation, Width};
use omniburn_index::{
    Control, EngineEmbedder, EngineReranker, Hit, Index, IndexError, Kind, Locator, MapPoint, Modality, Opened,
    Progress, Query, SearchOptions, Sought, query_vector,
};
use serde::Serialize;

use crate::error::ApiError;
use crate::options::IndexSource;
use crate::threads::stand_behind;

/// Pixels of the longer side of a thumbnail.
const THUMBNAIL_PX: u32 = 240;
/// Bytes of an image file that a thumbnail is made of at most.
const LARGEST_IMAGE: u64 = 256 << 20;
/// Thumbnails that are kept.
const THUMBNAILS: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// Files that a map shows at most.
const MAP_POINTS: usize = 5000;
/// Between two looks at the folders.
const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// An index with the handles it is read through.
pub(crate) struct Finder {
    source: IndexSource,
    /// Handles that nobody uses now.
    readers: Mutex<Vec<Index>>,
    thumbnails: Mutex<LruCache<(String, u64), Bytes>>,
    /// The map as JSON with the version it is of. Held while it is made, so that it is made once.
    map: Mutex<Option<([u8; 32], Bytes)>>,
    refreshing: AtomicBool,
    refreshed: Mutex<Option<Instant>>,
    progress: Mutex<Progress>,
    /// Set when the server stops, so that an update ends between two files.
    stopping: Arc<AtomicBool>,
}

/// What is searched with.
pub(crate) enum Asked {
    /// The query's own words.
    Text,
    /// Another input than text.
    Media(Box<Input>),
    /// A file of the index, by its id.
    Like(String),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Finder {
    pub(crate) fn new(source: IndexSource) -> Self {
        Self {
            source,
            readers: Mutex::default(),
            thumbnails: Mutex::new(LruCache::new(THUMBNAILS)),
            map: Mutex::default(),
            refreshing: AtomicBool::new(false),
            refreshed: Mutex::default(),
            progress: Mutex::new(Progress::default()),
            stopping: Arc::default(),
        }
    }

    /// Name of the model whose vectors it holds.
    pub(crate) fn model(&self) -> &str {
        &self.source.model
    }

    pub(crate) fn home(&self) -> Option<&Path> {
        self.source.home.as_deref()
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// With a handle of its own. Blocks.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Index) -> Result<T, IndexError>) -> Result<T, ApiError> {
        let kept = locked(&self.readers).pop();
        let index = match kept {
            Some(index) => index,
            None => (self.source.open)().map_err(of_index)?,
        };
        // A handle that failed is not kept: the file may be another one by now.
        let result = read(&index).map_err(of_index)?;
        locked(&self.readers).push(index);
        Ok(result)
    }

    /// What is found, read again by a reranker where one is given. Blocks; the engines compute in the interactive class.
    pub(crate) fn search(
        &self,
        engine: &Engine,
        cancel: Cancel,
        query: &Query,
        asked: Asked,
        options: &SearchOptions,
        reranker: Option<&EngineReranker>,
    ) -> Result<Vec<Hit>, ApiError> {
        let embedder = EngineEmbedder::new(engine.clone(), cancel.clone());
        let (vector, like) = match asked {
            Asked::Text if options.mode == omniburn_index::Mode::Words => (None, None),
            Asked::Text => (Some((query_vector(&embedder, &query.text).map_err(of_index)?, Modality::Text)), None),
            Asked::Media(input) => {
                let modality = modality_of(&input);
                let request = Request::new(Role::Query).truncation(Truncation::Right).cancel(cancel);
                let mut results = engine.embed_with(&[*input], &request)?;
                let embedded =
                    results.swap_remove(0).map_err(|error| ApiError::item("query", &error, REFRESH_EVERY))?;
                (Some((embedded.embedding.into_vec(), modality)), None)
            }
            Asked::Like(id) => {
                let (path, stored) = self.read(|index| {
                    let path = path_of(index.get(&id, Locator::Whole)?);
                    let stored = index.stored_vector(&path)?;
                    Ok((path, stored))
                })?;
                let stored =
                    stored.ok_or_else(|| ApiError::field("like", "this file has changed since it was indexed"))?;
                (Some(stored), Some(path))
            }
        };
        let sought = match (&vector, &like) {
            (Some((values, modality)), Some(path)) => Sought::Like(path, values, *modality),
            (Some((values, modality)), None) => Sought::Vector(values, *modality),
            (None, _) => Sought::Words,
        };
        self.read(|index| match reranker {
            None => index.search(query, sought, options),
            Some(reranker) => index.search_reranked(query, sought, options, reranker),
        })
    }

    /// A small PNG of an image or of the first frames of a video. Blocks.
    pub(crate) fn thumbnail(&self, id: &str) -> Result<Bytes, ApiError> {
        let (path, kind) = match self.read(|index| index.get(id, Locator::Whole))? {
            Opened::File { path, kind } => (path, kind),
            Opened::Text { .. } | Opened::Part { .. } => return Err(no_image()),
        };
        let changed = std::fs::metadata(&path).and_then(|about| about.modified()).ok();
        let changed = changed
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map_or(0, |since| since.as_nanos() as u64);
        let key = (id.to_owned(), changed);
        if let Some(kept) = locked(&self.thumbnails).get(&key) {
            return Ok(kept.clone());
        }
        let bytes = match kind {
            Kind::Image => {
                let about = std::fs::metadata(&path).map_err(|_| gone())?;
                if about.len() > LARGEST_IMAGE {
                    return Err(no_image());
                }
                std::fs::read(&path).map_err(|_| gone())?
            }
            Kind::Video => match self.read(|index| index.get(id, Locator::Time { start_s: 0.0, end_s: 1.0 }))? {
                Opened::Part { bytes, .. } => bytes,
                _ => return Err(no_image()),
            },
            _ => return Err(no_image()),
        };
        let image = decode_image(&bytes, "image").map_err(|_| no_image())?;
        let small = Bytes::from(png_of(&shrunk(&image)).map_err(|error| ApiError::internal(&error))?);
        locked(&self.thumbnails).put(key, small.clone());
        Ok(small)
    }

    /// The files on a plane, as JSON; made anew only where the index has changed. Blocks.
    pub(crate) fn map(&self) -> Result<Bytes, ApiError> {
        let mut kept = locked(&self.map);
        let version = self.read(Index::map_version)?;
        if let Some((_, map)) = kept.as_ref().filter(|(of, _)| *of == version) {
            return Ok(map.clone());
        }
        let map = self.read(|index| index.map(MAP_POINTS))?;
        let points: Vec<MapPointBody<'_>> = map.points.iter().map(MapPointBody::of).collect();
        let body = MapBody { object: "map", files: map.files, explained: map.explained, points };
        let json = Bytes::from(serde_json::to_vec(&body).map_err(|error| ApiError::internal(&error))?);
        *kept = Some((version, json.clone()));
        Ok(json)
    }

    /// Looks at the folders again, where that was not done a moment ago and is not being done now. Blocks.
    pub(crate) fn refresh(&self, engine: &Engine) {
        let due = locked(&self.refreshed).is_none_or(|at| at.elapsed() >= REFRESH_EVERY);
        if !due || self.refreshing.swap(true, Ordering::SeqCst) {
            return;
        }
        let update = || {
            stand_behind();
            let embedder = EngineEmbedder::new(engine.clone(), Cancel::new());
            let interrupted = || self.stopping.load(Ordering::SeqCst);
            let progress = |progress: Progress| *locked(&self.progress) = progress;
            let control = Control { interrupted: &interrupted, progress: &progress };
            (self.source.open)()?.update(&embedder, &[], Duration::ZERO, &control)
        };
        // On a thread of its own, whose readers inherit its place.
        let done = std::thread::scope(|scope| scope.spawn(update).join());
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match done {
            Ok(_) | Err(IndexError::Locked { .. } | IndexError::Interrupted) => {}
            Err(error) => tracing::warn!("the index was not brought up to date: {error}"),
        }
        *locked(&self.refreshed) = Some(Instant::now());
        *locked(&self.progress) = Progress::default();
        self.refreshing.store(false, Ordering::SeqCst);
    }

    /// Files done and in all of the update in work; `None` where none is.
    pub(crate) fn indexing(&self) -> Option<Progress> {
        self.refreshing.load(Ordering::SeqCst).then(|| *locked(&self.progress))
    }
}

#[derive(Serialize)]
struct MapBody<'a> {
    object: &'static str,
    /// Files in all; more than points where only some are shown.
    files: usize,
    explained: [f32; 2],
    points: Vec<MapPointBody<'a>>,
}

#[derive(Serialize)]
struct MapPointBody<'a> {
    id: &'a str,
    kind: &'static str,
    path: std::borrow::Cow<'a, str>,
    title: Option<&'a str>,
    /// Seconds since 1970.
    mtime: f64,
    x: f32,
    y: f32,
}

impl<'a> MapPointBody<'a> {
    fn of(point: &'a MapPoint) -> Self {
        Self {
            id: &point.id,
            kind: point.kind.name(),
            path: point.path.to_string_lossy(),
            title: point.title.as_deref(),
            mtime: point.mtime_ns as f64 / 1e9,
            x: point.place[0],
            y: point.place[1],
        }
    }
}

pub(crate) fn path_of(opened: Opened) -> PathBuf {
    match opened {
        Opened::Text { path, .. } | Opened::File { path, .. } | Opened::Part { path, .. } => path,
    }
}

fn modality_of(input: &Input) -> Modality {
    let name = input.modality().to_string();
    Modality::ALL.into_iter().find(|one| one.name() == name).unwrap_or(Modality::Text)
}

fn no_image() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is no image of this file")
}

fn gone() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "this file is there no more")
}

/// The error a client gets of a failed search.
pub(crate) fn of_index(error: IndexError) -> ApiError {
    let bad = |code, param: &str| ApiError::new(StatusCode::BAD_REQUEST, code, error.to_string()).of(param);
    match &error {
        IndexError::Query(_) | IndexError::Pattern(_) => bad("invalid_value", "query"),
        IndexError::NotCalibrated { .. } => bad("invalid_value", "min_score"),
        IndexError::AmbiguousId { .. } => bad("invalid_value", "id"),
        IndexError::UnknownId { .. } => ApiError::new(StatusCode::NOT_FOUND, "not_found", error.to_string()).of("id"),
        IndexError::File { fault, .. } => match fault.kind.as_str() {
            "not_found" => ApiError::new(StatusCode::NOT_FOUND, "not_found", fault.message.clone()),
            _ => ApiError::new(StatusCode::BAD_REQUEST, "bad_item", fault.message.clone()),
        },
        IndexError::Embedder(fault) if fault.kind == "overloaded" => {
            ApiError::overloaded(fault.message.clone(), REFRESH_EVERY)
        }
        IndexError::Embedder(fault) if fault.kind == "cancelled" => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "cancelled", fault.message.clone())
        }
        IndexError::Missing { .. } => ApiError::new(StatusCode::NOT_FOUND, "no_index", "the index is there no more"),
        _ => ApiError::internal(&error),
    }
}

/// At most [`THUMBNAIL_PX`] a side, of the same shape.
fn shrunk(image: &RgbImage) -> RgbImage {
    let (width, height) = (image.width().0, image.height().0);
    let longest = width.max(height).max(1);
    if longest <= THUMBNAIL_PX {
        return image.clone();
    }
    let side = |side: u32| (u64::from(side) * u64::from(THUMBNAIL_PX) / u64::from(longest)).max(1) as u32;
    resize_bicubic(image, Height(side(height)), Width(side(width)))
}

fn png_of(image: &RgbImage) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width().0, image.height().0);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.pixels())?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbnails_keep_their_shape_and_are_no_larger_than_asked() {
        let image = RgbImage::new(Width(1000), Height(10), vec![9; 30_000]).unwrap();
        let small = shrunk(&image);
        assert_eq!((small.width().0, small.height().0), (240, 2));
        let back = decode_image(&png_of(&small).unwrap(), "x").unwrap();
        assert_eq!(back.pixels(), small.pixels());
        let tiny = RgbImage::new(Width(3), Height(2), vec![9; 18]).unwrap();
        assert_eq!(shrunk(&tiny).pixels(), tiny.pixels());
    }
}

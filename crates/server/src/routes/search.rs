//! Search over the index, and its files by their ids.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Json;
use axum::body::Body;
use axum::extract::{Query as UrlQuery, Request as HttpRequest, State as FromState};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use omniburn::media::sniff;
use omniburn_index::{
    EngineReranker, Hit, HitBody, IndexError, Locator, MinScore, Mode, Opened, Query, QueryError, SearchOptions,
    kinds_of, time_of,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_http::services::ServeFile;

use super::shared::{Asked as AskedJson, InPath, Shared};
use crate::error::ApiError;
use crate::finder::{Asked, Finder, of_index, path_of};
use crate::item::Item;
use crate::state::State;

/// Hits of a search at most.
const MOST_HITS: usize = 200;

/// What is searched, in the address of a request or in its body.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// Words and qualifiers, as on the command line; in a body also an image, audio or a video.
    #[serde(default, alias = "query")]
    q: Option<Item>,
    /// Hits at most; 10 by default.
    #[serde(default)]
    n: Option<usize>,
    /// Kinds with commas between.
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    mode: Option<ModeName>,
    /// 0 to 1, or `auto`.
    #[serde(default)]
    min_score: Option<Score>,
    #[serde(default)]
    per_file: Option<usize>,
    /// The id of a file whose likes are sought.
    #[serde(default)]
    like: Option<String>,
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    before: Option<String>,
    /// Whether a reranker reads the best hits again, and which.
    #[serde(default)]
    rerank: Option<Rerank>,
}

/// A score as a number, or as a word: an address has nothing else.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number from 0 to 1, or auto")]
enum Score {
    Number(f64),
    Word(String),
}

/// Whether a reranker is asked, or its name. An address has words alone: `true`, `false` and nothing are no names.
#[derive(Debug, Deserialize, Serialize, Clone, PartialEq)]
#[serde(untagged, expecting = "expected true, false or the name of a reranker")]
pub(crate) enum Rerank {
    Switch(bool),
    Word(String),
}

impl Rerank {
    /// The name that is asked for, where a reranker is.
    fn asked(self) -> Option<Option<String>> {
        match self {
            Self::Switch(on) => on.then_some(None),
            Self::Word(word) => match word.as_str() {
                "" | "false" => None,
                "true" => Some(None),
                _ => Some(Some(word)),
            },
        }
    }
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum ModeName {
    Hybrid,
    Semantic,
    Words,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Hybrid => Mode::Hybrid,
            ModeName::Semantic => Mode::Semantic,
            ModeName::Words => Mode::Words,
        }
    }
}

pub(crate) fn finder(state: &State) -> Result<&Arc<Finder>, ApiError> {
    let message = "no index is served: `omniburn index FOLDER` begins one, `omniburn serve --index NAME` names one";
    state.finder.as_ref().ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "no_index", message))
}

/// `GET /v1/search?q=`.
pub(super) async fn by_url(
    FromState(state): Shared,
    params: Result<UrlQuery<Params>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let UrlQuery(params) = params.map_err(|error| ApiError::field("query", error.body_text()))?;
    search(&state, params).await
}

/// `POST /v1/search`: the query may be an image, audio or a video.
pub(super) async fn by_body(FromState(state): Shared, request: HttpRequest) -> Result<Response, ApiError> {
    let AskedJson { body, .. } = AskedJson::<Params>::read(&state, request).await?;
    search(&state, body).await
}

async fn search(state: &Arc<State>, params: Params) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let hits = found(state, params).await?;
    let lit: Vec<Vec<[usize; 2]>> = hits.iter().map(lit).collect();
    let data = hits.iter().map(Hit::body).collect();
    Ok(Json(Answer { object: "list", data, lit, ms: begun.elapsed().as_secs_f64() * 1e3 }).into_response())
}

/// What is found, the best first.
pub(crate) async fn found(state: &Arc<State>, params: Params) -> Result<Vec<Hit>, ApiError> {
    let finder = Arc::clone(finder(state)?);
    let now = SystemTime::now();
    let (text, media) = match params.q {
        None => (None, None),
        Some(Item::Text(text)) => (Some(text), None),
        Some(item) => item.text_or_media("query")?,
    };
    let mut query = Query::parse(text.as_deref().unwrap_or_default(), finder.home(), now)
        .map_err(|error| of_index(IndexError::from(error)).of("q"))?;
    if let Some(kinds) = params.kind.as_deref().filter(|kinds| !kinds.is_empty()) {
        let kinds = kinds_of(kinds).map_err(|error| of_index(IndexError::from(error)).of("kind"))?;
        query.filter.kinds.extend(kinds);
    }
    for (text, name, place) in [(&params.after, "after", true), (&params.before, "before", false)] {
        let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { continue };
        let time = time_of(text, now).map_err(|error| of_index(IndexError::from(error)).of(name))?;
        let filter = &mut query.filter;
        *(if place { &mut filter.after_ns } else { &mut filter.before_ns }) = Some(time);
    }
    let options = SearchOptions {
        mode: params.mode.map_or(Mode::Hybrid, Mode::from),
        limit: limit(params.n, "n", 10)?,
        per_file: limit(params.per_file, "per_file", 1)?,
        min_score: min_score(params.min_score)?,
    };
    let asked = match (params.like, media) {
        (Some(_), Some(_)) => return Err(ApiError::field("like", "either `like` or a query of its own")),
        (Some(id), None) => Asked::Like(id),
        (None, Some(input)) => Asked::Media(Box::new(input)),
        (None, None) => Asked::Text,
    };
    let with_words = matches!(asked, Asked::Text);
    if with_words && query.is_empty() {
        let filters = !query.filter.is_open() || !query.without.is_empty();
        let error = if filters { QueryError::OnlyFilters } else { QueryError::Empty };
        return Err(of_index(IndexError::from(error)).of("q"));
    }
    if !with_words && !query.is_empty() {
        return Err(ApiError::field(
            "q",
            "what is searched with is given already: the query may only hold qualifiers then",
        ));
    }
    let reader = match params.rerank.and_then(Rerank::asked) {
        None => None,
        Some(_) if !with_words => {
            let message = "a reranker reads words: it is not asked with `like`, an image, audio or a video";
            return Err(ApiError::field("rerank", message));
        }
        Some(name) => {
            let reader = state.models.reranker(name.as_deref()).await;
            Some(reader.map_err(|error| error.of("rerank"))?)
        }
    };
    let lease = state.models.get(Some(finder.model())).await?;
    refresh(state, &finder);
    let call = state.calls.run(lease, move |lease, cancel| {
        let reranker = reader.as_ref().map(|reader| EngineReranker::new(reader.engine().clone(), cancel.clone()));
        let reranker = reranker.transpose().map_err(|error| ApiError::from(error).of("rerank"))?;
        finder.search(lease.engine(), cancel, &query, asked, &options, reranker.as_ref())
    });
    call.await?
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<HitBody<'a>>,
    /// Matched words of each snippet, in units of UTF-16, as pages count.
    lit: Vec<Vec<[usize; 2]>>,
    ms: f64,
}

/// Looks at the folders behind the answer, where the model is open: a look is no reason to open it, or to keep it open.
fn refresh(state: &Arc<State>, finder: &Arc<Finder>) {
    if !state.options.index.as_ref().is_some_and(|index| index.refresh) {
        return;
    }
    let Some(lease) = state.models.opened(finder.model()) else { return };
    let finder = Arc::clone(finder);
    tokio::task::spawn_blocking(move || finder.refresh(lease.engine()));
}

fn limit(asked: Option<usize>, name: &str, unless: usize) -> Result<usize, ApiError> {
    match asked {
        None => Ok(unless),
        Some(n) if (1..=MOST_HITS).contains(&n) => Ok(n),
        Some(n) => Err(ApiError::field(name, format!("{n} is not from 1 to {MOST_HITS}"))),
    }
}

fn min_score(asked: Option<Score>) -> Result<MinScore, ApiError> {
    let (number, shown) = match asked {
        None => return Ok(MinScore::Any),
        Some(Score::Word(word)) if word.is_empty() => return Ok(MinScore::Any),
        Some(Score::Word(word)) if word == "auto" => return Ok(MinScore::Auto),
        Some(Score::Word(word)) => (word.parse::<f32>().ok(), word),
        Some(Score::Number(number)) => (Some(number as f32), number.to_string()),
    };
    match number.filter(|number| (0.0..=1.0).contains(number)) {
        Some(number) => Ok(MinScore::At(number)),
        None => Err(ApiError::field("min_score", format!("`{shown}` is neither a number from 0 to 1 nor auto"))),
    }
}

/// Matched words of a snippet in units of UTF-16.
fn lit(hit: &Hit) -> Vec<[usize; 2]> {
    let text = &hit.snippet.text;
    let units = |byte: usize| text.get(..byte).map_or(0, |before| before.encode_utf16().count());
    hit.snippet.lit.iter().map(|range| [units(range.start), units(range.end)]).collect()
}

/// `GET /v1/index`: what it holds.
pub(super) async fn status(FromState(state): Shared) -> Result<Json<Value>, ApiError> {
    Ok(Json(held(&state).await?))
}

/// What the index holds, as JSON.
pub(crate) async fn held(state: &Arc<State>) -> Result<Value, ApiError> {
    let finder = Arc::clone(finder(state)?);
    refresh(state, &finder);
    let indexing = finder.indexing();
    let status = tokio::task::spawn_blocking(move || finder.read(omniburn_index::Index::status)).await;
    let status = status.map_err(|error| ApiError::internal(&error))??;
    let files: serde_json::Map<String, Value> =
        status.files.iter().map(|(kind, count)| (kind.name().to_owned(), json!(count))).collect();
    let failed: Vec<Value> = status
        .failed
        .iter()
        .map(
            |file| json!({"path": file.path.to_string_lossy(), "kind": file.fault.kind, "message": file.fault.message}),
        )
        .collect();
    let folders: Vec<String> = status.folders.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    Ok(json!({
        "folders": folders,
        "files": files,
        "failed": failed,
        "chunks": status.chunks,
        "vectors": status.vectors,
        "bytes": status.bytes,
        "model": status.model,
        "identity": status.identity,
        "updated": status.updated_ns.map(|at| at as f64 / 1e9),
        "indexing": indexing.map(|progress| json!({"done": progress.done, "total": progress.total})),
    }))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// `line=3-9`, `page=2` or `t=1.5-3`; the whole file by default.
    #[serde(default)]
    at: Option<String>,
    /// Changes with the file, so that copies are kept apart; not used.
    #[serde(default, rename = "v")]
    _version: Option<String>,
}

/// `GET /v1/items/{id}`: a file of the index, or a place of it. No file that the index does not know is opened.
pub(super) async fn item(
    FromState(state): Shared,
    InPath(id): InPath,
    place: Result<UrlQuery<Place>, axum::extract::rejection::QueryRejection>,
    request: HttpRequest,
) -> Result<Response, ApiError> {
    let UrlQuery(place) = place.map_err(|error| ApiError::field("at", error.body_text()))?;
    let locator = match place.at.as_deref() {
        None | Some("") => Locator::Whole,
        Some(at) => Locator::parse(at).map_err(|error| of_index(IndexError::from(error)).of("at"))?,
    };
    let finder = Arc::clone(finder(&state)?);
    let opened = tokio::task::spawn_blocking(move || finder.read(|index| index.get(&id, locator))).await;
    let opened = opened.map_err(|error| ApiError::internal(&error))??;
    let mut response = match opened {
        Opened::Text { text, .. } => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        Opened::Part { bytes, .. } => ([(CONTENT_TYPE, type_of(sniff(&bytes)))], bytes).into_response(),
        opened @ Opened::File { .. } => {
            let path = path_of(opened);
            let head = first_bytes(&path).await;
            let served = ServeFile::new(&path).try_call(request).await;
            let mut response =
                served.map_err(|_| ApiError::new(StatusCode::NOT_FOUND, "not_found", "this file is there no more"))?;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(type_of(sniff(&head))));
            response.map(Body::new)
        }
    };
    guard_content(&mut response);
    Ok(response)
}

async fn first_bytes(path: &std::path::Path) -> Vec<u8> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut head = Vec::new();
        let _ = std::fs::File::open(path).and_then(|file| file.take(1024).read_to_end(&mut head));
        head
    });
    read.await.unwrap_or_default()
}

/// `GET /v1/items/{id}/thumbnail`.
pub(super) async fn thumbnail(
    FromState(state): Shared,
    InPath(id): InPath,
    place: Result<UrlQuery<Place>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    place.map_err(|error| ApiError::field("at", error.body_text()))?;
    let finder = Arc::clone(finder(&state)?);
    let bytes = tokio::task::spawn_blocking(move || finder.thumbnail(&id)).await;
    let bytes = bytes.map_err(|error| ApiError::internal(&error))??;
    let mut response = ([(CONTENT_TYPE, "image/png"), (CACHE_CONTROL, "private, max-age=3600")], bytes).into_response();
    guard_content(&mut response);
    Ok(response)
}

/// What a file says is never run: it is shown as what it was found to be, without scripts, and what is no medium is text.
fn guard_content(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("inline"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
}

/// The media type of a format by its name; bytes that nobody interprets for all others.
pub(crate) fn type_of(format: Option<&str>) -> &'static str {
    match format.map(str::to_ascii_lowercase).as_deref() {
        Some("png") => "image/png",
        Some("jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("gif") => "image/gif",
        Some("bmp") => "image/bmp",
        Some("wav") => "audio/wav",
        Some("flac") => "audio/flac",
        Some("mp3") => "audio/mpeg",
        Some("ogg") => "audio/ogg",
        Some("mp4" | "mov") => "video/mp4",
        Some("matroska" | "mkv" | "webm") => "video/webm",
        _ => "application/octet-stream",
    }
}

//! Tools for agents, by the Model Context Protocol: search the index, open what was found, say what there is.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use omniburn::media::sniff;
use omniburn_index::{Hit, IndexError, Kind, Locator, Opened};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation, JsonObject,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService, stdio};
use rmcp::{RoleServer, ServerHandler, ServiceExt};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::finder::of_index;
use crate::routes::search::{Params, Rerank, finder, found, held, type_of};
use crate::state::State;

/// Bytes of a file that are given whole at most; of a longer one a part is asked for.
const LARGEST_FILE: u64 = 8 << 20;
/// Characters of a text that are given at once.
const LONGEST_TEXT: usize = 40_000;

/// The tools.
#[derive(Clone)]
struct Tools {
    state: Arc<State>,
}

/// The service behind `/mcp`.
pub(crate) fn over_http(state: &Arc<State>) -> StreamableHttpService<impl ServerHandler, LocalSessionManager> {
    let tools = Tools { state: Arc::clone(state) };
    // `Host` and `Origin` are checked for every path in one place.
    let config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(state.options.max_body);
    StreamableHttpService::new(move || Ok(tools.clone()), Arc::default(), config)
}

/// Answers on standard input and output until the input ends.
pub(crate) async fn over_stdio(state: &Arc<State>) {
    match (Tools { state: Arc::clone(state) }).serve(stdio()).await {
        Ok(running) => drop(running.waiting().await),
        // A client that says nothing and goes is no fault.
        Err(error) => tracing::debug!("the client did not begin: {error}"),
    }
}

fn object(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}

fn tools() -> Vec<Tool> {
    let kinds = "text, code, html, pdf, document, spreadsheet, presentation, book, mail, image, audio, video";
    let tool = |name: &'static str, title: &str, about: &'static str, input: Value| {
        Tool::new(name, about, object(input))
            .with_title(title)
            .with_annotations(ToolAnnotations::with_title(title).read_only(true))
    };
    let hit = json!({
        "type": "object",
        "required": ["rank", "score", "kind", "path", "id"],
        "properties": {
            "rank": {"type": "integer"}, "score": {"type": "number", "description": "0 to 1: how likely it is related"},
            "kind": {"type": "string"}, "path": {"type": "string"}, "uri": {"type": "string"}, "locator": {"type": "object"},
            "title": {"type": ["string", "null"]}, "snippet": {"type": "string"}, "mtime": {"type": "number"},
            "size": {"type": "integer"}, "id": {"type": "string"}, "scores": {"type": "object"},
        },
    });
    vec![
        tool(
            "search",
            "Search the person's files",
            "Finds files of this person's folders by words and by meaning: notes, documents, code, mail, images, audio and \
             video. Words find images and what is spoken, too. Gives the best place of each file with its id for `get`.",
            json!({
                "type": "object", "additionalProperties": false, "required": ["query"],
                "properties": {
                    "query": {"type": "string", "description": "Words; also type:image ext:pdf in:~/Docs after:2026-01-01 -word \"exact words\""},
                    "n": {"type": "integer", "minimum": 1, "maximum": 50, "description": "Hits at most; 10 by default"},
                    "kind": {"type": "string", "description": format!("Only these kinds, with commas between: {kinds}")},
                    "mode": {"type": "string", "enum": ["hybrid", "semantic", "words"]},
                    "related_only": {"type": "boolean", "description": "Leave out what is not related; true by default"},
                    "rerank": {"type": ["boolean", "string"], "description": "Let a reranker read the best 50 hits again and put the best first: true where one is served, or the name of one; slower"},
                },
            }),
        )
        .with_raw_output_schema(object(json!({
            "type": "object", "required": ["hits"], "properties": {"hits": {"type": "array", "items": hit}},
        }))),
        tool(
            "get",
            "Open a file that was found",
            "Opens a file by the id of a hit: text as text, an image as an image, audio as audio, the frame of a video as an \
             image. `at` opens a place of it.",
            json!({
                "type": "object", "additionalProperties": false, "required": ["id"],
                "properties": {
                    "id": {"type": "string", "description": "The id of a hit"},
                    "at": {"type": "string", "description": "line=3-9, page=2, or t=1.5-3 in seconds; the whole file by default"},
                },
            }),
        ),
        tool(
            "status",
            "What is indexed",
            "Says which folders are searched, how many files of each kind, which could not be read, and when they were last \
             looked at.",
            json!({"type": "object", "additionalProperties": false, "properties": {}}),
        )
        .with_raw_output_schema(object(json!({
            "type": "object", "required": ["folders", "files"],
            "properties": {
                "folders": {"type": "array", "items": {"type": "string"}}, "files": {"type": "object"},
                "failed": {"type": "array"}, "chunks": {"type": "integer"}, "vectors": {"type": "integer"},
                "bytes": {"type": "integer"}, "model": {"type": "string"}, "identity": {"type": "string"},
                "updated": {"type": ["number", "null"]}, "indexing": {"type": ["object", "null"]},
            },
        }))),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchArgs {
    query: String,
    #[serde(default)]
    n: Option<usize>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    related_only: Option<bool>,
    #[serde(default)]
    rerank: Option<Rerank>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetArgs {
    id: String,
    #[serde(default)]
    at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

/// Arguments of a tool; one that it does not have is an error, and is named.
fn arguments<T: serde::de::DeserializeOwned>(given: Option<JsonObject>) -> Result<T, ErrorData> {
    let given = Value::Object(given.unwrap_or_default());
    serde_path_to_error::deserialize(given).map_err(|error| ErrorData::invalid_params(error.to_string(), None))
}

impl Tools {
    async fn search(&self, args: SearchArgs) -> Result<CallToolResult, ApiError> {
        let params = json!({
            "q": args.query,
            "n": args.n,
            "kind": args.kind,
            "mode": args.mode,
            "min_score": args.related_only.unwrap_or(true).then_some("auto"),
            "rerank": args.rerank,
        });
        let params: Params =
            serde_json::from_value(params).map_err(|error| ApiError::field("mode", error.to_string()))?;
        let hits = found(&self.state, params).await?;
        let bodies: Vec<_> = hits.iter().map(Hit::body).collect();
        // By way of text, so that numbers of f32 have the digits that they have elsewhere.
        let structured = serde_json::to_string(&bodies).and_then(|text| serde_json::from_str::<Value>(&text));
        let structured = structured.map_err(|error| ApiError::internal(&error))?;
        let lines: Vec<String> = hits.iter().map(line_of).collect();
        let said = if lines.is_empty() { "Nothing related was found.".to_owned() } else { lines.join("\n") };
        let mut result = CallToolResult::success(vec![ContentBlock::text(said)]);
        result.structured_content = Some(json!({"hits": structured}));
        Ok(result)
    }

    async fn get(&self, args: GetArgs) -> Result<CallToolResult, ApiError> {
        let finder = Arc::clone(finder(&self.state)?);
        let locator = match args.at.as_deref() {
            None | Some("") => Locator::Whole,
            Some(at) => Locator::parse(at).map_err(|error| of_index(IndexError::from(error)).of("at"))?,
        };
        let opened = tokio::task::spawn_blocking(move || {
            let opened = finder.read(|index| index.get(&args.id, locator))?;
            match opened {
                // A video is seen: its beginning stands for it, unless a time is asked for.
                Opened::File { kind: Kind::Video, .. } => {
                    finder.read(|index| index.get(&args.id, Locator::Time { start_s: 0.0, end_s: 1.0 }))
                }
                other => Ok(other),
            }
        });
        let opened = opened.await.map_err(|error| ApiError::internal(&error))??;
        Ok(CallToolResult::success(vec![content_of(opened).await?]))
    }

    async fn status(&self) -> Result<CallToolResult, ApiError> {
        Ok(CallToolResult::structured(held(&self.state).await?))
    }
}

/// A hit for a reader.
fn line_of(hit: &Hit) -> String {
    let place = hit.locator.shown();
    let snippet = if hit.snippet.text.is_empty() { String::new() } else { format!("\n  {}", hit.snippet.text) };
    format!(
        "{}. {}{place} ({}, score {:.2}, id {}){snippet}",
        hit.rank,
        hit.path.display(),
        hit.kind,
        hit.score,
        hit.id
    )
}

async fn content_of(opened: Opened) -> Result<ContentBlock, ApiError> {
    match opened {
        Opened::Text { text, .. } => {
            let cut = text.char_indices().nth(LONGEST_TEXT).map(|(at, _)| at);
            Ok(ContentBlock::text(match cut {
                None => text,
                Some(at) => {
                    format!("{}\n[cut after {LONGEST_TEXT} characters: open a place of it with `at`]", &text[..at])
                }
            }))
        }
        Opened::Part { kind, bytes, .. } => Ok(block(kind, &bytes)),
        Opened::File { path, kind } => Ok(block(kind, &whole(&path).await?)),
    }
}

async fn whole(path: &Path) -> Result<Vec<u8>, ApiError> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let bytes = std::fs::metadata(&path).map_err(|_| gone())?.len();
        if bytes > LARGEST_FILE {
            let message =
                format!("the file has {bytes} bytes, {LARGEST_FILE} are given at most: open a part of it with `at`");
            return Err(ApiError::field("at", message));
        }
        std::fs::read(&path).map_err(|_| gone())
    });
    read.await.map_err(|error| ApiError::internal(&error))?
}

fn gone() -> ApiError {
    ApiError::new(axum::http::StatusCode::NOT_FOUND, "not_found", "this file is there no more")
}

fn block(kind: Kind, bytes: &[u8]) -> ContentBlock {
    let media_type = type_of(sniff(bytes));
    match kind {
        Kind::Audio => ContentBlock::audio(STANDARD.encode(bytes), media_type),
        _ => ContentBlock::image(STANDARD.encode(bytes), media_type),
    }
}

/// What failed is said to the agent as the result of its call, so that it can do better.
fn failed(error: ApiError) -> CallToolResult {
    let param = error.param.as_deref().map(|param| format!("{param}: ")).unwrap_or_default();
    let message = format!("{param}{}", error.message);
    CallToolResult::error(vec![ContentBlock::text(message)])
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let mut about = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        about.server_info = Implementation::new("omniburn", env!("CARGO_PKG_VERSION"));
        let how = "Searches this person's own files by words and by meaning, whatever their kind: `search`, then `get` with the id \
                   of a hit.";
        about.instructions = Some(how.to_owned());
        about
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let given = request.arguments;
        let result = match &*request.name {
            "search" => self.search(arguments(given)?).await,
            "get" => self.get(arguments(given)?).await,
            "status" => {
                let NoArgs {} = arguments(given)?;
                self.status().await
            }
            other => {
                let message = format!("no tool `{other}`: there are search, get and status");
                return Err(ErrorData::invalid_params(message, None));
            }
        };
        Ok(result.unwrap_or_else(failed).into())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools().into_iter().find(|tool| tool.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_arguments_are_errors_that_name_them() {
        let given = |value: Value| match value {
            Value::Object(object) => Some(object),
            _ => None,
        };
        assert_eq!(arguments::<GetArgs>(given(json!({"id": "ab"}))).unwrap().id, "ab");
        let error = arguments::<GetArgs>(given(json!({"id": "ab", "page": 3}))).err().unwrap();
        assert!(error.message.contains("page"), "{}", error.message);
        let error = arguments::<SearchArgs>(given(json!({"query": "a", "n": "many"}))).err().unwrap();
        assert!(error.message.contains("n"), "{}", error.message);
        let error = arguments::<SearchArgs>(given(json!({"query": "a", "rerank": 3}))).err().unwrap();
        assert!(error.message.contains("rerank: expected true, false or"), "{}", error.message);
        assert!(arguments::<NoArgs>(None).is_ok());
    }

    #[test]
    fn every_tool_reads_only_and_says_what_it_takes() {
        for tool in tools() {
            assert_eq!(tool.annotations.as_ref().and_then(|about| about.read_only_hint), Some(true), "{}", tool.name);
            assert_eq!(tool.input_schema["additionalProperties"], json!(false), "{}", tool.name);
        }
    }
}

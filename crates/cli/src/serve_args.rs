//! What was typed behind `omniburn serve`.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::model_args::{ComputeArgs, bytes};

/// `omniburn serve`.
#[derive(Debug, Args)]
#[command(
    long_about = "One process behind the interfaces that embedding clients speak: OpenAI's and Jina's /v1/embeddings, \
text-embeddings-inference's /embed, /embed_sparse, /similarity, /tokenize and /info, Cohere's and Jina's /v1/rerank, /v1/search over an index (read again by a \
reranker that is served, where `rerank` asks for it) and /v1/map of it, with /v1/models, /docs, /health, \
/ready, /metrics and /openapi.json.

A page for people lies at the address itself: search as you type, or drop a file.

Images, audio and video come as base64 or data URIs; a URL is never fetched. Requests that come together are computed together; \
queries come before documents (the header x-omniburn-priority says otherwise). Without a key only names that no other site can have \
are taken as Host: IP addresses, localhost, and what --allow-host names.

Ctrl-C or SIGTERM: nothing new is accepted, what was is answered.",
    after_help = "Examples:
  omniburn serve
  omniburn serve --model records/small --model rank=records/bge-reranker --idle-unload 600
  omniburn serve --model omniburn-mini --model records/bge-reranker
  omniburn serve --host 0.0.0.0 --api-key-file keys.txt
  curl localhost:8765/v1/embeddings -H 'content-type: application/json' -d '{\"input\": \"a red bicycle\"}'"
)]
pub struct ServeArgs {
    /// A record folder, made by `omniburn convert`, or the ORG/NAME that `omniburn pull` fetched; may repeat, each with a name
    /// that requests call it by; the first one searches the index [default: omniburn-mini, the model that ships]
    #[arg(long, value_name = "[NAME=]DIR|ORG/NAME")]
    pub model: Vec<String>,
    /// The index that is searched: a name in the user's data folder, a folder, or postgres://HOST/DATABASE?schema=NAME [default: the user's, where there is one]
    #[arg(long, value_name = "NAME|DIR")]
    pub index: Option<PathBuf>,
    /// Search the index as it is: do not look at its folders again
    #[arg(long)]
    pub no_refresh: bool,
    /// Address to listen on; 0.0.0.0 for every one of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = host)]
    pub host: IpAddr,
    /// Port to listen on; 0 for a free one
    #[arg(long, value_name = "N", default_value_t = 8765)]
    pub port: u16,
    /// A file of keys, one a line; each request must bring one
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Calls in work at once, those that wait included; one more is refused with status 429
    #[arg(long, value_name = "N", default_value = "256")]
    pub max_queue: NonZeroUsize,
    /// Unload a model that nobody asked for so many seconds; it comes back on demand
    #[arg(long, value_name = "SECONDS")]
    pub idle_unload: Option<u64>,
    /// Pages of this origin may call, such as https://example.org; may repeat
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// A name that requests may give as Host where no key is asked for; may repeat
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Bytes of a request at most
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = bytes)]
    pub max_body: u64,
    /// Send the spans of requests (queue, tokenise, compute; no content) to this OpenTelemetry collector over OTLP/HTTP, such as
    /// http://localhost:4318; for programs that were built with the feature `otel`
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Inputs of a request at most
    #[arg(long, value_name = "N", default_value = "2048")]
    pub max_inputs: NonZeroUsize,
    /// Where it computes, and how. A budget is shared by all models.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `omniburn mcp`.
#[derive(Debug, Args)]
#[command(
    long_about = "Answers the Model Context Protocol on standard input and output, so that an agent can search this person's files: \
the tools are search, get and status, and all of them only read.

It searches the index that `omniburn index` made; where a reranker is named beside its model, an agent may let it read the best hits \
again. `omniburn serve` answers the same at the path /mcp of its address.

`omniburn mcp config CLIENT` prints what a client's settings take.",
    after_help = "Examples:
  omniburn mcp
  omniburn mcp --index work
  omniburn mcp --model omniburn-mini --model records/bge-reranker
  omniburn mcp config claude
  omniburn mcp config vscode"
)]
pub struct McpArgs {
    /// config CLIENT prints settings instead.
    #[command(subcommand)]
    pub command: Option<McpCommand>,
    /// The record folder whose vectors the index holds, or ORG/NAME; may repeat with rerankers, each with a name that an agent may
    /// ask for [default: omniburn-mini, the model that ships]
    #[arg(long, value_name = "[NAME=]DIR|ORG/NAME")]
    pub model: Vec<String>,
    /// The index: a name in the user's data folder, a folder, or postgres://HOST/DATABASE?schema=NAME [default: the user's]
    #[arg(long, value_name = "NAME|DIR")]
    pub index: Option<PathBuf>,
    /// Search the index as it is: do not look at its folders again
    #[arg(long)]
    pub no_refresh: bool,
    /// Where it computes, and how.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Verbs behind `omniburn mcp`.
#[derive(Debug, Subcommand)]
pub enum McpCommand {
    /// Print the settings that make a client start this
    #[command(after_help = "Examples:\n  omniburn mcp config claude")]
    Config {
        /// The client
        client: McpClient,
    },
}

/// Clients whose settings are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum McpClient {
    /// Claude Desktop and Claude Code
    Claude,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    Vscode,
    /// Zed
    Zed,
}

fn host(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        _ => {
            text.parse().map_err(|_| format!("`{text}` is no IP address of this machine, such as 127.0.0.1 or 0.0.0.0"))
        }
    }
}

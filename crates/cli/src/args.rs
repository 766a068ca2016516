//! What was typed.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgAction, ArgMatches, Args, Parser, Subcommand, ValueEnum};
use omniburn::record::TemplateKind;
use omniburn::{BackendSpec, Dtype, Modality, OutputKind, Role, TrackChoice};
use omniburn_cli::inputs::{Tracks, TypedInput, track_of};
use omniburn_convert::KeepRule;

use crate::find_args::{CalibrateArgs, GetArgs, IndexArgs, SearchArgs};
pub use crate::model_args::{ComputeArgs, ModelArgs, TruncateArg};
use crate::model_args::{bytes, dtypes};
#[cfg(feature = "serve")]
use crate::serve_args::{McpArgs, ServeArgs};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "omniburn",
    version,
    about = "Text, images, audio and video into one vector space",
    after_help = "Examples:
  omniburn search \"a receipt from the bicycle shop\" --in ~/Documents
  omniburn pull sentence-transformers/all-MiniLM-L6-v2
  omniburn convert path/to/jina-embeddings-v5-omni-small records/small --task all
  omniburn embed --model records/small talk.mp3 clip.mp4 loop.gif photo.jpg \"a red bicycle\"
  omniburn compare --model records/small \"a red bicycle\" photo.jpg bell.wav clip.mp4

Results go to standard output, everything else to standard error.
Exit codes: 0 done, 1 some input failed, 2 usage, 3 a checkpoint or record was refused,
4 the device could not be used, 130 interrupted."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What to log.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// What to log on standard error.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Say more on standard error; twice for details
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "log", help_heading = "Logs")]
    pub verbose: u8,
    /// Log level: error, warn, info, debug, trace, or a filter such as omniburn_convert=debug
    #[arg(long, value_name = "LEVEL", global = true, help_heading = "Logs")]
    pub log: Option<String>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Search a folder of samples with the model that ships: no file, no network, no argument
    #[cfg(feature = "mini")]
    #[command(after_help = "Examples:\n  omniburn demo")]
    Demo,
    /// Turn a Hugging Face checkpoint into a record folder
    Convert(ConvertArgs),
    /// Fetch a checkpoint by name and turn it into a record: the only verb that talks to a network
    #[cfg(feature = "hub")]
    Pull(PullArgs),
    /// Embed texts and files: one JSON line an input
    Embed(EmbedArgs),
    /// The cosine of A with each B, whatever their kinds
    Compare(CompareArgs),
    /// Documents ordered by a reranker's score: one JSON line a document, best first
    Rerank(RerankArgs),
    /// Bring an index of folders up to date, or begin one
    Index(IndexArgs),
    /// Search an index by words and by meaning
    Search(SearchArgs),
    /// Open a hit of a search: its text, some lines of it, or a page
    Get(GetArgs),
    /// Serve models to embedding clients over HTTP
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Tools for agents: search, get and status over standard input and output
    #[cfg(feature = "serve")]
    Mcp(McpArgs),
    /// Measure which cosines a model gives to what is not related
    Calibrate(CalibrateArgs),
    /// Embed again what a journal says, and compare to the bit
    Replay(ReplayArgs),
    /// What a record, a Hugging Face folder or a GGUF file holds, and the memory a record needs
    Inspect(InspectArgs),
    /// Families and tasks supported, and records found
    Models(ModelsArgs),
    /// Examine this machine, its devices and a model on them: one page for a bug report
    Doctor(DoctorArgs),
    /// How long inputs of given sizes take on this machine
    Bench(BenchArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print a manual page
    Man(ManArgs),
}

/// `omniburn convert`.
#[derive(Debug, Args)]
#[command(
    long_about = "Turn a Hugging Face checkpoint into a record folder.

SOURCE is a GGUF file, or holds config.json, tokenizer.json, model.safetensors or shards with an index, and optionally \
adapters/<task>/adapter_{model.safetensors,config.json}. Adapters are merged. Nothing is downloaded: `omniburn pull` does that.

Packed weights of a GGUF file, and weights of 8 bits with scales (fp8, compressed-tensors), are widened to --dtype; the report \
says how large they were. What a file says and is not computed is refused by its key, GPTQ, AWQ and bitsandbytes by their name.

--adapter merges LoRA and DoRA adapters of PEFT into the weights of any family, each for a task of its own where several are \
given or one is named: patterns of ranks, alphas and modules, biases, tables and modules saved whole are read as PEFT reads \
them. A variant that is not computed, a tensor that fits nothing and a module without its tensors are refused by name.

Of a sentence-transformers folder modules.json, pooling, prompts, lengths and truncate_dim are kept in the record; a module \
or setting that is not computed is refused by name. Its prompts go to --role query and document; default_prompt_name's \
stands in front of every input that has no prompt of its role. What no vector depends on is said in the report.

A classifier of one label that reads pairs (cross encoders, bge-reranker), Qwen3-Reranker and Qwen3-VL-Reranker become \
rerankers: records for `omniburn rerank`. Where the files leave open what a folder is, --task embed or --task rerank says it.

ORG/NAME is looked for where huggingface_hub does: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, ~/.cache.",
    after_help = "Examples:
  omniburn convert checkpoints/jina-embeddings-v5-omni-small records/small
  omniburn convert jinaai/jina-embeddings-v5-omni-nano records/nano --task all
  omniburn convert checkpoints/small records/exact --dtype f32 --report report.json
  omniburn convert checkpoints/small records/quarter --dtype affine4 --keep '*.down_proj.weight=affine8'
  omniburn convert Qwen3-Embedding-0.6B-Q8_0.gguf records/qwen3
  omniburn convert checkpoints/bge-base records/mine --adapter finetuned
  omniburn convert Qwen/Qwen3-Embedding-0.6B records/two --adapter law=adapters/law --adapter code=adapters/code
  omniburn convert checkpoints/small --check"
)]
pub struct ConvertArgs {
    /// Checkpoint folder, GGUF file, or ORG/NAME found in the Hugging Face cache of this machine
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// Record folder to write; may be left out with --check
    #[arg(value_name = "OUT", required_unless_present = "check")]
    pub out: Option<PathBuf>,
    /// A task, all of them, or none for the base weights [default: retrieval where there are tasks]; embed or rerank where a
    /// folder could be read as either
    #[arg(long, value_name = "NAME|all|none")]
    pub task: Option<String>,
    /// An adapter folder, or ORG/NAME in the Hugging Face cache, to merge in place of the checkpoint's own; may repeat, each
    /// for a task of its own, as in law=DIR
    #[arg(long, value_name = "[NAME=]DIR")]
    pub adapter: Vec<PathBuf>,
    /// Type of the matrices; int8 has one scale a row, and is computed in int8 only by `embed --dtype int8`; affine8, affine4
    /// have a scale and an offset for each 64 values, and are computed as they lie, on the CPU
    #[arg(long, default_value = "bf16", value_parser = dtypes(&Dtype::ALL))]
    pub dtype: Dtype,
    /// Tensors of an affine8 or affine4 record that are kept in another type, by name with * for any letters; may repeat, the
    /// last that names a tensor counts, as in *.o_proj.weight=bf16
    #[arg(long, value_name = "PATTERN=TYPE")]
    pub keep: Vec<KeepRule>,
    /// How a medium lies between prefix and suffix: wrapped, bare or noeos; may repeat, as in image=bare
    #[arg(long, value_name = "MODALITY=NAME", value_parser = template)]
    pub template: Vec<(Modality, TemplateKind)>,
    /// Map names and shapes only: read no data, write nothing
    #[arg(long)]
    pub check: bool,
    /// Replace the record at OUT, once the new one is complete
    #[arg(long)]
    pub force: bool,
    /// Write the report as JSON, too
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// `omniburn pull`.
#[cfg(feature = "hub")]
#[derive(Debug, Args)]
#[command(
    long_about = "Fetch a checkpoint by name and turn it into a record: the only verb that talks to a network.

Files that a record needs, and no others, go into the Hugging Face cache, which other programs share: what is there already \
is not fetched again, what was broken off goes on from there, and SHA-256 is compared where the hub gives one. The record \
lies in the user's data folder; --model ORG/NAME names it, and `omniburn models` lists it. Run again, it looks for a newer \
commit. The licence that the checkpoint's card states is printed. --file fetches one GGUF file of a model and nothing else; a \
file of an architecture that is not converted is refused by what it begins with, before the rest comes.

A model that is private or gated needs a token: --token-file, else HF_TOKEN, HF_TOKEN_PATH or the token that the hub's own \
tools keep. A server named with --endpoint gets no token but that of --token-file. HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, \
HF_HUB_OFFLINE, HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE count as everywhere.

Exit codes: 0 done, 1 the network or the disk failed, 2 no such model or revision, or no access to it, 3 what was found is \
not converted, 130 interrupted.",
    after_help = "Examples:
  omniburn pull sentence-transformers/all-MiniLM-L6-v2
  omniburn pull intfloat/multilingual-e5-small --dtype f32 && omniburn embed --model intfloat/multilingual-e5-small \"a text\"
  omniburn pull org/name-GGUF --file name-Q8_0.gguf --dtype affine8
  omniburn pull org/gated-model --token-file token.txt
  omniburn pull org/name --revision v1.1 --endpoint https://mirror.example"
)]
pub struct PullArgs {
    /// The model on the hub
    #[arg(value_name = "ORG/NAME")]
    pub name: String,
    /// A GGUF file of the model, in place of its folder
    #[arg(long, value_name = "NAME.gguf")]
    pub file: Option<String>,
    /// Branch, tag or commit
    #[arg(long, value_name = "REV", default_value = "main")]
    pub revision: String,
    /// The hub, or a mirror of it [default: HF_ENDPOINT, else the public one]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// A file that holds a token
    #[arg(long, value_name = "F")]
    pub token_file: Option<PathBuf>,
    /// Type of the record's matrices, as for `convert`
    #[arg(long, default_value = "bf16", value_parser = dtypes(&Dtype::ALL))]
    pub dtype: Dtype,
    /// A task, all of them, or none for the base weights [default: retrieval where there are tasks]
    #[arg(long, value_name = "NAME|all|none")]
    pub task: Option<String>,
    /// Fetch nothing: only what the cache holds
    #[arg(long)]
    pub offline: bool,
    /// No progress on standard error
    #[arg(long)]
    pub quiet: bool,
    /// One JSON object in place of the report
    #[arg(long)]
    pub json: bool,
}

/// Inputs as typed. Their order across the kinds is read from the matches; see [`typed_in_order`].
#[derive(Debug, Args)]
pub struct InputArgs {
    /// A file, or a text: what has white space, or neither a separator nor a known file ending
    #[arg(value_name = "INPUT")]
    pub input: Vec<OsString>,
    /// A text, whatever it looks like; may repeat
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub text: Vec<String>,
    /// An image file; may repeat
    #[arg(long, value_name = "PATH", allow_hyphen_values = true)]
    pub image: Vec<PathBuf>,
    /// An audio file, or a video whose audio track is meant; may repeat
    #[arg(long, value_name = "PATH", allow_hyphen_values = true)]
    pub audio: Vec<PathBuf>,
    /// A video file, an animated GIF or WebP included; may repeat
    #[arg(long, value_name = "PATH", allow_hyphen_values = true)]
    pub video: Vec<PathBuf>,
    /// Which audio track of files with several: its number from 0, or its language such as eng [default: the file's default]
    #[arg(long, value_name = "N", value_parser = track)]
    pub audio_track: Option<TrackChoice>,
    /// Which video track of files with several: its number from 0, or its language [default: the file's default]
    #[arg(long, value_name = "N", value_parser = track)]
    pub video_track: Option<TrackChoice>,
}

impl InputArgs {
    /// The tracks that are asked for.
    pub fn tracks(&self) -> Tracks {
        Tracks { audio: self.audio_track.clone(), video: self.video_track.clone() }
    }
}

/// `omniburn embed`.
#[derive(Debug, Args)]
#[command(
    long_about = "Embed texts and files: one JSON line an input, in input order.

An INPUT that names a file is that file: an image, audio, video or text file, whose content is the text (without its \
last line break). Else it is a text, unless it looks like a path (no white space, and a separator or a known file \
ending): then it is an error. --text, --image, --audio and --video say it outright.

--items reads JSON lines with one key each: {\"text\": \"...\"}, {\"image\": \"PATH\"}, {\"audio\": \"PATH\"}, \
{\"video\": \"PATH\"} or {\"video\": [\"frame0.png\", ...]}, an optional \"id\" that comes back, and for a file of \
audio or video an optional \"track\", its number from 0 or its language. {\"parts\": [{\"image\": \"PATH\"}, {\"text\": \"...\"}]} is \
one item made of several, where the model takes such. \"role\" (query, document or none), \"task\" and \"instruction\" are \
the line's own in place of --role, --task and --instruction. Inputs come first, then items, then lines.

Audio and video longer than 240 s are cut into segments of that length. Their line holds the unit mean of the segments' \
vectors and how many there were; with --segments each segment has a line of its own, with where it begins and ends.

A failed input gives a line with an error in its place; the others are unaffected and the exit code is 1.",
    after_help = "Examples:
  omniburn embed --model records/small photo.jpg talk.mp3 \"a red bicycle\"
  omniburn embed --model records/small --segments lecture.mp3 --frames 16 lecture.mp4
  omniburn embed --model records/small --audio clip.mp4 --video clip.mp4
  omniburn embed --model records/small --role query \"something to ride\" --dim 128
  omniburn embed --model records/small --lines < sentences.txt > vectors.jsonl
  omniburn embed --model records/small --items items.jsonl --format npy --out vectors.npy
  omniburn embed --model records/small --items items.jsonl --out vectors.jsonl --journal journal.jsonl
  echo '{\"id\": 7, \"image\": \"photo.jpg\"}' | omniburn embed --model records/small --items -"
)]
pub struct EmbedArgs {
    /// Which model, and how.
    #[command(flatten)]
    pub model: ModelArgs,
    /// What the inputs are for; its prefix stands in front in every modality
    #[arg(long, value_enum, default_value_t = RoleArg::Document)]
    pub role: RoleArg,
    /// What the inputs are wanted for, of models that are given an instruction [default: the model card's]
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub instruction: Option<String>,
    /// What to give of each input, of what the model has: dense (its vector), sparse (weights of its tokens), multi (a vector
    /// a token), features (the rows that an image, audio or video becomes); several with commas between them [default: what the
    /// model gives first, mostly dense]
    #[arg(long, value_enum, value_name = "KIND[,…]", value_delimiter = ',')]
    pub output: Vec<OutputArg>,
    /// JSON lines, or one f32 array [n, dim] with --out (failed rows NaN, listed on standard error)
    #[arg(long, value_enum, default_value_t = FormatArg::Json)]
    pub format: FormatArg,
    /// Write the results to this file, once they are complete, in place of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Note digests of inputs and vectors, and what was computed together, for `omniburn replay`; once complete
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// A line for each segment of an audio or video file, in place of one for all of it
    #[arg(long)]
    pub segments: bool,
    /// A line for each chunk of a text in place of one for all of it: the text is read whole, and the rows of whole sentences of
    /// so many tokens at most are pooled for themselves [of models whose vector is a mean of rows; 128 tokens where none are
    /// given]
    #[arg(long, value_name = "TOKENS", num_args = 0..=1, require_equals = true, default_missing_value = "128")]
    pub late_chunks: Option<NonZeroUsize>,
    /// No progress on standard error
    #[arg(long)]
    pub quiet: bool,
    /// Inputs as JSON lines from a file, or from standard input with -
    #[arg(long, value_name = "FILE|-")]
    pub items: Option<PathBuf>,
    /// Texts from standard input, one a line
    #[arg(long)]
    pub lines: bool,
    /// Inputs.
    #[command(flatten)]
    pub inputs: InputArgs,
}

/// `omniburn compare`.
#[derive(Debug, Args)]
#[command(
    long_about = "The cosine of A with each B, whatever their kinds, one line a B in the order given.

A is the first input and every other one is a B; inputs are given as in `omniburn embed`. With --output sparse it is the sum of the \
products of weights that both texts have, with --output multi the mean over the rows of A of the largest cosine with a row of B \
(MaxSim).",
    after_help = "Examples:
  omniburn compare --model records/small \"a red bicycle\" photo.jpg drawing.png
  omniburn compare --model records/small --role query \"something to ride\" photo.jpg \"a red bicycle\"
  omniburn compare --model records/small --json --image a.png --image b.png"
)]
pub struct CompareArgs {
    /// Which model, and how.
    #[command(flatten)]
    pub model: ModelArgs,
    /// query: A is a query and each B a document; document: all are documents; none: neither
    #[arg(long, value_enum, default_value_t = RoleArg::Document)]
    pub role: RoleArg,
    /// By which output of the model: dense, or of models that have it sparse or multi [default: what the model gives first]
    #[arg(long, value_enum, value_name = "KIND")]
    pub output: Option<OutputArg>,
    /// JSON lines: {"a": ..., "b": ..., "cosine": ...}
    #[arg(long)]
    pub json: bool,
    /// Inputs.
    #[command(flatten)]
    pub inputs: InputArgs,
}

/// `omniburn rerank`.
#[derive(Debug, Args)]
#[command(
    long_about = "Documents ordered by how well they meet a query, as a reranker scores the pair of both: one JSON line a \
document, the best first.

A line has the place of the document among those given, its score from 0 to 1, the model's own logit, and the document: \
{\"index\": 2, \"score\": 0.9312, \"logit\": 2.606, \"document\": \"...\"}. Documents with equal logits keep their order. Where a \
pair was cut, \"truncated\" says what of: query, document or both.

QUERY and DOC are given as in `omniburn embed`: a file that is there, else a text. Images and videos are for models that read \
them. --items reads documents as JSON lines, as `omniburn embed` does, {\"text\": \"...\"} with an optional \"id\" that comes \
back; they come behind those that were typed.

A failed document gives a line with an error behind the others, and the exit code is 1.",
    after_help = "Examples:
  omniburn rerank --model records/bge-reranker \"what is a panda?\" \"a bear of China\" \"a city in France\"
  omniburn rerank --model records/qwen3-reranker --instruction \"Find a proof\" --top 3 \"primes\" notes/*.md
  omniburn rerank --model records/qwen3-vl-reranker \"a red bicycle\" photos/*.jpg \"a bicycle of red steel\"
  omniburn rerank --model records/bge-reranker --items documents.jsonl --truncate right \"what is a panda?\""
)]
pub struct RerankArgs {
    /// Record folder of a reranker, made by `omniburn convert`
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// What documents are wanted for, of models that are given an instruction [default: the model card's]
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub instruction: Option<String>,
    /// Only so many of the best documents
    #[arg(long, value_name = "N")]
    pub top: Option<NonZeroUsize>,
    /// Documents as JSON lines from a file, or from standard input with -
    #[arg(long, value_name = "FILE|-")]
    pub items: Option<PathBuf>,
    /// What happens to a pair longer than the model reads: right and left cut the longer text first
    #[arg(long, value_enum, default_value_t = TruncateArg::Error)]
    pub truncate: TruncateArg,
    /// Where it computes, and how.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Lines without the document, and no progress on standard error
    #[arg(long)]
    pub quiet: bool,
    /// What is sought
    #[arg(value_name = "QUERY")]
    pub query: OsString,
    /// A document; may repeat
    #[arg(value_name = "DOC")]
    pub documents: Vec<OsString>,
}

/// `omniburn replay`.
#[derive(Debug, Args)]
#[command(
    long_about = "Embed again what a journal of `omniburn embed --journal` says, and compare to the bit.

The journal holds digests and settings, no content and no path: give the inputs again, in any order. They are matched by \
digest, and each is embedded twice, alone and with the inputs it shared a unit of work with. Role, task, dimension, truncation and frames \
are the journal's; so are device and type unless said otherwise, and the processor's instructions where they are there.

Whoever guesses an input can tell by its digest that the guess is right.

One JSON line an item that differs or whose input is missing; a summary on standard error.
Exit codes: 0 all equal, 1 something differs or is missing, 2 usage, 3 the journal is of another record.",
    after_help = "Examples:
  omniburn embed --model records/small --journal journal.jsonl --out vectors.jsonl photo.jpg \"a red bicycle\"
  omniburn replay journal.jsonl --model records/small photo.jpg \"a red bicycle\"
  omniburn replay journal.jsonl --model records/small --items items.jsonl"
)]
pub struct ReplayArgs {
    /// What `omniburn embed --journal` wrote
    #[arg(value_name = "JOURNAL")]
    pub journal: PathBuf,
    /// Record folder, made by `omniburn convert` [default: the model that ships]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Where to compute [default: where the journal was written]
    #[arg(long, value_name = "NAME[:N]")]
    pub device: Option<BackendSpec>,
    /// The type to compute in [default: the journal's]
    #[arg(long, value_parser = dtypes(&Dtype::COMPUTED))]
    pub dtype: Option<Dtype>,
    /// Memory for the work beside the weights, such as 512MiB or 2GiB [default: 4GiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub budget: Option<u64>,
    /// Threads to compute with on the CPU [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// No progress on standard error
    #[arg(long)]
    pub quiet: bool,
    /// Inputs as JSON lines from a file, or from standard input with -
    #[arg(long, value_name = "FILE|-")]
    pub items: Option<PathBuf>,
    /// Inputs.
    #[command(flatten)]
    pub inputs: InputArgs,
}

/// `omniburn inspect`.
#[derive(Debug, Args)]
#[command(
    long_about = "What a record, a Hugging Face folder or a GGUF file holds.

Of a record: configuration, tasks, modalities, parameters and bytes by module, digest, and the memory that its longest \
text and largest image need. Of a Hugging Face folder: what `omniburn convert --check --task all` finds. Of a GGUF file: \
architecture, parameters and types of its tensors, then what `omniburn convert --check` finds, or why it refuses the file \
(exit code 3).",
    after_help = "Examples:
  omniburn inspect records/small
  omniburn inspect records/small --verify
  omniburn inspect records/small --budget 512MiB --json
  omniburn inspect checkpoints/jina-embeddings-v5-omni-small
  omniburn inspect bge-m3-Q8_0.gguf"
)]
pub struct InspectArgs {
    /// Record folder, checkpoint folder, GGUF file, or ORG/NAME found in the Hugging Face cache
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Read every byte of a record against its digests; exit code 3 at the first difference
    #[arg(long)]
    pub verify: bool,
    /// The budget to judge the memory by, such as 512MiB [default: 4GiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub budget: Option<u64>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// `omniburn models`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  omniburn models
  omniburn models --records /data/records --json")]
pub struct ModelsArgs {
    /// Folder to look for records in [default: records, and what `omniburn pull` made]
    #[arg(long, value_name = "DIR")]
    pub records: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// `omniburn doctor`.
#[derive(Debug, Args)]
#[command(
    long_about = "Examine this machine, its devices and a model on them: one page to paste into a bug report.

It says what this build is and runs on, and which devices start. On the CPU it measures, once for each processor and \
version, which of the processor's instructions are the fastest, keeps that in the user's cache for every later run, and times \
texts and an image with each of them. On one device it then compares every operation with \
its portable body and its formula, fixed items with their stored vectors (the model that ships has some, a record with \
a selftest.json too) and with themselves in a batch, and measures for two seconds what queries wait for beside \
background work. The page holds no path, no name of a user and nothing of your files.

Exit codes: 0 all is well, 1 a check failed, 4 the device cannot be used.",
    after_help = "Examples:
  omniburn doctor
  omniburn doctor --model records/small --json
  omniburn doctor --measure-again
  omniburn doctor --device wgpu"
)]
pub struct DoctorArgs {
    /// Record folder, made by `omniburn convert` [default: the model that ships]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// The device to examine; one that is missing is then an error [default: flex]
    #[arg(long, value_name = "NAME[:N]")]
    pub device: Option<BackendSpec>,
    /// Measure anew which of the processor's instructions are the fastest, and keep that in place of what was kept
    #[arg(long)]
    pub measure_again: bool,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// `omniburn bench`.
#[derive(Debug, Args)]
#[command(
    long_about = "Time the engine in this process: from an input to its vector, decoded media included, nothing kept \
between runs.

A case is a kind of input with its size: text:16x128 (texts x tokens, whatever is put around them included), image:512 or \
image:640x480, audio:10s, video:8x256 (frames x side) or video:8x640x480. The inputs are made here, the same ones every \
time: letters, noise, tones. One input goes as somebody who waits, several texts as a job in the background.

One JSON line a case: case, device, dtype, runs, ms_min, ms_median, ms_p95, items_per_s, tokens_per_s, gflops, \
peak_rss_mib. Rates are those at the median. tokens are rows that enter the backbone; gflops are billions of operations a \
second, counted from the model's configuration, two a multiply-add of its products and its attention; peak_rss_mib is the \
memory of the process at its highest during the case, mapped weights included, null where the system does not tell.

With --peak the first line is what the machine can do at most, with the same threads: a large product in f32, one whose \
weights are bf16 (null where that is no faster), and memory read in order.

A case that fails has a line with an error in place of times.
Exit codes: 0 done, 1 a case failed, 2 usage, 3 the record was refused, 4 the device cannot be used, 130 interrupted.",
    after_help = "Examples:
  omniburn bench
  omniburn bench --model records/small --cases text:1x16,text:16x128,image:512,audio:10s,video:8x256 --peak
  omniburn bench --model records/small --cases text:1x16 --seconds 10 --threads 1"
)]
pub struct BenchArgs {
    /// Record folder, made by `omniburn convert` [default: the model that ships]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Cases with commas between [default: some of each kind that the model takes]
    #[arg(long, value_name = "CASES")]
    pub cases: Option<String>,
    /// How long each case is run, and three times at least
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub seconds: f64,
    /// Runs of each case before those that count
    #[arg(long, value_name = "RUNS", default_value_t = 2)]
    pub warm_up: usize,
    /// Begin with what the machine can do at most
    #[arg(long)]
    pub peak: bool,
    /// Where it computes, and how.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// No progress on standard error
    #[arg(long)]
    pub quiet: bool,
}

/// `omniburn completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  omniburn completions bash > ~/.local/share/bash-completion/completions/omniburn
  omniburn completions zsh > ~/.zfunc/_omniburn")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `omniburn man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  omniburn man search | man -l -
  omniburn man > omniburn.1
  omniburn man --all ~/.local/share/man/man1")]
pub struct ManArgs {
    /// The verb, such as search, or two for one below it: index status [default: the program as a whole]
    #[arg(value_name = "VERB", num_args = 0..=2)]
    pub verb: Vec<String>,
    /// Write the pages of the program and of every verb into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    pub all: Option<PathBuf>,
}

/// `--role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Something to search with.
    Query,
    /// Something to be found.
    Document,
    /// Neither: no prefix, unless the checkpoint names a default prompt.
    None,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Query => Role::Query,
            RoleArg::Document => Role::Document,
            RoleArg::None => Role::None,
        }
    }
}

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// Its vector.
    Dense,
    /// Weights of its tokens, by token id.
    Sparse,
    /// A vector a token.
    Multi,
    /// The rows that media become in the sequence of the model, with what is added to them behind its first layers.
    Features,
}

impl From<OutputArg> for OutputKind {
    fn from(output: OutputArg) -> Self {
        match output {
            OutputArg::Dense => OutputKind::Dense,
            OutputArg::Sparse => OutputKind::Sparse,
            OutputArg::Multi => OutputKind::Multi,
            OutputArg::Features => OutputKind::Features,
        }
    }
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// One JSON object a line.
    Json,
    /// One f32 array.
    Npy,
}

/// Every input of a verb with [`InputArgs`], in the order typed, whatever their kinds.
pub fn typed_in_order(matches: &ArgMatches) -> Vec<TypedInput> {
    fn collect<T: Clone + Send + Sync + 'static>(
        matches: &ArgMatches,
        id: &str,
        make: fn(T) -> TypedInput,
        into: &mut Vec<(usize, TypedInput)>,
    ) {
        let values = matches.get_many::<T>(id).into_iter().flatten().cloned().map(make);
        into.extend(matches.indices_of(id).into_iter().flatten().zip(values));
    }
    let mut found = Vec::new();
    collect(matches, "input", TypedInput::Either, &mut found);
    collect(matches, "text", TypedInput::Text, &mut found);
    collect(matches, "image", TypedInput::Image, &mut found);
    collect(matches, "audio", TypedInput::Audio, &mut found);
    collect(matches, "video", TypedInput::Video, &mut found);
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, input)| input).collect()
}

fn template(text: &str) -> Result<(Modality, TemplateKind), String> {
    let (modality, kind) = text.split_once('=').ok_or("expected MODALITY=NAME, such as image=bare")?;
    Ok((modality.parse()?, kind.parse()?))
}

/// Reads a track: its number from 0, or its language.
fn track(text: &str) -> Result<TrackChoice, String> {
    track_of(text).ok_or_else(|| format!("`{text}` is no track: expected its number from 0, or a language such as eng"))
}

/// Reads a length of time: zero to a day.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("`{text}` is not a number of seconds: expected 0 to 86400")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_help_with_an_example() {
        for verb in Cli::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("omniburn {}", verb.get_name())), "{}", verb.get_name());
        }
    }

    #[test]
    fn inputs_keep_their_order_across_kinds() {
        let line =
            ["omniburn", "embed", "a b", "--image", "x.png", "c", "--text=-1", "--text", "-2", "--image", "y", "d"];
        let matches = Cli::command().try_get_matches_from(line).unwrap();
        Cli::from_arg_matches(&matches).unwrap();
        let text = |text: &str| TypedInput::Text(text.into());
        let either = |text: &str| TypedInput::Either(text.into());
        let image = |path: &str| TypedInput::Image(path.into());
        assert_eq!(
            typed_in_order(matches.subcommand().unwrap().1),
            [either("a b"), image("x.png"), either("c"), text("-1"), text("-2"), image("y"), either("d")]
        );
    }

    #[test]
    fn seconds_are_a_number_of_a_day() {
        assert_eq!((seconds("0.5"), seconds("86400")), (Ok(0.5), Ok(86_400.0)));
        for wrong in ["", "-1", "NaN", "inf", "86401", "2s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn templates_name_a_modality_and_a_layout() {
        assert_eq!(template("image=bare"), Ok((Modality::Image, TemplateKind::Bare)));
        for wrong in ["image", "image=", "picture=bare", "image=round"] {
            assert!(template(wrong).is_err(), "{wrong}");
        }
    }
}

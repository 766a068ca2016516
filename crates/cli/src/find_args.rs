//! What was typed of the verbs around an index: `index`, `search` and `get`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use omniburn_index::{Kind, MinScore, Mode, kinds_of};

use crate::model_args::{ComputeArgs, ModelArgs, TruncateArg, bytes};

/// The model that an index is made with, and how it computes.
#[derive(Debug, Args)]
pub struct FeederArgs {
    /// Record folder, or the ORG/NAME that `omniburn pull` fetched [default: the model that ships]
    #[arg(long, value_name = "DIR|ORG/NAME")]
    pub model: Option<PathBuf>,
    /// Where it computes, and how.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// No progress on standard error
    #[arg(long)]
    pub quiet: bool,
}

impl FeederArgs {
    /// The model as every verb opens it.
    pub fn model_args(&self) -> ModelArgs {
        ModelArgs {
            model: self.model.clone(),
            task: None,
            dim: None,
            truncate: TruncateArg::Error,
            frames: None,
            compute: self.compute,
        }
    }
}

/// `omniburn index`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    long_about = "Bring an index of folders up to date, or begin one.

Text, code, HTML, PDF, DOCX, ODT, RTF, XLSX, ODS, PPTX, ODP, EPUB, mail (EML), images, audio and video are read, other files are \
passed over. Run again it reads what is new or changed; an unchanged file costs a look, a copy no compute, and a renamed one keeps \
its vectors. Without FOLDER: every folder that the index keeps, with the rules it was given.

Left out are hidden files, what .gitignore and .omniburnignore say, node_modules and its like, folders marked as caches \
(CACHEDIR.TAG), and symbolic links. Archives are not entered.

--watch goes on: what changes below the folders is read as soon as nothing more changes for a moment, until Ctrl-C; a line is \
printed for every update that did something. --dry-run reads nothing but names, sizes and the first bytes of new files, and says what \
would be done; a renamed file is one that is new and one that is gone then.

The index lies in the user's data folder, never among the files. What was finished is kept when the command is interrupted or \
killed, and the next run goes on. A folder called status, remove, clean, export or import is given as ./status.

Exit codes: 0 done, 1 a file could not be read (named on standard error), 2 usage, 3 the index or the model was refused, \
130 interrupted.",
    after_help = "Examples:
  omniburn index ~/Documents ~/Pictures
  omniburn index
  omniburn index ~/src --kind code,text --exclude \"*.min.js\" --max-size 10MiB --index code
  omniburn index ~/Documents --dry-run
  omniburn index --watch
  omniburn index status
  omniburn index remove ~/Pictures && omniburn index clean
  omniburn index export --out index.jsonl && omniburn index import index.jsonl --index copy"
)]
pub struct IndexArgs {
    /// What to do with an index that is there.
    #[command(subcommand)]
    pub command: Option<IndexCommand>,
    /// Folders to keep from now on
    #[arg(value_name = "FOLDER")]
    pub folders: Vec<PathBuf>,
    /// Only files of these kinds, with commas between: text, code, html, pdf, document, spreadsheet, presentation, book, mail,
    /// image, audio, video
    #[arg(long, value_name = "K,…", value_parser = kinds)]
    pub kind: Option<Kinds>,
    /// Only files that match such a pattern, as in .gitignore; may repeat
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// No files that match such a pattern; may repeat
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// No files of more bytes, such as 10MiB
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub max_size: Option<u64>,
    /// Go on until Ctrl-C, and read what changes as it changes
    #[arg(long)]
    pub watch: bool,
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with = "watch")]
    pub dry_run: bool,
    /// One JSON object in place of each summary
    #[arg(long)]
    pub json: bool,
    /// An index by its name in the user's data folder, a folder for it, or postgres://HOST/DATABASE?schema=NAME [default: the index named default]
    #[arg(long, value_name = "NAME|DIR")]
    pub index: Option<PathBuf>,
    /// Which model.
    #[command(flatten)]
    pub feeder: FeederArgs,
}

/// What `omniburn index` does with an index that is there.
#[derive(Debug, Subcommand)]
pub enum IndexCommand {
    /// What the index holds: folders, files by kind, failed files with reasons, size, model
    Status(IndexStatusArgs),
    /// Forget folders with all their files; the files themselves stay
    Remove(IndexRemoveArgs),
    /// Give back the room of what was removed
    Clean(IndexCleanArgs),
    /// Write all of the index as lines of JSON, or as Parquet: files, chunks, words, vectors
    Export(IndexExportArgs),
    /// Make an index from what export wrote
    Import(IndexImportArgs),
}

/// `omniburn index export`.
#[derive(Debug, Args)]
#[command(
    long_about = "Write all of the index as lines of JSON, or as one Parquet file.

The first line says which model the vectors are of and which folders are kept. A line {\"content\": …} holds what files with equal \
bytes share: its chunks with their places, their text and their vectors (each number reads back to the f16 that is kept). A line \
{\"file\": …} names a file, and its content by digest. `omniburn index import` makes an equal index of it. Where \
photographs were taken, which no search shows, stands in it too (coordinates).

--format parquet writes one table that pandas, DuckDB and their like read. `row` says what a row is: a content (digest, kind, title, taken_ns, latitude, longitude), \
a chunk of the content before it (digest, text, modality, vector as a list of f32, and its place: place 0 the whole file, 1 lines low to \
high, 2 page low, 3 seconds low to high), or a file (digest, path, size, mtime_ns). It needs a program built with --features parquet.",
    after_help = "Examples:
  omniburn index export --out index.jsonl
  omniburn index export --format parquet --out index.parquet
  duckdb -c \"SELECT f.path, c.text FROM 'index.parquet' c JOIN 'index.parquet' f USING (digest) WHERE c.row = 'chunk' AND f.row = 'file'\"
  omniburn index export --index code | gzip > code.jsonl.gz"
)]
pub struct IndexExportArgs {
    /// Lines of JSON, or a Parquet file
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub format: ExportFormat,
    /// Write to this file in place of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// An index by its name, a folder, or postgres://HOST/DATABASE?schema=NAME
    #[arg(long, value_name = "NAME|DIR")]
    pub index: Option<PathBuf>,
}

/// How an index is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A JSON object a line
    Jsonl,
    /// One Parquet file
    Parquet,
}

/// `omniburn index import`.
#[derive(Debug, Args)]
#[command(
    long_about = "Make an index from what `omniburn index export` wrote. No model is opened and no file is read: the vectors are those \
of the export. A Parquet file is recognised by its first bytes, and read from a file, not from standard input. An index that is there \
already is left alone, and another one has to be named with --index.",
    after_help = "Examples:
  omniburn index import index.jsonl --index copy
  gunzip < code.jsonl.gz | omniburn index import - --index ./code"
)]
pub struct IndexImportArgs {
    /// The export, or - for standard input (lines of JSON)
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// An index by its name in the user's data folder, a folder for it, or postgres://HOST/DATABASE?schema=NAME [default: the index named default]
    #[arg(long, value_name = "NAME|DIR")]
    pub index: Option<PathBuf>,
}

/// `omniburn index status`.
#[derive(Debug, Args)]
pub struct IndexStatusArgs {
    /// An index by its name, a folder, or postgres://HOST/DATABASE?schema=NAME
    #[arg(long, value_name = "NAME|DIR")]
    pub index: Option<PathBuf>,
    /// Read every byte of the database and compare vectors with their digests
    #[arg(long)]
    pub verify: bool,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// `omniburn index remove`.
#[derive(Debug, Args)]
pub struct IndexRemoveArgs {
    /// Folders as `omniburn index status` names them
    #[arg(value_name = "FOLDER", required = true)]
    pub folders: Vec<PathBuf>,
    /// An index by its name, a folder, or postgres://HOST/DATABASE?schema=NAME
    #[arg(long, value_name = "NAME|DIR")]
    pub index: Option<PathBuf>,
}

/// `omniburn index clean`.
#[derive(Debug, Args)]
pub struct IndexCleanArgs {
    /// An index by its name, a folder, or postgres://HOST/DATABASE?schema=NAME
    #[arg(long, value_name = "NAME|DIR")]
    pub index: Option<PathBuf>,
}

/// `omniburn search`.
#[derive(Debug, Args)]
#[command(
    long_about = "Search an index by words and by meaning.

The index is first brought up to date, unless --no-refresh says not to. A folder named with --in that was never indexed is indexed \
first.

Words count as a whole in any case and without accents; \"exact words\" must stand in what is found, -word must not. Qualifiers \
narrow the search: type:image ext:pdf in:~/Docs after:2026-01-01 before:30d (so many days, weeks, months or years ago: 30d, 2w, 6m, \
1y). Each has a flag of its own, too.

--json gives a line a hit: rank, score, kind, path, uri, locator (line, page, or start_s and end_s), title, snippet, mtime, size, \
id (for `omniburn get`), and scores: the cosine (semantic) and bm25 (words).

score lies from 0 to 1. By meaning it is read from how seldom something unrelated has a cosine as high, where the model was measured \
(the one that ships is), so that it can be compared between kinds; else it is the cosine. By words it is made of the share of the query's \
words, and 0.95 where all are there; both together are worth more than either. One unrelated item in a hundred reaches 0.75 by \
meaning, and one in a thousand 0.9.

--min-score auto gives what is related: what would hardly be the best of all items that were compared, were it not, so that the more \
there are, or the fewer qualifiers, the more is asked; or what has the query's words, seldom ones among them. Nothing is related \
by words that are everywhere.

--rerank lets a reranker read the best 50 hits again beside the query: their text, or, where it takes images, an image without text. Those \
come first, by its scores, which are the scores shown (and `rerank` in scores); what it cannot read keeps its order and its score behind \
them, and --explain says why. --min-score counts for the scores shown, --min-score auto for the search. Without MODEL it is the only \
reranker among the records that `omniburn models` lists; the query comes before it.

Nothing found: exit code 0, nothing on standard output, a sentence on standard error.",
    after_help = "Examples:
  omniburn search \"a receipt from the bicycle shop\" --in ~/Documents
  omniburn search \"type:image a ship under sail\" --min-score auto
  omniburn search --like song.mp3 --kind audio
  omniburn search mvcc --mode words --json
  omniburn search \"when is the rent due\" --rerank records/reranker
  omniburn search \"old drafts before:1y\" --files -0 | xargs -0 ls -l"
)]
pub struct SearchArgs {
    /// What to search for
    #[arg(value_name = "QUERY")]
    pub query: Option<String>,
    /// A file whose likes are sought
    #[arg(long, value_name = "FILE")]
    pub like: Option<PathBuf>,
    /// Only below this folder; indexed first where it never was
    #[arg(long = "in", value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Only files of these kinds, with commas between
    #[arg(long, value_name = "K,…", value_parser = kinds)]
    pub kind: Option<Kinds>,
    /// Only files with this ending; may repeat
    #[arg(long, value_name = "E")]
    pub ext: Vec<String>,
    /// Only files changed on this day or later, such as 2026-01-31 or 30d; of a photograph the day counts on which it was taken
    #[arg(long, value_name = "D")]
    pub after: Option<String>,
    /// Only files changed before this day
    #[arg(long, value_name = "D")]
    pub before: Option<String>,
    /// Hits at most
    #[arg(short = 'n', long = "limit", value_name = "N", default_value = "10")]
    pub limit: NonZeroUsize,
    /// Only hits with such a score, from 0 to 1, or auto for what is related
    #[arg(long, value_name = "S|auto", value_parser = min_score)]
    pub min_score: Option<MinScore>,
    /// By words, by meaning, or by both
    #[arg(long, value_enum, default_value_t = ModeArg::Hybrid)]
    pub mode: ModeArg,
    /// Hits of one file at most, or all
    #[arg(long, value_name = "N|all", default_value = "1", value_parser = per_file)]
    pub per_file: usize,
    /// Let a reranker read the best hits again and order them: a record folder, or the ORG/NAME that `omniburn pull` fetched
    /// [default: the only reranker that is there]
    #[arg(long, value_name = "MODEL", num_args = 0..=1, conflicts_with = "like")]
    pub rerank: Option<Option<PathBuf>>,
    /// A line of JSON a hit
    #[arg(long)]
    pub json: bool,
    /// Paths and nothing else, each once
    #[arg(long, conflicts_with = "json")]
    pub files: bool,
    /// With --files: a NUL behind each path in place of a line break
    #[arg(short = '0', requires = "files")]
    pub nul: bool,
    /// Say of each hit why it is where it is
    #[arg(long, conflicts_with_all = ["json", "files"])]
    pub explain: bool,
    /// Search the index as it is
    #[arg(long)]
    pub no_refresh: bool,
    /// An index by its name in the user's data folder, a folder for it, or postgres://HOST/DATABASE?schema=NAME [default: the index named default]
    #[arg(long, value_name = "NAME|DIR")]
    pub index: Option<PathBuf>,
    /// Which model.
    #[command(flatten)]
    pub feeder: FeederArgs,
}

/// `omniburn get`.
#[derive(Debug, Args)]
#[command(
    long_about = "Open a hit of `omniburn search`: its text, some lines or a page of it, seconds of audio, the frame of a video.

ID is a hit's id or the beginning of it; behind a colon stands a place: line=12, line=12-40, page=3, or seconds, t=12.5-20 or t=12.5. \
The file is read as it is now. Seconds of audio come as WAV (mono, 16 bits; t=12.5 goes on to the end), the frame of a video that is \
shown then, or in the middle of the stretch, as PNG, and so does a page of a PDF that shows more than its text; --image gives any page \
of a PDF so. Without a place images, audio and video are given as they are. What is no text goes to a pipe, or to a file with --out.

--about gives one JSON object in place of the file: path, kind, size, mtime, title, taken (of a photograph, in seconds since 1970) and \
tags (of audio and video: ID3, Vorbis comments, those of MP4 and Matroska). Where a photograph was taken is shown with --place alone: no \
search, page or tool gives it.",
    after_help = "Examples:
  omniburn get a1b2c3
  omniburn get a1b2c3:page=3
  omniburn get a1b2c3:page=3 --image --out page.png
  omniburn get 7c6b5a --about
  omniburn get a1b2c3:line=120-160 --out part.txt
  omniburn get 0f9e8d:t=63 --out frame.png
  omniburn get 7c6b5a:t=10-20 --out seconds.wav"
)]
pub struct GetArgs {
    /// The hit
    #[arg(value_name = "ID[:LOCATOR]")]
    pub hit: String,
    /// The image of a page of a PDF, as PNG, whatever text it has
    #[arg(long)]
    pub image: bool,
    /// What the file says of itself, as one JSON object
    #[arg(long, conflicts_with = "image")]
    pub about: bool,
    /// With --about: where a photograph was taken, too
    #[arg(long, requires = "about")]
    pub place: bool,
    /// Write to this file in place of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// An index by its name, a folder, or postgres://HOST/DATABASE?schema=NAME
    #[arg(long, value_name = "NAME|DIR")]
    pub index: Option<PathBuf>,
}

/// `omniburn calibrate`.
#[derive(Debug, Args)]
#[command(
    long_about = "Measure which cosines a model gives to what is not related, so that scores can be compared between text, images, \
audio and video.

FILE has a query a line, and none of them may have anything to do with what lies in the folders: each pair of a query and an item \
counts as unrelated. The cosines that a half, a tenth, a hundredth and a thousandth of the pairs exceed become the scores 0.1, 0.5, \
0.75 and 0.9; the mean of the queries is kept, and for --min-score auto the same is measured of what is left of queries and items without \
it. A modality needs a thousand pairs. The result is one line of JSON; as calibration.json in the folder of a record it \
counts for every index of that record. The model that ships has one.",
    after_help = "Examples:
  omniburn calibrate --queries unrelated.txt ~/Pictures ~/Music --out records/small/calibration.json --model records/small"
)]
pub struct CalibrateArgs {
    /// Folders of files of every kind that counts
    #[arg(value_name = "FOLDER", required = true)]
    pub folders: Vec<PathBuf>,
    /// Queries, one a line
    #[arg(long, value_name = "FILE")]
    pub queries: PathBuf,
    /// Write to this file in place of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Which model.
    #[command(flatten)]
    pub feeder: FeederArgs,
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// By both.
    Hybrid,
    /// By meaning alone.
    Semantic,
    /// By words alone.
    Words,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Hybrid => Mode::Hybrid,
            ModeArg::Semantic => Mode::Semantic,
            ModeArg::Words => Mode::Words,
        }
    }
}

/// Kinds with commas between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kinds(pub Vec<Kind>);

fn kinds(text: &str) -> Result<Kinds, String> {
    kinds_of(text).map(Kinds).map_err(|e| e.to_string())
}

fn min_score(text: &str) -> Result<MinScore, String> {
    match (text, text.parse::<f32>()) {
        ("auto", _) => Ok(MinScore::Auto),
        (_, Ok(score)) if (0.0..=1.0).contains(&score) => Ok(MinScore::At(score)),
        _ => Err(format!("`{text}` is no score: expected 0 to 1, or auto")),
    }
}

fn per_file(text: &str) -> Result<usize, String> {
    match (text, text.parse::<NonZeroUsize>()) {
        ("all", _) => Ok(usize::MAX),
        (_, Ok(count)) => Ok(count.get()),
        _ => Err(format!("`{text}` is no number of hits: expected 1 or more, or all")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_and_numbers_of_hits_are_read_or_refused() {
        assert_eq!((min_score("auto"), min_score("0.5")), (Ok(MinScore::Auto), Ok(MinScore::At(0.5))));
        assert_eq!((per_file("all"), per_file("3")), (Ok(usize::MAX), Ok(3)));
        for wrong in ["", "1.5", "-1", "NaN", "high"] {
            assert!(min_score(wrong).is_err() && per_file(wrong).is_err(), "{wrong}");
        }
        assert!(kinds("image,picture").unwrap_err().contains("picture"));
    }
}

//! `omniburn search`: text or a file as a query, ranked files with places.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use omniburn_index::{
    Embedder, EngineEmbedder, EngineReranker, Hit, Index, IndexError, MinScore, Modality, Mode, Query, QueryError,
    Reranking, Rules, SearchOptions, Sought, canonical, content_of_file, query_vector, time_of, uri_of,
};

use super::index::{nothing_yet, root_of, say_failed};
use super::models::rerankers;
use super::open_engine;
use super::place::{Stop, calibrate, embedder, folder_of, shown, with_progress};
use crate::failure::{DONE, Failure, Outcome};
use crate::find_args::SearchArgs;
use crate::model_args::ModelArgs;
use crate::output::{json_line, write_stdout};
use crate::progress::say;

/// Searches and prints what was found.
///
/// # Errors
/// A usage failure, a refused index or model, an interruption.
pub fn run(args: &SearchArgs) -> Outcome {
    let stop = Stop::at_interrupt();
    let mut query = query_of(args)?;
    let folder = folder_of(args.index.as_deref())?;
    // What is asked for is checked before anything is opened.
    let mode = Mode::from(args.mode);
    let like = args.like.as_deref().map(|path| like_of(path, &query, mode)).transpose()?;
    if like.is_none() && query.is_empty() {
        if let (None, Some(Some(taken))) = (&args.query, &args.rerank) {
            let taken = shown(taken);
            return Err(Failure::usage(format!(
                "nothing to search for: --rerank took `{taken}` for its model, and the query comes before it"
            )));
        }
        let filters = !query.filter.is_open() || !query.without.is_empty();
        return Err(IndexError::from(if filters { QueryError::OnlyFilters } else { QueryError::Empty }).into());
    }
    let within = args.folder.as_deref().map(|path| root_of(path, &Rules::default())).transpose()?;
    query.filter.folders.extend(within.iter().map(|root| root.path.clone()));

    let reranker = args.rerank.as_ref().map(|model| reranker(model.as_deref(), args, &stop)).transpose()?;
    let without_model = mode == Mode::Words && args.no_refresh && within.is_none();
    let model = if without_model { None } else { Some(embedder(&args.feeder, &stop)?) };
    let mut index = match (&model, &within) {
        (Some(model), Some(_)) => Index::open_or_begin(&folder, &model.profile())?,
        _ => Index::open(&folder).map_err(nothing_yet)?,
    };
    if let Some(model) = &model {
        index.agree(&model.profile())?;
        let kept = index.roots()?;
        let new = within.filter(|within| kept.iter().all(|root| !within.path.starts_with(&root.path)));
        refresh(&mut index, model, new.as_slice(), args, &stop)?;
    }
    calibrate(&mut index, model.as_ref())?;
    let vector = match (&model, &like) {
        (Some(model), Some(path)) => Some(vector_like(&index, model, path)?),
        (Some(model), None) if mode != Mode::Words => Some((query_vector(model, &query.text)?, Modality::Text)),
        _ => None,
    };
    let sought = match (&vector, &like) {
        (Some((values, modality)), Some(path)) => Sought::Like(path, values, *modality),
        (Some((values, modality)), None) => Sought::Vector(values, *modality),
        (None, _) => Sought::Words,
    };
    let options = SearchOptions {
        mode,
        limit: args.limit.get(),
        per_file: args.per_file,
        min_score: args.min_score.unwrap_or(MinScore::Any),
    };
    let hits = match &reranker {
        None => index.search(&query, sought, &options)?,
        Some(reranker) => index.search_reranked(&query, sought, &options, reranker)?,
    };
    print(&hits, args)?;
    if hits.is_empty() {
        say("nothing found");
    }
    Ok(DONE)
}

/// The query with what the flags say.
fn query_of(args: &SearchArgs) -> Result<Query, Failure> {
    let now = SystemTime::now();
    let home = std::env::home_dir();
    let text = args.query.as_deref().unwrap_or_default();
    let mut query = Query::parse(text, home.as_deref(), now).map_err(IndexError::from)?;
    let filter = &mut query.filter;
    filter.kinds.extend(args.kind.iter().flat_map(|kinds| &kinds.0));
    filter.endings.extend(args.ext.iter().map(|ending| ending.trim_start_matches('.').to_lowercase()));
    let time = |text: &Option<String>| {
        let time = text.as_deref().map(|text| time_of(text, now)).transpose();
        time.map_err(|e| Failure::from(IndexError::from(e)))
    };
    if let Some(after) = time(&args.after)? {
        filter.after_ns = Some(filter.after_ns.map_or(after, |there| there.max(after)));
    }
    if let Some(before) = time(&args.before)? {
        filter.before_ns = Some(filter.before_ns.map_or(before, |there| there.min(before)));
    }
    Ok(query)
}

/// The file that is searched with.
fn like_of(path: &Path, query: &Query, mode: Mode) -> Result<PathBuf, Failure> {
    if !query.is_empty() {
        return Err(Failure::usage("--like says what to search for: the query may only hold qualifiers then"));
    }
    if mode == Mode::Words {
        return Err(Failure::usage("--like searches by meaning, and --mode words does not"));
    }
    match std::fs::metadata(path) {
        Ok(about) if about.is_file() => Ok(canonical(path)?),
        Ok(_) => Err(Failure::usage(format!("{}: not a file", shown(path)))),
        Err(e) => Err(Failure::usage(format!("{}: {e}", shown(path)))),
    }
}

/// The model of `--rerank`: the one that is named, or the only one that is there.
fn reranker(named: Option<&Path>, args: &SearchArgs, stop: &Stop) -> Result<EngineReranker, Failure> {
    let path = match named {
        Some(path) => path.to_path_buf(),
        None => {
            let mut there = rerankers();
            match there.len() {
                1 => there.swap_remove(0),
                0 => {
                    let how = "name one, as --rerank MODEL, or fetch one: `omniburn pull BAAI/bge-reranker-v2-m3`";
                    return Err(Failure::usage(format!("--rerank: there is no record of a reranker; {how}")));
                }
                _ => {
                    let names: Vec<String> = there.iter().map(|path| shown(path)).collect();
                    let names = names.join(", ");
                    return Err(Failure::usage(format!("--rerank: several rerankers are there, name one: {names}")));
                }
            }
        }
    };
    let model = ModelArgs { model: Some(path), ..args.feeder.model_args() };
    Ok(EngineReranker::new(open_engine(&model)?, stop.cancel.clone())?)
}

/// The vector of a file: stored, or computed.
fn vector_like(index: &Index, model: &EngineEmbedder, path: &Path) -> Result<(Vec<f32>, Modality), Failure> {
    if let Some(stored) = index.stored_vector(path)? {
        return Ok(stored);
    }
    let file = |fault| Failure::from(IndexError::File { path: path.into(), fault });
    let content = content_of_file(path).map_err(file)?;
    let modality = content.modality();
    Ok((model.embed_one(content).map_err(file)?, modality))
}

/// Brings the index up to date; one that another process is at work on is searched as it is.
fn refresh(
    index: &mut Index,
    model: &EngineEmbedder,
    new: &[omniburn_index::Root],
    args: &SearchArgs,
    stop: &Stop,
) -> Result<(), Failure> {
    let quiet = args.feeder.quiet;
    let update = |index: &mut Index, roots: &[omniburn_index::Root], patience| {
        with_progress(quiet, stop, |control| index.update(model, roots, patience, control))
    };
    if !new.is_empty() {
        let report = update(index, new, Duration::from_secs(10))?;
        say_failed(&report.failed);
    } else if !args.no_refresh {
        match update(index, &[], Duration::ZERO) {
            Err(IndexError::Locked { holder, .. }) => {
                say(format_args!("{holder} is at work on the index: searched as it is"))
            }
            done => drop(done?),
        }
    }
    Ok(())
}

fn print(hits: &[Hit], args: &SearchArgs) -> Result<(), Failure> {
    if args.json {
        return hits.iter().try_for_each(|hit| json_line(&hit.body()));
    }
    if args.files {
        let mut seen = std::collections::HashSet::new();
        let mut bytes = Vec::new();
        for hit in hits.iter().filter(|hit| seen.insert(&hit.path)) {
            bytes.extend_from_slice(hit.path.as_os_str().as_encoded_bytes());
            bytes.push(if args.nul { 0 } else { b'\n' });
        }
        return write_stdout(&bytes);
    }
    // As https://no-color.org says.
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let text: String = hits.iter().map(|hit| block(hit, colours, args.explain)).collect();
    write_stdout(text.as_bytes())
}

/// A hit for people: where, how well, and its words.
fn block(hit: &Hit, colours: bool, explain: bool) -> String {
    let place = format!("{}{}", shown(&hit.path), hit.locator.shown());
    let mut text = if colours {
        // A link that terminals open: OSC 8.
        format!("\x1b]8;;{}\x1b\\\x1b[1m{place}\x1b[0m\x1b]8;;\x1b\\", uri_of(&hit.path))
    } else {
        place
    };
    let _ = writeln!(text, "  {:.2}  {}  {}", hit.score, hit.kind, hit.id);
    if let Some(title) = &hit.title {
        let _ = writeln!(text, "    {title}");
    }
    if !hit.snippet.text.is_empty() {
        let (mut shown, mut at) = (String::new(), 0);
        for range in hit.snippet.lit.iter().filter(|_| colours) {
            shown.push_str(&hit.snippet.text[at..range.start]);
            let _ = write!(shown, "\x1b[1;33m{}\x1b[0m", &hit.snippet.text[range.clone()]);
            at = range.end;
        }
        shown.push_str(&hit.snippet.text[at..]);
        let _ = writeln!(text, "    {shown}");
    }
    if explain {
        let rank = |rank: Option<usize>| rank.map_or_else(|| "-".to_string(), |rank| format!("#{rank}"));
        let [semantic, words, name] = hit.ranks.map(rank);
        let cosine = hit.scores.semantic.map_or_else(String::new, |cosine| format!(" (cosine {cosine:.3})"));
        let bm25 = hit.scores.words.map_or_else(String::new, |bm25| format!(" (bm25 {bm25:.2})"));
        let _ = writeln!(text, "    by meaning {semantic}{cosine}, by words {words}{bm25}, by name {name}");
        if let Some(Reranking { rank_before, outcome }) = &hit.reranking {
            let _ = match outcome {
                Ok(score) => writeln!(text, "    reranked {score:.3}, before #{rank_before}"),
                Err(why) => writeln!(text, "    not reranked ({why}), before #{rank_before}"),
            };
        }
    }
    text
}

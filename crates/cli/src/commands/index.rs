//! `omniburn index`: folders of mixed files into an index, kept true.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use omniburn_index::{
    Control, Embedder, EmbedderProfile, EngineEmbedder, FailedFile, Index, IndexError, News, Plan, Progress, Report,
    Root, Rules, canonical, shown_place, uri_of,
};
use serde::Serialize;

use super::mebibytes;
use super::place::{Stop, embedder, folder_of, shown, with_progress};
use crate::failure::{DONE, Failure, Outcome, SOME_FAILED};
use crate::find_args::{ExportFormat, IndexArgs, IndexCommand, IndexExportArgs, IndexImportArgs, IndexStatusArgs};
use crate::output::{OutFile, destination, json_line, write_stdout};
use crate::progress::{items_bar, say};

/// What a Parquet file begins with.
const PARQUET: &[u8] = b"PAR1";
/// How long one process waits for another that writes.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct FailedBody {
    path: String,
    uri: String,
    kind: String,
    message: String,
}

#[derive(Serialize)]
struct ReportBody {
    new: u64,
    changed: u64,
    unchanged: u64,
    removed: u64,
    renamed: u64,
    passed_over: u64,
    embedded: u64,
    failed: Vec<FailedBody>,
    seconds: f64,
}

#[derive(Serialize)]
struct PlanBody {
    dry_run: bool,
    new: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
    unchanged: u64,
    passed_over: u64,
    failed: Vec<FailedBody>,
}

#[derive(Serialize)]
struct StatusBody {
    index: String,
    model: String,
    identity: String,
    folders: Vec<String>,
    files: std::collections::BTreeMap<&'static str, u64>,
    chunks: u64,
    vectors: u64,
    bytes: u64,
    /// Seconds since 1970.
    updated: Option<f64>,
    failed: Vec<FailedBody>,
}

fn failed_body(failed: &FailedFile) -> FailedBody {
    FailedBody {
        path: failed.path.to_string_lossy().into_owned(),
        uri: uri_of(&failed.path),
        kind: failed.fault.kind.clone(),
        message: failed.fault.message.clone(),
    }
}

/// Brings an index up to date, or says what it holds.
///
/// # Errors
/// A usage failure, a refused index or model; a file that cannot be read is named and no error.
pub fn run(args: &IndexArgs) -> Outcome {
    match &args.command {
        Some(IndexCommand::Status(args)) => status(args),
        Some(IndexCommand::Remove(args)) => remove(args.index.as_deref(), &args.folders),
        Some(IndexCommand::Clean(args)) => {
            Index::open(&folder_of(args.index.as_deref())?)?.clean(PATIENCE)?;
            Ok(DONE)
        }
        Some(IndexCommand::Export(args)) => export(args),
        Some(IndexCommand::Import(args)) => import(args),
        None => update(args),
    }
}

fn update(args: &IndexArgs) -> Outcome {
    let folder = folder_of(args.index.as_deref())?;
    let rules = Rules {
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        kinds: args.kind.iter().flat_map(|kinds| &kinds.0).map(|kind| kind.name().to_string()).collect(),
        max_size: args.max_size,
    };
    if args.folders.is_empty() && rules != Rules::default() {
        return Err(Failure::usage("--kind, --include, --exclude and --max-size are rules of a folder: name one"));
    }
    let roots = args.folders.iter().map(|path| root_of(path, &rules)).collect::<Result<Vec<_>, _>>()?;
    if roots.is_empty() {
        // Before a model is opened for nothing.
        Index::open(&folder).map_err(nothing_yet)?;
    }
    let stop = Stop::at_interrupt();
    let begun = Instant::now();
    let embedder = embedder(&args.feeder, &stop)?;
    if args.dry_run {
        return plan(&folder, &embedder.profile(), &roots, args.json, &stop);
    }
    let mut index = Index::open_or_begin(&folder, &embedder.profile())?;
    let quiet = args.feeder.quiet || args.json;
    if args.watch {
        return watch(&mut index, &embedder, &roots, args, &stop);
    }
    let report = with_progress(quiet, &stop, |control| index.update(&embedder, &roots, PATIENCE, control))?;
    let seconds = begun.elapsed().as_secs_f64();
    say_report(&report, seconds, args.json)?;
    say_failed(&report.failed);
    Ok(if report.failed.is_empty() { DONE } else { SOME_FAILED })
}

/// A report on standard output.
fn say_report(report: &Report, seconds: f64, json: bool) -> Result<(), Failure> {
    if json { json_line(&report_body(report, seconds)) } else { write_stdout(summary(report, seconds).as_bytes()) }
}

/// Updates at once and then after every change, until Ctrl-C.
fn watch(index: &mut Index, embedder: &EngineEmbedder, roots: &[Root], args: &IndexArgs, stop: &Stop) -> Outcome {
    let quiet = args.feeder.quiet || args.json;
    let mut failed: Option<Vec<FailedFile>> = None;
    let mut unsaid: Option<Failure> = None;
    let mut begun = Instant::now();
    let bar = items_bar(Some(0), "indexing", quiet);
    let progress = |progress: Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    };
    let interrupted = || stop.is_asked();
    let mut tell = |news: News| {
        let said = match news {
            News::WithoutEvents { folder, why } => {
                let path = shown(&folder);
                say(format_args!("{path}: changes are not reported ({why}); it is looked through twice a minute"));
                Ok(())
            }
            News::Updated(report) => {
                bar.set_length(0);
                let first = failed.is_none();
                let did = report.new + report.changed + report.removed + report.renamed > 0;
                let others = failed.as_ref() != Some(&report.failed);
                let said = if first || did || others {
                    say_report(&report, begun.elapsed().as_secs_f64(), args.json)
                } else {
                    Ok(())
                };
                if others {
                    say_failed(&report.failed);
                }
                if first && !quiet {
                    say("watching for changes; Ctrl-C ends it");
                }
                failed = Some(report.failed);
                said
            }
        };
        begun = Instant::now();
        said.map_err(|failure| {
            unsaid = Some(failure);
            IndexError::Interrupted
        })
    };
    let control = Control { interrupted: &interrupted, progress: &progress };
    let ended = index.keep(embedder, roots, &control, &mut tell);
    bar.finish_and_clear();
    match (unsaid, ended) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(never)) => match never {},
    }
}

/// Says what an update would do.
fn plan(folder: &Path, profile: &EmbedderProfile, roots: &[Root], json: bool, stop: &Stop) -> Outcome {
    let interrupted = || stop.is_asked();
    let plan = match Index::open(folder) {
        Ok(index) => index.plan(profile, roots, &interrupted)?,
        Err(IndexError::Missing { .. }) => Index::plan_beginning(profile, roots, &interrupted)?,
        Err(error) => return Err(error.into()),
    };
    if json {
        let texts = |paths: &[PathBuf]| paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        json_line(&PlanBody {
            dry_run: true,
            new: texts(&plan.new),
            changed: texts(&plan.changed),
            removed: texts(&plan.removed),
            unchanged: plan.unchanged,
            passed_over: plan.passed_over,
            failed: plan.failed.iter().map(failed_body).collect(),
        })?;
    } else {
        let Plan { new, changed, removed, unchanged, passed_over, failed } = &plan;
        let mut text = String::new();
        for (what, paths) in [("new", new), ("changed", changed), ("removed", removed)] {
            for path in paths {
                text.push_str(&format!("{what:<9}{}\n", shown(path)));
            }
        }
        text.push_str(&format!(
            "{} new, {} changed, {unchanged} unchanged, {} removed, {} unreadable, {passed_over} passed over: nothing was done\n",
            new.len(),
            changed.len(),
            removed.len(),
            failed.len()
        ));
        write_stdout(text.as_bytes())?;
    }
    say_failed(&plan.failed);
    Ok(if plan.failed.is_empty() { DONE } else { SOME_FAILED })
}

fn export(args: &IndexExportArgs) -> Outcome {
    let index = Index::open(&folder_of(args.index.as_deref())?).map_err(nothing_yet)?;
    let to = args.out.as_deref().map(destination).transpose()?;
    let mut out = Lines { file: to.as_ref().map(OutFile::create).transpose()?, failed: None };
    let mut buffered = BufWriter::with_capacity(1 << 20, &mut out);
    let written = match args.format {
        ExportFormat::Jsonl => index.export(&mut buffered),
        ExportFormat::Parquet => index.export_parquet(&mut buffered),
    };
    drop(buffered);
    if let Some(failure) = out.failed {
        return Err(failure);
    }
    written?;
    out.file.map_or(Ok(()), OutFile::finish)?;
    Ok(DONE)
}

/// Standard output or a file, with the failure that a writer of bytes cannot tell.
struct Lines {
    file: Option<OutFile>,
    failed: Option<Failure>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.file {
            Some(file) => file.write(bytes),
            None => write_stdout(bytes),
        };
        match written {
            Ok(()) => Ok(bytes.len()),
            Err(failure) => {
                self.failed.get_or_insert(failure);
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn import(args: &IndexImportArgs) -> Outcome {
    let folder = folder_of(args.index.as_deref())?;
    let files = if args.file == Path::new("-") {
        let mut stdin = io::stdin().lock();
        if stdin.fill_buf().is_ok_and(|bytes| bytes.starts_with(PARQUET)) {
            return Err(Failure::usage("a Parquet export is read from its end: name the file in place of -"));
        }
        Index::import(&folder, &mut stdin)?
    } else {
        let unread = |e: io::Error| Failure::usage(format!("{}: {e}", shown(&args.file)));
        let mut open = File::open(&args.file).map_err(unread)?;
        let mut head = Vec::new();
        (&mut open).take(PARQUET.len() as u64).read_to_end(&mut head).map_err(unread)?;
        if head == PARQUET {
            open.rewind().map_err(unread)?;
            Index::import_parquet(&folder, open)?
        } else {
            Index::import(&folder, &mut BufReader::with_capacity(1 << 20, head.chain(open)))?
        }
    };
    write_stdout(format!("{files} files imported into {}\n", shown(&shown_place(&folder))).as_bytes())?;
    Ok(DONE)
}

/// A folder to be kept.
///
/// # Errors
/// A usage failure for what is no folder.
pub(super) fn root_of(path: &Path, rules: &Rules) -> Result<Root, Failure> {
    match std::fs::metadata(path) {
        Ok(about) if about.is_dir() => Ok(Root { path: canonical(path)?, rules: rules.clone() }),
        Ok(_) => Err(Failure::usage(format!("{}: not a folder; folders are indexed", shown(path)))),
        Err(e) => Err(Failure::usage(format!("{}: {e}", shown(path)))),
    }
}

/// What to do where there is no index.
pub(super) fn nothing_yet(error: omniburn_index::IndexError) -> Failure {
    match error {
        omniburn_index::IndexError::Missing { .. } => {
            Failure::usage("nothing is indexed yet: `omniburn index FOLDER` does that")
        }
        error => error.into(),
    }
}

fn report_body(report: &Report, seconds: f64) -> ReportBody {
    let Report { new, changed, unchanged, removed, renamed, passed_over, ref failed, embedded } = *report;
    let failed = failed.iter().map(failed_body).collect();
    ReportBody { new, changed, unchanged, removed, renamed, passed_over, embedded, failed, seconds }
}

fn summary(report: &Report, seconds: f64) -> String {
    let Report { new, changed, unchanged, removed, renamed, passed_over, failed, .. } = report;
    format!(
        "{new} new, {changed} changed, {unchanged} unchanged, {removed} removed, {renamed} renamed, {} failed, {passed_over} passed over, in {seconds:.1} s\n",
        failed.len()
    )
}

/// Names what could not be read.
pub(super) fn say_failed(failed: &[FailedFile]) {
    for FailedFile { path, fault } in failed {
        say(format_args!("failed: {}: {} ({})", shown(path), fault.message, fault.kind));
    }
}

fn status(args: &IndexStatusArgs) -> Outcome {
    let folder = folder_of(args.index.as_deref())?;
    let index = Index::open(&folder).map_err(nothing_yet)?;
    if args.verify {
        index.verify()?;
    }
    let status = index.status()?;
    if args.json {
        json_line(&StatusBody {
            index: shown_place(&folder).to_string_lossy().into_owned(),
            model: status.model,
            identity: status.identity,
            folders: status.folders.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            files: status.files.iter().map(|(kind, count)| (kind.name(), *count)).collect(),
            chunks: status.chunks,
            vectors: status.vectors,
            bytes: status.bytes,
            updated: status.updated_ns.map(|ns| ns as f64 / 1e9),
            failed: status.failed.iter().map(failed_body).collect(),
        })?;
        return Ok(DONE);
    }
    let mut text = format!("{}\n", shown(&shown_place(&folder)));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<10}{value}\n"));
    line("model", format!("{} ({})", status.model, status.identity));
    for path in &status.folders {
        line("folder", shown(path));
    }
    let files: Vec<String> = status.files.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    line("files", if files.is_empty() { "none".into() } else { files.join(", ") });
    line("chunks", format!("{}, {} vectors", status.chunks, status.vectors));
    line("size", mebibytes(status.bytes));
    line("updated", status.updated_ns.map_or_else(|| "never to the end".into(), ago));
    for FailedFile { path, fault } in &status.failed {
        line("failed", format!("{}: {} ({})", shown(path), fault.message, fault.kind));
    }
    write_stdout(text.as_bytes())?;
    Ok(DONE)
}

/// A time before now for people.
fn ago(at_ns: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    match now - at_ns / 1_000_000_000 {
        ..60 => "less than a minute ago".into(),
        seconds @ 60..7200 => format!("{} minutes ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} hours ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

fn remove(index: Option<&Path>, folders: &[PathBuf]) -> Outcome {
    let mut index = Index::open(&folder_of(index)?).map_err(nothing_yet)?;
    for folder in folders {
        let path = canonical(folder)?;
        let count = index.remove(&path, PATIENCE).map_err(|error| match error {
            omniburn_index::IndexError::Missing { path } => Failure::usage(format!(
                "{}: the index keeps no such folder; `omniburn index status` names them",
                shown(&path)
            )),
            error => error.into(),
        })?;
        write_stdout(format!("{count} files of {} forgotten\n", shown(&path)).as_bytes())?;
    }
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_a_unit_that_fits() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        let shown = |seconds: i64| ago((now - seconds) * 1_000_000_000);
        assert_eq!(
            [shown(5), shown(600), shown(10_000), shown(400_000)],
            ["less than a minute ago", "10 minutes ago", "2 hours ago", "4 days ago"]
        );
    }
}

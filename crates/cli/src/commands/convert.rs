//! `omniburn convert`: a checkpoint to a record folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use omniburn_convert::{ConvertOptions, ConvertReport, GivenAdapter, TaskChoice, convert};
use omniburn_output::folder;
use omniburn_output::identity::resolved;

use super::{cached_folder, checkpoint_folder, peak_memory};
use crate::args::ConvertArgs;
use crate::failure::{DONE, Failure, Outcome};
use crate::interrupt::on_interrupt;
use crate::output::{OutFile, Outputs, destination, write_stdout};
use crate::progress::{bytes_bar, say};

/// Converts, and prints the report.
///
/// # Errors
/// A usage failure for what was typed, a refusal for what the checkpoint holds; nothing is left behind.
pub fn run(args: &ConvertArgs) -> Outcome {
    let mut options = ConvertOptions::new(checkpoint_folder(&args.source)?, args.out.clone().unwrap_or_default());
    options.tasks = task_choice(args.task.as_deref());
    for &(modality, kind) in &args.template {
        if options.templates.insert(modality, kind).is_some() {
            return Err(Failure::usage(format!("--template: {modality} is given twice")));
        }
    }
    options.adapters = args.adapter.iter().map(|said| given_adapter(said)).collect();
    options.dtype = args.dtype;
    options.keep.clone_from(&args.keep);
    options.check = args.check;
    options.force = args.force;
    let report_to = args.report.as_deref().map(destination).transpose()?;
    if let Some(to) = &report_to {
        let outputs = Outputs::of([("--report", to)]);
        outputs.refuse_folder(&options.source)?;
        options.adapters.iter().try_for_each(|adapter| outputs.refuse_folder(&adapter.folder))?;
        let inside = |out: &PathBuf| to.resolved().is_some_and(|file| file.starts_with(record_at(out)));
        if !args.check && args.out.as_ref().is_some_and(inside) {
            let file = to.named().display();
            return Err(Failure::usage(format!("--report {file}: lies in OUT, which is replaced whole: name another")));
        }
    }
    let mut report_file = report_to.as_ref().map(OutFile::create).transpose()?;

    let bar = bytes_bar(0, "converting");
    let shown = bar.clone();
    options.progress = Some(Arc::new(move |done, total| {
        shown.set_length(total);
        shown.set_position(done);
    }));
    let cancel = Arc::clone(&options.cancel);
    on_interrupt(move || cancel.store(true, Ordering::SeqCst));
    let result = convert(&options);
    bar.finish_and_clear();

    let mut report = result?;
    report.peak_memory_bytes = peak_memory();
    if let Some(mut file) = report_file.take() {
        let mut json = serde_json::to_vec_pretty(&report).expect("a report is plain data and always serialises");
        json.push(b'\n');
        file.write(&json)?;
        file.finish()?;
    }
    match report_to {
        // Standard output holds JSON then.
        Some(to) if to.is_stdout() => say(for_people(&report).trim_end()),
        _ => write_stdout(for_people(&report).as_bytes())?,
    }
    Ok(DONE)
}

/// `--adapter` of a conversion: a folder, or a task and a folder, each also by its name in the cache.
fn given_adapter(said: &Path) -> GivenAdapter {
    let folder =
        |path: &Path| if path.exists() { None } else { cached_folder(path) }.unwrap_or_else(|| path.to_path_buf());
    match said.to_str().and_then(|text| text.split_once('=')) {
        // A folder may have the sign in its name.
        Some((task, rest)) if !said.exists() && !task.contains(['/', '\\']) => {
            GivenAdapter::named(task, folder(rest.as_ref()))
        }
        _ => GivenAdapter::new(folder(said)),
    }
}

/// Where the record will lie, links resolved.
fn record_at(out: &Path) -> PathBuf {
    resolved(&folder::destination(out).unwrap_or_else(|_| out.to_path_buf()))
}

/// `--task` of a conversion.
pub(super) fn task_choice(task: Option<&str>) -> TaskChoice {
    match task {
        None => TaskChoice::Default,
        Some("all") => TaskChoice::All,
        Some("none") => TaskChoice::None,
        Some(name) => TaskChoice::Named(name.into()),
    }
}

/// The report, with a word where the peak of memory cannot be read.
pub(super) fn for_people(report: &ConvertReport) -> String {
    let unknown = if report.peak_memory_bytes.is_none() { "peak memory unknown on this system\n" } else { "" };
    format!("{report}\n{unknown}")
}

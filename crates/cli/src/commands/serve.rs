//! `omniburn serve`: engines behind HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use omniburn::{DEFAULT_BUDGET_BYTES, EngineBuilder};
use omniburn_index::Index;
use omniburn_server::{IndexSource, ModelSource, Options, ServeError, Stop, serve};

use super::index::nothing_yet;
use super::models::reranks;
use super::place::{calibrations, folder_of};
use super::{builder_of, checked, shipped};
use crate::args::ComputeArgs;
use crate::failure::{DONE, Failure, Outcome, USAGE};
use crate::interrupt::on_interrupt;
use crate::progress::say;
use crate::serve_args::ServeArgs;

/// The name of the model that ships.
const SHIPPED: &str = "omniburn-mini";

/// Serves until interrupted.
///
/// # Errors
/// A usage failure, a refused record, or an address or device that cannot be used.
pub fn run(args: &ServeArgs) -> Outcome {
    let models = models(&args.model, &args.compute)?;
    let keys = args.api_key_file.as_deref().map(keys).transpose()?.unwrap_or_default();
    let address = SocketAddr::new(args.host, args.port);
    let options = Options {
        index: index(args.index.as_deref(), args.model.first(), !args.no_refresh, &models[0].names[0])?,
        keys,
        allow_hosts: args.allow_host.clone(),
        allow_origins: args.allow_origin.clone(),
        max_queue: args.max_queue.get(),
        idle_unload: args.idle_unload.map(Duration::from_secs),
        max_body: usize::try_from(args.max_body).unwrap_or(usize::MAX),
        max_inputs: args.max_inputs.get(),
        ..Options::new(address, models)
    };
    if !args.host.is_loopback() && options.keys.is_empty() {
        say(format_args!("warning: whoever reaches {} may use it; --api-key-file asks for a key", args.host));
    }
    let names: Vec<String> = options.models.iter().map(|model| model.names[0].clone()).collect();
    let stop = Stop::new();
    let stopping = stop.clone();
    on_interrupt(move || stopping.stop());
    let served = serve(options, &stop, |address| {
        say(format_args!("serving {} on http://{address}; Ctrl-C stops", names.join(", ")));
    });
    match served {
        Ok(()) => Ok(DONE),
        Err(ServeError::Model(error)) => Err(error.into()),
        Err(ServeError::Index(error)) => Err(error.into()),
        Err(error) => Err(Failure::with_code(USAGE, error)),
    }
}

/// The index that is named, or the user's own where there is one.
pub fn index(
    named: Option<&Path>,
    typed: Option<&String>,
    refresh: bool,
    model: &str,
) -> Result<Option<IndexSource>, Failure> {
    let required = named.is_some();
    let folder = match folder_of(named) {
        Ok(folder) => folder,
        Err(_) if !required => return Ok(None),
        Err(failure) => return Err(failure),
    };
    match Index::open(&folder) {
        Ok(_) => {}
        Err(error) if required => return Err(nothing_yet(error)),
        Err(_) => return Ok(None),
    }
    let record = typed.filter(|typed| !names_shipped(split(typed).1)).map(|typed| record_of(typed)).transpose()?;
    let calibrations = calibrations(record.as_deref())?;
    let open = move || {
        let mut index = Index::open(&folder)?;
        calibrations.iter().try_for_each(|one| index.calibrate(one.clone()))?;
        Ok(index)
    };
    Ok(Some(IndexSource {
        model: model.to_owned(),
        open: Arc::new(open),
        home: std::env::home_dir(),
        required,
        refresh,
    }))
}

/// A name and a path as typed. A folder may have the sign in its name, too.
fn split(typed: &str) -> (Option<&str>, &Path) {
    match typed.split_once('=') {
        Some((name, path)) if !Path::new(typed).exists() => (Some(name), Path::new(path)),
        _ => (None, Path::new(typed)),
    }
}

fn record_of(typed: &str) -> Result<PathBuf, Failure> {
    checked(split(typed).1)
}

/// Whether a model is the one that ships, by its name, and no folder of that name.
fn names_shipped(path: &Path) -> bool {
    path == Path::new(SHIPPED) && !path.exists()
}

/// The models as typed, or the one that ships; a budget is shared among them.
pub fn models(typed: &[String], compute: &ComputeArgs) -> Result<Vec<ModelSource>, Failure> {
    let count = typed.len().max(1) as u64;
    let budget = compute.budget.unwrap_or(DEFAULT_BUDGET_BYTES) / count;
    let compute = ComputeArgs { budget: Some(budget), ..*compute };
    let mut models: Vec<ModelSource> = Vec::new();
    if typed.is_empty() {
        models.push(source(vec![SHIPPED.to_owned()], false, builder_of(shipped()?, &compute)?));
    }
    for typed in typed {
        let (name, path) = split(typed);
        let names = names(name, path);
        if names.iter().any(String::is_empty) {
            return Err(Failure::usage(format!("--model {typed}: a name is missing; expected NAME=DIR")));
        }
        if let Some(twice) = names.iter().find(|name| models.iter().any(|model| model.names.contains(name))) {
            return Err(Failure::usage(format!("two models are called `{twice}`: name one with --model NAME=DIR")));
        }
        let (reranks, builder) = if names_shipped(path) {
            (false, shipped()?)
        } else {
            let record = checked(path)?;
            (reranks(&record), omniburn::Engine::builder(record))
        };
        models.push(source(names, reranks, builder_of(builder, &compute)?));
    }
    Ok(models)
}

/// The name given, or the path as typed and its last part.
fn names(name: Option<&str>, path: &Path) -> Vec<String> {
    if let Some(name) = name {
        return vec![name.to_owned()];
    }
    let whole = path.to_string_lossy().trim_end_matches('/').to_owned();
    let last = path.file_name().map(|last| last.to_string_lossy().into_owned()).unwrap_or_default();
    if last == whole { vec![whole] } else { vec![last, whole] }
}

fn source(names: Vec<String>, reranks: bool, builder: EngineBuilder) -> ModelSource {
    ModelSource { names, reranks, open: Arc::new(move || builder.clone().open()) }
}

fn keys(path: &Path) -> Result<Vec<String>, Failure> {
    let unreadable = |why: String| Failure::usage(format!("--api-key-file {}: {why}", path.display()));
    let text = std::fs::read_to_string(PathBuf::from(path)).map_err(|error| unreadable(error.to_string()))?;
    let keys: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if keys.is_empty() {
        return Err(unreadable("no key in it; expected one a line".into()));
    }
    Ok(keys)
}

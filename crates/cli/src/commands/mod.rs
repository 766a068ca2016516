//! One file a verb, and what several of them share.

pub mod bench;
pub mod calibrate;
pub mod compare;
pub mod completions;
pub mod convert;
#[cfg(feature = "mini")]
pub mod demo;
pub mod doctor;
pub mod embed;
pub mod get;
mod hf_cache;
pub mod index;
pub mod inspect;
mod kernels;
pub mod man;
#[cfg(feature = "serve")]
pub mod mcp;
pub mod models;
mod place;
#[cfg(feature = "hub")]
pub mod pull;
pub mod replay;
pub mod rerank;
pub mod search;
#[cfg(feature = "serve")]
pub mod serve;
mod user_folders;

use std::path::{Path, PathBuf};

use omniburn::kernels::KernelChoice;
use omniburn::record::VERIFY_SMALL_BYTES;
use omniburn::{BackendKind, BackendSpec, Engine, EngineBuilder, OutputKind, RecordFolder, Request, Role};
use omniburn_convert::find_in_hf_cache;

use crate::args::{ComputeArgs, ModelArgs};
use crate::failure::Failure;

const HOW_TO_GET_A_MODEL: &str = "make a record with `omniburn convert CHECKPOINT OUT` and name it with --model OUT, or fetch one with `omniburn pull ORG/NAME`";

/// Opens the record that `--model` names, or the model that ships, with the kernels that were measured before.
fn open_engine(args: &ModelArgs) -> Result<Engine, Failure> {
    open_engine_with(args, kernels::kept)
}

/// As [`open_engine`], with a choice of kernels that is asked for only where nothing was forced and a CPU computes.
fn open_engine_with(args: &ModelArgs, kernels: fn() -> Option<KernelChoice>) -> Result<Engine, Failure> {
    let mut builder = match &args.model {
        Some(path) => Engine::builder(checked(path)?),
        None => shipped()?,
    };
    builder = builder_with(builder, &args.compute, kernels)?;
    if let Some(task) = &args.task {
        builder = builder.task(task);
    }
    Ok(builder.open()?)
}

/// An engine that computes where the arguments say, with the kernels that were measured before.
#[cfg(feature = "serve")]
fn builder_of(builder: EngineBuilder, args: &ComputeArgs) -> Result<EngineBuilder, Failure> {
    builder_with(builder, args, kernels::kept)
}

fn builder_with(
    mut builder: EngineBuilder,
    args: &ComputeArgs,
    kernels: fn() -> Option<KernelChoice>,
) -> Result<EngineBuilder, Failure> {
    let ComputeArgs { device, dtype, budget, threads, isa } = *args;
    if isa.is_some() {
        omniburn::Isa::force(isa).map_err(|error| Failure::usage(error.to_string()))?;
    }
    if isa.is_none() && device.kind == BackendKind::Flex {
        builder = with_kernels(builder, kernels());
    }
    builder = builder.device(device);
    if let Some(dtype) = dtype {
        builder = builder.dtype(dtype);
    }
    if let Some(budget) = budget {
        builder = builder.budget(budget);
    }
    if let Some(threads) = threads {
        builder = builder.threads(threads.get());
    }
    Ok(with_tuning(builder, device))
}

/// Lets a device other than flex keep its tuning in the user's cache.
fn with_tuning(builder: EngineBuilder, device: BackendSpec) -> EngineBuilder {
    match tuning_folder(device) {
        Some(folder) => builder.tuning(folder),
        None => builder,
    }
}

/// Gives an engine its choice of kernels, where there is one.
fn with_kernels(builder: EngineBuilder, kernels: Option<KernelChoice>) -> EngineBuilder {
    match kernels {
        Some(choice) => builder.kernels(choice),
        None => builder,
    }
}

/// Where tuning of a device is kept: nowhere for flex, which tunes nothing, and where no cache folder is known.
fn tuning_folder(device: BackendSpec) -> Option<PathBuf> {
    if device.kind == BackendKind::Flex {
        return None;
    }
    user_folders::cache().map(|cache| cache.join("tuning"))
}

#[cfg(feature = "mini")]
fn shipped() -> Result<EngineBuilder, Failure> {
    Ok(Engine::mini_builder())
}

#[cfg(not(feature = "mini"))]
fn shipped() -> Result<EngineBuilder, Failure> {
    Err(Failure::usage(format!("no model given, and none is inside this build: {HOW_TO_GET_A_MODEL}")))
}

/// A record folder whose small files are as their digests say.
///
/// What is no folder here may be the name of a record that `pull` made.
fn checked(named: &Path) -> Result<PathBuf, Failure> {
    let path = &if named.exists() { named.to_path_buf() } else { pulled(named).unwrap_or_else(|| named.into()) };
    if !path.exists() {
        return Err(Failure::usage(format!("{}: no such model; {HOW_TO_GET_A_MODEL}", path.display())));
    }
    if is_checkpoint(path) {
        let (path, how) = (path.display(), "`omniburn convert` makes one of it");
        let error = anyhow::anyhow!("{path}: this is a Hugging Face checkpoint, not a record: {how}");
        return Err(Failure::with_code(crate::failure::REFUSED, error));
    }
    let record = RecordFolder::open(path)?;
    // Small files are read against their digests before anything is computed, also those that no input needs.
    for (file, _) in record.header().files.iter().filter(|(_, entry)| entry.bytes <= VERIFY_SMALL_BYTES) {
        record.verify_file(file)?;
    }
    Ok(path.clone())
}

/// The record that `pull` made of a model with this name.
fn pulled(named: &Path) -> Option<PathBuf> {
    let plain = |part: &std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    let record = user_folders::records()?.join(named);
    (named.components().all(|part| plain(&part)) && record.join("model.json").is_file()).then_some(record)
}

/// A request as `--dim`, `--truncate` and `--frames` want it, checked before any input is read.
fn request(engine: &Engine, args: &ModelArgs, role: Role) -> Result<Request, Failure> {
    let mut request = Request::new(role).truncation(args.truncate.into());
    if let Some(dim) = args.dim {
        request = request.dim(dim);
    }
    if let Some(frames) = args.frames {
        request = request.frames(frames.get());
    }
    engine.embed_with(&[], &request)?;
    Ok(request)
}

/// What the model of an engine gives unless something else is asked for.
fn first_output(engine: &Engine) -> OutputKind {
    engine.profile().outputs.first().and_then(|name| OutputKind::of_name(name)).unwrap_or(OutputKind::Dense)
}

/// A folder in Hugging Face layout, and no record.
fn is_checkpoint(path: &Path) -> bool {
    path.join("config.json").is_file() && !path.join("model.json").is_file()
}

/// A folder, or what lies under `ORG/NAME` in the Hugging Face cache of this machine; nothing is downloaded.
fn checkpoint_folder(source: &Path) -> Result<PathBuf, Failure> {
    if source.exists() {
        return Ok(source.to_path_buf());
    }
    if let Some(found) = cached_folder(source) {
        return Ok(found);
    }
    let caches = hf_caches();
    let names: Vec<String> = caches.iter().map(|cache| cache.display().to_string()).collect();
    let names = names.join(" or ");
    let sought = if names.is_empty() { names } else { format!(", and none of that name in {names}") };
    Err(Failure::usage(format!(
        "{}: no such folder{sought}; nothing is downloaded: `omniburn pull` does that",
        source.display()
    )))
}

/// The folder of `ORG/NAME` in the Hugging Face caches of this machine.
fn cached_folder(name: &Path) -> Option<PathBuf> {
    let name = name.to_str()?;
    hf_caches().iter().find_map(|cache| find_in_hf_cache(cache, name))
}

fn hf_caches() -> Vec<PathBuf> {
    hf_cache::folders(|name| std::env::var_os(name), std::env::home_dir())
}

fn mebibytes(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// Peak resident memory of this process since it began or since [`forget_peak_memory`], where the operating system tells.
fn peak_memory() -> Option<u64> {
    peak_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Lets the peak begin anew, where the operating system can.
fn forget_peak_memory() {
    // Where it cannot, the peak is that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        // Names to the left, numbers to the right.
        let cells = row.iter().zip(&widths).enumerate().map(|(c, (cell, width))| match c {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(&format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [["a", "bb", "1"], ["ccc", "d", "22"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "  a    bb   1\n  ccc  d   22\n");
    }

    #[test]
    fn bytes_are_told_in_a_unit_that_fits() {
        assert_eq!([512, 3 << 20, 5 << 30].map(mebibytes), ["0.5 KiB", "3.0 MiB", "5.00 GiB"]);
    }

    #[test]
    fn the_peak_of_memory_is_read_in_kibibytes() {
        assert_eq!(peak_of("Name:\tx\nVmHWM:\t   12340 kB\nVmRSS:\t 1 kB\n"), Some(12_340 * 1024));
        assert_eq!(peak_of("Name:\tx\n"), None);
    }
}

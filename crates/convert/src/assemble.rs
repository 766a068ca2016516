//! Making the tensors of a record, one at a time, and writing them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use omniburn_models::RecordError;
use omniburn_models::record::affine::{AffineFormat, AffineRows, Packed, PanelFormat, PanelLayout};
use omniburn_models::record::digest::{sha256_hex, sha256_read};
use omniburn_models::record::int8::{self, Int8Rows};
use omniburn_models::record::{Dtype, Part, PartTensor, RecordFolder, RecordWriter, SourceEntry, TOKENIZER_FILE};
use omniburn_models::record::{TensorRole, TensorSpec};
use rayon::prelude::*;

use crate::error::{ConvertError, NonFiniteFault};
use crate::layout;
use crate::lora::{Adapter, Change};
use crate::options::{ConvertOptions, Progress};
use crate::plan::{PartPlan, Plan, SourceFile, module_kind, packed_groups, stored_dtype, stored_panels};
use crate::recipes::{Input, Piece, Recipe};
use crate::report::{ConvertReport, Rounding};
use crate::source::Source;

/// Writes the record that a plan describes, checks it, and puts it in its place.
///
/// # Errors
/// Whatever reading, merging, rounding, writing or checking gives; the destination is then as it was.
pub(crate) fn write(plan: Plan, options: &ConvertOptions) -> Result<ConvertReport, ConvertError> {
    let cancel = Arc::clone(&options.cancel);
    let meter = Meter::new(options.progress.clone(), 2 * plan.tensor_bytes());
    let mut writer = RecordWriter::create(&options.out, options.force)?;
    let Plan { source, parts, mut header, tokenizer, source_files, mut report } = plan;
    let hashes = SourceHashes::start(source_files, Arc::clone(&cancel))?;

    let check = NonFiniteCheck::new(&source, &parts);
    let mut losses = Losses::new();
    let mut merged: BTreeMap<usize, Changes> = BTreeMap::new();
    for part in parts {
        tracing::info!(file = part.file, tensors = part.recipes.len(), "writing");
        let adapter = part.adapter.as_ref().map(|(index, _)| *index);
        let file = part.file.clone();
        let (changes, lost) = write_part(&mut writer, part, &source, header.dtype, &cancel, &meter)
            .map_err(|error| check.complete(error))?;
        if let Some(part) = report.parts.iter_mut().find(|part| part.file == file) {
            part.rounding = rounding(&lost);
        }
        losses.extend(lost);
        if let Some(index) = adapter {
            // A part that all tasks share is changed by the one adapter there is.
            merged.entry(index).or_default().extend(changes);
        }
    }
    merged.iter().for_each(|(index, changes)| fill_norms(&mut report, *index, changes));
    match tokenizer.as_ref().map(|tokenizer| (&tokenizer.content, &tokenizer.path)) {
        Some((Some(content), _)) => writer.write_file(TOKENIZER_FILE, content)?,
        Some((None, path)) => writer.copy_file(TOKENIZER_FILE, path)?,
        None => {}
    }
    header.sources = hashes.finish()?;
    let header = writer.seal(header)?;
    verify(writer.work_folder(), &cancel, &meter)?;
    stop_if(&cancel)?;
    if let Some(left) = writer.place()? {
        tracing::warn!("{left}");
        report.notes.push(left.to_string());
    }
    report.bytes_written = header.files.values().map(|file| file.bytes).sum();
    report.digest = Some(header.digest);
    report.rounding = rounding(&losses);
    Ok(report)
}

fn stop_if(cancel: &AtomicBool) -> Result<(), ConvertError> {
    if cancel.load(Ordering::Relaxed) { Err(ConvertError::Cancelled) } else { Ok(()) }
}

/// Tells the caller how far the work is: every byte of the record counts once written and once checked.
#[derive(Clone)]
struct Meter {
    progress: Option<Progress>,
    done: Arc<AtomicU64>,
    total: u64,
}

impl Meter {
    fn new(progress: Option<Progress>, total: u64) -> Self {
        Self { progress, done: Arc::default(), total }
    }

    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = &self.progress {
            progress(done, self.total);
        }
    }
}

/// What merging did, by name of the weight.
type Changes = BTreeMap<String, Change>;

/// What rounding cost, by name of the tensor: squares of the values, and of what was lost.
type Losses = BTreeMap<String, (f64, f64)>;

/// The whole of it.
fn rounding(losses: &Losses) -> Option<Rounding> {
    let ratio = |&(there, lost): &(f64, f64)| if there > 0.0 { (lost / there).sqrt() } else { 0.0 };
    let (there, lost) = losses.values().fold((0.0, 0.0), |(there, lost), (t, l)| (there + t, lost + l));
    let (worst_tensor, worst) = losses.iter().max_by(|(_, a), (_, b)| ratio(a).total_cmp(&ratio(b)))?;
    Some(Rounding { relative: ratio(&(there, lost)), worst_tensor: worst_tensor.clone(), worst: ratio(worst) })
}

/// What the closures of one part share. The record's writer knows text reasons only, so the typed one waits here.
struct Shared {
    source: Arc<Source>,
    adapter: Option<Arc<Adapter>>,
    dtype: Dtype,
    cancel: Arc<AtomicBool>,
    changes: Mutex<Changes>,
    losses: Mutex<Losses>,
    error: Mutex<Option<ConvertError>>,
}

fn write_part(
    writer: &mut RecordWriter,
    part: PartPlan,
    source: &Arc<Source>,
    dtype: Dtype,
    cancel: &Arc<AtomicBool>,
    meter: &Meter,
) -> Result<(Changes, Losses), ConvertError> {
    let shared = Arc::new(Shared {
        source: Arc::clone(source),
        adapter: part.adapter.map(|(_, adapter)| adapter),
        dtype,
        cancel: Arc::clone(cancel),
        changes: Mutex::default(),
        losses: Mutex::default(),
        error: Mutex::default(),
    });
    let tensors = part.recipes.into_iter().flat_map(|recipe| tensors(recipe, &shared)).collect();
    let meter = meter.clone();
    let written = writer.write_part(&part.file, tensors, move |bytes| meter.add(bytes));
    let typed = shared.error.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (written, typed) {
        (Ok(()), _) => Ok((
            std::mem::take(&mut *shared.changes.lock().unwrap_or_else(PoisonError::into_inner)),
            std::mem::take(&mut *shared.losses.lock().unwrap_or_else(PoisonError::into_inner)),
        )),
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => Err(error.into()),
    }
}

/// A tensor of the record, with its scales behind it where it is stored in int8.
fn tensors(recipe: Recipe, shared: &Arc<Shared>) -> Vec<PartTensor> {
    let dtype = stored_dtype(&recipe, &shared.source, shared.adapter.as_deref(), shared.dtype);
    let spec = recipe.spec.clone();
    let panels = stored_panels(&recipe, &shared.source, shared.adapter.as_deref(), shared.dtype);
    if let Some((layout, format)) = panels.and_then(|layout| Some((layout, affine_of(layout)?))) {
        let shared = Arc::clone(shared);
        let make = move || shared.text_reason(shared.make_affine(&recipe, layout, format));
        return vec![PartTensor::packed(spec.name, dtype, layout, make)];
    }
    if dtype != Dtype::Int8 {
        let shared = Arc::clone(shared);
        let make = move || shared.text_reason(shared.make(&recipe, dtype));
        let panels = spec.panels(dtype);
        return vec![PartTensor::new(spec.name, dtype, spec.shape, make).in_panels(panels)];
    }
    // The scales come with the codes and wait here for their turn.
    let waiting: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let (kept, recipe) = (Arc::clone(&waiting), Arc::new(recipe));
    let codes = {
        let (shared, recipe) = (Arc::clone(shared), Arc::clone(&recipe));
        move || {
            let Int8Rows { codes, scales } = shared.text_reason(shared.make_int8(&recipe))?;
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(scales);
            Ok(codes)
        }
    };
    let scales = {
        let shared = Arc::clone(shared);
        move || match waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(scales) => Ok(scales),
            None => Ok(shared.text_reason(shared.make_int8(&recipe))?.scales),
        }
    };
    let (scale, panels) = (spec.scale(), spec.panels(dtype));
    vec![
        PartTensor::new(spec.name, dtype, spec.shape, codes).in_panels(panels),
        PartTensor::new(scale.name, Dtype::F16, scale.shape, scales),
    ]
}

/// The groups of a layout that has them.
fn affine_of(layout: PanelLayout) -> Option<AffineFormat> {
    match layout.format {
        PanelFormat::Affine(format) => Some(format),
        _ => None,
    }
}

impl Shared {
    /// Keeps a typed error for the caller and gives its text to the writer.
    fn text_reason<T>(&self, made: Result<T, ConvertError>) -> Result<T, String> {
        made.map_err(|error| {
            let text = error.to_string();
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            text
        })
    }

    /// One tensor of the record in int8: rows of the checkpoint's axis order, turned afterwards where the record's is
    /// another.
    fn make_int8(&self, recipe: &Recipe) -> Result<Int8Rows, ConvertError> {
        // Rows of a large table taken together.
        const ROWS: usize = 1024;
        stop_if(&self.cancel)?;
        let spec = &recipe.spec;
        let width = spec.elements() / spec.row_count();
        let rows = match (spec.role, recipe.pieces.as_slice()) {
            (TensorRole::Tokens, [Piece::Tensor(input)]) if !self.changes(input) => {
                let (dtype, bytes) = self.source.read(&input.name)?;
                let pieces = bytes.par_chunks(ROWS * width * dtype.bytes());
                let pieces: Vec<Int8Rows> =
                    pieces.map(|piece| int8::quantize(&layout::widen(dtype, piece), width)).collect();
                let join = |of: fn(&Int8Rows) -> &[u8]| pieces.iter().flat_map(of).copied().collect();
                Int8Rows { codes: join(|rows| &rows.codes), scales: join(|rows| &rows.scales) }
            }
            (_, pieces) => {
                let values = self.rows(pieces)?;
                let rows = int8::quantize(&values, width);
                self.note(spec, layout::rounding_int8(&rows, &values, width));
                rows
            }
        };
        let beyond = layout::count_non_finite(Dtype::F16, &rows.scales);
        if beyond > 0 {
            let tensor = spec.name.clone();
            return Err(ConvertError::BeyondRange { tensor, dtype: Dtype::Int8, count: beyond });
        }
        let turned = spec.role == TensorRole::Linear;
        Ok(if turned { Int8Rows { codes: layout::transpose_bytes(&rows.codes, width), ..rows } } else { rows })
    }

    /// One matrix of the record in affine groups, which run along the rows of the checkpoint's axis order.
    fn make_affine(&self, recipe: &Recipe, layout: PanelLayout, format: AffineFormat) -> Result<Packed, ConvertError> {
        stop_if(&self.cancel)?;
        let (spec, values) = (&recipe.spec, self.rows(&recipe.pieces)?);
        if packed_groups(recipe, &self.source, self.adapter.as_deref(), self.dtype).is_some() {
            let mut rows = AffineRows { codes: Vec::new(), scales: Vec::new(), offsets: Vec::new() };
            for input in recipe.inputs() {
                let own = self.source.affine(&input.name)?;
                rows.codes.extend(own.codes);
                rows.scales.extend(own.scales);
                rows.offsets.extend(own.offsets);
            }
            self.note(spec, layout::rounding_between(&values, &rows.to_f32(layout.inputs, format)));
            return Ok(Packed::from_affine(layout, &rows));
        }
        let rows = AffineRows::quantize(&values, layout.inputs, format);
        let count = rows.non_finite();
        if count > 0 {
            let dtype = if format.bits() == 8 { Dtype::Affine8 } else { Dtype::Affine4 };
            return Err(ConvertError::BeyondRange { tensor: spec.name.clone(), dtype, count });
        }
        self.note(spec, layout::rounding_between(&values, &rows.to_f32(layout.inputs, format)));
        Ok(Packed::from_affine(layout, &rows))
    }

    /// Bytes of one tensor of the record.
    fn make(&self, recipe: &Recipe, dtype: Dtype) -> Result<Vec<u8>, ConvertError> {
        stop_if(&self.cancel)?;
        let bytes = match (recipe.spec.role, recipe.pieces.as_slice()) {
            (TensorRole::Tokens, [Piece::Tensor(input)]) if !self.changes(input) => {
                let (own, bytes) = self.source.read(&input.name)?;
                if own == dtype {
                    return Ok(bytes);
                }
                // It was packed, or was changed back as it was read.
                layout::narrow(dtype, &layout::widen(own, &bytes))
            }
            (TensorRole::Tokens, [Piece::Tensor(input)]) => layout::narrow(dtype, &self.values(input)?),
            (TensorRole::Tokens, _) => unreachable!("the token table is one tensor"),
            (TensorRole::Exact, pieces) => layout::narrow(dtype, &self.rows(pieces)?),
            (TensorRole::Rows, pieces) => layout::narrow(dtype, &self.noted(recipe, pieces, dtype)?),
            (TensorRole::Scale, _) => unreachable!("scales come with their tensor"),
            (TensorRole::Linear, pieces) => {
                layout::transpose_narrow(dtype, &self.noted(recipe, pieces, dtype)?, recipe.spec.shape[0])
            }
        };
        match layout::count_non_finite(dtype, &bytes) {
            0 => Ok(bytes),
            count => Err(ConvertError::BeyondRange { tensor: recipe.spec.name.clone(), dtype, count }),
        }
    }

    /// [`Shared::rows`], with what rounding them will cost written down.
    fn noted(&self, recipe: &Recipe, pieces: &[Piece], dtype: Dtype) -> Result<Vec<f32>, ConvertError> {
        let rows = self.rows(pieces)?;
        self.note(&recipe.spec, layout::rounding(dtype, &rows));
        Ok(rows)
    }

    fn note(&self, spec: &TensorSpec, lost: (f64, f64)) {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner).insert(spec.name.clone(), lost);
    }

    /// All pieces one after the other, `[outputs, inputs]`.
    fn rows(&self, pieces: &[Piece]) -> Result<Vec<f32>, ConvertError> {
        if let [only] = pieces {
            return self.piece(only);
        }
        let mut rows = Vec::new();
        for piece in pieces {
            rows.extend(self.piece(piece)?);
        }
        Ok(rows)
    }

    fn piece(&self, piece: &Piece) -> Result<Vec<f32>, ConvertError> {
        match piece {
            Piece::Tensor(input) => self.values(input),
            Piece::Zeros(n) => Ok(vec![0.0; *n]),
            Piece::FoldedWeight { outer, inner } => {
                let (middle, inputs) = (inner.forms[0].shape[0], inner.forms[0].shape[1]);
                Ok(layout::product(&self.values(outer)?, &self.values(inner)?, middle, inputs))
            }
            Piece::FoldedBias { outer, inner, own } => {
                let middle = inner.forms[0].shape[0];
                let mut bias = layout::product(&self.values(outer)?, &self.values(inner)?, middle, 1);
                for (bias, own) in bias.iter_mut().zip(self.values(own)?) {
                    *bias += own;
                }
                Ok(bias)
            }
            Piece::RowDifference { table, plus, minus } if self.changes(table) => {
                let (rows, width) = (self.values(table)?, table.forms[0].shape[1]);
                let row = |index: &u32| &rows[*index as usize * width..][..width];
                Ok(row(plus).iter().zip(row(minus)).map(|(plus, minus)| plus - minus).collect())
            }
            Piece::RowDifference { table, plus, minus } => {
                let (dtype, bytes) = self.source.read(&table.name)?;
                let width = table.forms[0].shape[1] * dtype.bytes();
                let row = |index: &u32| layout::widen(dtype, &bytes[*index as usize * width..][..width]);
                Ok(row(plus).iter().zip(row(minus)).map(|(plus, minus)| plus - minus).collect())
            }
        }
    }

    /// Whether the adapter changes a tensor.
    fn changes(&self, input: &Input) -> bool {
        self.adapter.as_ref().is_some_and(|adapter| adapter.changes(&input.name))
    }

    /// A tensor in the order computed with, as the adapter leaves it where it changes it.
    fn values(&self, input: &Input) -> Result<Vec<f32>, ConvertError> {
        let form = self.source.shape(&input.name).and_then(|shape| input.form(shape)).expect("the shape was checked");
        let read = || self.source.read_f32(&input.name);
        let values = match self.adapter.as_ref().filter(|adapter| adapter.changes(&input.name)) {
            None => read()?,
            Some(adapter) => {
                let (values, change) = adapter.changed(&input.name, &form.shape, read)?;
                if let Some(change) = change {
                    let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
                    changes.insert(input.name.clone(), change);
                }
                values
            }
        };
        Ok(match &form.order {
            Some(order) => layout::permute(&values, &form.shape, order),
            None => values,
        })
    }
}

/// Mean relative norms by kind of module, into the report of the adapter at `index`.
fn fill_norms(report: &mut ConvertReport, index: usize, changes: &Changes) {
    for (kind, module) in &mut report.lora[index].modules {
        let ratios: Vec<f64> = changes
            .iter()
            .filter(|(name, change)| module_kind(name) == kind && change.there > 0.0)
            .map(|(_, change)| change.added / change.there)
            .collect();
        if !ratios.is_empty() {
            module.mean_relative_norm = Some(ratios.iter().sum::<f64>() / ratios.len() as f64);
        }
    }
}

/// Finds every tensor with NaN or infinite values once one was found, so that the refusal names them all.
struct NonFiniteCheck {
    source: Arc<Source>,
    names: Vec<String>,
    adapters: Vec<Arc<Adapter>>,
}

impl NonFiniteCheck {
    fn new(source: &Arc<Source>, parts: &[PartPlan]) -> Self {
        let inputs = parts.iter().flat_map(|part| &part.recipes).flat_map(Recipe::inputs);
        let mut names: Vec<String> = inputs.map(|input| input.name.clone()).collect();
        names.sort();
        names.dedup();
        let of_tasks = parts.iter().filter(|part| part.task.is_some()).filter_map(|part| part.adapter.as_ref());
        let adapters = of_tasks.map(|(_, adapter)| Arc::clone(adapter)).collect();
        Self { source: Arc::clone(source), names, adapters }
    }

    /// The same error with the whole list, if it is one of that kind.
    fn complete(&self, error: ConvertError) -> ConvertError {
        match error {
            ConvertError::NonFinite { .. } => match self.scan() {
                Ok(faults) => ConvertError::NonFinite { path: self.source.folder().to_path_buf(), faults },
                Err(other) => other,
            },
            other => other,
        }
    }

    fn scan(&self) -> Result<Vec<NonFiniteFault>, ConvertError> {
        let mut counts = Vec::new();
        for name in &self.names {
            counts.push((self.source.own_name(name).to_string(), self.source.non_finite(name)?));
        }
        for adapter in &self.adapters {
            let file = adapter.short_name();
            counts.extend(
                adapter.non_finite(&self.names)?.into_iter().map(|(key, count)| (format!("{file}: {key}"), count)),
            );
        }
        let bad = counts.into_iter().filter(|(_, count)| *count > 0);
        Ok(bad.map(|(tensor, count)| NonFiniteFault { tensor, count }).collect())
    }
}

/// Opens the sealed record as any reader would, and compares what lies on disk with what was made.
fn verify(folder: &Path, cancel: &AtomicBool, meter: &Meter) -> Result<(), ConvertError> {
    let record = RecordFolder::open(folder)?;
    for (file, specs) in record.parts() {
        for group in groups(&specs) {
            // Mapped anew for each group: the pages a map has touched stay with the process until it is gone.
            let part = record.part(&file, &specs)?;
            group.par_iter().try_for_each(|spec| verify_tensor(&record, &file, &part, spec, cancel, meter))?;
        }
    }
    if record.header().files.contains_key(TOKENIZER_FILE) {
        record.verify_file(TOKENIZER_FILE)?;
    }
    Ok(())
}

/// Specs in groups of about as many elements as a large matrix has, or one larger tensor.
fn groups(specs: &[TensorSpec]) -> impl Iterator<Item = &[TensorSpec]> {
    const ELEMENTS: usize = 1 << 24;
    let mut rest = specs;
    std::iter::from_fn(move || {
        let mut elements = 0;
        let fits = |spec: &&TensorSpec| {
            elements += spec.elements();
            elements <= ELEMENTS
        };
        let n = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (group, after) = rest.split_at(n);
        rest = after;
        (!group.is_empty()).then_some(group)
    })
}

fn verify_tensor(
    record: &RecordFolder,
    file: &str,
    part: &Part,
    spec: &TensorSpec,
    cancel: &AtomicBool,
    meter: &Meter,
) -> Result<(), ConvertError> {
    stop_if(cancel)?;
    let bytes = part.stored_bytes(&spec.name);
    let (found, expected) = (sha256_hex(&bytes), &record.header().files[file].tensors[&spec.name].sha256);
    meter.add(bytes.len() as u64);
    if found == *expected {
        return Ok(());
    }
    let (path, tensor, expected) = (part.path().to_path_buf(), spec.name.clone(), expected.clone());
    Err(ConvertError::Record(RecordError::DigestMismatch { path, tensor, found, expected }))
}

/// Digests of the files a record is made from, taken beside the conversion.
struct SourceHashes {
    thread: Option<JoinHandle<Result<Vec<SourceEntry>, ConvertError>>>,
    stop: Arc<AtomicBool>,
}

impl SourceHashes {
    fn start(files: Vec<SourceFile>, cancel: Arc<AtomicBool>) -> Result<Self, ConvertError> {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Until { cancel, stop: Arc::clone(&stop) };
        let hash = move || {
            let entry = |file: SourceFile| {
                let reading = File::open(&file.path).map(|inner| Stoppable { inner, until: &until });
                match reading.and_then(sha256_read) {
                    Ok((sha256, bytes)) => Ok(SourceEntry { file: file.name, bytes, sha256 }),
                    Err(_) if until.reached() => Err(ConvertError::Cancelled),
                    Err(e) => Err(ConvertError::io(file.path)(e)),
                }
            };
            files.into_iter().map(entry).collect()
        };
        let thread = std::thread::Builder::new().name("omniburn-digests".into()).spawn(hash);
        Ok(Self { thread: Some(thread.map_err(ConvertError::Thread)?), stop })
    }

    fn finish(mut self) -> Result<Vec<SourceEntry>, ConvertError> {
        let thread = self.thread.take().expect("joined once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for SourceHashes {
    fn drop(&mut self) {
        // Left early: the thread ends at its next piece, and no thread outlives the call.
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Until {
    cancel: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Until {
    fn reached(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed)
    }
}

/// A reader that fails once it is asked to stop.
struct Stoppable<'a, R> {
    inner: R,
    until: &'a Until,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.until.reached() { Err(io::Error::other("stopped")) } else { self.inner.read(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_every_spec_once_and_never_much_at_a_time() {
        let spec = |i: usize, rows: usize| TensorSpec::linear(format!("t{i}"), rows, 1 << 20);
        let specs: Vec<TensorSpec> =
            [1, 40, 8, 8, 1, 15, 16, 1].into_iter().enumerate().map(|(i, n)| spec(i, n)).collect();
        let groups: Vec<Vec<&str>> =
            groups(&specs).map(|group| group.iter().map(|spec| spec.name.as_str()).collect()).collect();
        assert_eq!(groups, [vec!["t0"], vec!["t1"], vec!["t2", "t3"], vec!["t4", "t5"], vec!["t6"], vec!["t7"]]);
        assert_eq!(super::groups(&[]).count(), 0);
    }
}

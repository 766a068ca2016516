//! From names and shapes of a checkpoint to recipes: what each tensor of a record is made from, in every published layout.
//!
//! Names, tasks and what may be folded come from the family's rules; the axis orders of a convolution follow from what it is.

use std::collections::BTreeSet;
use std::fmt;

use omniburn_models::FamilyConfig;
use omniburn_models::checkpoint::{Fold, KeyMap, source_name};
use omniburn_models::family::CheckpointRules;
use omniburn_models::record::{Dtype, SourceAxes, SourcePart, TensorRole, TensorSpec};
use serde::Serialize;

use crate::error::{ConvertError, ShapeFault, TensorFaults};
use crate::source::Source;

/// A shape a source tensor may have, and how its axes come to the order computed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub shape: Vec<usize>,
    /// Axis `i` of the result is axis `order[i]` of the tensor; absent where nothing moves.
    pub order: Option<Vec<usize>>,
    /// Whether the axes lie as a module of PyTorch has them.
    pub torch: bool,
}

/// A tensor of the checkpoint, by canonical name, with the forms it may have; the first that fits is taken.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub name: String,
    pub forms: Vec<Form>,
}

impl Input {
    /// A tensor that has one shape in every layout.
    pub fn plain(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), forms: vec![Form { shape: shape.into(), order: None, torch: true }] }
    }

    /// The form that fits a shape.
    pub fn form(&self, shape: &[usize]) -> Option<&Form> {
        self.forms.iter().find(|form| form.shape == shape)
    }
}

/// One stretch of a record's tensor, before it is transposed: rows of outputs.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// A tensor of the checkpoint.
    Tensor(Input),
    /// Zeros, where the checkpoint has no bias and the fused one needs it.
    Zeros(usize),
    /// `outer · inner`: two linears without anything between them.
    FoldedWeight {
        /// `[outputs, middle]`
        outer: Input,
        /// `[middle, inputs]`
        inner: Input,
    },
    /// `outer · inner + own`: the bias of the same.
    FoldedBias {
        /// `[outputs, middle]`
        outer: Input,
        /// `[middle]`
        inner: Input,
        /// `[outputs]`
        own: Input,
    },
    /// One row of a table less another.
    RowDifference {
        /// `[rows, width]`
        table: Input,
        plus: u32,
        minus: u32,
    },
}

impl Piece {
    /// The tensors of the checkpoint it is made from.
    pub fn inputs(&self) -> Vec<&Input> {
        match self {
            Piece::Tensor(input) => vec![input],
            Piece::Zeros(_) => Vec::new(),
            Piece::FoldedWeight { outer, inner } => vec![outer, inner],
            Piece::FoldedBias { outer, inner, own } => vec![outer, inner, own],
            Piece::RowDifference { table, .. } => vec![table],
        }
    }
}

/// What one tensor of a record is made from: pieces one after the other along the output axis.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub spec: TensorSpec,
    pub pieces: Vec<Piece>,
    /// The type it is kept in, where somebody said so.
    pub kept: Option<Dtype>,
}

impl Recipe {
    /// The tensors of the checkpoint it is made from.
    pub fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.pieces.iter().flat_map(Piece::inputs)
    }
}

/// How a checkpoint is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One set of connectors, channels-last convolutions, adapters beside them.
    Mlx,
    /// Connectors and special rows per task, torch axis order, adapters beside them.
    TorchTasks,
    /// One task with its adapter already merged, torch axis order.
    TorchMerged,
    /// The one way a family without adapters is published.
    Single,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Mlx => "mlx (one set of connectors, channels-last convolutions)",
            Layout::TorchTasks => "torch-tasks (connectors and special rows per task)",
            Layout::TorchMerged => "torch-merged (one task, adapter merged)",
            Layout::Single => "single (one set of weights)",
        })
    }
}

impl Layout {
    /// Recognises the layout by names, then by axis orders; `towers` are the record's tensors with convolutions among them.
    ///
    /// Connectors per task are of one layout alone. Otherwise every convolution whose two orders differ votes, and they agree
    /// in a whole file; where none can tell (three channels of three frames, or no tower at all), adapters beside the weights
    /// mean that nothing is merged yet.
    pub(crate) fn detect(
        source: &Source,
        rules: &CheckpointRules,
        towers: &[TensorSpec],
        adapters_beside: bool,
    ) -> Self {
        let Some(tasks) = rules.steps.tasks else { return Layout::Single };
        if tasks.per_task().any(|name| source.has_prefix(&format!("{name}."))) {
            return Layout::TorchTasks;
        }
        let last = towers.iter().find_map(|spec| {
            let Orders { torch, last } = Orders::of(spec)?;
            let found = source.shape(&source_name(rules.names, &spec.name))?;
            (torch.shape != last.shape).then_some(())?;
            match found {
                found if found == last.shape => Some(true),
                found if found == torch.shape => Some(false),
                _ => None,
            }
        });
        match last {
            Some(true) => Layout::Mlx,
            Some(false) => Layout::TorchMerged,
            None if adapters_beside => Layout::Mlx,
            None => Layout::TorchMerged,
        }
    }
}

/// Both axis orders of a convolution, each with the permutation to rows of a product.
struct Orders {
    torch: Form,
    last: Form,
}

impl Orders {
    fn of(spec: &TensorSpec) -> Option<Self> {
        let &[inputs, outputs] = spec.shape.as_slice() else { return None };
        match spec.axes {
            SourceAxes::Torch | SourceAxes::RowDifference { .. } => None,
            SourceAxes::InputsFirst => {
                let form = || Form { shape: vec![inputs, outputs], order: Some(vec![1, 0]), torch: false };
                Some(Self { torch: form(), last: form() })
            }
            // Rows of the product are (tap, channel), which is the channels-last order.
            SourceAxes::Convolution { taps } => Some(Self {
                torch: Form { shape: vec![outputs, inputs / taps, taps], order: Some(vec![0, 2, 1]), torch: true },
                last: Form { shape: vec![outputs, taps, inputs / taps], order: None, torch: false },
            }),
            SourceAxes::Plane { taps } => Some(Self {
                torch: Form {
                    shape: vec![outputs, inputs / (taps * taps), taps, taps],
                    order: Some(vec![0, 2, 3, 1]),
                    torch: true,
                },
                last: Form { shape: vec![outputs, taps, taps, inputs / (taps * taps)], order: None, torch: false },
            }),
            // Patch rows are (channel, time, row, column), which is torch's order.
            SourceAxes::Patches { channels, frames, side } => Some(Self {
                torch: Form { shape: vec![outputs, channels, frames, side, side], order: None, torch: true },
                last: Form {
                    shape: vec![outputs, frames, side, side, channels],
                    order: Some(vec![0, 4, 1, 2, 3]),
                    torch: false,
                },
            }),
            SourceAxes::Image { channels, side } => Some(Self {
                torch: Form { shape: vec![outputs, channels, side, side], order: None, torch: true },
                last: Form { shape: vec![outputs, side, side, channels], order: Some(vec![0, 3, 1, 2]), torch: false },
            }),
        }
    }
}

/// A fold with the width that the record's linear reads and the outputs it gives.
struct Folded {
    fold: Fold,
    width: usize,
    outputs: usize,
}

/// Makes the recipes of one checkpoint.
pub(crate) struct Recipes<'a> {
    source: &'a Source,
    rules: &'a CheckpointRules,
    layout: Layout,
    folds: Vec<Folded>,
}

impl<'a> Recipes<'a> {
    /// Recipes for a checkpoint of this layout.
    pub fn new(source: &'a Source, rules: &'a CheckpointRules, family: &FamilyConfig, layout: Layout) -> Self {
        let text = if rules.steps.folds.is_empty() { Vec::new() } else { family.text_tensors(0) };
        let folded = |&fold: &Fold| {
            let name = format!("{}.weight", fold.outer);
            let weight = text.iter().find(|spec| spec.name == name)?;
            let &[width, outputs] = weight.shape.as_slice() else { return None };
            Some(Folded { fold, width, outputs })
        };
        Self { source, rules, layout, folds: rules.steps.folds.iter().filter_map(folded).collect() }
    }

    /// Recipes of some tensors of the record; `key` is the task's name inside weight names, where connectors come per task.
    pub fn of(&self, specs: Vec<TensorSpec>, key: Option<&str>) -> Vec<Recipe> {
        specs.into_iter().map(|spec| Recipe { pieces: self.pieces(&spec, key), spec, kept: None }).collect()
    }

    /// Why a tensor in front of a linear that reads something else may be left aside.
    pub fn unfolded_reason(&self, canonical: &str) -> Option<String> {
        self.folds.iter().find_map(|Folded { fold, width, .. }| {
            canonical.strip_prefix(fold.inner)?.strip_prefix('.')?;
            let middle = self.source.shape(&format!("{}.weight", fold.inner))?.first().copied()?;
            let unused = middle != *width;
            unused.then(|| format!("the projector reads {width} values, so the tower's own {middle} are not used"))
        })
    }

    /// The canonical name of a tensor of the record.
    fn named(&self, record: &str, key: Option<&str>) -> String {
        let canonical = source_name(self.rules.names, record);
        match self.rules.steps.tasks {
            Some(tasks) => tasks.named(canonical, key),
            None => canonical,
        }
    }

    fn pieces(&self, spec: &TensorSpec, key: Option<&str>) -> Vec<Piece> {
        if let Some((_, own)) = self.rules.steps.tasks.map(|tasks| tasks.rows).filter(|(rows, _)| *rows == spec.name) {
            return plain(format!("{own}.{}", key.unwrap_or_default()), spec);
        }
        if let Some(piece) = self.folded(spec, key) {
            return vec![piece];
        }
        let name = self.named(&spec.name, key);
        if spec.packed && (self.source.get(&name).is_some() || self.lacks_packed(spec, &name, key)) {
            return plain(name, spec);
        }
        if !spec.parts.is_empty() {
            return self.fused(spec, key);
        }
        let name = self.named(&spec.name, key);
        if let (SourceAxes::RowDifference { rows, plus, minus }, &[width]) = (spec.axes, spec.shape.as_slice()) {
            return vec![Piece::RowDifference { table: Input::plain(name, [rows, width]), plus, minus }];
        }
        let Some(Orders { torch, last }) = Orders::of(spec) else { return plain(name, spec) };
        // Where the two cannot be distinguished, the layout's own comes first.
        let forms = match (self.rules.steps.channels_last, self.layout) {
            (false, _) => vec![torch],
            (true, Layout::Mlx) => vec![last, torch],
            (true, _) => vec![torch, last],
        };
        vec![Piece::Tensor(Input { name, forms })]
    }

    /// Whether a checkpoint that packs this product in other layers has it here neither packed nor in parts: then the packed
    /// tensor is the one that is missing.
    fn lacks_packed(&self, spec: &TensorSpec, name: &str, key: Option<&str>) -> bool {
        let numberless = |name: &str| name.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<String>();
        let there = |piece: &Piece| matches!(piece, Piece::Tensor(input) if self.source.get(&input.name).is_some());
        let wanted = numberless(name);
        self.source.names().any(|other| numberless(other) == wanted) && !self.fused(spec, key).iter().any(there)
    }

    /// Parts side by side: `path.fused.leaf` of the record is `path.part.leaf` of a checkpoint for each part.
    fn fused(&self, spec: &TensorSpec, key: Option<&str>) -> Vec<Piece> {
        let (path, leaf) = spec.name.rsplit_once('.').unwrap_or(("", &spec.name));
        let path = path.rsplit_once('.').map_or("", |(path, _)| path);
        let piece = |part: &SourcePart| {
            if !part.stored {
                return Piece::Zeros(part.outputs);
            }
            let name = self.named(&format!("{path}.{}.{leaf}", part.name), key);
            let shape = match spec.role {
                TensorRole::Linear => vec![part.outputs, spec.shape[0]],
                _ => vec![part.outputs],
            };
            Piece::Tensor(Input::plain(name, shape))
        };
        spec.parts.iter().map(piece).collect()
    }

    /// A linear with the one in front of it folded in, where an export kept the two apart. By shape: it is folded where the
    /// checkpoint's reads what the one in front gives, and not what the record's reads.
    fn folded(&self, spec: &TensorSpec, key: Option<&str>) -> Option<Piece> {
        let (Folded { fold, width, outputs }, leaf) = self.folds.iter().find_map(|folded| {
            let leaf = spec.name.strip_prefix(folded.fold.outer)?.strip_prefix('.')?;
            ["weight", "bias"].contains(&leaf).then_some((folded, leaf))
        })?;
        let own = |leaf: &str| self.named(&format!("{}.{leaf}", fold.outer), key);
        let inner = |leaf: &str| format!("{}.{leaf}", fold.inner);
        let reads = self.source.shape(&own("weight")).and_then(|shape| shape.get(1).copied());
        let gives = self.source.shape(&inner("weight")).and_then(|shape| shape.first().copied());
        let middle = reads.filter(|middle| Some(*middle) == gives && middle != width)?;
        let outer = Input::plain(own("weight"), [*outputs, middle]);
        Some(if leaf == "weight" {
            Piece::FoldedWeight { outer, inner: Input::plain(inner("weight"), [middle, *width]) }
        } else {
            let inner = Input::plain(inner("bias"), [middle]);
            Piece::FoldedBias { outer, inner, own: Input::plain(own("bias"), [*outputs]) }
        })
    }
}

/// One source tensor: a linear lies `[outputs, inputs]` there, everything else as in the record.
fn plain(name: String, spec: &TensorSpec) -> Vec<Piece> {
    let mut shape = spec.shape.clone();
    if spec.role == TensorRole::Linear {
        shape.reverse();
    }
    vec![Piece::Tensor(Input::plain(name, shape))]
}

/// Canonical names that recipes took, and those left aside with the reason.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub names: BTreeSet<String>,
    /// Name in the file and reason.
    pub dropped: Vec<(String, String)>,
}

/// Checks that recipes and checkpoint fit each other with nothing left over on either side.
///
/// `other_reason` says why a tensor that is neither taken nor dropped by a rule is left aside, where the choice of
/// tasks is the reason.
///
/// # Errors
/// [`ConvertError::Tensors`] with everything that does not fit.
pub(crate) fn settle<'a>(
    map: &KeyMap,
    source: &Source,
    recipes: impl IntoIterator<Item = &'a Recipe>,
    other_reason: impl Fn(&str) -> Option<String>,
) -> Result<Taken, ConvertError> {
    let mut faults = TensorFaults::default();
    let mut taken = Taken::default();
    for input in recipes.into_iter().flat_map(Recipe::inputs) {
        if !taken.names.insert(input.name.clone()) {
            continue;
        }
        let Some(tensor) = source.get(&input.name) else {
            faults.missing.push(input.name.clone());
            continue;
        };
        let own = source.own_name(&input.name);
        faults.wrong_dtype.extend(tensor.dtype_fault(own));
        if input.form(&tensor.shape).is_none() {
            faults.mis_shaped.push(ShapeFault {
                tensor: own.into(),
                expected: input.forms.iter().map(|f| f.shape.clone()).collect(),
                found: tensor.shape.clone(),
            });
        }
    }
    for name in source.names().filter(|name| !taken.names.contains(*name)) {
        let own = source.own_name(name).to_string();
        match map.drop_reason(name).map(str::to_string).or_else(|| other_reason(name)) {
            Some(reason) => taken.dropped.push((own, reason)),
            None => faults.unmapped.push(own),
        }
    }
    if faults.is_empty() {
        Ok(taken)
    } else {
        Err(ConvertError::Tensors { path: source.folder().to_path_buf(), faults })
    }
}

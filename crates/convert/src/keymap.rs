//! From names to names: rules that bring published names to one canonical form, rules that say which tensors are
//! known to be unused, and recipes that say what each tensor of a record is made from.
//!
//! The rules themselves stand in [`crate::maps`], one file a family.

use std::collections::BTreeSet;

use omniburn_models::record::TensorSpec;

use crate::error::{ConvertError, ShapeFault, TensorFaults};
use crate::source::Source;

pub(crate) use omniburn_models::checkpoint::{KeyMap, Pattern};

/// A shape a source tensor may have, and how its axes come to the order computed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub shape: Vec<usize>,
    /// Axis `i` of the result is axis `order[i]` of the tensor; absent where nothing moves.
    pub order: Option<Vec<usize>>,
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
        Self { name: name.into(), forms: vec![Form { shape: shape.into(), order: None }] }
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
}

impl Piece {
    /// The tensors of the checkpoint it is made from.
    pub fn inputs(&self) -> Vec<&Input> {
        match self {
            Piece::Tensor(input) => vec![input],
            Piece::Zeros(_) => Vec::new(),
            Piece::FoldedWeight { outer, inner } => vec![outer, inner],
            Piece::FoldedBias { outer, inner, own } => vec![outer, inner, own],
        }
    }
}

/// What one tensor of a record is made from: pieces one after the other along the output axis.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub spec: TensorSpec,
    pub pieces: Vec<Piece>,
}

impl Recipe {
    /// The tensors of the checkpoint it is made from.
    pub fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.pieces.iter().flat_map(Piece::inputs)
    }
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

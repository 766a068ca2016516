//! Which tensors of an affine record are kept in another type than it gives them.

use fancy_regex::Regex;
use omniburn_models::record::{Dtype, TensorRole};

use crate::error::ConvertError;
use crate::options::KeepRule;
use crate::recipes::Recipe;

/// Writes the kept types into the recipes; of several rules that name a tensor the last counts.
///
/// # Errors
/// [`ConvertError::Keep`] for a rule of a record that is not affine, one that names no tensor, and one whose type a tensor
/// cannot have.
pub(crate) fn apply(rules: &[KeepRule], dtype: Dtype, recipes: &mut [&mut Recipe]) -> Result<(), ConvertError> {
    for rule in rules {
        let refuse = |why: String| ConvertError::Keep { pattern: rule.pattern.clone(), dtype: rule.dtype, why };
        if !dtype.is_affine() {
            return Err(refuse(format!("a record in {dtype} takes no exceptions, one in affine8 or affine4 does")));
        }
        let words: Vec<_> = rule.pattern.split('*').map(fancy_regex::escape).collect();
        let pattern = Regex::new(&format!("^{}$", words.join(".*"))).map_err(|error| refuse(error.to_string()))?;
        let mut found = false;
        for recipe in recipes.iter_mut() {
            let spec = &recipe.spec;
            if !pattern.is_match(&spec.name).unwrap_or(false) {
                continue;
            }
            if spec.role == TensorRole::Exact || !spec.may_be(rule.dtype, dtype) {
                let types: Vec<&str> = match spec.role {
                    TensorRole::Exact | TensorRole::Scale => Vec::new(),
                    _ => Dtype::ALL.into_iter().filter(|other| spec.may_be(*other, dtype)).map(Dtype::name).collect(),
                };
                let name = &spec.name;
                return Err(refuse(match types.as_slice() {
                    [] => format!("{name} is always in f32"),
                    types => format!("{name} may be in {}", types.join(", ")),
                }));
            }
            recipe.kept = Some(rule.dtype);
            found = true;
        }
        if !found {
            return Err(refuse("no tensor of the record has such a name".into()));
        }
    }
    Ok(())
}

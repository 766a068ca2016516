//! Fields of published configurations that have more than one name, and values that do.

use super::fields::Fields;
use crate::blocks::{HIDDEN_ACTS, HiddenAct};

/// The one that is there of two names that published configurations have for a field; the first where none is. A fault is
/// added where both are there and differ.
pub(crate) fn spelling<'n>(fields: Fields<'_>, [first, second]: [&'n str; 2]) -> &'n str {
    let (Some(one), Some(other)) = (fields.get(first), fields.get(second)) else {
        return if fields.get(first).is_none() && fields.get(second).is_some() { second } else { first };
    };
    if one != other && one.as_f64().is_none_or(|one| other.as_f64() != Some(one)) {
        fields.fault(second, format!("{one}, as {first} says"));
    }
    first
}

/// The activation that a field of a published configuration names, GELU by erf where it is absent.
pub(crate) fn hidden_act(fields: Fields<'_>, name: &str) -> HiddenAct {
    let Some(found) = fields.get(name) else { return HiddenAct::Gelu };
    let known = HIDDEN_ACTS.iter().find(|(published, _)| found.as_str() == Some(*published));
    known.map(|(_, act)| *act).unwrap_or_else(|| {
        let names: Vec<String> = HIDDEN_ACTS.iter().map(|(published, _)| format!("\"{published}\"")).collect();
        fields.fault(name, format!("one of {}", names.join(", ")));
        HiddenAct::Gelu
    })
}

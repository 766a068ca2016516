//! Media templates: the layout of each medium with its ids.

use std::collections::BTreeMap;

use omniburn_models::checkpoint::TemplateRule;
use omniburn_models::record::{MediaTemplate, Modality, TemplateKind};

use crate::error::ConvertError;

/// The templates of a record: the caller's where given, else those of the rules, one a medium that the family takes.
///
/// # Errors
/// [`ConvertError::TemplateModality`] for a medium without a tower; [`ConvertError::TemplateFixed`] where the family knows
/// another layout alone; [`ConvertError::TemplateIds`] where a template needs ids that the configuration does not name.
pub(crate) fn templates(
    rules: &[TemplateRule],
    asked: &BTreeMap<Modality, TemplateKind>,
    family: &'static str,
) -> Result<BTreeMap<Modality, MediaTemplate>, ConvertError> {
    let takes: Vec<Modality> = rules.iter().map(|rule| rule.modality).collect();
    if let Some(&modality) = asked.keys().find(|modality| !takes.contains(modality)) {
        return Err(ConvertError::TemplateModality { modality, takes });
    }
    let mut made = BTreeMap::new();
    for rule in rules {
        let modality = rule.modality;
        let kind = asked.get(&modality).copied().unwrap_or(rule.kind);
        if rule.fixed && kind != rule.kind {
            return Err(ConvertError::TemplateFixed { family, modality, template: rule.kind });
        }
        let ids = [rule.start, rule.end];
        let missing: Vec<String> =
            ids.iter().filter(|(_, id)| id.is_none()).map(|(name, _)| name.to_string()).collect();
        if kind != TemplateKind::Bare && !missing.is_empty() {
            let asked = asked.contains_key(&modality);
            return Err(ConvertError::TemplateIds { modality, template: kind, missing, asked });
        }
        let id = |(_, id): (&str, Option<u32>)| id.filter(|_| kind != TemplateKind::Bare);
        made.insert(modality, MediaTemplate { kind, start: id(rule.start), end: id(rule.end) });
    }
    Ok(made)
}

//! Media templates: the layout of each medium with its ids, every one of them checked against the token table.

use std::collections::BTreeMap;

use omniburn_models::families::OmniConfig;
use omniburn_models::record::{MediaTemplate, Modality, TemplateKind};

use crate::error::ConvertError;
use crate::hf_config::Ids;

/// The templates of a record: the caller's where given, else the defaults.
///
/// Images and video are wrapped where the configuration names the start and end ids and bare elsewhere; audio is
/// wrapped, and has no suffix where the backbone is bidirectional.
///
/// # Errors
/// [`ConvertError::TemplateModality`] for a medium without a tower; [`ConvertError::TemplateIds`] where a template needs
/// ids that the configuration does not name.
pub(crate) fn templates(
    config: &OmniConfig,
    ids: &Ids,
    asked: &BTreeMap<Modality, TemplateKind>,
) -> Result<BTreeMap<Modality, MediaTemplate>, ConvertError> {
    let vision_default = match (ids.vision_start, ids.vision_end) {
        (Some(_), Some(_)) => TemplateKind::Wrapped,
        _ => TemplateKind::Bare,
    };
    let audio_default = if config.text.causal { TemplateKind::Wrapped } else { TemplateKind::Noeos };
    let vision_ids = [("vision_start_token_id", ids.vision_start), ("vision_end_token_id", ids.vision_end)];
    let audio_ids = [("audio_start_token_id", ids.audio_start), ("audio_end_token_id", ids.audio_end)];
    let media = [
        (Modality::Image, config.vision.is_some(), vision_default, vision_ids),
        (Modality::Audio, config.audio.is_some(), audio_default, audio_ids),
        (Modality::Video, config.vision.is_some(), vision_default, vision_ids),
    ];
    let takes: Vec<Modality> = media.iter().filter(|(_, there, ..)| *there).map(|(modality, ..)| *modality).collect();
    if let Some(&modality) = asked.keys().find(|modality| !takes.contains(modality)) {
        return Err(ConvertError::TemplateModality { modality, takes });
    }
    let mut made = BTreeMap::new();
    for (modality, _, default, ids) in media.into_iter().filter(|(_, there, ..)| *there) {
        let kind = asked.get(&modality).copied().unwrap_or(default);
        let missing: Vec<String> =
            ids.iter().filter(|(_, id)| id.is_none()).map(|(name, _)| name.to_string()).collect();
        if kind != TemplateKind::Bare && !missing.is_empty() {
            let asked = asked.contains_key(&modality);
            return Err(ConvertError::TemplateIds { modality, template: kind, missing, asked });
        }
        let id = |of: usize| ids[of].1.filter(|_| kind != TemplateKind::Bare).map(|(_, id)| id);
        made.insert(modality, MediaTemplate { kind, start: id(0), end: id(1) });
    }
    Ok(made)
}

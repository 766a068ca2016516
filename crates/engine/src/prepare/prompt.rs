//! Which rows enter the backbone: prefixes, media templates and suffixes, as the record says.

use omniburn_media::TextTokenizer;
use omniburn_models::record::{MediaTemplate, Modality, Prompts, RecordHeader, TemplateKind};

use crate::call::Role;
use crate::error::ItemError;
use crate::forms::Frame;

/// The role's prefix as the record gives it.
pub(crate) fn prefix(prompts: &Prompts, role: Role) -> &str {
    match role {
        Role::Query => &prompts.query,
        Role::Document => &prompts.document,
        Role::None => &prompts.none,
    }
}

/// The frame of a medium. The prefix is tokenised alone here, unlike in text, where it is one string with the text.
///
/// # Source
/// design of OmniKit's sequence layouts; published nano processors for `bare` and `noeos`.
pub(crate) fn frame(
    header: &RecordHeader,
    tokenizer: &TextTokenizer,
    role: Role,
    modality: Modality,
) -> Result<Frame, ItemError> {
    let template = header
        .templates
        .get(&modality)
        .ok_or_else(|| ItemError::ModalityAbsent { modality, reason: "the record has no template for it".into() })?;
    let prefix = tokenizer.ids_bare(prefix(&header.prompts, role))?;
    Ok(lay(template, prefix, tokenizer.trailing_specials()))
}

fn lay(template: &MediaTemplate, prefix: Vec<u32>, suffix: &[u32]) -> Frame {
    let (mut before, mut after) = (prefix, Vec::new());
    if template.kind != TemplateKind::Bare {
        before.extend(template.start);
        after.extend(template.end);
    }
    if template.kind != TemplateKind::Noeos {
        after.extend_from_slice(suffix);
    }
    Frame { before, after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layout_puts_its_rows_where_it_says() {
        let template = |kind| MediaTemplate { kind, start: Some(7), end: Some(8) };
        let frame = |kind| lay(&template(kind), vec![1, 2], &[9]);
        assert_eq!(frame(TemplateKind::Wrapped), Frame { before: vec![1, 2, 7], after: vec![8, 9] });
        assert_eq!(frame(TemplateKind::Bare), Frame { before: vec![1, 2], after: vec![9] });
        assert_eq!(frame(TemplateKind::Noeos), Frame { before: vec![1, 2, 7], after: vec![8] });
        assert_eq!(frame(TemplateKind::Wrapped).tokens(10), 15);
    }
}

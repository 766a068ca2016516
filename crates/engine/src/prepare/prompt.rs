//! Which rows enter the backbone: prefixes, media templates and suffixes, or the strings of a prompt, as the record says.

use omniburn_media::TextTokenizer;
use omniburn_models::family::{AudioForm, ImageForm};
use omniburn_models::items::{InstructionPlace, ItemPrompt};
use omniburn_models::record::{MediaTemplate, Modality, Prompts, RecordHeader, TemplateKind};
use unicode_categories::UnicodeCategories;

use crate::call::{Request, Role};
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

/// What stands around a lone medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Around {
    /// Ids.
    Frame(Frame),
    /// Strings of a prompt, in front of the medium with its own ends and behind it.
    Prompt { before: String, behind: String },
}

/// What stands around a lone medium. A family that lays its own ends around rows has no prefix, and a whole image without ends
/// stands alone.
pub(crate) fn around(
    header: &RecordHeader,
    tokenizer: &TextTokenizer,
    request: &Request,
    modality: Modality,
) -> Result<Around, ItemError> {
    if let Some(prompt) = header.family.item_prompt() {
        let before = opening(prompt, header, request);
        return Ok(Around::Prompt { before, behind: closing(prompt, request, modality) });
    }
    let spec = header.family.spec();
    let frame = match (spec.ends, spec.image, modality) {
        (Some([start, end]), ..) => Frame { before: vec![start], after: vec![end] },
        (None, Some(ImageForm::Pixels { .. }), Modality::Image | Modality::Video) => {
            Frame { before: Vec::new(), after: Vec::new() }
        }
        (None, _, Modality::Audio) if matches!(spec.audio, Some(AudioForm::Spectrogram { .. })) => {
            Frame { before: Vec::new(), after: Vec::new() }
        }
        (None, ..) => frame(header, tokenizer, request.role, modality)?,
    };
    Ok(Around::Frame(frame))
}

/// What stands in front of the parts of an item.
pub(crate) fn opening(prompt: &ItemPrompt, header: &RecordHeader, request: &Request) -> String {
    match &prompt.instruction {
        InstructionPlace::InFront { default, full_stop, behind } => {
            let asked =
                request.instruction.as_deref().map(|asked| if *full_stop { ended(asked) } else { asked.into() });
            let role = prefix(&header.prompts, request.role);
            let given = asked.filter(|asked| !asked.is_empty()).or((!role.is_empty()).then(|| role.into()));
            [&*prompt.before, given.as_ref().unwrap_or(default), behind].concat()
        }
        InstructionPlace::EachText { .. } | InstructionPlace::Behind { .. } | InstructionPlace::Nowhere => {
            prompt.before.clone()
        }
    }
}

/// What stands behind the parts of an item of this kind.
pub(crate) fn closing(prompt: &ItemPrompt, request: &Request, kind: Modality) -> String {
    let InstructionPlace::Behind { before, default } = &prompt.instruction else { return prompt.behind.clone() };
    let asked = request.instruction.clone().unwrap_or_else(|| default.replace("{kind}", kind.name()));
    if asked.is_empty() { prompt.behind.clone() } else { [before, &asked, &prompt.behind].map(String::as_str).concat() }
}

/// What stands in front of and behind an item of texts alone.
pub(crate) fn around_texts(prompt: &ItemPrompt, header: &RecordHeader, request: &Request) -> [String; 2] {
    match &prompt.texts {
        Some(own) => [own.before.clone(), own.behind.clone()],
        None => [opening(prompt, header, request), closing(prompt, request, Modality::Text)],
    }
}

/// A text of an item with what stands in front of it.
pub(crate) fn text_part(prompt: &ItemPrompt, header: &RecordHeader, request: &Request, text: &str) -> String {
    let InstructionPlace::EachText { before, behind } = &prompt.instruction else { return text.into() };
    let asked = request.instruction.as_deref().unwrap_or_else(|| prefix(&header.prompts, request.role));
    if asked.is_empty() { text.into() } else { [before, asked, behind, text].concat() }
}

/// An instruction without white space around it, with a full stop where it ends in no punctuation.
///
/// # Source
/// QwenLM/Qwen3-VL-Embedding, `qwen3_vl_embedding.py`: the last character's category begins with `P`.
fn ended(instruction: &str) -> String {
    let instruction = instruction.trim();
    match instruction.chars().last() {
        Some(last) if !last.is_punctuation() => format!("{instruction}."),
        _ => instruction.into(),
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
    fn an_instruction_ends_in_punctuation_of_any_script() {
        let cases = [
            ("Find the page", "Find the page."),
            ("  Find the page \n", "Find the page."),
            ("Done.", "Done."),
            ("really?", "really?"),
            ("这是说明。", "这是说明。"),
            ("(so)", "(so)"),
            // A sign is no punctuation.
            ("1 + 1 =", "1 + 1 =."),
            ("5 $", "5 $."),
            ("   ", ""),
        ];
        for (given, want) in cases {
            assert_eq!(ended(given), want);
        }
    }

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

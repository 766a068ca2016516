//! Items and pairs of texts and media as a family's prompt writes them: one string, in which rows of media stand in place of
//! words.

use omniburn_media::PairCut;
use omniburn_models::batch::Grid;
use omniburn_models::family::{ImageForm, PairForm};
use omniburn_models::items::{ItemPrompt, PartOrder, PartsForm};
use omniburn_models::record::Modality;

use super::preparer::{Opened, Part, Prepared, Preparer};
use super::prompt;
use crate::call::{Input, Request, Source};
use crate::error::ItemError;
use crate::forms::{FeatureSpan, Layout, Rows, Section, Sequence};

/// What stands one behind the other.
enum Line {
    Text(String),
    /// The medium at this place among those of the item.
    Medium(usize),
}

/// Lines of an item, and the media that they speak of.
#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    parts: Vec<Part>,
}

impl Lines {
    fn text(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Text(text.into()));
    }
}

impl Preparer {
    /// An item of several parts.
    pub(super) fn prepare_parts(&self, input: &Input, request: &Request) -> Result<Prepared, ItemError> {
        let family = &self.header().family;
        let (Some(form), Some(prompt)) = (family.parts_form(), family.item_prompt()) else {
            let reason = format!("the family `{}` takes no item made of several parts", family.name());
            return Err(ItemError::ModalityAbsent { modality: input.modality(), reason });
        };
        let leaves = in_order(form, input.leaves());
        if form.one_image && leaves.len() > 1 && leaves.iter().any(|leaf| leaf.modality() != Modality::Text) {
            let reason = format!("the family `{}` takes one image or texts alone as an item", family.name());
            return Err(ItemError::ModalityAbsent { modality: input.modality(), reason });
        }
        if let [lone] = leaves[..]
            && lone.modality() != Modality::Text
        {
            return self.prepare_lone(lone, request);
        }
        if let Some(texts) = texts_of(form, &leaves)? {
            return self.prepare_prompted(prompt, &texts, request);
        }
        let mut lines = Lines::default();
        lines.text(prompt::opening(prompt, self.header(), request));
        self.write(&leaves, Some(prompt), request, &mut lines)?;
        lines.text(prompt::closing(prompt, request, kind_of(&leaves)));
        let layout = self.lay(&lines.lines, &lines.parts, true)?;
        let medium = self.laid(input.modality(), rows_of(lines.parts), layout, None)?;
        Ok(Prepared::Media(medium))
    }

    /// Texts alone, in the prompt of an item.
    pub(super) fn prepare_prompted(
        &self,
        prompt: &ItemPrompt,
        texts: &[&str],
        request: &Request,
    ) -> Result<Prepared, ItemError> {
        let limit = self.header().family.max_tokens();
        let [before, behind] = prompt::around_texts(prompt, self.header(), request);
        let texts: String = texts.iter().map(|text| prompt::text_part(prompt, self.header(), request, text)).collect();
        let (rest, kept) = match prompt.keeps_end {
            true => (texts, behind.as_str()),
            false => ([texts.as_str(), &behind].concat(), ""),
        };
        let found = self.tokenizer.text_ids_before(&before, &rest, kept, limit, request.truncation)?;
        if found.ids.is_empty() {
            return Err(ItemError::Empty { modality: Modality::Text });
        }
        self.refuse_placeholders(&found.ids)?;
        let sequence = Sequence::from(found.ids);
        Ok(Prepared::Text { sequence, truncated: found.truncated, pair: None, chunks: Vec::new() })
    }

    /// The texts of both sides of a pair; `None` where one has media.
    pub(super) fn pair_texts(&self, form: &PartsForm, pair: &[Input; 2]) -> Result<Option<[String; 2]>, ItemError> {
        let [query, document] = pair;
        let texts =
            |side: &Input| texts_of(form, &in_order(form, side.leaves())).map(|found| found.map(|t| t.concat()));
        Ok(texts(query)?.zip(texts(document)?).map(|(query, document)| [query, document]))
    }

    /// A query and a document of which one at least has media.
    pub(super) fn prepare_media_pair(
        &self,
        form: &PartsForm,
        pair: &[Input; 2],
        request: &Request,
    ) -> Result<Prepared, ItemError> {
        let family = &self.header().family;
        let Some(PairForm::Prompt(prompt)) = family.spec().outputs.pairs() else {
            let reason = format!("the family `{}` scores texts", family.name());
            let modality = pair.iter().map(Input::modality).find(|kind| *kind != Modality::Text);
            return Err(ItemError::ModalityAbsent { modality: modality.unwrap_or(Modality::Text), reason });
        };
        // Rows of media are never cut, so that a pair which is too long is refused.
        self.cuts_pair(request)?;
        let [instruction, before_query, before_document] = &prompt.labels;
        let asked = request.instruction.as_ref().unwrap_or(&prompt.instruction);
        let mut lines = Lines::default();
        lines.text([&*prompt.before, instruction, asked, before_query].concat());
        let [query, document] = pair;
        self.write(&in_order(form, query.leaves()), None, request, &mut lines)?;
        lines.text(&**before_document);
        self.write(&in_order(form, document.leaves()), None, request, &mut lines)?;
        lines.text(&*prompt.behind);
        let layout = self.lay(&lines.lines, &lines.parts, false)?;
        let modality = pair.iter().map(Input::modality).find(|kind| *kind != Modality::Text);
        let mut medium = self.laid(modality.unwrap_or(Modality::Text), rows_of(lines.parts), layout, None)?;
        medium.pair = Some(PairCut::default());
        Ok(Prepared::Media(medium))
    }

    /// Writes parts behind what is there.
    fn write(
        &self,
        leaves: &[&Input],
        prompt: Option<&ItemPrompt>,
        request: &Request,
        lines: &mut Lines,
    ) -> Result<(), ItemError> {
        let form = self.header().family.parts_form();
        if leaves.is_empty() {
            lines.text(form.map_or_else(|| Err(nothing()), nothing_of)?);
        }
        for leaf in leaves {
            if let Source::Text(text) = &leaf.0 {
                lines.text(match prompt {
                    Some(prompt) => prompt::text_part(prompt, self.header(), request, text),
                    None => text.to_string(),
                });
                continue;
            }
            let part = self.part(leaf, request)?;
            lines.lines.push(Line::Medium(lines.parts.len()));
            lines.parts.push(part);
        }
        Ok(())
    }

    /// One medium among several parts.
    fn part(&self, leaf: &Input, request: &Request) -> Result<Part, ItemError> {
        let mut source = match self.open(leaf, request)? {
            Opened::Whole(part) => return Ok(part),
            Opened::Long(source) => source,
        };
        let modality = leaf.modality();
        let (part, _) = self.segment(&mut source)?.ok_or(ItemError::Empty { modality })?;
        if source.has_more()? {
            let most = omniburn_media::SEGMENT_SECONDS;
            let reason = format!("a part of an item of several is at most {most} s long: give the {modality} alone");
            return Err(ItemError::Request { reason });
        }
        Ok(part)
    }

    /// A lone medium between two strings.
    pub(super) fn lay_medium(&self, part: &Part, [before, behind]: [&str; 2]) -> Result<Layout, ItemError> {
        let lines = [Line::Text(before.into()), Line::Medium(0), Line::Text(behind.into())];
        self.lay(&lines, std::slice::from_ref(part), true)
    }

    /// Lines as ids and rows. Ends of media are tokens of their own, so what is between two of them is cut into tokens apart;
    /// the tokenizer's own special tokens stand around the whole where they are `special`.
    fn lay(&self, lines: &[Line], parts: &[Part], special: bool) -> Result<Layout, ItemError> {
        let (mut layout, mut pending) = (Layout::default(), String::new());
        let mut ids = if special { self.tokenizer.leading_specials().to_vec() } else { Vec::new() };
        for line in lines {
            let index = match line {
                Line::Text(text) => {
                    pending.push_str(text);
                    continue;
                }
                Line::Medium(index) => *index,
            };
            let part = &parts[index];
            let modality = part.modality;
            let template = self.header().templates.get(&modality);
            let ends = template.and_then(|template| template.start.zip(template.end));
            let reason = || "the record has no template for it".into();
            let (start, end) = ends.ok_or_else(|| ItemError::ModalityAbsent { modality, reason: reason() })?;
            for (stamp, span) in self.spans(index, part)? {
                if let Some(seconds) = stamp {
                    pending.push_str(&format!("<{seconds:.1} seconds>"));
                }
                ids.extend(self.written(&std::mem::take(&mut pending))?);
                ids.push(start);
                layout.ids(std::mem::take(&mut ids));
                layout.sections.push(Section::Features(span));
                ids.push(end);
            }
        }
        ids.extend(self.written(&pending)?);
        if special {
            ids.extend_from_slice(self.tokenizer.trailing_specials());
        }
        layout.ids(ids);
        Ok(layout)
    }

    /// Runs of a medium's feature rows: one, or one for each group of frames of a video behind the time it is shown at.
    fn spans(&self, index: usize, part: &Part) -> Result<Vec<(Option<f64>, FeatureSpan)>, ItemError> {
        let features = self.features(part)?;
        let stamped = self.header().family.parts_form().is_some_and(|form| form.stamps.is_some());
        let grid = match (&part.rows, self.header().family.spec().image) {
            (Rows::Patches(patches), Some(ImageForm::Patches { merge, .. })) => {
                let grid = patches.grid();
                Some(Grid { t: grid.t, h: grid.h / merge, w: grid.w / merge })
            }
            _ => None,
        };
        let Some(grid) = grid.filter(|_| stamped && part.modality == Modality::Video) else {
            let clock = self.header().family.parts_form().and_then(|form| form.clock);
            let times = match (clock, grid) {
                (Some(clock), Some(grid)) if part.modality == Modality::Video => clock.times(grid.t, part.group_s),
                _ => Vec::new(),
            };
            return Ok(vec![(None, FeatureSpan { part: index, rows: 0..features, grid, times })]);
        };
        assert_eq!(part.stamps.len(), grid.t, "each group of frames is shown at a time");
        let rows = grid.h * grid.w;
        let group = |(group, stamp): (usize, &f64)| {
            let grid = Some(Grid { t: 1, ..grid });
            let rows = group * rows..(group + 1) * rows;
            (Some(*stamp), FeatureSpan { part: index, rows, grid, times: Vec::new() })
        };
        Ok(part.stamps.iter().enumerate().map(group).collect())
    }

    /// Ids of a string without special tokens around it.
    fn written(&self, text: &str) -> Result<Vec<u32>, ItemError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let ids = self.tokenizer.ids_bare(text)?;
        self.refuse_placeholders(&ids)?;
        Ok(ids)
    }

    /// Refuses ids that stand for rows of media: a text that has one of them would be read as if it had none.
    pub(super) fn refuse_placeholders(&self, ids: &[u32]) -> Result<(), ItemError> {
        let Some(form) = self.header().family.parts_form() else { return Ok(()) };
        let found = ids.iter().find(|id| form.placeholders.contains(id));
        found.map_or(Ok(()), |id| {
            let token = self.tokenizer.token(*id).unwrap_or_default();
            let reason = format!("the text has {token} (id {id}), which stands for rows of media: expected none");
            Err(ItemError::Request { reason })
        })
    }
}

/// The kind that an item of these parts is asked about: audio where it has some, else its first medium.
fn kind_of(leaves: &[&Input]) -> Modality {
    let kinds = || leaves.iter().map(|leaf| leaf.modality()).filter(|kind| *kind != Modality::Text);
    kinds().find(|kind| *kind == Modality::Audio).or_else(|| kinds().next()).unwrap_or(Modality::Text)
}

/// Several media, or the only one.
fn rows_of(parts: Vec<Part>) -> Rows {
    let mut rows: Vec<Rows> = parts.into_iter().map(|part| part.rows).collect();
    if rows.len() == 1 { rows.swap_remove(0) } else { Rows::Parts(rows) }
}

/// Parts in the order they are written in.
fn in_order<'a>(form: &PartsForm, mut leaves: Vec<&'a Input>) -> Vec<&'a Input> {
    if form.order == PartOrder::VideosImagesTexts {
        leaves.sort_by_key(|leaf| match leaf.modality() {
            Modality::Video => 0,
            Modality::Image => 1,
            Modality::Audio => 2,
            Modality::Text => 3,
        });
    }
    leaves
}

/// The texts of parts that are texts alone, or what stands for no part; `None` where there are media.
fn texts_of<'a>(form: &'a PartsForm, leaves: &[&'a Input]) -> Result<Option<Vec<&'a str>>, ItemError> {
    if leaves.is_empty() {
        return Ok(Some(vec![nothing_of(form)?]));
    }
    let text = |leaf: &&'a Input| match &leaf.0 {
        Source::Text(text) => Some(&**text),
        _ => None,
    };
    Ok(leaves.iter().map(text).collect())
}

fn nothing_of(form: &PartsForm) -> Result<&str, ItemError> {
    form.nothing.as_deref().ok_or_else(nothing)
}

fn nothing() -> ItemError {
    ItemError::Empty { modality: Modality::Text }
}

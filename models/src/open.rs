//! Opening parts of a record as the modules of its family.

use std::sync::Arc;

use burn::tensor::Device;

use crate::blocks::{TokenTable, Weights};
use crate::builder::Builder;
use crate::error::RecordError;
use crate::family::{AudioEncoder, FamilyConfig, ImageEncoder, TextModel, Tokens};
use crate::record::{Dtype, RecordFolder, TOKENS_FILE, TOWERS_FILE, text_file};

impl FamilyConfig {
    /// Opens the token table, shared by all tasks, without any task's special rows; one without rows where no text is read.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_tokens(&self, record: &RecordFolder) -> Result<TokenTable, RecordError> {
        let (vocab, hidden) = (self.spec().vocab, self.spec().hidden);
        if vocab == 0 { Ok(TokenTable::described(0, hidden)) } else { TokenTable::open(record, vocab, hidden) }
    }

    /// Opens one task's text model.
    ///
    /// # Errors
    /// [`RecordError::UnknownTask`], or [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_text(
        &self,
        record: &RecordFolder,
        task: &str,
        tokens: &TokenTable,
        compute: Dtype,
        device: &Device,
    ) -> Result<Arc<dyn TextModel>, RecordError> {
        open_text(record, task, tokens, compute, device, |b, tokens| self.config().text_model(b, tokens))
    }

    /// Opens the image tower; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_image(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<ImageEncoder>, RecordError> {
        self.open_tower(record, compute, device, |b| self.config().image_encoder(b))
    }

    /// Opens the audio tower; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_audio(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<AudioEncoder>, RecordError> {
        self.open_tower(record, compute, device, |b| self.config().audio_encoder(b))
    }

    fn open_tower<T>(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
        build: impl Fn(&Builder<'_>) -> Option<T>,
    ) -> Result<Option<T>, RecordError> {
        if Builder::describe("", &build).0.is_none() {
            return Ok(None);
        }
        // The file holds every tower, and is checked as a whole.
        let part = record.part(TOWERS_FILE, &self.tower_tensors())?;
        Ok(Builder::load("", Weights::new(&part, compute, device), build))
    }
}

impl TokenTable {
    /// Opens the table of a record, shared by all tasks, without any task's special rows.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not a table `[vocab, hidden]` and nothing else.
    pub fn open(record: &RecordFolder, vocab: usize, hidden: usize) -> Result<Self, RecordError> {
        let part = record.part(TOKENS_FILE, &[Self::spec(vocab, hidden)])?;
        Ok(Self::load(&part, vocab, hidden))
    }
}

/// A task's part of a record, built.
///
/// # Errors
/// [`RecordError::UnknownTask`], or [`RecordError`] if the part is not what `build` describes.
pub(crate) fn open_text<T>(
    record: &RecordFolder,
    task: &str,
    tokens: &TokenTable,
    compute: Dtype,
    device: &Device,
    build: impl Fn(&Builder<'_>, Tokens<'_>) -> T,
) -> Result<T, RecordError> {
    record.check_task(task)?;
    let ids = &record.header().special_token_ids;
    let (_, specs) = Builder::describe("", |b| build(b, Tokens::Described(ids.len())));
    let part = record.part(&text_file(task), &specs)?;
    let weights = Weights::new(&part, compute, device);
    Ok(Builder::load("", weights, |b| build(b, Tokens::Table(tokens.clone(), ids))))
}

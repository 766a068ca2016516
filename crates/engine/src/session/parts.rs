//! The parts of a record: opened when first used, complete before their first forward, never half there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;
use omniburn_media::TextTokenizer;
use omniburn_models::RecordError;
use omniburn_models::blocks::TokenTable;
use omniburn_models::family::{AudioEncoder, ImageEncoder, TextModel};
use omniburn_models::record::{Dtype, Modality, RecordFolder, TOKENIZER_FILE, TOKENS_FILE, TOWERS_FILE, text_file};

use crate::error::EngineError;
use crate::memory::copied_weights;

/// Parts up to this size are read against their digests whenever they are opened: 64 MiB, about 50 ms.
pub const VERIFY_SMALL_BYTES: u64 = 64 << 20;

/// A record on a device, with whatever of it has been opened so far.
#[derive(Debug)]
pub(crate) struct Parts {
    record: Arc<RecordFolder>,
    device: Device,
    compute: Dtype,
    verify: bool,
    tokens: TokenTable,
    texts: Mutex<HashMap<String, Arc<dyn TextModel>>>,
    image: Lazy<ImageEncoder>,
    audio: Lazy<AudioEncoder>,
}

/// A tower that may not be open yet.
type Lazy<T> = Mutex<Option<Arc<T>>>;

impl Parts {
    /// Opens the token table; everything else waits until it is used.
    pub(crate) fn open(
        record: Arc<RecordFolder>,
        device: Device,
        compute: Dtype,
        verify: bool,
    ) -> Result<Self, RecordError> {
        if record.header().family.takes(Modality::Text) {
            check_digest(&record, TOKENS_FILE, verify)?;
        }
        let tokens = record.header().family.open_tokens(&record)?;
        Ok(Self {
            record,
            device,
            compute,
            verify,
            tokens,
            texts: Mutex::default(),
            image: Lazy::default(),
            audio: Lazy::default(),
        })
    }

    /// The tokenizer, read anew; one without tokens where no text is read.
    pub(crate) fn tokenizer(&self) -> Result<TextTokenizer, EngineError> {
        if !self.record.header().family.takes(Modality::Text) {
            return Ok(TextTokenizer::without_tokens());
        }
        if self.verify || !self.record.is_inside() {
            self.record.verify_file(TOKENIZER_FILE)?;
        }
        if !self.record.is_inside() {
            return TextTokenizer::from_file(&self.record.tokenizer_path()).map_err(EngineError::Tokenizer);
        }
        TextTokenizer::from_bytes(&self.record.bytes(TOKENIZER_FILE)?).map_err(EngineError::Tokenizer)
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn compute(&self) -> Dtype {
        self.compute
    }

    /// One task's backbone and connectors if they are open.
    pub(crate) fn opened_text(&self, task: &str) -> Option<Arc<dyn TextModel>> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).get(task).cloned()
    }

    /// One task's backbone and connectors; runs on the device's thread.
    pub(crate) fn text(&self, task: &str) -> Result<Arc<dyn TextModel>, RecordError> {
        // The lock is held while opening, so that two callers never open the same part twice.
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = texts.get(task) {
            return Ok(Arc::clone(text));
        }
        check_digest(&self.record, &text_file(task), self.verify)?;
        let family = &self.record.header().family;
        let text = family.open_text(&self.record, task, &self.tokens, self.compute, &self.device)?;
        tracing::info!(task, "opened a task");
        texts.insert(task.into(), Arc::clone(&text));
        Ok(text)
    }

    /// The image tower; runs on the device's thread. `None` where the checkpoint has none.
    pub(crate) fn image(&self) -> Result<Option<Arc<ImageEncoder>>, RecordError> {
        let family = &self.record.header().family;
        self.tower(&self.image, "image", || family.open_image(&self.record, self.compute, &self.device))
    }

    /// The audio tower; runs on the device's thread. `None` where the checkpoint has none.
    pub(crate) fn audio(&self) -> Result<Option<Arc<AudioEncoder>>, RecordError> {
        let family = &self.record.header().family;
        self.tower(&self.audio, "audio", || family.open_audio(&self.record, self.compute, &self.device))
    }

    /// Whether everything that reads a kind of input for a task is open.
    pub(crate) fn is_open(&self, modality: Modality, task: &str) -> bool {
        fn open<T>(place: &Lazy<T>) -> bool {
            place.lock().unwrap_or_else(PoisonError::into_inner).is_some()
        }
        let tower = match modality {
            _ if modality == Modality::Text || !self.record.header().family.takes(modality) => true,
            Modality::Audio => open(&self.audio),
            _ => open(&self.image),
        };
        tower && self.opened_text(task).is_some()
    }

    /// Opens everything that reads a kind of input for a task; runs on the device's thread.
    pub(crate) fn open_for(&self, modality: Modality, task: &str) -> Result<(), RecordError> {
        self.text(task)?;
        match modality {
            Modality::Text => {}
            Modality::Audio => {
                self.audio()?;
            }
            Modality::Image | Modality::Video => {
                self.image()?;
            }
        }
        Ok(())
    }

    fn tower<T>(
        &self,
        place: &Lazy<T>,
        name: &str,
        open: impl FnOnce() -> Result<Option<T>, RecordError>,
    ) -> Result<Option<Arc<T>>, RecordError> {
        let mut tower = place.lock().unwrap_or_else(PoisonError::into_inner);
        if tower.is_none() && self.record.header().files.contains_key(TOWERS_FILE) {
            check_digest(&self.record, TOWERS_FILE, self.verify)?;
            *tower = open()?.map(Arc::new);
            tracing::info!("opened the {name} tower");
        }
        Ok(tower.clone())
    }

    /// Bytes of memory that opening it will copy.
    pub(crate) fn copies(&self, modality: Modality, task: &str) -> u64 {
        let text = self.opened_text(task).is_none().then_some(task);
        copied_weights(&self.record, text, Some(modality), self.compute)
    }
}

/// Reads a file against its digest where that was asked for or takes little time. What lies in the program is as sound as
/// the program: reading 33 MB of it again took 16 of the 97 ms from exec to the first vector.
fn check_digest(record: &RecordFolder, file: &str, verify: bool) -> Result<(), RecordError> {
    let small = record.header().files.get(file).is_some_and(|f| f.bytes <= VERIFY_SMALL_BYTES);
    if verify || (small && !record.is_inside()) { record.verify_file(file) } else { Ok(()) }
}

//! The parts of a record: opened when first used, complete before their first forward, never half there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;
use omniburn_models::RecordError;
use omniburn_models::blocks::TokenTable;
use omniburn_models::families::Family;
use omniburn_models::families::omni::{OmniConfig, OmniText};
use omniburn_models::record::{Dtype, RecordFolder, TOKENS_FILE, TOWERS_FILE, text_file};
use omniburn_models::towers::audio::AudioTower;
use omniburn_models::towers::vision::VisionTower;

use crate::options::VERIFY_SMALL_BYTES;

/// A record on a device, with whatever of it has been opened so far.
#[derive(Debug)]
pub(crate) struct Parts {
    record: RecordFolder,
    device: Device,
    compute: Dtype,
    verify: bool,
    tokens: TokenTable,
    texts: Mutex<HashMap<String, Arc<OmniText>>>,
    vision: Lazy<VisionTower>,
    audio: Lazy<AudioTower>,
}

/// A tower that may not be open yet.
type Lazy<T> = Mutex<Option<Arc<T>>>;

impl Parts {
    /// Opens the token table; everything else waits until it is used.
    pub(crate) fn open(
        record: RecordFolder,
        device: Device,
        compute: Dtype,
        verify: bool,
    ) -> Result<Self, RecordError> {
        check_digest(&record, TOKENS_FILE, verify)?;
        let Family::Omni(config) = &record.header().family else {
            return Err(RecordError::FamilyNotOpened { family: record.header().family.name() });
        };
        let tokens = config.open_tokens(&record)?;
        Ok(Self {
            record,
            device,
            compute,
            verify,
            tokens,
            texts: Mutex::default(),
            vision: Lazy::default(),
            audio: Lazy::default(),
        })
    }

    pub(crate) fn record(&self) -> &RecordFolder {
        &self.record
    }

    pub(crate) fn config(&self) -> &OmniConfig {
        let Family::Omni(config) = &self.record.header().family else {
            unreachable!("other families are refused when a record is opened")
        };
        config
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn compute(&self) -> Dtype {
        self.compute
    }

    /// One task's backbone and connectors if they are open.
    pub(crate) fn opened_text(&self, task: &str) -> Option<Arc<OmniText>> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).get(task).cloned()
    }

    /// One task's backbone and connectors; runs on the device's thread.
    pub(crate) fn text(&self, task: &str) -> Result<Arc<OmniText>, RecordError> {
        // The lock is held while opening, so that two callers never open the same part twice.
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = texts.get(task) {
            return Ok(Arc::clone(text));
        }
        check_digest(&self.record, &text_file(task), self.verify)?;
        let text = self.config().open_text(&self.record, task, self.tokens.clone(), self.compute, &self.device)?;
        tracing::info!(task, "opened a task");
        let text = Arc::new(text);
        texts.insert(task.into(), Arc::clone(&text));
        Ok(text)
    }

    /// The picture tower; runs on the device's thread. `None` where the checkpoint has none.
    pub(crate) fn vision(&self) -> Result<Option<Arc<VisionTower>>, RecordError> {
        let config = self.config();
        let open = || config.open_vision(&self.record, self.compute, &self.device);
        self.tower(&self.vision, config.vision.is_some(), "picture", open)
    }

    /// The sound tower; runs on the device's thread. `None` where the checkpoint has none.
    pub(crate) fn audio(&self) -> Result<Option<Arc<AudioTower>>, RecordError> {
        let config = self.config();
        let open = || config.open_audio(&self.record, self.compute, &self.device);
        self.tower(&self.audio, config.audio.is_some(), "sound", open)
    }

    fn tower<T>(
        &self,
        place: &Lazy<T>,
        has: bool,
        name: &str,
        open: impl FnOnce() -> Result<Option<T>, RecordError>,
    ) -> Result<Option<Arc<T>>, RecordError> {
        let mut tower = place.lock().unwrap_or_else(PoisonError::into_inner);
        if tower.is_none() && has {
            check_digest(&self.record, TOWERS_FILE, self.verify)?;
            *tower = open()?.map(Arc::new);
            tracing::info!("opened the {name} tower");
        }
        Ok(tower.clone())
    }

    /// Whether the picture tower is open.
    pub(crate) fn vision_is_open(&self) -> bool {
        self.vision.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether the sound tower is open.
    pub(crate) fn audio_is_open(&self) -> bool {
        self.audio.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

fn check_digest(record: &RecordFolder, file: &str, verify: bool) -> Result<(), RecordError> {
    let small = record.header().files.get(file).is_some_and(|f| f.bytes <= VERIFY_SMALL_BYTES);
    if verify || small { record.verify_file(file) } else { Ok(()) }
}

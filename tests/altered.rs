//! Copies of a record with another configuration or other weights, and the tensors of a record by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use omniburn::Dtype;
use omniburn::record::FamilyConfig;
use omniburn_models::families::OmniConfig;
use omniburn_models::record::{PartTensor, RecordWriter, TOKENIZER_FILE, text_file};

use crate::support::{next, open, scratch};

/// The task whose part is read and written.
const TASK: &str = "retrieval";

/// A tensor of a record as it is stored.
struct Stored {
    file: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Every tensor of one task of an f32 record.
pub struct Tensors(BTreeMap<String, Stored>);

impl Tensors {
    pub fn of(path: &Path) -> Self {
        let record = open(path);
        let parts =
            record.parts().into_iter().filter(|(file, _)| !file.starts_with("text.") || *file == text_file(TASK));
        let mut tensors = BTreeMap::new();
        for (file, specs) in parts {
            let part = record.part(&file, &specs).unwrap();
            for spec in specs {
                let (dtype, bytes) = (part.dtype(&spec.name), part.bytes(&spec.name).to_vec());
                tensors.insert(spec.name, Stored { file: file.clone(), dtype, shape: spec.shape, bytes });
            }
        }
        Self(tensors)
    }

    fn stored(&self, name: &str) -> &Stored {
        self.0.get(name).unwrap_or_else(|| panic!("the record has no {name}"))
    }

    pub fn shape(&self, name: &str) -> &[usize] {
        &self.stored(name).shape
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        let stored = self.stored(name);
        assert_eq!(stored.dtype, Dtype::F32, "{name}");
        stored.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// On flex.
    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.values(name), self.shape(name).to_vec()), &Device::flex())
    }

    pub fn set(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
        let stored = self.0.get_mut(name).unwrap_or_else(|| panic!("the record has no {name}"));
        assert_eq!(stored.dtype, Dtype::F32, "{name}");
        stored.shape = shape.to_vec();
        stored.bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    }

    pub fn remove(&mut self, name: &str) {
        assert!(self.0.remove(name).is_some(), "the record has no {name}");
    }

    /// Column `j` becomes the column `from(j)`; of a vector, the value.
    pub fn permute_columns(&mut self, name: &str, from: impl Fn(usize) -> usize) {
        let (shape, values) = (self.shape(name).to_vec(), self.values(name));
        let width = *shape.last().unwrap();
        let moved: Vec<f32> =
            values.chunks_exact(width).flat_map(|row| (0..width).map(|j| row[from(j)]).collect::<Vec<_>>()).collect();
        self.set(name, &shape, &moved);
    }

    /// Row `i` becomes the row `from(i)`.
    pub fn permute_rows(&mut self, name: &str, from: impl Fn(usize) -> usize) {
        let (shape, values) = (self.shape(name).to_vec(), self.values(name));
        let width = shape[1];
        let moved: Vec<f32> = (0..shape[0]).flat_map(|i| values[from(i) * width..][..width].to_vec()).collect();
        self.set(name, &shape, &moved);
    }

    /// A vector repeated end to end.
    pub fn repeat(&mut self, name: &str, times: usize) {
        let values = self.values(name).repeat(times);
        self.set(name, &[values.len()], &values);
    }
}

/// A copy of an omni record in f32, of one task, with another configuration and other tensors.
pub fn altered(path: &Path, change: impl FnOnce(&mut OmniConfig, &mut Tensors)) -> PathBuf {
    let (original, mut tensors) = (open(path), Tensors::of(path));
    let mut header = original.header().clone();
    let mut config = header.family.of::<OmniConfig>().expect("a record of this family").clone();
    change(&mut config, &mut tensors);
    header.family = FamilyConfig::new(config.clone());
    // The record says twice how many patches are merged.
    if let (Some(vision), preprocess) = (&config.vision, &mut header.preprocess) {
        for pixels in [&mut preprocess.image, &mut preprocess.video].into_iter().flatten() {
            pixels.merge = vision.merge as u32;
        }
    }
    (header.tasks, header.default_task) = (vec![TASK.into()], TASK.into());
    let out = scratch().join(format!("altered-{}", next()));
    let mut writer = RecordWriter::create(&out, false).unwrap();
    let mut files: BTreeMap<String, Vec<PartTensor>> = BTreeMap::new();
    for (name, stored) in tensors.0 {
        let bytes = stored.bytes;
        let tensor = PartTensor::new(name, stored.dtype, stored.shape, move || Ok(bytes.clone()));
        files.entry(stored.file).or_default().push(tensor);
    }
    for (file, tensors) in files {
        writer.write_part(&file, tensors, |_| {}).unwrap();
    }
    writer.copy_file(TOKENIZER_FILE, &original.tokenizer_path()).unwrap();
    writer.finish(header).unwrap();
    out
}

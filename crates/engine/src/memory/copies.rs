//! Weights that are copied when they are opened, computed from a record's header.

use std::collections::HashSet;

use omniburn_models::record::{Dtype, Modality, RecordFolder, TOWERS_FILE, TensorRole, TensorSpec, text_file};

/// Bytes of memory that opening parts of a record copies: weights that are not computed in the type they are stored in.
/// Those that are lie mapped and are not among them. `task` is the text part meant, `tower` the kind of input whose tower
/// is meant.
pub fn copied_weights(record: &RecordFolder, task: Option<&str>, tower: Option<Modality>, compute: Dtype) -> u64 {
    let tower = tower.map_or_else(Vec::new, |modality| record.header().family.encoder_tensors(modality));
    let names: HashSet<&str> = tower.iter().map(|spec| spec.name.as_str()).collect();
    let text = task.map(text_file);
    let mut bytes = 0;
    for (file, specs) in record.parts() {
        let entry = &record.header().files[&file];
        for spec in &specs {
            if text.as_ref() == Some(&file) || (file == TOWERS_FILE && names.contains(spec.name.as_str())) {
                let tensor = entry.tensors.get(&spec.name);
                let (stored, panels) = tensor.map_or((Dtype::F32, false), |tensor| (tensor.dtype, tensor.is_packed()));
                bytes += copied(spec, stored, panels, compute);
            }
        }
    }
    bytes
}

/// Bytes of a tensor in memory where it is not used as it lies in its file.
fn copied(spec: &TensorSpec, stored: Dtype, panels: bool, compute: Dtype) -> u64 {
    let elements = spec.elements() as u64;
    let becomes = match spec.role {
        TensorRole::Linear => compute,
        TensorRole::Rows => Dtype::F32,
        TensorRole::Exact | TensorRole::Tokens | TensorRole::Scale => return 0,
    };
    // Affine groups are multiplied as they lie, but for an order of columns that no record of ours has.
    if stored.is_affine() {
        return 0;
    }
    // What a matrix is multiplied in: bf16 stays as it is stored even where products are in f32.
    let becomes = match (spec.role, stored, becomes) {
        (TensorRole::Linear, Dtype::Bf16, Dtype::F32) => Dtype::Bf16,
        (_, Dtype::F32, Dtype::Int8) => Dtype::F32,
        (TensorRole::Linear, Dtype::Bf16, Dtype::Int8) => Dtype::Bf16,
        (.., becomes) => becomes,
    };
    // In f32 a matrix is multiplied as it lies, in panels or not.
    let either = spec.role != TensorRole::Linear || stored == Dtype::F32;
    let as_it_lies = either || panels == spec.panels(becomes).is_some();
    match (stored == becomes, stored) {
        (true, _) if as_it_lies => 0,
        (true, _) => elements * becomes.bytes() as u64,
        // Expanded to f32 on the way, a tensor at a time.
        (false, _) => elements * (4 + becomes.bytes() as u64),
    }
}

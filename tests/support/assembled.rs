//! A checkpoint that is stored as what it does not share with another one.
//!
//! The torch-ordered (`-unified`) form of a checkpoint has most of its tensors, its tokenizer, configurations and adapters in
//! common with the channels-last one beside it. `own.safetensors` holds the tensors that differ, the index says in
//! which shard each name belongs; the rest is taken from the other checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::{copy_folder, scratch};

/// The tensors that are not the other checkpoint's; a folder with this file is put together before it is read.
const OWN: &str = "own.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Names in the torch-ordered form, and in the other one.
const PREFIXES: [(&str, &str); 3] = [
    ("visual.", "vision_tower."),
    ("mergers.retrieval.", "merger."),
    ("audio_projectors.retrieval.", "audio_projector."),
];

/// `checkpoints/name`, or where it stands once it is put together from its two sources.
pub fn whole(checkpoints: &Path, name: &str) -> PathBuf {
    let stored = checkpoints.join(name);
    let Some(shares_with) = name.strip_suffix("-unified").filter(|_| stored.join(OWN).is_file()) else {
        return stored;
    };
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let out = scratch().join("checkpoints").join(name);
    let other = checkpoints.join(shares_with);
    if out.join(INDEX).is_file() {
        return out;
    }
    copy_folder(&other, &out);
    std::fs::remove_file(out.join("model.safetensors")).unwrap();
    let (own, shared) =
        (std::fs::read(stored.join(OWN)).unwrap(), std::fs::read(other.join("model.safetensors")).unwrap());
    let (own, shared) = (SafeTensors::deserialize(&own).unwrap(), SafeTensors::deserialize(&shared).unwrap());
    let index: Value = serde_json::from_slice(&std::fs::read(stored.join(INDEX)).unwrap()).unwrap();
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in index["weight_map"].as_object().unwrap() {
        shards.entry(shard.as_str().unwrap()).or_default().push(tensor);
    }
    for (shard, names) in shards {
        let views = names.into_iter().map(|name| {
            let tensor = own.tensor(name).or_else(|_| shared.tensor(&renamed(name)));
            (name, tensor.unwrap_or_else(|_| panic!("{name} is in neither source")))
        });
        safetensors::serialize_to_file(views, None, &out.join(shard)).unwrap();
    }
    // Last, as it says that all is there.
    std::fs::copy(stored.join(INDEX), out.join(INDEX)).unwrap();
    out
}

fn renamed(name: &str) -> String {
    let found = PREFIXES.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)));
    found.unwrap_or_else(|| name.to_string())
}

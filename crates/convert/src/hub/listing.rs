//! What a model on the hub holds, and which of its files a record is made from.

use omniburn_models::checkpoint::{HEAD_FILES, TextFiles};
use omniburn_models::record::TOKENIZER_FILE;
use omniburn_models::registry;
use serde_json::Value;

use super::error::HubError;
use crate::chat::TEMPLATE_FILE;
use crate::colbert::METADATA_FILE;
use crate::files::{ADAPTER_CONFIG, CONFIG_FILE, MODULES_FILE};
use crate::lora::ADAPTER_WEIGHTS;
use crate::processor_files::PREPROCESSOR_FILES;
use crate::sentence_transformers::{PROMPTS_FILE, TRANSFORMER_FILES};
use crate::source::{INDEX_FILE, SINGLE_FILE};
use crate::tokenizer_settings::TOKENIZER_FILES;

/// Bytes of a listing at most: tens of thousands of files.
pub(super) const MOST_LISTING: u64 = 32 << 20;
/// Bytes of a JSON file that is read to choose further files.
pub(super) const MOST_JSON: u64 = 64 << 20;

const ADAPTERS: &str = "adapters/";

/// Whether `convert` reads a small file of this name, in the folder of a model or of one of its modules.
fn is_side_file(name: &str) -> bool {
    [CONFIG_FILE, MODULES_FILE, PROMPTS_FILE, TOKENIZER_FILE, INDEX_FILE, TEMPLATE_FILE, METADATA_FILE].contains(&name)
        || TOKENIZER_FILES.contains(&name)
        || TRANSFORMER_FILES.contains(&name)
        || PREPROCESSOR_FILES.contains(&name)
}

/// Endings of weights in formats that are not read.
const OTHER_WEIGHTS: [&str; 9] = [".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".npz"];

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Path inside the model, parts joined by `/`.
    pub name: String,
    /// Bytes, where the listing says so.
    pub bytes: Option<u64>,
    /// Its name in the cache, where the listing says so: SHA-256 of a large file, git's id of a small one.
    pub etag: Option<String>,
    /// SHA-256 of its content, where the listing says so.
    pub sha256: Option<String>,
}

/// A model at a commit.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<Listed>,
    pub licence: Option<String>,
}

/// Reads what the hub answers about a model.
///
/// # Source
/// huggingface_hub 1.2, `hf_api.ModelInfo`: `sha`, `siblings` with `rfilename`, `size`, `blobId`, `lfs.sha256`; `cardData`.
/// # Errors
/// [`HubError::Answer`] where it is not that.
pub(super) fn read(url: &str, text: &[u8]) -> Result<Listing, HubError> {
    let wrong = |reason: String| HubError::Answer { url: url.into(), reason };
    let root: Value = serde_json::from_slice(text).map_err(|e| wrong(format!("not the JSON of a model: {e}")))?;
    let commit = root.get("sha").and_then(Value::as_str).unwrap_or_default();
    if !is_commit(commit) {
        return Err(wrong(format!("`sha` is {commit:?}, expected a commit of 40 or 64 hexadecimal digits")));
    }
    let siblings = root.get("siblings").and_then(Value::as_array);
    let siblings = siblings.ok_or_else(|| wrong("no list `siblings` of files".into()))?;
    let mut files = Vec::new();
    for sibling in siblings {
        let name = sibling.get("rfilename").and_then(Value::as_str).unwrap_or_default();
        if !is_inside(name) {
            return Err(wrong(format!("lists a file {name:?}, which is no path inside a model")));
        }
        let lfs = sibling.get("lfs").filter(|lfs| lfs.is_object());
        let word = |from: Option<&Value>, field: &str| {
            let found = from.and_then(|value| value.get(field)).and_then(Value::as_str);
            found.filter(|word| is_hex(word)).map(str::to_ascii_lowercase)
        };
        let sha256 = word(lfs, "sha256").filter(|digest| digest.len() == 64);
        // A large file is known by its own digest, a small one by git's.
        let etag = if lfs.is_some() { sha256.clone() } else { word(Some(sibling), "blobId") };
        let size = lfs.and_then(|lfs| lfs.get("size")).or(sibling.get("size")).and_then(Value::as_u64);
        files.push(Listed { name: name.into(), bytes: size, etag, sha256 });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.dedup_by(|a, b| a.name == b.name);
    Ok(Listing { commit: commit.into(), files, licence: licence(&root) })
}

impl Listing {
    /// A file by its path inside the model.
    pub fn file(&self, name: &str) -> Option<&Listed> {
        self.files.iter().find(|file| file.name == name)
    }

    /// The GGUF files of the model.
    pub fn gguf_files(&self) -> Vec<String> {
        self.files.iter().map(|file| file.name.clone()).filter(|name| is_gguf(name)).collect()
    }
}

/// Whether a path inside a model names a GGUF file.
pub(super) fn is_gguf(name: &str) -> bool {
    name.len() > 5 && name.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether a GGUF file is one of several that hold a model together, as `llama-gguf-split` names them.
pub(super) fn is_split(name: &str) -> bool {
    let digits = |word: &str| word.len() == 5 && word.bytes().all(|b| b.is_ascii_digit());
    let Some(stem) = name.get(..name.len().saturating_sub(5)) else { return false };
    stem.rsplit_once("-of-").is_some_and(|(front, count)| {
        let number = front.rsplit_once('-').map(|(_, number)| number);
        digits(count) && number.is_some_and(digits) && count != "00001"
    })
}

/// The licence of a model card, with the page that it lies on.
fn licence(root: &Value) -> Option<String> {
    let card = root.get("cardData");
    let field = |name: &str| card.and_then(|card| card.get(name)).and_then(Value::as_str);
    let tag = root.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let tagged = tag.filter_map(|tag| tag.strip_prefix("license:")).next();
    let listed = card.and_then(|card| card.get("license")).and_then(Value::as_array);
    let listed = listed.map(|all| all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    let name = match field("license").or(listed.as_deref()).or(tagged)? {
        "other" => field("license_name").unwrap_or("other"),
        name => name,
    };
    Some(match field("license_link") {
        Some(link) => format!("{name} ({link})"),
        None => name.into(),
    })
}

/// Whether a commit's name has git's form.
pub(super) fn is_commit(name: &str) -> bool {
    (name.len() == 40 || name.len() == 64) && is_hex(name)
}

/// Whether a word is hexadecimal: such words are names of files in the cache.
pub(super) fn is_hex(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a path of the hub stays inside the folder of its model on every system.
pub(super) fn is_inside(name: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    name.len() <= 1024
        && name.split('/').all(plain)
        && !name.contains(['\\', ':', '\0'])
        && !name.chars().any(char::is_control)
}

/// What a record is made from, as far as it is known before the indexes of shards are read.
#[derive(Debug)]
pub(super) struct Needed {
    folders: Vec<String>,
    /// Small files: whatever `convert` reads beside weights, the indexes of shards, and the configurations of adapters.
    pub side: Vec<Listed>,
    weights: Vec<Listed>,
    indexes: Vec<Listed>,
    /// Weights in formats that are not read, in folders that have no others.
    pub other: Vec<String>,
    /// Files without which nothing is converted and that the model lacks: configuration and tokenizer, in the folder of the
    /// transformer. A static table, the first of its modules, has no configuration.
    pub missing: Vec<String>,
}

impl Needed {
    /// Of a model whose list of modules is given, if it has one.
    ///
    /// # Errors
    /// As [`module_folders`].
    pub fn of(listing: &Listing, repo: &str, modules: Option<&Value>) -> Result<Self, HubError> {
        let folders = module_folders(repo, modules)?;
        let (mut weights, mut indexes, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for folder in &folders {
            match weights_in(listing, folder) {
                Weights::Single(file) => weights.push(file),
                Weights::Index(file) => indexes.push(file),
                Weights::Other(found) => other.extend(found),
                Weights::None => {}
            }
        }
        let (side, missing) = (side_files(listing, &folders), missing(listing, &folders, modules));
        Ok(Self { folders, side, weights, indexes, other, missing })
    }

    /// Whether nothing is missing but a tokenizer, which a model that reads no text does not have.
    pub fn lacks_tokenizer_alone(&self) -> bool {
        self.missing == [TOKENIZER_FILE]
    }

    /// Asks for no tokenizer where the family of a model with this configuration reads no text.
    pub fn ask_less(&mut self, config: Option<&Value>) {
        let rules = config.and_then(registry::rules_for);
        if self.lacks_tokenizer_alone() && rules.is_some_and(|rules| rules.steps.texts == TextFiles::None) {
            self.missing.clear();
        }
    }

    /// Whether the model has weights in the format that is read.
    pub fn has_weights(&self) -> bool {
        !self.weights.is_empty() || !self.indexes.is_empty()
    }

    /// The large files: weights, shards, adapters and heads. `read` gives the content of an index.
    ///
    /// # Errors
    /// As [`shards`], and what `read` says.
    pub fn large(
        &self,
        listing: &Listing,
        read: impl Fn(&Listed) -> Result<Value, HubError>,
    ) -> Result<Vec<Listed>, HubError> {
        let mut files = self.weights.clone();
        for index in &self.indexes {
            files.extend(shards(listing, index, &read(index)?)?);
        }
        files.extend(adapters(listing));
        files.extend(heads(listing, &self.folders));
        Ok(files)
    }
}

/// The small files to begin with: whatever `convert` reads beside weights, in the model's folder and in those that `folders`
/// names, and what belongs to adapters.
fn side_files(listing: &Listing, folders: &[String]) -> Vec<Listed> {
    let wanted = |file: &&Listed| {
        let (folder, name) = file.name.rsplit_once('/').unwrap_or(("", &file.name));
        let here = folders.iter().any(|wanted| wanted == folder);
        (here && is_side_file(name)) || (file.name.starts_with(ADAPTERS) && name == ADAPTER_CONFIG)
    };
    listing.files.iter().filter(wanted).cloned().collect()
}

/// Folders of the modules of a sentence-transformers model, the model's own first.
///
/// # Errors
/// A path that leaves the model; what else is wrong with the file, `convert` says.
fn module_folders(repo: &str, modules: Option<&Value>) -> Result<Vec<String>, HubError> {
    let mut folders = vec![String::new()];
    for module in modules.and_then(Value::as_array).into_iter().flatten() {
        let path = module.get("path").and_then(Value::as_str).unwrap_or_default();
        let path = path.trim_start_matches("./").trim_end_matches('/');
        if !path.is_empty() && !is_inside(path) {
            let reason = format!("{MODULES_FILE} names the folder {path:?}, which is not inside the model");
            return Err(HubError::Answer { url: repo.into(), reason });
        }
        if !folders.iter().any(|known| known == path) {
            folders.push(path.into());
        }
    }
    Ok(folders)
}

/// Which weights there are in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Weights {
    /// One file.
    Single(Listed),
    /// The index that names the shards.
    Index(Listed),
    /// Only formats that are not read.
    Other(Vec<String>),
    /// None at all.
    None,
}

/// The weights in a folder; one file counts before an index, as it does for `convert`.
fn weights_in(listing: &Listing, folder: &str) -> Weights {
    let of = |name: &str| {
        let path = joined(folder, name);
        listing.files.iter().find(|file| file.name == path).cloned()
    };
    if let Some(single) = of(SINGLE_FILE) {
        return Weights::Single(single);
    }
    if let Some(index) = of(INDEX_FILE) {
        return Weights::Index(index);
    }
    let here = listing.files.iter().filter(|file| file.name.rsplit_once('/').map_or("", |(at, _)| at) == folder);
    let other = |name: &&str| {
        let small = ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"];
        !small.contains(&name.rsplit('/').next().unwrap_or(name)) && OTHER_WEIGHTS.iter().any(|end| name.ends_with(end))
    };
    let found: Vec<String> = here.map(|file| file.name.as_str()).filter(other).map(str::to_string).collect();
    if found.is_empty() { Weights::None } else { Weights::Other(found) }
}

/// The shards that an index names.
///
/// # Errors
/// [`HubError::Answer`] for an index that is none, or that names a file which the model has not.
fn shards(listing: &Listing, index: &Listed, content: &Value) -> Result<Vec<Listed>, HubError> {
    let wrong = |reason: String| HubError::Answer { url: index.name.clone(), reason };
    let map = content.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| wrong("no `weight_map` of tensors and their files".into()))?;
    let folder = index.name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut names: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let find = |name: &str| {
        let path = joined(folder, name);
        let found = listing.files.iter().find(|file| file.name == path).cloned();
        found.ok_or_else(|| wrong(format!("names {name:?}, which the model does not have")))
    };
    names.into_iter().map(find).collect()
}

/// Weights of adapters, each beside its configuration.
fn adapters(listing: &Listing) -> Vec<Listed> {
    let name = |file: &Listed| file.name.rsplit_once('/').is_some_and(|(_, name)| name == ADAPTER_WEIGHTS);
    let of = |file: &&Listed| file.name.starts_with(ADAPTERS) && name(file);
    listing.files.iter().filter(of).cloned().collect()
}

/// Heads over rows, in files of their own beside the weights.
fn heads(listing: &Listing, folders: &[String]) -> Vec<Listed> {
    let of = |file: &&Listed| {
        let (folder, name) = file.name.rsplit_once('/').unwrap_or(("", &file.name));
        let head = name.strip_suffix(".safetensors").is_some_and(|name| HEAD_FILES.contains(&name));
        head && folders.iter().any(|wanted| wanted == folder)
    };
    listing.files.iter().filter(of).cloned().collect()
}

/// See [`Needed::missing`].
fn missing(listing: &Listing, folders: &[String], modules: Option<&Value>) -> Vec<String> {
    let class = modules.and_then(|modules| modules.get(0)?.get("type")?.as_str());
    let is_table = class.is_some_and(|class| class.rsplit('.').next() == Some("StaticEmbedding"));
    let there = |name: &str| {
        let has = |folder: &String| listing.files.iter().any(|file| file.name == joined(folder, name));
        folders.iter().any(has)
    };
    let needed: &[&str] = if is_table { &[TOKENIZER_FILE] } else { &[CONFIG_FILE, TOKENIZER_FILE] };
    needed.iter().filter(|name| !there(name)).map(|name| name.to_string()).collect()
}

fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.into() } else { format!("{folder}/{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn listing(names: &[&str]) -> Listing {
        let siblings: Vec<Value> = names.iter().map(|name| json!({ "rfilename": name })).collect();
        let root = json!({ "sha": COMMIT, "siblings": siblings });
        read("here", root.to_string().as_bytes()).unwrap()
    }

    fn names(files: Vec<Listed>) -> Vec<String> {
        files.into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn files_that_a_record_needs_and_no_others_are_chosen() {
        let all = [
            "README.md",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "onnx/config.json",
            "openvino/openvino_model.bin",
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "modules.json",
            "train_script.py",
            "adapters/retrieval/adapter_config.json",
            "adapters/retrieval/adapter_model.safetensors",
            "colbert_linear.safetensors",
            "sparse_linear.pt",
            "onnx/sparse_linear.safetensors",
        ];
        let listing = listing(&all);
        let modules = json!([{ "path": "" }, { "path": "1_Pooling" }, { "path": "2_Dense/" }]);
        let folders = module_folders("org/name", Some(&modules)).unwrap();
        assert_eq!(folders, ["", "1_Pooling", "2_Dense"]);
        let expected = [
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "adapters/retrieval/adapter_config.json",
            "config.json",
            "modules.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        let needed = Needed::of(&listing, "org/name", Some(&modules)).unwrap();
        assert!(needed.has_weights() && needed.other.is_empty() && needed.missing.is_empty());
        let large = needed.large(&listing, |index| panic!("{index:?} is no index")).unwrap();
        assert_eq!(names(needed.side), expected);
        let expected = [
            "model.safetensors",
            "2_Dense/model.safetensors",
            "adapters/retrieval/adapter_model.safetensors",
            "colbert_linear.safetensors",
        ];
        assert_eq!(names(large), expected);
        assert_eq!(weights_in(&listing, "1_Pooling"), Weights::None);
    }

    #[test]
    fn shards_come_from_the_index_and_pickles_are_named() {
        let sharded = listing(&["model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors", "x.bin"]);
        let Weights::Index(index) = weights_in(&sharded, "") else { panic!("an index") };
        let map = json!({ "weight_map": { "a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors" } });
        assert_eq!(names(shards(&sharded, &index, &map).unwrap()), ["model-1.safetensors", "model-2.safetensors"]);
        let map = json!({ "weight_map": { "a": "model-3.safetensors" } });
        assert!(shards(&sharded, &index, &map).unwrap_err().to_string().contains("model-3.safetensors"));
        assert!(shards(&sharded, &index, &json!([])).is_err());
        let pickled = listing(&["pytorch_model.bin", "training_args.bin", "config.json"]);
        let needed = Needed::of(&pickled, "org/name", None).unwrap();
        assert!(!needed.has_weights());
        assert_eq!((needed.other, needed.missing), (vec!["pytorch_model.bin".into()], vec!["tokenizer.json".into()]));
        let mut encoders = Needed::of(&listing(&["model.safetensors", "config.json"]), "org/name", None).unwrap();
        assert!(encoders.lacks_tokenizer_alone());
        encoders.ask_less(Some(&json!({"model_type": "bert", "architectures": ["BertModel"]})));
        assert_eq!(encoders.missing, ["tokenizer.json"]);
        encoders
            .ask_less(Some(&json!({"model_type": "qwen3_omni_moe_thinker", "architectures": ["Qwen3OmniMoeThinker"]})));
        assert!(encoders.missing.is_empty());
        let table =
            listing(&["modules.json", "0_StaticEmbedding/tokenizer.json", "0_StaticEmbedding/model.safetensors"]);
        let modules = json!([{ "type": "sentence_transformers.models.StaticEmbedding", "path": "0_StaticEmbedding" }]);
        let needed = Needed::of(&table, "org/name", Some(&modules)).unwrap();
        assert!(needed.missing.is_empty() && needed.has_weights());
        assert_eq!(missing(&table, &needed.folders, None), ["config.json"]);
    }

    #[test]
    fn paths_that_leave_the_model_are_refused() {
        for name in ["../x", "/x", "a//b", "a/../b", "a\\b", "C:x", "", "a/.", "a\nb"] {
            let root = json!({ "sha": COMMIT, "siblings": [{ "rfilename": name }] });
            assert!(read("here", root.to_string().as_bytes()).is_err(), "{name:?}");
        }
        assert!(module_folders("org/name", Some(&json!([{ "path": "../other" }]))).is_err());
    }

    #[test]
    fn digests_sizes_and_the_licence_are_read() {
        let digest = "a".repeat(64);
        let root = json!({
            "sha": COMMIT,
            "siblings": [
                { "rfilename": "model.safetensors", "size": 130, "lfs": { "sha256": digest, "size": 1000 } },
                { "rfilename": "config.json", "size": 7, "blobId": "b".repeat(40) },
                { "rfilename": "odd.json", "size": 7, "blobId": "../../etc" },
            ],
            "cardData": { "license": "other", "license_name": "gemma", "license_link": "LICENSE.md" },
        });
        let listing = read("here", root.to_string().as_bytes()).unwrap();
        let file = |name: &str| listing.files.iter().find(|file| file.name == name).unwrap();
        assert_eq!(file("model.safetensors").sha256.as_deref(), Some(digest.as_str()));
        assert_eq!(file("model.safetensors").etag.as_deref(), Some(digest.as_str()));
        assert_eq!(file("model.safetensors").bytes, Some(1000));
        assert_eq!(
            (file("config.json").etag.as_deref(), file("config.json").bytes),
            (Some("b".repeat(40).as_str()), Some(7))
        );
        assert_eq!(file("odd.json").etag, None);
        assert_eq!(listing.licence.as_deref(), Some("gemma (LICENSE.md)"));
        for root in [json!({ "sha": "main", "siblings": [] }), json!({ "sha": COMMIT }), json!([])] {
            assert!(read("here", root.to_string().as_bytes()).is_err(), "{root}");
        }
    }
}

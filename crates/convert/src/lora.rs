//! LoRA adapters: pairs of low-rank factors, the scale from the adapter's own configuration, the change they make.
//!
//! `W' = W + scale · B·A` in f32, on weights as the checkpoint lays them (`[out, in]`), before anything is transposed,
//! fused or rounded. Whatever else PEFT can do to a weight is refused by the name of its field.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use omniburn_models::checkpoint::KeyMap;
use serde_json::Value;

use crate::error::{ConvertError, DtypeFault, ShapeFault};
use crate::fields::{Faults, Fields, shown};
use crate::files::read_json;
use crate::layout;
use crate::safefile::{Pairs, SafeFile};

/// File name of an adapter's configuration.
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
/// File name of an adapter's tensors.
pub(crate) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

const WRAPPER: &str = "base_model.model.";
const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

/// Fields that are read, or that do not touch the arithmetic of a trained adapter.
const NEUTRAL: [&str; 26] = [
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "peft_type",
    "peft_version",
    "init_lora_weights",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "lora_dropout",
    "runtime_config",
    "ensure_weight_tying",
    // Which modules have factors is told by the tensors.
    "target_modules",
    "exclude_modules",
    "layers_pattern",
    "layers_to_transform",
    // How training began.
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    // Parameters of variants that a flag of their own switches on.
    "megatron_core",
    "qalora_group_size",
];

/// Initialisations after which the saved factors still stand for a change of the published weights.
const INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Scale and rank rules of `adapter_config.json`.
#[derive(Debug)]
struct Rules {
    rank: usize,
    alpha: f64,
    rank_stabilised: bool,
    ranks: Vec<(String, usize)>,
    alphas: Vec<(String, f64)>,
}

impl Rules {
    fn read(path: &Path) -> Result<Self, ConvertError> {
        let root: Value = read_json(path)?;
        let faults = Faults::of(path);
        let fields = Fields::new("", Some(&root), &faults);
        if !root.is_object() {
            faults.add("adapter_config.json", shown(Some(&root)), "an object");
        }
        refuse_variants(fields);
        let rules = Self {
            rank: fields.needed_size("r"),
            alpha: fields.needed_number("lora_alpha"),
            rank_stabilised: fields.flag("use_rslora").unwrap_or(false),
            ranks: Vec::new(),
            alphas: Vec::new(),
        };
        // In the order of the file, where the first pattern that matches counts.
        #[derive(serde::Deserialize)]
        struct Patterns {
            rank_pattern: Option<Pairs<Value>>,
            alpha_pattern: Option<Pairs<Value>>,
        }
        faults.check()?;
        let Patterns { rank_pattern, alpha_pattern } = read_json(path)?;
        let size = |v: &Value| v.as_u64().filter(|n| (1..=1 << 20).contains(n)).map(|n| n as usize);
        let rules = Self {
            ranks: patterns("rank_pattern", rank_pattern, "a rank", size, &faults),
            alphas: patterns("alpha_pattern", alpha_pattern, "a number", Value::as_f64, &faults),
            ..rules
        };
        faults.check()?;
        Ok(rules)
    }

    fn rank(&self, module: &str) -> usize {
        first_match(&self.ranks, module).unwrap_or(self.rank)
    }

    fn scale(&self, module: &str) -> f64 {
        let (rank, alpha) = (self.rank(module) as f64, first_match(&self.alphas, module).unwrap_or(self.alpha));
        alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}

/// Refuses every field with a value that changes what the factors mean, known or not.
fn refuse_variants(fields: Fields<'_>) {
    fields.only_text("peft_type", "LORA");
    if let Some(init) = fields.get("init_lora_weights")
        && !init.is_boolean()
        && !init.as_str().is_some_and(|s| INITIALISATIONS.contains(&s))
    {
        fields.fault("init_lora_weights", format!("true, false or one of {}", INITIALISATIONS.join(", ")));
    }
    for (name, value) in fields.present() {
        let off = match value {
            Value::Bool(on) => !on,
            Value::String(text) => text.is_empty() || (name == "bias" && text == "none"),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !off && !NEUTRAL.contains(&name.as_str()) {
            let expected = if name == "bias" { "\"none\"" } else { "nothing: only plain LoRA is merged" };
            fields.fault(name, expected);
        }
    }
}

/// Patterns that are plain module names or endings of them; a regular expression is refused.
fn patterns<T>(
    field: &str,
    pairs: Option<Pairs<Value>>,
    expected: &str,
    parse: impl Fn(&Value) -> Option<T>,
    faults: &Faults,
) -> Vec<(String, T)> {
    let plain = |p: &str| p.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let mut read = Vec::new();
    for (pattern, value) in pairs.map(|Pairs(pairs)| pairs).unwrap_or_default() {
        if !plain(pattern.trim_start_matches('^')) {
            faults.add(format!("{field}.{pattern}"), "a regular expression", "a module name or its end");
        }
        match parse(&value) {
            Some(value) => read.push((pattern, value)),
            None => faults.add(format!("{field}.{pattern}"), shown(Some(&value)), expected),
        }
    }
    read
}

/// The value of the first pattern that is the module's name or, after a dot, its end.
fn first_match<T: Copy>(patterns: &[(String, T)], module: &str) -> Option<T> {
    let matches = |pattern: &str| match pattern.strip_prefix('^') {
        Some(whole) => module == whole,
        None => module.strip_suffix(pattern).is_some_and(|before| before.is_empty() || before.ends_with('.')),
    };
    patterns.iter().find(|(pattern, _)| matches(pattern)).map(|(_, value)| *value)
}

/// The two factors of one weight.
#[derive(Debug, Clone)]
struct Factors {
    a: String,
    b: String,
    rank: usize,
    scale: f64,
}

/// What merging one weight did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Change {
    /// Frobenius norm of what was added.
    pub added: f64,
    /// Frobenius norm of the weight before.
    pub there: f64,
}

/// An opened adapter: factors by the canonical name of the weight they change.
#[derive(Debug)]
pub(crate) struct Adapter {
    file: SafeFile,
    config: PathBuf,
    factors: BTreeMap<String, Factors>,
    /// Rank of the configuration, which patterns may vary.
    pub rank: usize,
    /// Alpha of the configuration, which patterns may vary.
    pub alpha: f64,
    /// Whether the scale is divided by the square root of the rank.
    pub rank_stabilised: bool,
}

impl Adapter {
    /// Opens the adapter in a folder and checks that its factors pair up and have the ranks of its configuration.
    pub fn open(folder: &Path, map: &KeyMap) -> Result<Self, ConvertError> {
        let (config, weights) = (folder.join(ADAPTER_CONFIG), folder.join(ADAPTER_WEIGHTS));
        let missing: Vec<PathBuf> = [&config, &weights].into_iter().filter(|p| !p.is_file()).cloned().collect();
        if !missing.is_empty() {
            return Err(ConvertError::MissingFiles { paths: missing });
        }
        let rules = Rules::read(&config)?;
        let file = SafeFile::open(&weights)?;
        let factors = pair(&file, map, &rules)?;
        let adapter = Self {
            config,
            factors,
            rank: rules.rank,
            alpha: rules.alpha,
            rank_stabilised: rules.rank_stabilised,
            file,
        };
        adapter.check_types()?;
        Ok(adapter)
    }

    /// The adapter's files.
    pub fn paths(&self) -> [PathBuf; 2] {
        [self.config.clone(), self.file.path().to_path_buf()]
    }

    /// Canonical names of the weights it changes, with the scale of each.
    pub fn targets(&self) -> impl Iterator<Item = (&str, f64)> {
        self.factors.iter().map(|(name, f)| (name.as_str(), f.scale))
    }

    /// Checks every target against the weights of a task's text part: name to `[outputs, inputs]`.
    ///
    /// Towers are shared by all tasks, so a weight of theirs is no target.
    pub fn check_targets(&self, weights: &BTreeMap<&str, &[usize]>) -> Result<(), ConvertError> {
        let adapter = self.file.path().to_path_buf();
        let mut keys = Vec::new();
        let mut faults = Vec::new();
        for (name, f) in &self.factors {
            let Some([outputs, inputs]) = weights.get(name.as_str()) else {
                keys.extend([f.a.clone(), f.b.clone()]);
                continue;
            };
            for (key, expected) in [(&f.a, vec![f.rank, *inputs]), (&f.b, vec![*outputs, f.rank])] {
                let found = &self.file.tensors[key].shape;
                if *found != expected {
                    faults.push(ShapeFault { tensor: key.clone(), expected: vec![expected], found: found.clone() });
                }
            }
        }
        if !keys.is_empty() {
            return Err(ConvertError::LoraTargetMissing { adapter, keys });
        }
        if !faults.is_empty() {
            return Err(ConvertError::LoraShape { adapter, faults });
        }
        Ok(())
    }

    /// Adds the adapter's change to a weight, if it has one for it.
    ///
    /// # Shapes
    /// - `weight`: `[outputs, inputs]`
    pub fn merge(&self, name: &str, weight: &mut [f32], inputs: usize) -> Result<Option<Change>, ConvertError> {
        let Some(f) = self.factors.get(name) else { return Ok(None) };
        let (a, b) = (self.file.read_f32(&f.a)?, self.file.read_f32(&f.b)?);
        let (added, there) = layout::add_low_rank(weight, inputs, &a, &b, f.scale as f32);
        Ok(Some(Change { added, there }))
    }

    /// The adapter's folder and file, without what is above.
    pub fn short_name(&self) -> String {
        let folder = self.file.path().parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        format!("{folder}/{ADAPTER_WEIGHTS}")
    }

    /// Every factor with the number of its NaN and infinite values.
    pub fn non_finite(&self) -> Result<Vec<(String, usize)>, ConvertError> {
        self.factors
            .values()
            .flat_map(|f| [&f.a, &f.b])
            .map(|key| self.file.non_finite(key).map(|count| (key.clone(), count)))
            .collect()
    }

    fn check_types(&self) -> Result<(), ConvertError> {
        let faults: Vec<DtypeFault> =
            self.file.tensors.iter().filter_map(|(name, tensor)| tensor.dtype_fault(name)).collect();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ConvertError::LoraDtype { adapter: self.file.path().to_path_buf(), faults })
        }
    }
}

/// Pairs every A with its B, and checks ranks on both sides.
fn pair(file: &SafeFile, map: &KeyMap, rules: &Rules) -> Result<BTreeMap<String, Factors>, ConvertError> {
    let adapter = || file.path().to_path_buf();
    let (mut strangers, mut orphans, mut faults, mut twice) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut factors: BTreeMap<String, Factors> = BTreeMap::new();
    let module_of = |key: &str, half: &str| key.strip_prefix(WRAPPER)?.strip_suffix(half).map(str::to_string);
    for key in file.tensors.keys() {
        let (module, other) = match (module_of(key, A), module_of(key, B)) {
            (Some(module), _) => (module, B),
            (_, Some(module)) => (module, A),
            _ => {
                strangers.push(key.clone());
                continue;
            }
        };
        let other_key = format!("{WRAPPER}{module}{other}");
        if !file.tensors.contains_key(&other_key) {
            orphans.push(key.clone());
            continue;
        }
        if other == A {
            continue;
        }
        let (a, b) = (key, &other_key);
        let rank = rules.rank(&module);
        for (key, axis) in [(a, 0), (b, 1)] {
            let found = &file.tensors[key].shape;
            if found.len() != 2 || found[axis] != rank {
                let mut expected = if found.len() == 2 { found.clone() } else { vec![0, 0] };
                expected[axis] = rank;
                faults.push(ShapeFault { tensor: key.clone(), expected: vec![expected], found: found.clone() });
            }
        }
        let name = map.canonical(&format!("{module}.weight"));
        let scale = rules.scale(&module);
        if let Some(before) = factors.insert(name, Factors { a: a.clone(), b: b.clone(), rank, scale }) {
            twice.push(format!("{} and {a}", before.a));
        }
    }
    if !twice.is_empty() {
        return Err(ConvertError::Duplicates { names: twice });
    }
    if !strangers.is_empty() {
        return Err(ConvertError::LoraTargetMissing { adapter: adapter(), keys: strangers });
    }
    if !orphans.is_empty() {
        return Err(ConvertError::LoraOrphans { adapter: adapter(), keys: orphans });
    }
    if !faults.is_empty() {
        return Err(ConvertError::LoraShape { adapter: adapter(), faults });
    }
    Ok(factors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_a_whole_name_or_its_end_after_a_dot_and_the_first_one_counts() {
        let patterns = vec![("layers.1.q_proj".to_string(), 1), ("q_proj".to_string(), 2), ("^v_proj".to_string(), 3)];
        assert_eq!(first_match(&patterns, "model.layers.1.q_proj"), Some(1));
        assert_eq!(first_match(&patterns, "model.layers.11.q_proj"), Some(2));
        assert_eq!(first_match(&patterns, "model.layers.1.eq_proj"), None);
        assert_eq!(first_match(&patterns, "v_proj"), Some(3));
        assert_eq!(first_match(&patterns, "layer.v_proj"), None);
    }

    #[test]
    fn the_scale_follows_rank_alpha_and_stabilisation() {
        let mut rules = Rules { rank: 4, alpha: 8.0, rank_stabilised: false, ranks: vec![], alphas: vec![] };
        assert_eq!(rules.scale("x.q_proj"), 2.0);
        rules.rank_stabilised = true;
        assert_eq!(rules.scale("x.q_proj"), 4.0);
        rules.ranks.push(("q_proj".into(), 16));
        rules.alphas.push(("q_proj".into(), 2.0));
        assert_eq!(rules.scale("x.q_proj"), 0.5);
        assert_eq!(rules.scale("x.k_proj"), 4.0);
    }
}

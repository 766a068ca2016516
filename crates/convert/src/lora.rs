//! LoRA and DoRA adapters: what the tensors of an adapter change, and the change they make.
//!
//! `W' = W + scale · B·A` in f32, on weights as the checkpoint lays them (`[out, in]`), before anything is transposed,
//! fused or rounded. With magnitudes each row is then brought to a length of its own. Tensors that an adapter saved whole
//! (biases, modules, tables) take the place of the checkpoint's.
//!
//! Source: PEFT 0.21.2, `get_delta_weight` and `merge` of `Linear`, `Embedding` and `_ConvNd`, `DoraLinearVariant`,
//! `DoraEmbeddingVariant`, `get_peft_model_state_dict`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use omniburn_models::checkpoint::KeyMap;

use crate::error::{ConvertError, DtypeFault, ShapeFault};
use crate::files::ADAPTER_CONFIG;
use crate::layout;
use crate::lora_config::{Biases, LoraConfig};
use crate::report::DroppedTensor;
use crate::safefile::SafeFile;

/// File name of an adapter's tensors.
pub(crate) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// The same as a pickle, which is never opened.
const ADAPTER_PICKLE: &str = "adapter_model.bin";

const WRAPPER: &str = "base_model.model.";
const WEIGHT: &str = ".weight";
const BIAS: &str = ".bias";

/// What a tensor of an adapter is, behind the name of its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Half {
    A,
    B,
    TableA,
    TableB,
    FactorBias,
    Magnitude,
}

/// Ends of names; a magnitude has two spellings.
const HALVES: [(&str, Half); 7] = [
    (".lora_A.weight", Half::A),
    (".lora_B.weight", Half::B),
    (".lora_embedding_A", Half::TableA),
    (".lora_embedding_B", Half::TableB),
    (".lora_B.bias", Half::FactorBias),
    (".lora_magnitude_vector", Half::Magnitude),
    (".lora_magnitude_vector.weight", Half::Magnitude),
];

/// The two factors of one weight, and what comes with them.
#[derive(Debug, Clone)]
struct Factors {
    /// The module, as the adapter names it.
    module: String,
    a: String,
    b: String,
    /// Whether the weight is a table of rows, whose factors lie the other way round.
    table: bool,
    /// Bias of the second factor.
    bias: Option<String>,
    /// Lengths of the rows of the weight; of its columns where it is a table.
    magnitude: Option<String>,
    rank: usize,
    scale: f64,
}

impl Factors {
    fn keys(&self) -> impl Iterator<Item = &String> {
        [&self.a, &self.b].into_iter().chain(&self.bias).chain(&self.magnitude)
    }
}

/// What merging one weight did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Change {
    /// Frobenius norm of what was added.
    pub added: f64,
    /// Frobenius norm of the weight before.
    pub there: f64,
}

/// A tensor of a record's part that an adapter may change, as the checkpoint has it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Part of the record.
    pub part: usize,
    /// Whether it is the weight of a linear.
    pub linear: bool,
    /// Whether it is one that a module of PyTorch with such a name may have; false of channels-last convolutions.
    pub torch: bool,
    /// Whether it is also read in the place of an output table, which PEFT leaves as it was, or not.
    pub tied: bool,
}

/// The tensors that an adapter may change, by canonical name.
pub(crate) type Targets = BTreeMap<String, Target>;

/// An opened adapter: what it changes, by the canonical name of the tensor changed.
#[derive(Debug)]
pub(crate) struct Adapter {
    file: SafeFile,
    pub config: LoraConfig,
    factors: BTreeMap<String, Factors>,
    /// Keys of tensors that take the place of the checkpoint's.
    whole: BTreeMap<String, String>,
    /// What stands in front of canonical names in the adapter's own.
    prefixes: BTreeSet<String>,
}

impl Adapter {
    /// Opens the adapter in a folder and checks that its tensors fit each other and its configuration.
    pub fn open(folder: &Path, map: &KeyMap) -> Result<Self, ConvertError> {
        let (config, weights) = (folder.join(ADAPTER_CONFIG), folder.join(ADAPTER_WEIGHTS));
        let missing: Vec<PathBuf> = [&config, &weights].into_iter().filter(|p| !p.is_file()).cloned().collect();
        if missing == [weights.clone()] && folder.join(ADAPTER_PICKLE).is_file() {
            return Err(ConvertError::OtherWeights {
                path: folder.to_path_buf(),
                found: vec![format!("{ADAPTER_PICKLE} (a pickle of PyTorch)")],
                way: format!(
                    "{ADAPTER_WEIGHTS} would do, which opens without running anything: `save_pretrained(OUT)` of PEFT writes it"
                ),
            });
        }
        if !missing.is_empty() {
            return Err(ConvertError::MissingFiles { paths: missing });
        }
        let config = LoraConfig::read(&config)?;
        let file = SafeFile::open(&weights)?;
        let faults: Vec<DtypeFault> =
            file.tensors.iter().filter_map(|(name, tensor)| tensor.dtype_fault(name)).collect();
        if !faults.is_empty() {
            return Err(ConvertError::LoraDtype { adapter: weights, faults });
        }
        Self { file, config, factors: BTreeMap::new(), whole: BTreeMap::new(), prefixes: BTreeSet::new() }.sorted(map)
    }

    /// Sorts the tensors of the file by what they change.
    fn sorted(mut self, map: &KeyMap) -> Result<Self, ConvertError> {
        let mut modules: BTreeMap<String, BTreeMap<Half, String>> = BTreeMap::new();
        let mut wholes: Vec<(String, bool, String)> = Vec::new();
        let (mut strangers, mut orphans, mut twice, mut untold) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for key in self.file.tensors.keys() {
            let Some(name) = key.strip_prefix(WRAPPER) else {
                strangers.push(key.clone());
                continue;
            };
            if let Some((module, half)) = HALVES.iter().find_map(|(end, half)| Some((name.strip_suffix(end)?, *half))) {
                twice.extend(
                    modules
                        .entry(module.into())
                        .or_default()
                        .insert(half, key.clone())
                        .map(|before| format!("{before} and {key}")),
                );
            } else if name.contains(".lora_") || name.contains(".token_adapter.") {
                strangers.push(key.clone());
            } else {
                let own = [WEIGHT, BIAS].iter().find_map(|leaf| {
                    name.strip_suffix(leaf)?.strip_suffix(".base_layer").map(|module| format!("{module}{leaf}"))
                });
                wholes.push((own.clone().unwrap_or_else(|| name.into()), own.is_some(), key.clone()));
            }
        }
        for (module, halves) in modules {
            let all = || halves.values().cloned();
            let (table, [a, b]) = match [Half::A, Half::B, Half::TableA, Half::TableB].map(|half| halves.get(&half)) {
                [Some(a), Some(b), None, None] => (false, [a, b]),
                [None, None, Some(a), Some(b)] => (true, [a, b]),
                _ => {
                    orphans.extend(all());
                    continue;
                }
            };
            let linear = !table && self.file.tensors[a].shape.len() == 2;
            if !self.config.has_factors(&module, linear)? {
                untold.extend(all());
                continue;
            }
            let with = |half| halves.get(&half).cloned();
            let (bias, magnitude) = (with(Half::FactorBias), with(Half::Magnitude));
            // A switch of the configuration and its tensor come together.
            if magnitude.is_some() && !self.config.magnitudes || bias.is_some() && !self.config.factor_bias {
                strangers.extend(magnitude.filter(|_| !self.config.magnitudes));
                strangers.extend(bias.filter(|_| !self.config.factor_bias));
                continue;
            }
            if magnitude.is_none() && self.config.magnitudes || bias.is_none() && self.config.factor_bias && !table {
                orphans.extend(all());
                continue;
            }
            let weight = map.canonical(&format!("{module}{WEIGHT}"));
            if let Some(canonical) = weight.strip_suffix(WEIGHT)
                && let Some(prefix) = module.strip_suffix(canonical)
            {
                self.prefixes.insert(prefix.into());
            }
            let (rank, scale) = (self.config.rank_of(&module)?, self.config.scale_of(&module)?);
            let factors = Factors { a: a.clone(), b: b.clone(), table, bias, magnitude, rank, scale, module };
            if let Some(before) = self.factors.insert(weight, factors) {
                twice.push(format!("{} and {a}", before.a));
            }
        }
        for (name, wrapped, key) in wholes {
            // Inside a wrapped module a tensor is found under `base_layer` alone.
            let canonical = map.canonical(&name);
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            if wrapped != self.factors.values().any(|factors| factors.module == module) {
                strangers.push(key);
            } else if let Some(before) = self.whole.insert(canonical, key.clone()) {
                twice.push(format!("{before} and {key}"));
            }
        }
        let adapter = || self.file.path().to_path_buf();
        if !twice.is_empty() {
            return Err(ConvertError::Duplicates { names: twice });
        }
        if !strangers.is_empty() {
            strangers.sort();
            return Err(ConvertError::LoraTargetMissing {
                adapter: adapter(),
                keys: strangers,
                base: self.config.base.clone(),
            });
        }
        if !orphans.is_empty() {
            return Err(ConvertError::LoraOrphans { adapter: adapter(), keys: orphans });
        }
        if !untold.is_empty() {
            return Err(ConvertError::LoraNotTargeted { adapter: adapter(), keys: untold });
        }
        Ok(self)
    }

    /// The adapter's files.
    pub fn paths(&self) -> [PathBuf; 2] {
        [self.config.path().to_path_buf(), self.file.path().to_path_buf()]
    }

    /// Canonical names of the weights that it has factors for, with the scale of each.
    pub fn factors(&self) -> impl Iterator<Item = (&str, f64)> {
        self.factors.iter().map(|(name, f)| (name.as_str(), f.scale))
    }

    /// Canonical names of the tensors that it brings whole.
    pub fn replaced(&self) -> impl Iterator<Item = &str> {
        self.whole.keys().map(String::as_str)
    }

    /// Checks everything it changes against what it may change, and gives what is left aside, with the reason: tensors that
    /// no record is made from. `unused` says why such a tensor is not read; `shared` names tensors that several tasks read.
    ///
    /// # Errors
    /// [`ConvertError::LoraTargetMissing`], [`ConvertError::LoraShape`], [`ConvertError::LoraFactorsMissing`],
    /// [`ConvertError::AdapterShared`], [`ConvertError::AdapterTied`].
    pub fn check(
        &self,
        targets: &Targets,
        unused: &dyn Fn(&str) -> Option<String>,
        shared: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<DroppedTensor>, ConvertError> {
        let mut found = Findings::default();
        for (name, f) in &self.factors {
            match targets.get(name) {
                Some(target) if target.torch && target.shape.len() >= 2 => {
                    self.check_factors(name, f, target, targets, &mut found)
                }
                other => found.lost(name, f.keys(), other.is_none(), unused, shared),
            }
        }
        for (name, key) in &self.whole {
            match targets.get(name) {
                Some(target) => {
                    found.touched(name, target);
                    self.shape(key, vec![target.shape.clone()], &mut found);
                }
                None => found.lost(name, [key].into_iter(), true, unused, shared),
            }
        }
        let (adapter, base) = (self.file.path().to_path_buf(), self.config.base.clone());
        if !found.shared.is_empty() {
            return Err(ConvertError::AdapterShared { adapter, tensors: found.shared });
        }
        if !found.keys.is_empty() {
            return Err(ConvertError::LoraTargetMissing { adapter, keys: found.keys, base });
        }
        if !found.tied.is_empty() {
            return Err(ConvertError::AdapterTied { adapter, tensors: found.tied });
        }
        if !found.shapes.is_empty() {
            return Err(ConvertError::LoraShape { adapter, faults: found.shapes, base });
        }
        let missing = self.missing(targets, &found.parts)?;
        if !missing.is_empty() {
            return Err(ConvertError::LoraFactorsMissing { adapter, missing });
        }
        Ok(found.aside)
    }

    fn check_factors(&self, name: &str, f: &Factors, target: &Target, targets: &Targets, found: &mut Findings) {
        found.touched(name, target);
        let shape = &target.shape;
        let (outputs, inputs) = (shape[0], &shape[1..]);
        let [a, b] = if f.table {
            [vec![f.rank, outputs], vec![inputs.iter().product(), f.rank]]
        } else {
            let ones = vec![1; inputs.len() - 1];
            [[&[f.rank], inputs].concat(), [&[outputs, f.rank][..], &ones].concat()]
        };
        self.shape(&f.a, vec![a], found);
        self.shape(&f.b, vec![b], found);
        if let Some(magnitude) = &f.magnitude {
            // The norm of a convolution is taken over other axes.
            if shape.len() == 2 {
                self.shape(magnitude, vec![vec![if f.table { inputs[0] } else { outputs }]], found);
            } else {
                found.keys.push(magnitude.clone());
            }
        }
        if let Some(bias) = &f.bias {
            match bias_of(name).and_then(|name| targets.get(&name)) {
                Some(own) => self.shape(bias, vec![own.shape.clone()], found),
                None => found.keys.push(bias.clone()),
            }
        }
    }

    fn shape(&self, key: &str, expected: Vec<Vec<usize>>, found: &mut Findings) {
        let shape = &self.file.tensors[key].shape;
        if !expected.contains(shape) {
            found.shapes.push(ShapeFault { tensor: key.into(), expected, found: shape.clone() });
        }
    }

    /// What the configuration names and the file does not hold, of the parts that it changes at all: towers that an adapter
    /// was not made with have modules of the same names.
    fn missing(&self, targets: &Targets, parts: &BTreeSet<usize>) -> Result<Vec<String>, ConvertError> {
        let mut missing = Vec::new();
        let none = BTreeSet::from([String::new()]);
        let prefixes = if self.prefixes.is_empty() { &none } else { &self.prefixes };
        for (name, target) in targets.iter().filter(|(_, target)| parts.contains(&target.part)) {
            let saved = prefixes.iter().any(|prefix| self.config.saves(&format!("{prefix}{name}")));
            if saved && !self.whole.contains_key(name) {
                missing.push(format!("{name} (modules_to_save)"));
            }
            let targeted = self.config.tells_targets() && target.shape.len() >= 2 && target.torch;
            if let Some(module) = name.strip_suffix(WEIGHT).filter(|_| targeted) {
                let mut named = false;
                for prefix in prefixes {
                    named |= self.config.has_factors(&format!("{prefix}{module}"), target.linear)?;
                }
                if named && !self.factors.contains_key(name) {
                    missing.push(format!("{name} (target_modules)"));
                }
            }
            let of_factors = || {
                let weight = name.strip_suffix(BIAS).map(|module| format!("{module}{WEIGHT}"));
                weight.is_some_and(|weight| self.factors.contains_key(&weight))
            };
            let wanted = match self.config.biases {
                Biases::None => false,
                Biases::OfTargets => of_factors(),
                Biases::All => name.ends_with(BIAS),
            };
            if wanted && !self.whole.contains_key(name) {
                missing.push(format!("{name} (bias)"));
            }
        }
        let keys = || self.file.tensors.keys().filter_map(|key| key.strip_prefix(WRAPPER));
        let held = |module: &str| keys().any(|key| key.match_indices('.').any(|(at, _)| key[..at].ends_with(module)));
        missing
            .extend(self.config.saved().filter(|module| !held(module)).map(|name| format!("{name} (modules_to_save)")));
        Ok(missing)
    }

    /// Whether it changes a tensor.
    pub fn changes(&self, name: &str) -> bool {
        self.factors.contains_key(name) || self.whole.contains_key(name) || self.added_bias(name).is_some()
    }

    /// The bias of the second factor that is added to a bias, with its scale.
    fn added_bias(&self, name: &str) -> Option<(&str, f64)> {
        let factors = self.factors.get(&format!("{}{WEIGHT}", name.strip_suffix(BIAS)?))?;
        Some((factors.bias.as_deref()?, factors.scale))
    }

    /// A tensor as the adapter leaves it; `read` gives the checkpoint's own.
    ///
    /// # Shapes
    /// - returns: as the checkpoint has it, `shape`
    pub fn changed(
        &self,
        name: &str,
        shape: &[usize],
        read: impl FnOnce() -> Result<Vec<f32>, ConvertError>,
    ) -> Result<(Vec<f32>, Option<Change>), ConvertError> {
        let mut values = match self.whole.get(name) {
            Some(key) => self.file.read_f32(key)?,
            None => read()?,
        };
        if let Some((key, scale)) = self.added_bias(name) {
            for (value, added) in values.iter_mut().zip(self.file.read_f32(key)?) {
                *value += added * scale as f32;
            }
        }
        let Some(f) = self.factors.get(name) else { return Ok((values, None)) };
        let (mut a, mut b) = (self.file.read_f32(&f.a)?, self.file.read_f32(&f.b)?);
        if f.table {
            // The change of a table is that of its transpose.
            (a, b) =
                (layout::permute(&b, &[shape[1], f.rank], &[1, 0]), layout::permute(&a, &[f.rank, shape[0]], &[1, 0]));
        }
        let inputs = shape[1..].iter().product();
        let Some(magnitude) = &f.magnitude else {
            let (added, there) = layout::add_low_rank(&mut values, inputs, &a, &b, f.scale as f32);
            return Ok((values, Some(Change { added, there })));
        };
        let before = values.clone();
        layout::add_low_rank(&mut values, inputs, &a, &b, f.scale as f32);
        let lengths = self.file.read_f32(magnitude)?;
        if f.table {
            layout::set_column_lengths(&mut values, &lengths);
        } else {
            layout::set_row_lengths(&mut values, inputs, &lengths);
        }
        let (added, there) = layout::distance(&values, &before);
        Ok((values, Some(Change { added, there })))
    }

    /// The adapter's folder and file, without what is above.
    pub fn short_name(&self) -> String {
        let folder = self.file.path().parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        format!("{folder}/{ADAPTER_WEIGHTS}")
    }

    /// Every tensor that changes one of `names`, with the number of its NaN and infinite values.
    pub fn non_finite(&self, names: &[String]) -> Result<Vec<(String, usize)>, ConvertError> {
        let of = |name: &String| {
            let factors = self.factors.get(name).into_iter().flat_map(Factors::keys);
            factors.chain(self.whole.get(name)).cloned().collect::<Vec<_>>()
        };
        let keys = names.iter().flat_map(of);
        keys.map(|key| self.file.non_finite(&key).map(|count| (key, count))).collect()
    }
}

/// What a check finds.
#[derive(Debug, Default)]
struct Findings {
    keys: Vec<String>,
    shapes: Vec<ShapeFault>,
    shared: Vec<String>,
    tied: Vec<String>,
    aside: Vec<DroppedTensor>,
    /// Parts of the record that are changed.
    parts: BTreeSet<usize>,
}

impl Findings {
    fn touched(&mut self, name: &str, target: &Target) {
        self.parts.insert(target.part);
        if target.tied {
            self.tied.push(name.into());
        }
    }

    /// Tensors for something that this task's record is not made from.
    fn lost<'a>(
        &mut self,
        name: &str,
        keys: impl Iterator<Item = &'a String>,
        absent: bool,
        unused: &dyn Fn(&str) -> Option<String>,
        shared: &dyn Fn(&str) -> bool,
    ) {
        if !absent {
            self.keys.extend(keys.cloned());
        } else if let Some(reason) = unused(name) {
            self.aside.extend(keys.map(|key| DroppedTensor { name: key.clone(), reason: reason.clone() }));
        } else if shared(name) {
            self.shared.push(name.into());
        } else {
            self.keys.extend(keys.cloned());
        }
    }
}

/// The bias of a weight.
fn bias_of(weight: &str) -> Option<String> {
    weight.strip_suffix(WEIGHT).map(|module| format!("{module}{BIAS}"))
}

//! `adapter_config.json` as PEFT reads it: which modules have factors, with which rank and scale, and what else an adapter
//! brings.
//!
//! Patterns are regular expressions, as there. Whatever else PEFT can do to a weight is refused by the name of its field.
//!
//! Source: PEFT 0.21.2, `LoraConfig`, `check_target_module_exists`, `get_pattern_key`, `_set_trainable`.

use std::path::{Path, PathBuf};

use fancy_regex::{Captures, Regex, RegexBuilder};
use serde_json::Value;

use crate::error::ConvertError;
use crate::fields::{Faults, Fields, shown};
use crate::files::read_json;
use crate::safefile::Pairs;

/// Fields that do not touch the arithmetic of a trained adapter.
const NEUTRAL: [&str; 16] = [
    "peft_version",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "lora_dropout",
    "runtime_config",
    // Which parameters are one in training; a table that a head shares is refused where it is changed.
    "ensure_weight_tying",
    // How training began.
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    // Parameters of variants that a flag of their own switches on.
    "megatron_core",
    "qalora_group_size",
    // PEFT lays factors as the module does: false for every linear that is read here.
    "fan_in_fan_out",
];

/// Fields that are read.
const READ: [&str; 14] = [
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "peft_type",
    "init_lora_weights",
    "target_modules",
    "exclude_modules",
    "layers_pattern",
    "layers_to_transform",
    "use_dora",
    "lora_bias",
    "modules_to_save",
];

/// Initialisations after which the saved factors still stand for a change of the published weights.
const INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Heads that PEFT adds to `modules_to_save` whether a model has them or not, and leaves out of `all-linear`.
const HEADS: [&str; 2] = ["classifier", "score"];

/// Which biases an adapter brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Biases {
    /// None.
    None,
    /// Those of the modules with factors.
    OfTargets,
    /// Every one of the model.
    All,
}

/// Modules by name.
#[derive(Debug)]
enum Modules {
    /// Every linear but the head.
    AllLinear,
    /// Names that match as a whole.
    Pattern(Pattern),
    /// Whole names, or their ends after a dot.
    Names(Vec<String>),
    /// Nothing is said: those with tensors.
    Untold,
}

/// Layers that are changed, of modules that are matched by the ends of their names.
#[derive(Debug)]
struct Layers {
    indices: Vec<u64>,
    patterns: Vec<Pattern>,
}

/// `adapter_config.json`.
#[derive(Debug)]
pub(crate) struct LoraConfig {
    path: PathBuf,
    /// Rank, which patterns may vary.
    pub rank: usize,
    /// Alpha, which patterns may vary.
    pub alpha: f64,
    /// Whether the scale is divided by the square root of the rank.
    pub rank_stabilised: bool,
    /// Whether the length of each row is a vector of the adapter's own (DoRA).
    pub magnitudes: bool,
    /// Whether the second factor has a bias.
    pub factor_bias: bool,
    /// Which biases the adapter brings.
    pub biases: Biases,
    /// What the adapter says it was made for.
    pub base: Option<String>,
    targets: Modules,
    excluded: Option<Modules>,
    layers: Option<Layers>,
    ranks: Vec<(Pattern, usize)>,
    alphas: Vec<(Pattern, f64)>,
    saved: Vec<(String, Pattern)>,
}

impl LoraConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConvertError::Fields`] with every field that is wrong or not computed, [`ConvertError::Json`], [`ConvertError::Io`].
    pub fn read(path: &Path) -> Result<Self, ConvertError> {
        let root: Value = read_json(path)?;
        let faults = Faults::of(path);
        let fields = Fields::new("", Some(&root), &faults);
        if !root.is_object() {
            faults.add("adapter_config.json", shown(Some(&root)), "an object");
        }
        refuse_variants(fields);
        let targets = modules(fields, "target_modules");
        let layers = layers(fields, targets.as_ref());
        let saved = fields.texts("modules_to_save");
        let saved = saved.into_iter().filter_map(|name| {
            let whole = format!(r"(^|.*\.){name}($|\..*)");
            Pattern::new(&fields.path("modules_to_save"), &name, &whole, &faults).map(|pattern| (name, pattern))
        });
        let config = Self {
            path: path.to_path_buf(),
            rank: fields.needed_size("r"),
            alpha: fields.needed_number("lora_alpha"),
            rank_stabilised: fields.flag("use_rslora").unwrap_or(false),
            magnitudes: fields.flag("use_dora").unwrap_or(false),
            factor_bias: fields.flag("lora_bias").unwrap_or(false),
            biases: match fields.text("bias") {
                None | Some("none") => Biases::None,
                Some("lora_only") => Biases::OfTargets,
                Some("all") => Biases::All,
                Some(_) => {
                    fields.fault("bias", "\"none\", \"all\" or \"lora_only\"");
                    Biases::None
                }
            },
            base: fields.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_string),
            targets: targets.unwrap_or(Modules::Untold),
            excluded: modules(fields, "exclude_modules"),
            layers,
            saved: saved.collect(),
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
        let config = Self {
            ranks: patterns("rank_pattern", rank_pattern, "a rank", size, &faults),
            alphas: patterns("alpha_pattern", alpha_pattern, "a number", Value::as_f64, &faults),
            ..config
        };
        faults.check()?;
        Ok(config)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Rank of a module's factors.
    pub fn rank_of(&self, module: &str) -> Result<usize, ConvertError> {
        Ok(self.first_match(&self.ranks, module)?.unwrap_or(self.rank))
    }

    /// What the product of a module's factors is multiplied by.
    pub fn scale_of(&self, module: &str) -> Result<f64, ConvertError> {
        let rank = self.rank_of(module)? as f64;
        let alpha = self.first_match(&self.alphas, module)?.unwrap_or(self.alpha);
        Ok(alpha / if self.rank_stabilised { rank.sqrt() } else { rank })
    }

    /// Whether a module has factors; `linear` is false of tables and convolutions.
    pub fn has_factors(&self, module: &str, linear: bool) -> Result<bool, ConvertError> {
        let excluded = match &self.excluded {
            None | Some(Modules::AllLinear | Modules::Untold) => false,
            Some(Modules::Pattern(pattern)) => self.matches(pattern, module)?,
            Some(Modules::Names(names)) => names.iter().any(|name| ends_in(module, name)),
        };
        if excluded {
            return Ok(false);
        }
        for (_, pattern) in &self.saved {
            if self.matches(pattern, module)? {
                return Ok(false);
            }
        }
        match &self.targets {
            Modules::AllLinear => Ok(linear && !HEADS.contains(&last_word(module)) && last_word(module) != "lm_head"),
            Modules::Pattern(pattern) => self.matches(pattern, module),
            Modules::Names(names) if names.iter().any(|name| name == module) => Ok(true),
            Modules::Names(names) if names.iter().any(|name| ends_in(module, name)) => self.in_layers(module),
            Modules::Names(_) => Ok(false),
            Modules::Untold => Ok(true),
        }
    }

    /// Whether the file says which modules have factors.
    pub fn tells_targets(&self) -> bool {
        !matches!(self.targets, Modules::Untold)
    }

    /// Whether a tensor belongs to a module that is saved whole.
    pub fn saves(&self, tensor: &str) -> bool {
        let mut modules = tensor.match_indices('.').map(|(at, _)| &tensor[..at]);
        modules.any(|module| self.saved.iter().any(|(name, _)| module.ends_with(name.as_str())))
    }

    /// Modules that are saved whole, without those that PEFT names whether they are there or not.
    pub fn saved(&self) -> impl Iterator<Item = &str> {
        self.saved.iter().map(|(name, _)| name.as_str()).filter(|name| !HEADS.contains(name))
    }

    fn in_layers(&self, module: &str) -> Result<bool, ConvertError> {
        let Some(Layers { indices, patterns }) = &self.layers else { return Ok(true) };
        for pattern in patterns {
            if let Some(found) = self.captures(pattern, module)? {
                let index = found.name("idx").and_then(|digits| digits.as_str().parse::<u64>().ok());
                return Ok(index.is_some_and(|index| indices.contains(&index)));
            }
        }
        Ok(false)
    }

    /// The value of the first pattern that is the module's name or, after a dot, its end.
    fn first_match<T: Copy>(&self, patterns: &[(Pattern, T)], module: &str) -> Result<Option<T>, ConvertError> {
        for (pattern, value) in patterns {
            if self.matches(pattern, module)? {
                return Ok(Some(*value));
            }
        }
        Ok(patterns.iter().find(|(pattern, _)| pattern.text == module).map(|(_, value)| *value))
    }

    fn matches(&self, pattern: &Pattern, module: &str) -> Result<bool, ConvertError> {
        Ok(self.captures(pattern, module)?.is_some())
    }

    fn captures<'a>(&self, pattern: &Pattern, module: &'a str) -> Result<Option<Captures<'a>>, ConvertError> {
        pattern.regex.captures(module).map_err(|reason| {
            let faults = Faults::of(&self.path);
            faults.add(
                &pattern.field,
                &pattern.text,
                format!("a pattern that comes to an end on `{module}`: {reason}"),
            );
            faults.refusal().into()
        })
    }
}

/// A regular expression of the file.
#[derive(Debug)]
struct Pattern {
    /// Where it stands.
    field: String,
    text: String,
    regex: Regex,
}

impl Pattern {
    /// `whole` is the expression that begins where a name begins.
    fn new(field: &str, text: &str, whole: &str, faults: &Faults) -> Option<Self> {
        // Steps back while one name is matched, and bytes of a compiled expression: names are short, and patterns of them.
        const STEPS: usize = 100_000;
        const BYTES: usize = 1 << 20;
        let mut builder = RegexBuilder::new(&format!(r"\A(?:{whole})"));
        match builder.backtrack_limit(STEPS).delegate_size_limit(BYTES).build() {
            Ok(regex) => Some(Self { field: field.into(), text: text.into(), regex }),
            Err(reason) => {
                faults.add(field, shown(Some(&text.into())), format!("a regular expression: {reason}"));
                None
            }
        }
    }
}

/// Whether a module's name is this one or, after a dot, ends in it.
fn ends_in(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The last word of a name.
pub(crate) fn last_word(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
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
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !off && name != "bias" && !READ.contains(&name.as_str()) && !NEUTRAL.contains(&name.as_str()) {
            fields.fault(name, "nothing: only plain LoRA and DoRA are merged");
        }
    }
}

/// A field that names modules: a list, a pattern, or `all-linear`; `None` where it is absent or wrong.
fn modules(fields: Fields<'_>, field: &str) -> Option<Modules> {
    match fields.get(field)? {
        Value::String(text) if text.is_empty() && field != "target_modules" => None,
        Value::String(text) if field == "target_modules" && text.eq_ignore_ascii_case("all-linear") => {
            Some(Modules::AllLinear)
        }
        Value::String(text) => {
            let whole = format!(r"(?:{text})\z");
            Pattern::new(&fields.path(field), text, &whole, fields.faults()).map(Modules::Pattern)
        }
        _ => fields
            .list(field, "a list of modules or a pattern", Value::as_str)
            .map(|names| Modules::Names(names.into_iter().map(str::to_string).collect())),
    }
}

fn layers(fields: Fields<'_>, targets: Option<&Modules>) -> Option<Layers> {
    let value = fields.get("layers_to_transform")?;
    let indices = match value {
        Value::Array(_) => fields.list("layers_to_transform", "whole numbers", Value::as_u64)?,
        _ => vec![fields.count("layers_to_transform")?],
    };
    if indices.is_empty() {
        return None;
    }
    if !matches!(targets, Some(Modules::Names(_)) | None) {
        fields.fault("layers_to_transform", "nothing: target_modules is a pattern, which says the layers itself");
        return None;
    }
    let named = match fields.get("layers_pattern") {
        None => Vec::new(),
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(_) => fields.texts("layers_pattern"),
    };
    let pattern = |text: &str, whole: &str| Pattern::new("layers_pattern", text, whole, fields.faults());
    let patterns = if named.is_empty() {
        // The first number is the layer's: a later one may be an expert's.
        vec![pattern("", r".*?\.[^.]*\.(?P<idx>\d+)\.")?]
    } else {
        let whole = |text: &String| pattern(text, &format!(r"(?:^|.*?\.){text}\.(?P<idx>\d+)\."));
        named.iter().filter_map(whole).collect()
    };
    Some(Layers { indices, patterns })
}

/// Patterns with a value each.
fn patterns<T>(
    field: &str,
    pairs: Option<Pairs<Value>>,
    expected: &str,
    parse: impl Fn(&Value) -> Option<T>,
    faults: &Faults,
) -> Vec<(Pattern, T)> {
    let mut read = Vec::new();
    for (text, value) in pairs.map(|Pairs(pairs)| pairs).unwrap_or_default() {
        let at = format!("{field}.{text}");
        let Some(value) = parse(&value) else {
            faults.add(at, shown(Some(&value)), expected);
            continue;
        };
        read.extend(Pattern::new(&at, &text, &format!(r"(.*\.)?({text})\z"), faults).map(|pattern| (pattern, value)));
    }
    read
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(change: impl FnOnce(&mut Value)) -> Result<LoraConfig, ConvertError> {
        let mut value = json!({"r": 4, "lora_alpha": 8.0, "target_modules": ["q_proj"]});
        change(&mut value);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter_config.json");
        std::fs::write(&path, value.to_string()).unwrap();
        LoraConfig::read(&path)
    }

    #[test]
    fn a_pattern_matches_a_whole_name_or_its_end_after_a_dot_and_the_first_one_counts() {
        let text = r#"{"r": 9, "lora_alpha": 1, "target_modules": [], "rank_pattern":
            {"layers.1.q_proj": 1, "q_proj": 2, "^v_proj": 3, "(?<!cross_)attn\\.k": 4, "^.*experts\\.\\d+\\.down$": 5}}"#;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter_config.json");
        std::fs::write(&path, text).unwrap();
        let config = LoraConfig::read(&path).unwrap();
        let cases = [
            ("model.layers.1.q_proj", 1),
            ("model.layers.11.q_proj", 2),
            ("model.layers.1.eq_proj", 9),
            ("v_proj", 3),
            ("layer.v_proj", 9),
            ("self_attn.k", 9),
            ("a.attn.k", 4),
            ("model.layers.0.experts.12.down", 5),
        ];
        for (module, rank) in cases {
            assert_eq!(config.rank_of(module).unwrap(), rank, "{module}");
        }
    }

    #[test]
    fn the_scale_follows_rank_alpha_and_stabilisation() {
        assert_eq!(config(|_| {}).unwrap().scale_of("x.q_proj").unwrap(), 2.0);
        assert_eq!(config(|c| c["use_rslora"] = json!(true)).unwrap().scale_of("x.q_proj").unwrap(), 4.0);
        let varied = config(|c| {
            c["use_rslora"] = json!(true);
            c["rank_pattern"] = json!({"q_proj": 16});
            c["alpha_pattern"] = json!({".*q_proj": 2.0});
        });
        let varied = varied.unwrap();
        assert_eq!(varied.scale_of("x.q_proj").unwrap(), 0.5);
        assert_eq!(varied.scale_of("x.k_proj").unwrap(), 4.0);
    }

    /// Each case as PEFT 0.21.2's `check_target_module_exists` decides it.
    #[test]
    fn modules_are_told_as_peft_tells_them() {
        let has =
            |change: &dyn Fn(&mut Value), module: &str| config(change).unwrap().has_factors(module, true).unwrap();
        let names = |c: &mut Value| c["target_modules"] = json!(["query", "layer.1.output.dense"]);
        assert!(has(&names, "encoder.layer.0.attention.self.query") && has(&names, "query"));
        assert!(!has(&names, "encoder.layer.0.attention.self.subquery"));
        assert!(has(&names, "encoder.layer.1.output.dense") && !has(&names, "encoder.layer.0.output.dense"));
        let pattern = |c: &mut Value| c["target_modules"] = json!(r".*layer\.[01]\..*(query|value)");
        assert!(has(&pattern, "encoder.layer.0.attention.self.value"));
        assert!(!has(&pattern, "encoder.layer.2.attention.self.value"));
        assert!(!has(&pattern, "encoder.layer.0.attention.self.value.more"), "the whole name");
        let linear = |c: &mut Value| c["target_modules"] = json!("All-Linear");
        assert!(has(&linear, "a.b") && !has(&linear, "classifier") && !has(&linear, "lm_head"));
        assert!(!config(linear).unwrap().has_factors("embed_tokens", false).unwrap());
        let excluded = |c: &mut Value| (names(c), c["exclude_modules"] = json!(["self.query"])).0;
        assert!(!has(&excluded, "encoder.layer.0.attention.self.query") && has(&excluded, "other.query"));
        let excluded = |c: &mut Value| (names(c), c["exclude_modules"] = json!(r".*\.0\..*")).0;
        assert!(!has(&excluded, "layer.0.query") && has(&excluded, "x.1.query"));
        let saved = |c: &mut Value| (names(c), c["modules_to_save"] = json!(["attention"])).0;
        assert!(!has(&saved, "layer.0.attention.self.query") && has(&saved, "layer.0.other.query"));
        let layers = |c: &mut Value| (names(c), c["layers_to_transform"] = json!([1, 3])).0;
        assert!(has(&layers, "encoder.layer.3.query") && !has(&layers, "encoder.layer.2.query"));
        // A quirk of the reference: without a name in front of the list of layers there is no number.
        assert!(!has(&layers, "layer.1.query"));
        assert!(has(&layers, "query"), "a whole name is of no layer");
        let layers = |c: &mut Value| {
            names(c);
            (c["layers_to_transform"], c["layers_pattern"]) = (json!(1), json!(["h", "layer"]));
        };
        assert!(has(&layers, "layer.1.query") && !has(&layers, "layer.11.query") && !has(&layers, "other.1.query"));
    }

    #[test]
    fn what_is_saved_whole_is_told_by_the_end_of_a_module_in_front_of_it() {
        let saved = config(|c| c["modules_to_save"] = json!(["classifier", "pooler.dense"])).unwrap();
        assert!(saved.saves("classifier.weight") && saved.saves("x.classifier.dense.weight"));
        assert!(saved.saves("pooler.dense.bias") && !saved.saves("pooler.weight") && !saved.saves("classifier"));
        assert_eq!(saved.saved().collect::<Vec<_>>(), ["pooler.dense"]);
    }

    #[test]
    fn patterns_that_do_not_compile_or_do_not_end_are_refused_by_their_field() {
        for (field, value) in [
            ("target_modules", json!("(unclosed")),
            ("exclude_modules", json!("[z-a]")),
            ("rank_pattern", json!({"(": 2})),
            ("modules_to_save", json!(["("])),
            ("target_modules", json!("(((a{100}){100}){100}){100}")),
        ] {
            let error = config(|c| c[field] = value.clone()).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("regular expression"), "{error}");
        }
        let endless = config(|c| c["target_modules"] = json!(r"(?:(?=a)(a|aa)+)+\b!")).unwrap();
        let error = endless.has_factors(&"a".repeat(200), true).unwrap_err().to_string();
        assert!(error.contains("target_modules") && error.contains("comes to an end"), "{error}");
    }
}

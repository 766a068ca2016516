//! Checkpoints whose weights are stored in 8 bits with scales beside them: what `quantization_config` says of them, and which
//! scales belong to which weight. They are widened as they are read.
//!
//! | `quant_method` | weights |
//! |---|---|
//! | `fp8` | E4M3 with `weight_scale_inv` a block, as DeepSeek and Qwen publish it, or one `weight_scale` |
//! | `compressed-tensors` | int8 or E4M3 with `weight_scale` a tensor, row, group or block, `weight_zero_point` where it is not symmetric |
//!
//! Everything else is refused by the name of its method: GPTQ, AWQ and bitsandbytes pack four bits in layouts of their own.
//!
//! Source: transformers 5.24, `quantizer_finegrained_fp8.py`; compressed-tensors 0.12, `quant_config.py`, `quant_args.py`,
//! `lifecycle/forward.py` (`_dequantize`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::{ConvertError, ShapeFault, TensorFaults};
use crate::fields::{Faults, Fields};
use crate::source::Source;
use crate::weights::{Eight, Scaled};

/// The field.
const CONFIG: &str = "quantization_config";
const METHOD: &str = "quant_method";

/// Fields of `fp8` that do not change what a weight is.
const FP8_NEUTRAL: [&str; 5] =
    [METHOD, "activation_scheme", "modules_to_not_convert", "ignored_layers", "weight_block_size"];
/// Fields of `compressed-tensors` that are read, or that do not change what a weight is.
const COMPRESSED: [&str; 9] = [
    METHOD,
    "format",
    "config_groups",
    "ignore",
    // Caches are a decoder's.
    "kv_cache_scheme",
    "quantization_status",
    "global_compression_ratio",
    "version",
    "run_compressed",
];
/// Fields of a group's weights that are read, or that say how scales were found.
const GROUP: [&str; 11] = [
    "num_bits",
    "type",
    "symmetric",
    "strategy",
    "group_size",
    "block_structure",
    "dynamic",
    "observer",
    "observer_kwargs",
    "scale_dtype",
    "zp_dtype",
];

/// What a checkpoint's configuration says of its quantised weights.
#[derive(Debug)]
pub(crate) struct Scheme {
    /// Rows and columns of a block that has one scale, where the configuration says so.
    block: Option<[usize; 2]>,
}

impl Scheme {
    /// Reads `quantization_config` and takes it out of the configuration, where it is one that is read. One that does not
    /// say its method is left to the family, which refuses it.
    ///
    /// # Errors
    /// [`ConvertError::Fields`] for a method that is not read, and for every field that is not understood.
    pub fn take(path: &Path, config: &mut Value) -> Result<Option<Self>, ConvertError> {
        let Some(said) = config.get(CONFIG).filter(|said| said.get(METHOD).is_some()).cloned() else {
            return Ok(None);
        };
        let faults = Faults::of(path);
        let at = "quantization_config.";
        let fields = Fields::new(at, Some(&said), &faults);
        let scheme = match fields.text(METHOD) {
            Some("fp8") => Some(fp8(fields)),
            Some("compressed-tensors") => Some(compressed(fields)),
            _ => {
                let expected = "\"fp8\" or \"compressed-tensors\": the checkpoint that it was made from would do";
                fields.fault(METHOD, expected);
                None
            }
        };
        faults.check()?;
        if let Some(object) = config.as_object_mut() {
            object.remove(CONFIG);
        }
        Ok(scheme)
    }

    /// Finds the scales of every weight that is stored in 8 bits.
    ///
    /// # Errors
    /// [`ConvertError::Tensors`] with scales that are missing or of another shape.
    pub fn apply(&self, source: &mut Source) -> Result<(), ConvertError> {
        let weights: Vec<(String, Eight)> = source
            .names()
            .filter(|name| name.ends_with("weight"))
            .filter_map(|name| Some((name.to_string(), Eight::named(source.get(name)?.element.other()?)?)))
            .collect();
        let mut faults = TensorFaults::default();
        let mut widened: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (name, eight) in weights {
            let shape = source.shape(&name).map(<[usize]>::to_vec).unwrap_or_default();
            let scale = ["_scale_inv", "_scale"]
                .map(|end| format!("{name}{end}"))
                .into_iter()
                .find(|s| source.get(s).is_some());
            let Some(scale) = scale else {
                faults.missing.push(format!("{name}_scale"));
                continue;
            };
            let found = source.shape(&scale).map(<[usize]>::to_vec).unwrap_or_default();
            let Some(block) = self.block_of(&shape, &found) else {
                let expected = self.shapes(&shape);
                faults.mis_shaped.push(ShapeFault { tensor: scale, expected, found });
                continue;
            };
            let zero = Some(format!("{name}_zero_point")).filter(|zero| source.get(zero).is_some());
            if let Some(zero) = &zero
                && source.shape(zero) != Some(&found)
            {
                let other = source.shape(zero).map(<[usize]>::to_vec).unwrap_or_default();
                faults.mis_shaped.push(ShapeFault { tensor: zero.clone(), expected: vec![found], found: other });
                continue;
            }
            let (count, bytes) = widened.entry(eight.name()).or_default();
            *count += 1;
            *bytes += shape.iter().product::<usize>();
            source.scale(&name, Scaled { eight, block, scale, zero })?;
        }
        if !faults.is_empty() {
            return Err(ConvertError::Tensors { path: source.folder().to_path_buf(), faults });
        }
        let words = widened.iter().map(|(kind, (count, bytes))| format!("{count} tensors of {kind} ({bytes} bytes)"));
        let words: Vec<String> = words.collect();
        source.notes.push(match words.as_slice() {
            [] => format!("{CONFIG} is there, and no weight is stored in 8 bits"),
            words => format!(
                "quantised weights are widened: {}; inputs of layers are computed as they are, not in 8 bits",
                words.join(", ")
            ),
        });
        Ok(())
    }

    /// Rows and columns that share a scale, of scales of this shape.
    fn block_of(&self, weight: &[usize], scale: &[usize]) -> Option<[usize; 2]> {
        let &[outputs, inputs] = weight else { return None };
        if let Some([rows, columns]) = self.block {
            return (scale == [outputs.div_ceil(rows), inputs.div_ceil(columns)]).then_some([rows, columns]);
        }
        match *scale {
            [] | [1] => Some([outputs, inputs]),
            [rows] | [rows, 1] if rows == outputs => Some([1, inputs]),
            [1, 1] => Some([outputs, inputs]),
            [rows, groups] if rows == outputs && groups > 0 && inputs % groups == 0 => Some([1, inputs / groups]),
            _ => None,
        }
    }

    /// The shapes that scales of a weight may have.
    fn shapes(&self, weight: &[usize]) -> Vec<Vec<usize>> {
        match (self.block, weight) {
            (Some([rows, columns]), &[outputs, inputs]) => vec![vec![outputs.div_ceil(rows), inputs.div_ceil(columns)]],
            (None, &[outputs, _]) => vec![vec![1], vec![outputs, 1]],
            _ => vec![vec![1]],
        }
    }
}

/// The field that remains unsaid by these names, refused.
fn refuse_others(fields: Fields<'_>, known: &[&str]) {
    for (name, value) in fields.present() {
        let empty = match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(on) => !on,
            _ => false,
        };
        if !empty && !known.contains(&name.as_str()) {
            fields.fault(name, "nothing: this is not computed");
        }
    }
}

fn sizes(fields: Fields<'_>, name: &str) -> Option<[usize; 2]> {
    let size = |value: &Value| value.as_u64().filter(|n| (1..=1 << 20).contains(n)).map(|n| n as usize);
    let list = fields.list(name, "two sizes", size)?;
    let block = list.try_into().ok();
    if block.is_none() {
        fields.fault(name, "two sizes");
    }
    block
}

fn fp8(fields: Fields<'_>) -> Scheme {
    fields.only_text("fmt", "e4m3");
    fields.only_text("scale_fmt", "float");
    refuse_others(fields, &[&FP8_NEUTRAL[..], &["fmt", "scale_fmt"]].concat());
    Scheme { block: sizes(fields, "weight_block_size") }
}

fn compressed(fields: Fields<'_>) -> Scheme {
    refuse_others(fields, &COMPRESSED);
    const FORMATS: [&str; 3] = ["int-quantized", "float-quantized", "naive-quantized"];
    if fields.get("format").is_some_and(|format| !format.as_str().is_some_and(|name| FORMATS.contains(&name))) {
        fields.fault("format", format!("one of {}: packed values are not read", FORMATS.join(", ")));
    }
    let mut block = None;
    let groups = fields.get("config_groups").and_then(Value::as_object);
    if groups.is_none() {
        fields.fault("config_groups", "an object of groups");
    }
    for (name, group) in groups.into_iter().flatten() {
        let at = format!("{}.{name}.weights.", fields.path("config_groups"));
        let weights = Fields::new(&at, group.get("weights"), fields.faults());
        refuse_others(weights, &GROUP);
        if weights.get("num_bits").and_then(Value::as_u64) != Some(8) {
            weights.fault("num_bits", "8");
        }
        if !matches!(weights.text("type"), None | Some("int" | "float")) {
            weights.fault("type", "\"int\" or \"float\"");
        }
        weights.only_flag("dynamic", false);
        match weights.text("strategy") {
            Some("block") => {
                let own = sizes(weights, "block_structure");
                if block.is_some() && own != block {
                    weights.fault("block_structure", format!("{block:?}, as in another group"));
                }
                block = own;
            }
            None | Some("tensor" | "channel" | "group") => {}
            Some(_) => weights.fault("strategy", "one of tensor, channel, group, block"),
        }
        let outputs = "output_activations";
        if let Some(value) = group.get(outputs).filter(|value| !value.is_null()) {
            fields.fault_at(&format!("config_groups.{name}.{outputs}"), value, "nothing: this is not computed");
        }
    }
    Scheme { block }
}

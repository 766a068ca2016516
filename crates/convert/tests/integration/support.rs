//! Synthetic checkpoints: names and shapes of every layout written out independently of the code under test, seeded
//! values, a small safetensors writer, and a plain recomputation of what a record must hold.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, TaskChoice, convert};
use omniburn_models::record::digest::sha256_hex;
use omniburn_models::record::{Dtype, RecordFolder};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const TASKS: [&str; 4] = ["retrieval", "text-matching", "clustering", "classification"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Mlx,
    Tasks,
    Merged,
}

pub const LAYOUTS: [Layout; 3] = [Layout::Mlx, Layout::Tasks, Layout::Merged];

/// Sizes of a checkpoint, all of them.
#[derive(Debug, Clone)]
pub struct Dims {
    pub small: bool,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub inner: usize,
    pub vocab: usize,
    pub vision: usize,
    pub blocks: usize,
    pub vision_heads: usize,
    pub vision_inner: usize,
    pub positions: usize,
    pub audio: usize,
    pub audio_layers: usize,
    pub audio_heads: usize,
    pub audio_inner: usize,
    pub mels: usize,
    pub special: Vec<usize>,
}

impl Dims {
    pub fn tiny(small: bool) -> Self {
        let (hidden, heads, kv_heads, head_dim) = if small { (16, 2, 1, 6) } else { (12, 3, 3, 4) };
        Self {
            small,
            hidden,
            layers: 2,
            heads,
            kv_heads,
            head_dim,
            inner: 20,
            vocab: 24,
            vision: 8,
            blocks: 1,
            vision_heads: 2,
            vision_inner: 10,
            positions: 9,
            audio: 6,
            audio_layers: 2,
            audio_heads: 2,
            audio_inner: 14,
            mels: 5,
            special: vec![18, 20, 21, 23],
        }
    }

    /// The published dimensions.
    pub fn full(small: bool) -> Self {
        let audio = Self {
            audio: 1280,
            audio_layers: 32,
            audio_heads: 20,
            audio_inner: 5120,
            mels: 128,
            positions: 2304,
            inner: 3072,
            ..Self::tiny(small)
        };
        if small {
            Self {
                hidden: 1024,
                layers: 28,
                heads: 16,
                kv_heads: 8,
                head_dim: 128,
                vocab: 151_672,
                vision: 1024,
                blocks: 24,
                vision_heads: 16,
                vision_inner: 4096,
                special: vec![151_652, 151_653, 151_655, 151_656, 151_669, 151_670, 151_671],
                ..audio
            }
        } else {
            Self {
                hidden: 768,
                layers: 12,
                heads: 12,
                kv_heads: 12,
                head_dim: 64,
                vocab: 128_260,
                vision: 768,
                blocks: 12,
                vision_heads: 12,
                vision_inner: 3072,
                special: vec![128_256, 128_257, 128_258, 128_259],
                ..audio
            }
        }
    }

    fn text_layer(&self, i: usize) -> Vec<(String, Vec<usize>)> {
        let (h, q, kv) = (self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut keys = vec![
            ("input_layernorm", vec![h]),
            ("post_attention_layernorm", vec![h]),
            ("self_attn.q_proj", vec![q, h]),
            ("self_attn.k_proj", vec![kv, h]),
            ("self_attn.v_proj", vec![kv, h]),
            ("self_attn.o_proj", vec![h, q]),
            ("mlp.gate_proj", vec![self.inner, h]),
            ("mlp.up_proj", vec![self.inner, h]),
            ("mlp.down_proj", vec![h, self.inner]),
        ];
        if self.small {
            keys.push(("self_attn.q_norm", vec![self.head_dim]));
            keys.push(("self_attn.k_norm", vec![self.head_dim]));
        }
        keys.into_iter().map(|(k, s)| (format!("language_model.layers.{i}.{k}.weight"), s)).collect()
    }

    /// Canonical names with torch shapes: everything but connectors and task rows.
    pub fn shared(&self) -> Vec<(String, Vec<usize>)> {
        let mut keys = vec![
            ("language_model.embed_tokens.weight".to_string(), vec![self.vocab, self.hidden]),
            ("language_model.norm.weight".to_string(), vec![self.hidden]),
        ];
        keys.extend((0..self.layers).flat_map(|i| self.text_layer(i)));
        let v = self.vision;
        keys.push(("vision_tower.patch_embed.proj.weight".into(), vec![v, 3, 2, 16, 16]));
        keys.push(("vision_tower.patch_embed.proj.bias".into(), vec![v]));
        keys.push(("vision_tower.pos_embed.weight".into(), vec![self.positions, v]));
        for i in 0..self.blocks {
            for (name, outputs, inputs) in [
                ("attn.qkv", 3 * v, v),
                ("attn.proj", v, v),
                ("mlp.linear_fc1", self.vision_inner, v),
                ("mlp.linear_fc2", v, self.vision_inner),
            ] {
                keys.push((format!("vision_tower.blocks.{i}.{name}.weight"), vec![outputs, inputs]));
                keys.push((format!("vision_tower.blocks.{i}.{name}.bias"), vec![outputs]));
            }
            for leaf in ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"] {
                keys.push((format!("vision_tower.blocks.{i}.{leaf}"), vec![v]));
            }
        }
        let a = self.audio;
        keys.push(("audio_tower.conv1.weight".into(), vec![a, self.mels, 3]));
        keys.push(("audio_tower.conv1.bias".into(), vec![a]));
        keys.push(("audio_tower.conv2.weight".into(), vec![a, a, 3]));
        keys.push(("audio_tower.conv2.bias".into(), vec![a]));
        for i in 0..self.audio_layers {
            let at = format!("audio_tower.layers.{i}");
            for proj in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                keys.push((format!("{at}.self_attn.{proj}.weight"), vec![a, a]));
                if proj != "k_proj" {
                    keys.push((format!("{at}.self_attn.{proj}.bias"), vec![a]));
                }
            }
            for norm in ["self_attn_layer_norm", "final_layer_norm"] {
                keys.push((format!("{at}.{norm}.weight"), vec![a]));
                keys.push((format!("{at}.{norm}.bias"), vec![a]));
            }
            keys.push((format!("{at}.fc1.weight"), vec![self.audio_inner, a]));
            keys.push((format!("{at}.fc1.bias"), vec![self.audio_inner]));
            keys.push((format!("{at}.fc2.weight"), vec![a, self.audio_inner]));
            keys.push((format!("{at}.fc2.bias"), vec![a]));
        }
        keys.push(("audio_tower.ln_post.weight".into(), vec![a]));
        keys.push(("audio_tower.ln_post.bias".into(), vec![a]));
        keys.push(("audio_tower.audio_bos_eos_token.weight".into(), vec![2, 9]));
        keys
    }

    /// Connectors with torch shapes, named `merger.…` and `audio_projector.…`.
    pub fn connectors(&self) -> Vec<(String, Vec<usize>)> {
        let wide = 4 * self.vision;
        vec![
            ("merger.norm.weight".into(), vec![self.vision]),
            ("merger.norm.bias".into(), vec![self.vision]),
            ("merger.linear_fc1.weight".into(), vec![wide, wide]),
            ("merger.linear_fc1.bias".into(), vec![wide]),
            ("merger.linear_fc2.weight".into(), vec![self.hidden, wide]),
            ("merger.linear_fc2.bias".into(), vec![self.hidden]),
            ("audio_projector.weight".into(), vec![self.hidden, self.audio]),
            ("audio_projector.bias".into(), vec![self.hidden]),
        ]
    }

    /// Every tensor of a layout, by its name and shape in the file.
    pub fn files(&self, layout: Layout) -> Vec<(String, Vec<usize>)> {
        let mut keys = self.shared();
        if layout == Layout::Tasks {
            for task in TASKS {
                let key = task.replace('-', "_");
                keys.extend(self.connectors().into_iter().map(|(name, shape)| (per_task(&name, &key), shape)));
                keys.push((format!("task_token_embeddings.{key}"), vec![self.special.len(), self.hidden]));
            }
        } else {
            keys.extend(self.connectors());
        }
        keys.into_iter().map(|(name, shape)| (self.in_file(&name, layout), in_order(&name, &shape, layout))).collect()
    }

    /// The name a canonical tensor has in a file of this layout.
    pub fn in_file(&self, canonical: &str, layout: Layout) -> String {
        match canonical.strip_prefix("vision_tower.") {
            Some(rest) if self.small && layout != Layout::Mlx => format!("visual.{rest}"),
            _ => canonical.to_string(),
        }
    }

    pub fn config(&self, layout: Layout) -> Value {
        let s = &self.special;
        let text_type = if self.small { "qwen3" } else { "eurobert" };
        let mut config = json!({
            "architectures": ["JinaEmbeddingsV5OmniModel"],
            "model_type": "jina_embeddings_v5_omni",
            "text_config": {
                "model_type": text_type, "hidden_size": self.hidden, "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
                "intermediate_size": self.inner, "rms_norm_eps": 1e-6, "vocab_size": self.vocab, "hidden_act": "silu",
                "attention_bias": false, "max_position_embeddings": 2048,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            },
            "vision_config": {
                "hidden_size": self.vision, "depth": self.blocks, "num_heads": self.vision_heads,
                "intermediate_size": self.vision_inner, "num_position_embeddings": self.positions, "patch_size": 16,
                "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
                "hidden_act": "gelu_pytorch_tanh", "deepstack_visual_indexes": [],
            },
            "audio_config": {
                "d_model": self.audio, "encoder_layers": self.audio_layers,
                "encoder_attention_heads": self.audio_heads, "encoder_ffn_dim": self.audio_inner, "n_window": 100,
                "num_mel_bins": self.mels, "max_source_positions": 1500, "activation_function": "gelu",
                "scale_embedding": false, "output_dim": 9,
            },
            "image_token_id": s[0], "audio_token_id": s[1], "audio_start_token_id": s[2], "audio_end_token_id": s[3],
            "special_token_ids": s, "task_names": TASKS, "matryoshka_dimensions": [4, 8, self.hidden],
        });
        if self.small {
            config["vision_start_token_id"] = json!(s[1]);
            config["vision_end_token_id"] = json!(s[2]);
        }
        if layout == Layout::Merged {
            config["task_names"] = json!(["clustering"]);
        }
        config
    }
}

/// `merger.x` as `mergers.KEY.x`.
pub fn per_task(connector: &str, key: &str) -> String {
    let (name, rest) = connector.split_once('.').unwrap();
    format!("{name}s.{key}.{rest}")
}

/// A torch shape as the layout stores it.
fn in_order(canonical: &str, shape: &[usize], layout: Layout) -> Vec<usize> {
    match (layout, canonical) {
        (Layout::Mlx, "vision_tower.patch_embed.proj.weight") => vec![shape[0], shape[2], shape[3], shape[4], shape[1]],
        (Layout::Mlx, "audio_tower.conv1.weight" | "audio_tower.conv2.weight") => vec![shape[0], shape[2], shape[1]],
        _ => shape.to_vec(),
    }
}

/// Seeded values of a name: every layout of a checkpoint holds the same ones.
pub fn values(name: &str, n: usize) -> Vec<f32> {
    let mut state =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A value as it comes back from a type.
pub fn through(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::F32 => value,
        Dtype::Bf16 => bf16::from_f32(value).to_f32(),
        Dtype::F16 => f16::from_f32(value).to_f32(),
        Dtype::Int8 | Dtype::Affine8 | Dtype::Affine4 => panic!("checkpoints hold floats"),
    }
}

fn encode(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::Int8 | Dtype::Affine8 | Dtype::Affine4 => panic!("checkpoints hold floats"),
    }
}

pub fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        Dtype::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        Dtype::Int8 | Dtype::Affine8 | Dtype::Affine4 => panic!("checkpoints hold floats"),
    }
}

/// A tensor of a file.
#[derive(Debug, Clone)]
pub struct Array {
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Array {
    pub fn new(dtype: Dtype, shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let name = match dtype {
            Dtype::F32 => "F32",
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
            Dtype::Int8 | Dtype::Affine8 | Dtype::Affine4 => panic!("checkpoints hold floats"),
        };
        Self { dtype: name, shape: shape.to_vec(), bytes: encode(dtype, values) }
    }

    pub fn seeded(dtype: Dtype, name: &str, shape: &[usize]) -> Self {
        Self::new(dtype, shape, &values(name, shape.iter().product()))
    }
}

pub type Arrays = BTreeMap<String, Array>;

/// Bytes of a safetensors file from its header and data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

pub fn write_arrays(path: &Path, arrays: &Arrays) {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, array) in arrays {
        let (dtype, shape, from) = (array.dtype, &array.shape, data.len());
        data.extend(&array.bytes);
        let to = data.len();
        entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{from},{to}]}}"#));
    }
    fs::write(path, safetensors(&format!("{{{}}}", entries.join(",")), &data)).unwrap();
}

/// A bf16 file of these tensors whose data is a hole.
pub fn write_sparse(path: &Path, keys: &[(String, Vec<usize>)]) {
    let mut entries = vec![r#""__metadata__":{"format":"pt"}"#.to_string()];
    let mut at = 0usize;
    for (name, shape) in keys {
        let end = at + 2 * shape.iter().product::<usize>();
        entries.push(format!(r#""{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    let mut header = format!("{{{}}}", entries.join(","));
    header.push_str(&" ".repeat((8 - header.len() % 8) % 8));
    let mut file = File::create(path).unwrap();
    file.write_all(&safetensors(&header, &[])).unwrap();
    file.set_len((8 + header.len() + at) as u64).unwrap();
}

pub fn write_json(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_string_pretty(value).unwrap()).unwrap();
}

/// A tokenizer whose highest id is `rows - 1`.
pub fn tokenizer(rows: usize) -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [{"id": rows - 1, "content": "<last>", "special": true}],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": rows - 2}, "merges": []},
    })
}

/// A LoRA adapter to be written.
#[derive(Debug, Clone)]
pub struct Lora {
    pub config: Value,
    pub arrays: Arrays,
}

impl Lora {
    /// An adapter on every linear of every text layer whose kind is in `kinds`.
    pub fn new(dims: &Dims, task: &str, dtype: Dtype, rank: usize, alpha: f64, kinds: &[&str]) -> Self {
        let mut arrays = Arrays::new();
        for (name, shape) in (0..dims.layers).flat_map(|i| dims.text_layer(i)) {
            let module = name.trim_end_matches(".weight");
            if shape.len() == 2 && kinds.contains(&module.rsplit('.').next().unwrap()) {
                for (half, shape) in [("lora_A", [rank, shape[1]]), ("lora_B", [shape[0], rank])] {
                    let key = format!("base_model.model.{module}.{half}.weight");
                    arrays.insert(key.clone(), Array::seeded(dtype, &format!("{task}{key}"), &shape));
                }
            }
        }
        let config = json!({
            "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "fan_in_fan_out": false,
            "use_rslora": false, "use_dora": false, "lora_bias": false, "lora_dropout": 0.0, "rank_pattern": {},
            "alpha_pattern": {}, "modules_to_save": null, "init_lora_weights": true, "inference_mode": true,
            "target_modules": kinds, "layers_to_transform": null, "megatron_core": "megatron.core",
            "qalora_group_size": 16, "peft_version": "0.21.2", "loftq_config": {},
        });
        Self { config, arrays }
    }

    pub fn write(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        write_json(&folder.join("adapter_config.json"), &self.config);
        write_arrays(&folder.join("adapter_model.safetensors"), &self.arrays);
    }
}

pub const ALL_KINDS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// A checkpoint in a temporary folder, to be altered before it is written.
pub struct Checkpoint {
    pub root: TempDir,
    pub dims: Dims,
    pub layout: Layout,
    pub dtype: Dtype,
    pub config: Value,
    pub arrays: Arrays,
    pub adapters: BTreeMap<String, Lora>,
    pub tokenizer: Value,
    pub shards: usize,
}

impl Checkpoint {
    pub fn tiny(small: bool, layout: Layout, dtype: Dtype) -> Self {
        Self::with_dims(Dims::tiny(small), layout, dtype)
    }

    fn with_dims(dims: Dims, layout: Layout, dtype: Dtype) -> Self {
        let mut arrays = Arrays::new();
        let mut put = |canonical: String, shape: Vec<usize>| {
            let torch = values(&canonical, shape.iter().product());
            let stored = store(&canonical, &torch, &shape, layout);
            let array = Array::new(dtype, &in_order(&canonical, &shape, layout), &stored);
            arrays.insert(dims.in_file(&canonical, layout), array);
        };
        for (name, shape) in dims.shared() {
            put(name, shape);
        }
        for (name, shape) in dims.connectors() {
            if layout == Layout::Tasks {
                TASKS.iter().for_each(|task| put(per_task(&name, &task.replace('-', "_")), shape.clone()));
            } else {
                put(name, shape);
            }
        }
        if layout == Layout::Tasks {
            for task in TASKS {
                let key = task.replace('-', "_");
                put(format!("task_token_embeddings.{key}"), vec![dims.special.len(), dims.hidden]);
            }
        }
        let adapters = if layout == Layout::Merged { BTreeMap::new() } else { adapters(&dims) };
        Self {
            root: tempfile::tempdir().unwrap(),
            config: dims.config(layout),
            tokenizer: tokenizer(dims.vocab),
            shards: if layout == Layout::Tasks { 2 } else { 1 },
            dims,
            layout,
            dtype,
            arrays,
            adapters,
        }
    }

    /// The same checkpoint with other sizes.
    pub fn resize(&mut self, dims: Dims) {
        *self = Self::with_dims(dims, self.layout, self.dtype);
    }

    pub fn folder(&self) -> PathBuf {
        self.root.path().join("checkpoint")
    }

    pub fn out(&self) -> PathBuf {
        self.root.path().join("record")
    }

    /// Writes everything.
    pub fn write(&self) -> &Self {
        let folder = self.folder();
        write_json(&folder.join("config.json"), &self.config);
        write_json(&folder.join("tokenizer.json"), &self.tokenizer);
        if self.shards == 1 {
            write_arrays(&folder.join("model.safetensors"), &self.arrays);
        } else {
            let mut weight_map = BTreeMap::new();
            for shard in 0..self.shards {
                let file = format!("model-{:05}-of-{:05}.safetensors", shard + 1, self.shards);
                let part: Arrays = self
                    .arrays
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| i % self.shards == shard)
                    .map(|(_, (k, v))| (k.clone(), v.clone()))
                    .collect();
                weight_map.extend(part.keys().map(|k| (k.clone(), file.clone())));
                write_arrays(&folder.join(file), &part);
            }
            let index = json!({"metadata": {}, "weight_map": weight_map});
            write_json(&folder.join("model.safetensors.index.json"), &index);
        }
        for (task, lora) in &self.adapters {
            lora.write(&folder.join("adapters").join(task));
        }
        self
    }

    pub fn options(&self) -> ConvertOptions {
        ConvertOptions { dtype: Dtype::F32, ..ConvertOptions::new(self.folder(), self.out()) }
    }

    /// Writes and converts with options altered by `change`.
    pub fn convert_with(&self, change: impl Fn(&mut ConvertOptions)) -> Result<ConvertReport, ConvertError> {
        let mut options = self.write().options();
        change(&mut options);
        convert(&options)
    }

    /// Writes and converts one task, which must succeed.
    pub fn convert(&self, tasks: TaskChoice, dtype: Dtype) -> (ConvertReport, Record) {
        let report = self
            .convert_with(|o| {
                o.tasks = tasks.clone();
                o.dtype = dtype;
            })
            .unwrap();
        (report, Record::open(&self.out()))
    }

    /// The refusal of this checkpoint, by `--check` and by a conversion alike; nothing may be left behind by either.
    pub fn refused(&self) -> ConvertError {
        self.refused_with(|_| {})
    }

    pub fn refused_with(&self, change: impl Fn(&mut ConvertOptions)) -> ConvertError {
        self.write();
        self.refused_as_written(change)
    }

    /// As [`Checkpoint::refused_with`], for files that were written and then damaged.
    pub fn refused_as_written(&self, change: impl Fn(&mut ConvertOptions)) -> ConvertError {
        let mut options = self.options();
        change(&mut options);
        let error = convert(&options).unwrap_err();
        options.check = true;
        assert_eq!(convert(&options).unwrap_err().to_string(), error.to_string());
        self.assert_nothing_left();
        error
    }

    /// The header says what the configuration does.
    pub fn assert_header(&self, record: &Record) {
        let (header, d) = (record.folder.header(), &self.dims);
        let config = header.family.of::<omniburn_models::families::OmniConfig>().expect("a record of this family");
        assert_eq!((config.text.causal, config.text.qk_norm), (d.small, d.small));
        assert_eq!((config.text.norm_eps, config.text.rope_theta, config.text.vocab), (1e-6, 1e6, d.vocab));
        let (vision, audio) = (config.vision.as_ref().unwrap(), config.audio.as_ref().unwrap());
        assert_eq!((vision.norm_eps, vision.rope_theta, audio.norm_eps), (1e-6, 10000.0, 1e-5));
        assert!(vision.taps.is_empty());
        assert_eq!(header.dims, [4, 8, d.hidden]);
        assert_eq!((header.prompts.query.as_str(), header.prompts.document.as_str()), ("Query: ", "Document: "));
        let special = if self.layout == Layout::Tasks { d.special.clone() } else { vec![] };
        assert_eq!(header.special_token_ids, special.iter().map(|&id| id as u32).collect::<Vec<_>>());
        let files: Vec<&str> = header.sources.iter().map(|s| s.file.as_str()).collect();
        assert!(files.contains(&"config.json") && files.contains(&"tokenizer.json"), "{files:?}");
        assert_eq!(files.iter().filter(|f| f.ends_with("adapter_model.safetensors")).count(), self.adapters.len());
        for source in &header.sources {
            let bytes = fs::read(self.folder().join(&source.file)).unwrap();
            assert_eq!((source.bytes, &source.sha256), (bytes.len() as u64, &sha256_hex(&bytes)), "{}", source.file);
        }
    }

    /// The temporary folder holds the checkpoint and nothing else.
    pub fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["checkpoint"]);
    }

    /// Values of a canonical tensor in torch order, as they come back from the file.
    pub fn torch(&self, canonical: &str) -> Vec<f32> {
        let all = self.dims.shared().into_iter().chain(self.dims.connectors());
        let bare = canonical_connector(canonical);
        let shape = all.into_iter().find(|(name, _)| *name == bare).map(|(_, shape)| shape).unwrap();
        let n = shape.iter().product();
        values(canonical, n).into_iter().map(|v| through(self.dtype, v)).collect()
    }
}

/// `mergers.KEY.x` as `merger.x`, everything else as it is.
fn canonical_connector(name: &str) -> String {
    for connector in ["merger", "audio_projector"] {
        if let Some(rest) = name.strip_prefix(&format!("{connector}s.")) {
            return format!("{connector}.{}", rest.split_once('.').unwrap().1);
        }
    }
    name.to_string()
}

/// Torch values in the order the layout stores them.
fn store(canonical: &str, torch: &[f32], shape: &[usize], layout: Layout) -> Vec<f32> {
    let mut stored = torch.to_vec();
    match (layout, canonical) {
        (Layout::Mlx, "vision_tower.patch_embed.proj.weight") => {
            let [_, c, t, h, w] = shape.try_into().unwrap();
            for (i, value) in stored.iter_mut().enumerate() {
                // i counts (o, t, h, w, c), the last fastest.
                let (cc, ww, hh, tt, oo) = (i % c, i / c % w, i / c / w % h, i / c / w / h % t, i / c / w / h / t);
                *value = torch[(((oo * c + cc) * t + tt) * h + hh) * w + ww];
            }
        }
        (Layout::Mlx, "audio_tower.conv1.weight" | "audio_tower.conv2.weight") => {
            let [o, c, k] = shape.try_into().unwrap();
            for oo in 0..o {
                for kk in 0..k {
                    for cc in 0..c {
                        stored[(oo * k + kk) * c + cc] = torch[(oo * c + cc) * k + kk];
                    }
                }
            }
        }
        _ => {}
    }
    stored
}

/// The four adapters of the family, each with its own rank, scale, targets and type.
pub fn adapters(dims: &Dims) -> BTreeMap<String, Lora> {
    let mut stabilised = Lora::new(dims, TASKS[3], Dtype::F16, 4, 4.0, &ALL_KINDS);
    stabilised.config["use_rslora"] = json!(true);
    let all = [
        Lora::new(dims, TASKS[0], Dtype::F32, 3, 3.0, &ALL_KINDS),
        Lora::new(dims, TASKS[1], Dtype::Bf16, 2, 4.0, &ALL_KINDS),
        Lora::new(dims, TASKS[2], Dtype::F32, 5, 2.5, &["q_proj", "v_proj"]),
        stabilised,
    ];
    TASKS.iter().map(|task| task.to_string()).zip(all).collect()
}

/// Scale of each task's adapter, as [`adapters`] makes them.
pub fn scale_of(task: &str) -> f32 {
    [1.0, 2.0, 0.5, 2.0][TASKS.iter().position(|t| *t == task).unwrap()]
}

/// A converted record, verified when opened.
pub struct Record {
    pub folder: RecordFolder,
}

impl Record {
    pub fn open(path: &Path) -> Self {
        let folder = RecordFolder::open(path).unwrap();
        folder.verify(|_| {}).unwrap();
        Self { folder }
    }

    /// Every tensor of a file: type, shape, values.
    pub fn tensors(&self, file: &str) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<f32>)> {
        let (_, specs) = self.folder.parts().into_iter().find(|(name, _)| name == file).unwrap();
        let part = self.folder.part(file, &specs).unwrap();
        specs
            .into_iter()
            .map(|spec| {
                let dtype = part.dtype(&spec.name);
                let values = decode(dtype, &part.bytes(&spec.name));
                (spec.name, (dtype, spec.shape, values))
            })
            .collect()
    }
}

/// `[outputs, inputs]` turned.
pub fn transposed(rows: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = rows.len() / inputs;
    (0..inputs).flat_map(|i| (0..outputs).map(move |o| rows[o * inputs + i])).collect()
}

/// A text weight with the adapter of `task` merged by the plain formula, `[outputs, inputs]` in f32; the product's sums
/// are fused, as in the reference's own.
pub fn merged(checkpoint: &Checkpoint, name: &str, inputs: usize, lora: Option<(&Lora, f32)>) -> Vec<f32> {
    let mut weight = checkpoint.torch(name);
    let module = name.trim_end_matches(".weight");
    let Some((lora, scale)) = lora else { return weight };
    let key = |half: &str| format!("base_model.model.{module}.{half}.weight");
    let Some(a) = lora.arrays.get(&key("lora_A")) else { return weight };
    let b = &lora.arrays[&key("lora_B")];
    let dtype = match a.dtype {
        "F32" => Dtype::F32,
        "BF16" => Dtype::Bf16,
        _ => Dtype::F16,
    };
    let (rank, a, b) = (a.shape[0], decode(dtype, &a.bytes), decode(dtype, &b.bytes));
    for (o, row) in weight.chunks_exact_mut(inputs).enumerate() {
        for (i, w) in row.iter_mut().enumerate() {
            let mut sum = 0.0f32;
            for k in 0..rank {
                sum = b[o * rank + k].mul_add(a[k * inputs + i], sum);
            }
            *w += scale * sum;
        }
    }
    weight
}

/// What `text.<task>.bpk` must hold, in f32 before any rounding. `key` names the connectors' task.
pub fn expected_text(
    checkpoint: &Checkpoint,
    key: Option<&str>,
    lora: Option<(&Lora, f32)>,
    special_rows: bool,
) -> BTreeMap<String, Vec<f32>> {
    let d = &checkpoint.dims;
    let q = d.heads * d.head_dim;
    let mut all = BTreeMap::new();
    for i in 0..d.layers {
        let (from, to) = (format!("language_model.layers.{i}"), format!("backbone.layers.{i}"));
        let weight = |name: &str, inputs| merged(checkpoint, &format!("{from}.{name}.weight"), inputs, lora);
        let qkv = ["q_proj", "k_proj", "v_proj"].map(|p| weight(&format!("self_attn.{p}"), d.hidden)).concat();
        let gate_up = ["gate_proj", "up_proj"].map(|p| weight(&format!("mlp.{p}"), d.hidden)).concat();
        all.insert(format!("{to}.self_attn.qkv_proj.weight"), transposed(&qkv, d.hidden));
        all.insert(format!("{to}.self_attn.o_proj.weight"), transposed(&weight("self_attn.o_proj", q), q));
        all.insert(format!("{to}.mlp.gate_up_proj.weight"), transposed(&gate_up, d.hidden));
        all.insert(format!("{to}.mlp.down_proj.weight"), transposed(&weight("mlp.down_proj", d.inner), d.inner));
        let mut norms = vec!["input_layernorm", "post_attention_layernorm"];
        if d.small {
            norms.extend(["self_attn.q_norm", "self_attn.k_norm"]);
        }
        for norm in norms {
            all.insert(format!("{to}.{norm}.weight"), checkpoint.torch(&format!("{from}.{norm}.weight")));
        }
    }
    all.insert("backbone.norm.weight".into(), checkpoint.torch("language_model.norm.weight"));
    for (name, shape) in d.connectors() {
        let source = key.map_or_else(|| name.clone(), |key| per_task(&name, key));
        let values = checkpoint.torch(&source);
        all.insert(name, if shape.len() == 2 { transposed(&values, shape[1]) } else { values });
    }
    if special_rows {
        let n = d.special.len() * d.hidden;
        let rows = values(&format!("task_token_embeddings.{}", key.unwrap()), n);
        let rows = rows.into_iter().map(|v| through(checkpoint.dtype, v)).collect();
        all.insert("special_rows.weight".into(), rows);
    }
    all
}

/// What `towers.bpk` must hold, in f32 before any rounding.
pub fn expected_towers(checkpoint: &Checkpoint) -> BTreeMap<String, Vec<f32>> {
    let d = &checkpoint.dims;
    let mut all = BTreeMap::new();
    for (name, shape) in d.shared() {
        let values = || checkpoint.torch(&name);
        if let Some(rest) = name.strip_prefix("vision_tower.") {
            let to = format!("vision.{}", rest.replace("patch_embed.proj.", "patch_embed."));
            let inputs: usize = shape[1..].iter().product();
            let turned = shape.len() > 1 && rest != "pos_embed.weight";
            all.insert(to, if turned { transposed(&values(), inputs) } else { values() });
        }
        let Some(rest) = name.strip_prefix("audio_tower.") else { continue };
        if rest.starts_with("audio_bos_eos") || ["q_proj", "k_proj", "v_proj"].iter().any(|p| rest.contains(p)) {
            continue;
        }
        let to = format!("audio.{rest}");
        match shape.as_slice() {
            [outputs, channels, taps] => {
                let torch = values();
                let mut rows = vec![0.0; torch.len()];
                for o in 0..*outputs {
                    for c in 0..*channels {
                        for t in 0..*taps {
                            rows[(t * channels + c) * outputs + o] = torch[(o * channels + c) * taps + t];
                        }
                    }
                }
                all.insert(to, rows);
            }
            [_, inputs] => drop(all.insert(to, transposed(&values(), *inputs))),
            _ => drop(all.insert(to, values())),
        }
    }
    for i in 0..d.audio_layers {
        let at = format!("layers.{i}.self_attn");
        let weight = |p: &str| checkpoint.torch(&format!("audio_tower.{at}.{p}.weight"));
        let bias = |p: &str| checkpoint.torch(&format!("audio_tower.{at}.{p}.bias"));
        let qkv = ["q_proj", "k_proj", "v_proj"].map(weight).concat();
        all.insert(format!("audio.{at}.qkv_proj.weight"), transposed(&qkv, d.audio));
        all.insert(format!("audio.{at}.qkv_proj.bias"), [bias("q_proj"), vec![0.0; d.audio], bias("v_proj")].concat());
    }
    all
}

/// Compares a file of a record with what it must hold: bit for bit, after one rounding of the matrices.
pub fn assert_part(record: &Record, file: &str, expected: &BTreeMap<String, Vec<f32>>) {
    let dtype = record.folder.header().dtype;
    let found = record.tensors(file);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{file}");
    for (name, (stored, shape, values)) in found {
        let linear = shape.len() == 2 && !name.ends_with("pos_embed.weight") && !name.starts_with("special_rows");
        assert_eq!(stored, if linear { dtype } else { Dtype::F32 }, "{name}");
        assert_eq!(values.len(), expected[&name].len(), "{name}");
        for (i, (found, expected)) in values.iter().zip(&expected[&name]).enumerate() {
            let rounded = if linear { through(dtype, *expected) } else { *expected };
            assert_eq!(found.to_bits(), rounded.to_bits(), "{file} {name}[{i}]: {found} and {rounded}");
        }
    }
}

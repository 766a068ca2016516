//! NomicBERT: a post-norm encoder with rotary positions, in nomic-embed-text v1 and v1.5 with SwiGLU and without biases, in v2
//! with GELU, biases, and a mixture of experts in every other layer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blocks::VectorHeadConfig;
use crate::blocks::rope::inverse_frequencies;
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, GgufRules, KeyMap, Pattern, Steps, spelling};
use crate::checks::{layer_count, multiple, nonzero, positive, small};
use crate::error::ConfigError;
use crate::family::{Architecture, CheckpointRules, Family, ModelSpec, TextModel, Tokens, config};
use crate::record::Preprocess;
use crate::rotary_encoder::{Experts, RotaryEncoderShape, RotaryMlp, RotaryText};

/// The family.
pub static FAMILY: Family = Family {
    name: "nomic_bert",
    about: "NomicBERT (nomic-embed-text v1, v1.5 and v2-moe): text",
    read: config::<NomicBertConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["nomic_bert"],
    is_architecture: |name| {
        name.strip_prefix("NomicBert").is_some_and(|rest| rest == "Model" || rest.starts_with("For"))
    },
    known_as: "a NomicBERT encoder",
    keys: KeyMap {
        renames: &[
            ("module.", ""),
            ("0.", ""),
            ("auto_model.", ""),
            ("model.", ""),
            ("bert.", ""),
            ("nomic_bert.", ""),
            ("layers.", "encoder.layers."),
        ],
        // From the names of transformers' own class to those that checkpoints were published with.
        endings: &[
            ("embeddings.LayerNorm.weight", "emb_ln.weight"),
            ("embeddings.LayerNorm.bias", "emb_ln.bias"),
            (".self_attn.q_proj.weight", ".attn.q_proj.weight"),
            (".self_attn.k_proj.weight", ".attn.k_proj.weight"),
            (".self_attn.v_proj.weight", ".attn.v_proj.weight"),
            (".self_attn.o_proj.weight", ".attn.out_proj.weight"),
            (".post_attention_layernorm.weight", ".norm1.weight"),
            (".post_attention_layernorm.bias", ".norm1.bias"),
            (".mlp.up_proj.weight", ".mlp.fc11.weight"),
            (".mlp.gate_proj.weight", ".mlp.fc12.weight"),
            (".mlp.down_proj.weight", ".mlp.fc2.weight"),
            (".post_mlp_layernorm.weight", ".norm2.weight"),
            (".post_mlp_layernorm.bias", ".norm2.bias"),
        ],
        drops: &[
            (Pattern::Prefix("pooler."), "sentence vectors are pooled from the rows, not made by the pooler"),
            (Pattern::Prefix("cls."), "an embedding takes no head: this one guesses masked words"),
            (Pattern::Prefix("classifier."), "an embedding takes no head: this one sorts texts or words into classes"),
            (Pattern::Contains("position_ids"), "positions are counted, not read"),
            (Pattern::Contains("inv_freq"), "rotary frequencies are computed from the configuration"),
        ],
    },
    names: &[
        ("embed_tokens.", "embeddings.word_embeddings."),
        ("backbone.token_types.", "embeddings.token_type_embeddings."),
        ("backbone.norm.", "emb_ln."),
        ("backbone.layers.", "encoder.layers."),
        (".attention.qkv.", ".attn.Wqkv."),
        (".attention.query.", ".attn.q_proj."),
        (".attention.key.", ".attn.k_proj."),
        (".attention.value.", ".attn.v_proj."),
        (".attention.out.", ".attn.out_proj."),
        (".attention.norm.", ".norm1."),
        (".mlp.experts.up.weight", ".mlp.experts.mlp.w1"),
        (".mlp.experts.down.weight", ".mlp.experts.mlp.w2"),
        (".mlp.experts.down.bias", ".mlp.experts.bias"),
        (".mlp.router.", ".mlp.router.layer."),
        (".mlp.up.", ".mlp.fc11."),
        (".mlp.gate.", ".mlp.fc12."),
        (".mlp.down.", ".mlp.fc2."),
        (".mlp.norm.", ".norm2."),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps { gguf: GGUF, ..Steps::TEXT },
};

/// As llama.cpp writes it: v1 and v1.5, without experts.
const GGUF: &[GgufRules] = &[GgufRules {
    architectures: &["nomic-bert"],
    model_type: "nomic_bert",
    names: &[
        ("token_embd.", "embeddings.word_embeddings."),
        ("token_types.", "embeddings.token_type_embeddings."),
        ("token_embd_norm.", "emb_ln."),
        ("blk.", "encoder.layers."),
        (".attn_qkv.", ".attn.Wqkv."),
        (".attn_output.", ".attn.out_proj."),
        (".attn_output_norm.", ".norm1."),
        (".ffn_up.", ".mlp.fc11."),
        (".ffn_gate.", ".mlp.fc12."),
        (".ffn_down.", ".mlp.fc2."),
        (".layer_output_norm.", ".norm2."),
    ],
    fields: &[
        ("context_length", "n_positions"),
        ("embedding_length", "n_embd"),
        ("block_count", "n_layer"),
        ("feed_forward_length", "n_inner"),
        ("attention.head_count", "n_head"),
        ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        ("attention.causal", "causal"),
        ("rope.freq_base", "rotary_emb_base"),
    ],
    constants: &[
        ("activation_function", "\"swiglu\""),
        ("qkv_proj_bias", "false"),
        ("mlp_fc1_bias", "false"),
        ("mlp_fc2_bias", "false"),
    ],
    rotary_pairs: false,
    norms_from_zero: false,
    dense: &[],
}];

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NomicBertConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the MLP, or of an expert.
    pub inner: usize,
    /// Whether the MLP is SwiGLU without biases; else it is GELU, with biases in all products.
    pub gated: bool,
    /// Experts of the layers that are a mixture of such; 0 without any.
    pub experts: usize,
    /// Experts that a row goes to; 0 without any.
    pub experts_used: usize,
    /// A layer whose number leaves one over this is a mixture; 0 without any.
    pub experts_every: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Kinds of rows, possibly none; only the first is used.
    pub token_types: usize,
    /// Longest sequence, both ends included.
    pub max_tokens: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// From rows to the vector.
    #[serde(flatten)]
    pub vector_head: VectorHeadConfig,
}

impl NomicBertConfig {
    fn shape(&self) -> RotaryEncoderShape {
        let Self { hidden, layers, heads, inner, norm_eps, token_types, .. } = *self;
        RotaryEncoderShape {
            hidden,
            layers,
            heads,
            inner,
            norm_eps,
            frequencies: inverse_frequencies(self.rope_theta, hidden / heads),
            token_types,
            mlp: if self.gated { RotaryMlp::SwiGlu } else { RotaryMlp::Gelu },
            experts: (self.experts > 0).then_some(Experts {
                count: self.experts,
                used: self.experts_used,
                every: self.experts_every,
            }),
            biased: !self.gated,
        }
    }
}

impl NomicBertConfig {
    /// A mixture is there whole or not at all.
    fn check_experts(&self) -> Result<(), ConfigError> {
        let Self { experts, experts_used, experts_every, .. } = *self;
        let wrong = |field: &str, found: usize, expected: String| {
            Err(ConfigError::OutOfRange { field: field.into(), found: found.to_string(), expected })
        };
        if (experts, experts_used, experts_every) == (0, 0, 0) {
            return Ok(());
        }
        small(&[
            ("text.experts", experts),
            ("text.experts_used", experts_used),
            ("text.experts_every", experts_every),
        ])?;
        if self.gated {
            return wrong("text.experts", experts, "0 beside a gated MLP".into());
        }
        if experts_used > experts {
            return wrong("text.experts_used", experts_used, format!("at most {experts}"));
        }
        if experts_every < 2 {
            return wrong("text.experts_every", experts_every, "2 or more".into());
        }
        Ok(())
    }
}

impl Architecture for NomicBertConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        layer_count("text.layers", self.layers)?;
        nonzero(&[
            ("text.hidden", self.hidden),
            ("text.heads", self.heads),
            ("text.inner", self.inner),
            ("text.max_tokens", self.max_tokens),
            ("text.vocab", self.vocab),
        ])?;
        check_rotary(self.hidden, self.heads, self.token_types)?;
        self.check_experts()?;
        self.vector_head.check(self.hidden)?;
        positive("text.norm_eps", self.norm_eps)?;
        positive("text.rope_theta", self.rope_theta)
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec::of_texts(self.hidden, self.vocab, self.max_tokens, &self.vector_head)
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        Arc::new(RotaryText::build(&self.shape(), self.vocab, &self.vector_head, b, tokens))
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        vec![("text", rotary_words(&self.shape(), self.max_tokens, self.vocab))]
    }
}

/// Checks heads that are rotated in pairs, and a number of kinds of rows.
pub(crate) fn check_rotary(hidden: usize, heads: usize, token_types: usize) -> Result<(), ConfigError> {
    multiple("text.hidden", hidden, "text.heads", heads)?;
    multiple("text head width", hidden / heads, "rotary pairs", 2)?;
    // None is possible, and more than any model has is not.
    nonzero(&[("text.token_types", token_types.max(1))])
}

/// An encoder in words.
pub(crate) fn rotary_words(shape: &RotaryEncoderShape, max_tokens: usize, vocab: usize) -> String {
    let RotaryEncoderShape { layers, hidden, heads, .. } = shape;
    format!("{layers} encoder layers of {hidden}, {heads} heads, {max_tokens} tokens at most, table of {vocab} rows")
}

/// From a published folder to a configuration: fields as the checkpoint's own code names them, or as transformers does.
///
/// # Source
/// nomic-ai/nomic-bert-2048, `modeling_hf_nomic_bert.py`; transformers, `NomicBertConfig`, revision 5.23.0.
fn read(folder: &CheckpointFolder<'_>) -> NomicBertConfig {
    folder.refuse_common();
    let text = folder.config;
    let gated = is_gated(text);
    refuse_what_is_not_computed(text, gated);
    let experts = experts(text, gated);
    let hidden = text.needed_size(spelling(text, ["n_embd", "hidden_size"]));
    let heads = text.needed_size(spelling(text, ["n_head", "num_attention_heads"]));
    for (field, wanted) in [("head_dim", hidden.checked_div(heads)), ("num_heads_kv", Some(heads))] {
        if let (Some(found), Some(wanted)) = (text.size(field), wanted)
            && found != wanted
        {
            text.fault(field, wanted.to_string());
        }
    }
    let positions = text.needed_size(spelling(text, ["n_positions", "max_position_embeddings"]));
    NomicBertConfig {
        hidden,
        layers: folder.layers(spelling(text, ["n_layer", "num_hidden_layers"])),
        heads,
        inner: text.needed_size(spelling(text, ["n_inner", "intermediate_size"])),
        gated: gated.unwrap_or(true),
        experts: experts.map_or(0, |experts| experts.count),
        experts_used: experts.map_or(0, |experts| experts.used),
        experts_every: experts.map_or(0, |experts| experts.every),
        norm_eps: text.number(spelling(text, ["layer_norm_epsilon", "layer_norm_eps"])).unwrap_or(1e-12),
        rope_theta: rope_theta(folder),
        token_types: text.count("type_vocab_size").map_or(2, |kinds| usize::try_from(kinds).unwrap_or(usize::MAX)),
        max_tokens: folder.text.limit(positions),
        vocab: text.needed_size("vocab_size"),
        vector_head: folder.text.vector_head.clone(),
    }
}

/// Whether the MLP is SwiGLU, the one of transformers' class, or GELU; nothing after a fault.
fn is_gated(text: Fields<'_>) -> Option<bool> {
    match text.get("activation_function").map(|act| act.as_str().unwrap_or_default()) {
        None | Some("swiglu") => Some(true),
        Some("gelu") => Some(false),
        Some(_) => {
            text.fault("activation_function", "\"swiglu\" or \"gelu\"");
            None
        }
    }
}

/// The mixture of experts, where there is one.
fn experts(text: Fields<'_>, gated: Option<bool>) -> Option<Experts> {
    let count = |name| text.count(name).map_or(0, |found| usize::try_from(found).unwrap_or(usize::MAX));
    let [experts, every] = [count("num_experts"), count("moe_every_n_layers")];
    if every == 0 {
        // No layer is a mixture, whatever else is said.
        return None;
    }
    for (field, wanted) in [("num_shared_experts", 0), ("ffn_div", 1)] {
        if text.count(field).is_some_and(|found| found != wanted) {
            text.fault(field, wanted.to_string());
        }
    }
    for flag in ["moe_normalize_expert_weights", "expert_choice_router"] {
        text.only_flag(flag, false);
    }
    if gated == Some(true) {
        text.fault("moe_every_n_layers", "0 beside a gated MLP: experts with GELU alone are computed");
        return None;
    }
    if experts == 0 {
        text.fault("num_experts", "a number of experts");
    }
    Some(Experts { count: experts, used: text.needed_size("moe_top_k"), every })
}

/// Refuses what the checkpoint's own code, or transformers', would compute otherwise.
fn refuse_what_is_not_computed(text: Fields<'_>, gated: Option<bool>) {
    if let Some(gated) = gated {
        text.only_text("hidden_act", if gated { "silu" } else { "gelu" });
        for flag in ["qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"] {
            text.only_flag(flag, !gated);
        }
    }
    for flag in [
        "prenorm",
        "parallel_block",
        "parallel_block_tied_norm",
        "use_rms_norm",
        "norm_mlp",
        "causal",
        "rotary_emb_interleaved",
        "scale_attn_by_inverse_layer_idx",
        "reorder_and_upcast_attn",
        "is_decoder",
        "add_cross_attention",
    ] {
        text.only_flag(flag, false);
    }
    text.only_flag("scale_attn_weights", true);
    if text.number("rotary_emb_fraction").is_some_and(|fraction| fraction != 1.0) {
        text.fault("rotary_emb_fraction", "1.0: the whole head is rotated");
    }
    for (field, expected) in [
        ("rotary_emb_scale_base", "nothing: rotary positions without a decay"),
        ("rotary_scaling_factor", "nothing: the base of a text does not depend on the longest one before it"),
    ] {
        if text.get(field).is_some() {
            text.fault(field, expected);
        }
    }
}

/// The base of plain rotary positions; any scaling is refused.
fn rope_theta(folder: &CheckpointFolder<'_>) -> f64 {
    let text = folder.config;
    let nested = ["rope_parameters", "rope_scaling"].into_iter().zip(["rope_parameters.", "rope_scaling."]);
    let nested: Vec<f64> = nested
        .filter_map(|(block, at)| {
            let rope = folder.inner(block, at);
            for kind in ["rope_type", "type"] {
                rope.only_text(kind, "default");
            }
            if rope.number("partial_rotary_factor").is_some_and(|factor| factor != 1.0) {
                rope.fault("partial_rotary_factor", "1.0");
            }
            rope.number("rope_theta")
        })
        .collect();
    let name = spelling(text, ["rotary_emb_base", "rope_theta"]);
    let flat = text.number(name);
    if let (Some(flat), Some(nested)) = (flat, nested.first())
        && flat != *nested
    {
        text.fault(name, format!("{nested}, as rope_parameters says"));
    }
    // The default of both.
    nested.first().copied().or(flat).unwrap_or(1_000.0)
}

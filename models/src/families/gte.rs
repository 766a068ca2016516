//! The encoder of GTE (gte-base-en-v1.5, gte-large-en-v1.5, gte-multilingual-base, snowflake-arctic-embed-m-v2.0): post-norm,
//! with rotary positions that may be scaled, and an MLP with a GELU gate.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blocks::VectorHeadConfig;
use crate::blocks::rope::ntk_frequencies;
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, KeyMap, Pattern, Steps};
use crate::checks::{layer_count, nonzero, positive};
use crate::error::ConfigError;
use crate::families::nomic_bert::{check_rotary, rotary_words};
use crate::family::{Architecture, CheckpointRules, Family, ModelSpec, TextModel, Tokens, config};
use crate::record::Preprocess;
use crate::rotary_encoder::{RotaryEncoderShape, RotaryMlp, RotaryText};

/// The family.
pub static FAMILY: Family = Family {
    name: "gte",
    about: "GTE (gte-base-en-v1.5, gte-multilingual-base, arctic-embed-m-v2.0): text",
    read: config::<GteConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["new", "gte"],
    is_architecture: |name| {
        let class = ["New", "Gte"].iter().find_map(|class| name.strip_prefix(class));
        class.is_some_and(|rest| rest == "Model" || rest.starts_with("For"))
    },
    known_as: "an encoder of GTE",
    keys: KeyMap {
        renames: &[
            ("module.", ""),
            ("0.", ""),
            ("auto_model.", ""),
            ("model.", ""),
            ("new.", ""),
            ("gte.", ""),
            ("layers.", "encoder.layer."),
        ],
        // From the names of transformers' own class to those that checkpoints were published with.
        endings: &[
            (".self_attn.q_proj.weight", ".attention.q_proj.weight"),
            (".self_attn.q_proj.bias", ".attention.q_proj.bias"),
            (".self_attn.k_proj.weight", ".attention.k_proj.weight"),
            (".self_attn.k_proj.bias", ".attention.k_proj.bias"),
            (".self_attn.v_proj.weight", ".attention.v_proj.weight"),
            (".self_attn.v_proj.bias", ".attention.v_proj.bias"),
            (".self_attn.o_proj.weight", ".attention.o_proj.weight"),
            (".self_attn.o_proj.bias", ".attention.o_proj.bias"),
            (".post_attention_layernorm.weight", ".attn_ln.weight"),
            (".post_attention_layernorm.bias", ".attn_ln.bias"),
            (".post_mlp_layernorm.weight", ".mlp_ln.weight"),
            (".post_mlp_layernorm.bias", ".mlp_ln.bias"),
        ],
        drops: &[
            (Pattern::Prefix("pooler."), "sentence vectors are pooled from the rows, not made by the pooler"),
            (Pattern::Prefix("lm_head."), "an embedding takes no head: this one guesses masked words"),
            (Pattern::Prefix("classifier."), "an embedding takes no head: this one sorts texts or words into classes"),
            (Pattern::Prefix("qa_outputs."), "an embedding takes no head: this one finds answers"),
            (Pattern::Contains("position_ids"), "positions are counted, not read"),
            (Pattern::Contains("rotary_emb."), "rotary frequencies are computed from the configuration"),
        ],
    },
    names: &[
        ("embed_tokens.", "embeddings.word_embeddings."),
        ("backbone.token_types.", "embeddings.token_type_embeddings."),
        ("backbone.norm.", "embeddings.LayerNorm."),
        ("backbone.layers.", "encoder.layer."),
        (".attention.qkv.", ".attention.qkv_proj."),
        (".attention.query.", ".attention.q_proj."),
        (".attention.key.", ".attention.k_proj."),
        (".attention.value.", ".attention.v_proj."),
        (".attention.out.", ".attention.o_proj."),
        (".attention.norm.", ".attn_ln."),
        (".mlp.up_gate.", ".mlp.up_gate_proj."),
        (".mlp.up.", ".mlp.up_proj."),
        (".mlp.gate.", ".mlp.gate_proj."),
        (".mlp.down.", ".mlp.down_proj."),
        (".mlp.norm.", ".mlp_ln."),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps::TEXT,
};

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GteConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the gated MLP.
    pub inner: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Factor of fixed NTK scaling; 1 where there is none.
    pub rope_factor: f64,
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

impl GteConfig {
    fn shape(&self) -> RotaryEncoderShape {
        let Self { hidden, layers, heads, inner, norm_eps, token_types, .. } = *self;
        RotaryEncoderShape {
            hidden,
            layers,
            heads,
            inner,
            norm_eps,
            frequencies: ntk_frequencies(self.rope_theta, hidden / heads, self.rope_factor),
            token_types,
            mlp: RotaryMlp::GeGlu,
            experts: None,
            biased: true,
        }
    }
}

impl Architecture for GteConfig {
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
        self.vector_head.check(self.hidden)?;
        positive("text.norm_eps", self.norm_eps)?;
        positive("text.rope_theta", self.rope_theta)?;
        positive("text.rope_factor", self.rope_factor)
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

/// From a published folder to a configuration. How queries, keys and values lie (`pack_qkv`) is seen in the tensors;
/// `unpad_inputs` and `use_memory_efficient_attention` are how a program computes.
///
/// # Source
/// Alibaba-NLP/new-impl, `configuration.py` and `modeling.py`; transformers, `GteConfig`, revision 5.23.0.
fn read(folder: &CheckpointFolder<'_>) -> GteConfig {
    folder.refuse_common();
    let text = folder.config;
    text.only_text("hidden_act", "gelu");
    text.only_text("layer_norm_type", "layer_norm");
    text.only_text("position_embedding_type", "rope");
    for flag in ["logn_attention_scale", "is_decoder", "add_cross_attention"] {
        text.only_flag(flag, false);
    }
    let positions = text.needed_size("max_position_embeddings");
    GteConfig {
        hidden: text.needed_size("hidden_size"),
        layers: folder.layers("num_hidden_layers"),
        heads: text.needed_size("num_attention_heads"),
        inner: text.needed_size("intermediate_size"),
        norm_eps: text.number("layer_norm_eps").unwrap_or(1e-12),
        rope_theta: rope_theta(folder),
        rope_factor: rope_factor(folder),
        token_types: text.count("type_vocab_size").map_or(1, |kinds| usize::try_from(kinds).unwrap_or(usize::MAX)),
        max_tokens: folder.text.limit(positions),
        vocab: text.needed_size("vocab_size"),
        vector_head: folder.text.vector_head.clone(),
    }
}

/// The base of the rotary frequencies, as either class writes it; what else `rope_parameters` asks for is refused.
fn rope_theta(folder: &CheckpointFolder<'_>) -> f64 {
    let text = folder.config;
    let rope = folder.inner("rope_parameters", "rope_parameters.");
    rope.only_text("rope_type", "default");
    if rope.number("partial_rotary_factor").is_some_and(|factor| factor != 1.0) {
        rope.fault("partial_rotary_factor", "1.0");
    }
    let (flat, nested) = (text.number("rope_theta"), rope.number("rope_theta"));
    if let (Some(flat), Some(nested)) = (flat, nested)
        && flat != nested
    {
        text.fault("rope_theta", format!("{nested}, as rope_parameters says"));
    }
    // The defaults of the two classes.
    let otherwise = if text.text("model_type") == Some("gte") { 160_000.0 } else { 10_000.0 };
    nested.or(flat).unwrap_or(otherwise)
}

/// The factor of fixed NTK scaling, which holds for texts of every length; 1 without scaling.
fn rope_factor(folder: &CheckpointFolder<'_>) -> f64 {
    if folder.config.get("rope_scaling").is_none() {
        return 1.0;
    }
    let rope = folder.inner("rope_scaling", "rope_scaling.");
    if rope.get("type").is_none() {
        rope.fault("type", "\"ntk\"");
    }
    rope.only_text("type", "ntk");
    if rope.get("mixed_b").is_some() {
        rope.fault("mixed_b", "nothing: all pairs are scaled by one factor");
    }
    let factor = rope.needed_number("factor");
    // Below one, the tables of the checkpoint's own code are not scaled, and shorter than its texts.
    if rope.get("factor").is_some() && factor < 1.0 {
        rope.fault("factor", "a number from 1 on");
    }
    factor.max(1.0)
}

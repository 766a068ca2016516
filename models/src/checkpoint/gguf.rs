//! How GGUF files of a family are read: architectures, names of tensors and of sizes, as data.

/// What a family says of GGUF files of some architectures.
#[derive(Debug, Clone, Copy)]
pub struct GgufRules {
    /// Values of `general.architecture`.
    pub architectures: &'static [&'static str],
    /// `model_type` of the `config.json` that the metadata stand for.
    pub model_type: &'static str,
    /// Pieces of tensor names, and what stands in a checkpoint's own in place of each; applied in this order.
    pub names: &'static [(&'static str, &'static str)],
    /// Keys of the metadata behind the architecture, and the fields of `config.json` that they become.
    pub fields: &'static [(&'static str, &'static str)],
    /// Fields of `config.json` that every file of the architecture has, as JSON.
    pub constants: &'static [(&'static str, &'static str)],
    /// Whether the rows of queries and keys lie in pairs of what is rotated together, and not in halves.
    pub rotary_pairs: bool,
    /// Whether 1 was added to the gains of norms.
    pub norms_from_zero: bool,
    /// Matrices behind the pooling, by the beginnings of their names in the order in which they are applied.
    pub dense: &'static [&'static str],
}

impl GgufRules {
    /// A decoder whose rows lie as in its checkpoints.
    pub const DECODER: Self = Self {
        architectures: &[],
        model_type: "",
        names: DECODER_NAMES,
        fields: DECODER_FIELDS,
        constants: &[("hidden_act", "\"silu\"")],
        rotary_pairs: false,
        norms_from_zero: false,
        dense: &[],
    };
}

/// How a GGUF file's vocabulary makes tokens of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufTokenizer {
    /// The longest pieces of words.
    WordPiece,
    /// Pairs of bytes, merged by rank.
    ByteLevel,
    /// Pieces of SentencePiece, merged by score.
    SentencePiece,
}

impl GgufTokenizer {
    /// Every one, with its name in `tokenizer.ggml.model`.
    pub const NAMES: [(&'static str, Self); 3] =
        [("bert", Self::WordPiece), ("gpt2", Self::ByteLevel), ("llama", Self::SentencePiece)];

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

/// Keys that most decoders share.
const DECODER_FIELDS: &[(&str, &str)] = &[
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("rope.freq_base", "rope_theta"),
    ("attention.causal", "is_causal"),
];

/// Tensor names that most decoders share.
const DECODER_NAMES: &[(&str, &str)] = &[
    ("token_embd.", "embed_tokens."),
    ("output_norm.", "norm."),
    ("blk.", "layers."),
    (".attn_q_norm.", ".self_attn.q_norm."),
    (".attn_k_norm.", ".self_attn.k_norm."),
    (".attn_norm.", ".input_layernorm."),
    (".attn_q.", ".self_attn.q_proj."),
    (".attn_k.", ".self_attn.k_proj."),
    (".attn_v.", ".self_attn.v_proj."),
    (".attn_output.", ".self_attn.o_proj."),
    (".ffn_norm.", ".post_attention_layernorm."),
    (".ffn_gate.", ".mlp.gate_proj."),
    (".ffn_up.", ".mlp.up_proj."),
    (".ffn_down.", ".mlp.down_proj."),
    // The last one: others end so.
    ("output.", "lm_head."),
];

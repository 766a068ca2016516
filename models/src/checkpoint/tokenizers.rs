//! Which class of tokenizer transformers has for a `model_type`.
//!
//! # Source
//! transformers 5.24: `tokenization_auto.py`.

/// Model types of configurations whose class the library knows to be named wrongly.
const WRONGLY_NAMED: [&str; 8] =
    ["llava", "llava_next", "vipllava", "smolvlm", "qwen2", "qwen3_5", "qwen3_5_moe", "siglip2"];

/// The class that the library has for a model type, of those whose text backbones are converted.
pub fn registered_tokenizer(model_type: &str) -> Option<&'static str> {
    Some(match model_type {
        "bert" | "distilbert" | "nomic_bert" => "BertTokenizer",
        "clip" => "CLIPTokenizer",
        "siglip" => "SiglipTokenizer",
        "siglip2" => "Siglip2Tokenizer",
        "mpnet" => "MPNetTokenizer",
        "gte" => "XLMRobertaTokenizer",
        "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" | "qwen2_vl" | "qwen2_5_vl" | "qwen3_vl" | "qwen3_vl_moe"
        | "qwen2_audio" | "qwen2_5_omni" | "qwen3_omni_moe" | "qwen3_asr" | "colqwen2" | "internvl" | "ovis2"
        | "audioflamingo3" | "lighton_ocr" => "Qwen2Tokenizer",
        "idefics" | "idefics2" => "LlamaTokenizer",
        "gemma" | "gemma2" | "gemma3" | "gemma3_text" => "GemmaTokenizer",
        "llava" | "llava_next" | "vipllava" | "smolvlm" | "granite" | "olmo2" | "olmo3" | "mistral" => {
            "TokenizersBackend"
        }
        _ => return None,
    })
}

/// Whether the library knows that files of a model type name a wrong class, and takes its own.
pub fn is_wrongly_named(model_type: &str) -> bool {
    WRONGLY_NAMED.contains(&model_type)
}

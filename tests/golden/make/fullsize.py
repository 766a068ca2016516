"""Names and shapes of published checkpoints at full size, by transformers' own classes on the meta device: no weight is made.

  python fullsize.py OUT [REFERENCE] [NAME ...]

Writes OUT/fullsize/<name>.json: the configuration and small files of a checkpoint, every tensor of its files by name and shape (runs
of numbers as `{0-11}`), and the number of parameters that its card or its repository states. `tests/fullsize.rs` makes a folder of
each, of holes in place of weights, and lets `convert --check` read it.

Where names come from: `model.state_dict()` of the class that transformers has for the architecture, with the renames that it undoes
when it saves (`conversion_mapping`). Where a checkpoint was published with code of its own and transformers has no class, the names
stand here as its published code spells them, and `names` says so. REFERENCE is the folder of the reference set's scripts, whose
`refmodel.py` is the model of jina-embeddings-v5-omni; without it those two are left as they are.
"""
import json
import re
import sys
from pathlib import Path

# A maker beside this one carries the name of a package, so this folder must not be searched.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402
import transformers as T  # noqa: E402

BERT = dict(model_type="bert", architectures=["BertModel"], hidden_act="gelu", layer_norm_eps=1e-12, max_position_embeddings=512, pad_token_id=0,
            position_embedding_type="absolute", type_vocab_size=2, vocab_size=30522)
XLMR = dict(model_type="xlm-roberta", architectures=["XLMRobertaModel"], hidden_act="gelu", layer_norm_eps=1e-5, max_position_embeddings=514,
            pad_token_id=1, bos_token_id=0, eos_token_id=2, position_embedding_type="absolute", type_vocab_size=1, vocab_size=250002)
MODERN = dict(model_type="modernbert", architectures=["ModernBertModel"], vocab_size=50368, hidden_size=768, intermediate_size=1152, num_hidden_layers=22,
              num_attention_heads=12, max_position_embeddings=8192, norm_eps=1e-5, norm_bias=False, attention_bias=False, mlp_bias=False,
              global_attn_every_n_layers=3, local_attention=128, global_rope_theta=160000.0, local_rope_theta=10000.0, hidden_activation="gelu",
              pad_token_id=50283, bos_token_id=50281, eos_token_id=50282, cls_token_id=50281, sep_token_id=50282, classifier_pooling="mean")
QWEN3 = dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"], hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
             num_attention_heads=16, num_key_value_heads=8, head_dim=128, hidden_act="silu", max_position_embeddings=32768, rms_norm_eps=1e-6,
             rope_theta=1000000, rope_scaling=None, attention_bias=False, use_sliding_window=False, sliding_window=None, tie_word_embeddings=True,
             vocab_size=151669, bos_token_id=151643, eos_token_id=151643)
QWEN3_VL_TEXT = dict(model_type="qwen3_vl_text", hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16,
                     num_key_value_heads=8, head_dim=128, hidden_act="silu", max_position_embeddings=262144, rms_norm_eps=1e-6, rope_theta=5000000,
                     rope_scaling=dict(mrope_interleaved=True, mrope_section=[24, 20, 20], rope_type="default"), attention_bias=False,
                     tie_word_embeddings=True, vocab_size=151936)
QWEN3_VL_VISION = dict(model_type="qwen3_vl", depth=24, hidden_size=1024, intermediate_size=4096, num_heads=16, patch_size=16, temporal_patch_size=2,
                       spatial_merge_size=2, in_channels=3, num_position_embeddings=2304, out_hidden_size=2048, hidden_act="gelu_pytorch_tanh",
                       deepstack_visual_indexes=[5, 11, 17])
QWEN3_VL = dict(model_type="qwen3_vl", architectures=["Qwen3VLForConditionalGeneration"], image_token_id=151655, video_token_id=151656,
                vision_start_token_id=151652, vision_end_token_id=151653, tie_word_embeddings=True)
QWEN25_VISION = dict(model_type="qwen2_5_omni_vision_encoder", depth=32, hidden_size=1280, hidden_act="silu", intermediate_size=3420, num_heads=16,
                     in_channels=3, patch_size=14, spatial_merge_size=2, temporal_patch_size=2, window_size=112,
                     fullatt_block_indexes=[7, 15, 23, 31], out_hidden_size=2048)
QWEN25_AUDIO = dict(model_type="qwen2_5_omni_audio_encoder", d_model=1280, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120,
                    num_mel_bins=128, max_source_positions=1500, n_window=100, output_dim=2048, activation_function="gelu", scale_embedding=False)
QWEN25_TEXT = dict(model_type="qwen2_5_omni_text", hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16,
                   num_key_value_heads=2, hidden_act="silu", max_position_embeddings=32768, rms_norm_eps=1e-6, rope_theta=1000000.0,
                   rope_scaling=dict(mrope_section=[16, 24, 24], rope_type="default", type="default"), use_sliding_window=False, sliding_window=32768,
                   tie_word_embeddings=False, vocab_size=151936)
QWEN25 = dict(model_type="qwen2_5_omni_thinker", architectures=["Qwen2_5OmniThinkerForConditionalGeneration"], audio_token_index=151646,
              image_token_index=151655, video_token_index=151656, audio_start_token_id=151647, audio_end_token_id=151648,
              vision_start_token_id=151652, vision_end_token_id=151653, position_id_per_seconds=25, seconds_per_chunk=2, tie_word_embeddings=False)
CLIP_IMAGES = dict(image_processor_type="CLIPImageProcessor", do_resize=True, size={"shortest_edge": 224}, resample=3, do_center_crop=True,
                   crop_size={"height": 224, "width": 224}, do_rescale=True, rescale_factor=1 / 255, do_normalize=True, do_convert_rgb=True,
                   image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
POOLED = "1_Pooling/config.json"


def pooling(mode, width):
    return {POOLED: {"word_embedding_dimension": width, f"pooling_mode_{mode}": True}}


def cls(name, config, also=None):
    """Shapes of a class of transformers, under the names that it saves."""
    kind = getattr(T, name)
    made = kind.config_class(**{k: v for k, v in config.items() if k not in ("architectures", "model_type")})
    with torch.device("meta"):
        model = kind._from_config(made) if hasattr(kind, "_from_config") else kind(made)
    state = dict(model.state_dict())
    # Tied tensors are stored once, under the name of the one that they are tied to.
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for name_of_tied in tied:
        state.pop(name_of_tied, None)
    from transformers.core_model_loading import revert_weight_conversion
    state = revert_weight_conversion(model, state)
    found = {name: list(tensor.shape) for name, tensor in state.items()}
    found.update(also or {})
    return found


def renamed(shapes, *pairs):
    def of(name):
        for pattern, new in pairs:
            name = re.sub(pattern, new, name)
        return name
    return {of(name): shape for name, shape in shapes.items()}


def nomic(config, moe=None):
    """NomicBertModel as `modeling_hf_nomic_bert.py` of nomic-ai spells it: v1.5 with a gated MLP and no bias, v2 with experts in every second layer."""
    d, inner, bias = config["n_embd"], config["n_inner"], config["qkv_proj_bias"]
    found = {"embeddings.word_embeddings.weight": [config["vocab_size"], d], "embeddings.token_type_embeddings.weight": [config["type_vocab_size"], d],
             "emb_ln.weight": [d], "emb_ln.bias": [d]}
    for i in range(config["n_layer"]):
        at = f"encoder.layers.{i}."
        found |= {at + "attn.Wqkv.weight": [3 * d, d], at + "attn.out_proj.weight": [d, d]}
        if bias:
            found |= {at + "attn.Wqkv.bias": [3 * d], at + "attn.out_proj.bias": [d]}
        if moe and i % 2 == 1:
            found |= {at + "mlp.router.layer.weight": [moe, d], at + "mlp.experts.mlp.w1": [moe * inner, d],
                      at + "mlp.experts.mlp.w2": [moe * inner, d], at + "mlp.experts.bias": [d]}
        elif config["activation_function"] == "swiglu":
            found |= {at + f"mlp.{name}.weight": shape for name, shape in [("fc11", [inner, d]), ("fc12", [inner, d]), ("fc2", [d, inner])]}
        else:
            found |= {at + "mlp.fc1.weight": [inner, d], at + "mlp.fc1.bias": [inner], at + "mlp.fc2.weight": [d, inner], at + "mlp.fc2.bias": [d]}
        for norm in ("norm1", "norm2"):
            found |= {f"{at}{norm}.weight": [d], f"{at}{norm}.bias": [d]}
    return found


def gte(config):
    """NewModel as `modeling.py` of Alibaba-NLP/new-impl spells it, with one product for queries, keys and values."""
    d, inner = config["hidden_size"], config["intermediate_size"]
    found = {"embeddings.word_embeddings.weight": [config["vocab_size"], d], "embeddings.LayerNorm.weight": [d], "embeddings.LayerNorm.bias": [d]}
    if config["type_vocab_size"]:
        found["embeddings.token_type_embeddings.weight"] = [config["type_vocab_size"], d]
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}."
        found |= {at + "attention.qkv_proj.weight": [3 * d, d], at + "attention.qkv_proj.bias": [3 * d], at + "attention.o_proj.weight": [d, d],
                  at + "attention.o_proj.bias": [d], at + "mlp.up_gate_proj.weight": [2 * inner, d], at + "mlp.down_proj.weight": [d, inner],
                  at + "mlp.down_proj.bias": [d]}
        for norm in ("attn_ln", "mlp_ln"):
            found |= {f"{at}{norm}.weight": [d], f"{at}{norm}.bias": [d]}
    return found


def bidirlm():
    """Qwen3-VL's modules under the prefixes of BidirLM-Omni, and Qwen3-Omni's audio tower: the names that its checkpoint has."""
    text = dict(QWEN3_VL_TEXT)
    vision = dict(QWEN3_VL_VISION, deepstack_visual_indexes=[8, 16, 24])
    whole = cls("Qwen3VLForConditionalGeneration", dict(QWEN3_VL, text_config=text, vision_config=vision))
    found = renamed(whole, (r"^model\.language_model\.", "language_model."), (r"^model\.visual\.", "visual."))
    from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeAudioEncoderConfig
    from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeAudioEncoder
    audio = bidirlm_audio()
    with torch.device("meta"):
        tower = Qwen3OmniMoeAudioEncoder(Qwen3OmniMoeAudioEncoderConfig(**{k: v for k, v in audio.items() if k != "model_type"}))
    found |= {f"audio_tower.{name}": list(tensor.shape) for name, tensor in tower.state_dict().items()}
    return found


def bidirlm_audio():
    return dict(model_type="bidirlm_omni_audio_encoder", d_model=1024, encoder_layers=24, encoder_attention_heads=16, encoder_ffn_dim=4096,
                num_mel_bins=128, max_source_positions=1500, n_window=100, n_window_infer=400, downsample_hidden_size=480, output_dim=2048,
                conv_chunksize=500, activation_function="gelu", scale_embedding=False)


def entries(reference):
    def bert(name, like, published, sizes, files=None, head=None, vocab=None, **over):
        layers, width, heads, inner = sizes
        config = dict(BERT, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner, **over)
        if vocab:
            config["vocab_size"] = vocab
        return dict(name=name, like=like, config=config, files=files or {}, published=published,
                    shapes=lambda: cls(head or "BertModel", config))

    base, small, large = (12, 768, 12, 3072), (12, 384, 12, 1536), (24, 1024, 16, 4096)
    yield bert("all-MiniLM-L6-v2", "bert-tiny", "22.7M", (6, 384, 12, 1536), pooling("mean_tokens", 384))
    yield bert("bge-small-en-v1.5", "bert-tiny", "33.4M", small, pooling("cls_token", 384))
    yield bert("multilingual-e5-small", "bert-tiny", "118M", small, pooling("mean_tokens", 384), vocab=250037)
    yield bert("mxbai-embed-large-v1", "bert-tiny", "335M", large, pooling("cls_token", 1024))
    yield bert("snowflake-arctic-embed-m", "bert-tiny", "109M", base, pooling("cls_token", 768))
    yield bert("ms-marco-MiniLM-L6-v2", "bert-reranker-tiny", "22.7M", (6, 384, 12, 1536), head="BertForSequenceClassification",
               architectures=["BertForSequenceClassification"], id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0},
               sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"})

    def xlmr(name, like, published, sizes, files=None, head=None, **over):
        layers, width, heads, inner = sizes
        config = dict(XLMR, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner, **over)
        return dict(name=name, like=like, config=config, files=files or {}, published=published, shapes=lambda: cls(head or "XLMRobertaModel", config))

    # Its heads over rows are pickles beside the weights.
    yield xlmr("bge-m3", "bge-m3-tiny", "568M", large, pooling("cls_token", 1024), max_position_embeddings=8194)
    yield xlmr("multilingual-e5-large", "xlm-roberta-tiny", "560M", large, pooling("mean_tokens", 1024))
    yield xlmr("paraphrase-multilingual-mpnet-base-v2", "xlm-roberta-tiny", "278M", base, pooling("mean_tokens", 768))
    yield xlmr("bge-reranker-v2-m3", "bge-reranker-tiny", "568M", large, head="XLMRobertaForSequenceClassification", max_position_embeddings=8194,
               architectures=["XLMRobertaForSequenceClassification"], id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})

    yield dict(name="modernbert-embed-base", like="modernbert-tiny", config=MODERN, files=pooling("mean_tokens", 768), published="149M",
               shapes=lambda: cls("ModernBertModel", MODERN))
    yield dict(name="gte-modernbert-base", like="modernbert-tiny", config=MODERN, files=pooling("cls_token", 768), published="149M",
               shapes=lambda: cls("ModernBertModel", MODERN))
    rank = dict(MODERN, architectures=["ModernBertForSequenceClassification"], id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0},
                classifier_activation="gelu", classifier_bias=False)
    yield dict(name="gte-reranker-modernbert-base", like="modernbert-reranker-tiny", config=rank, files={}, published="150M",
               shapes=lambda: cls("ModernBertForSequenceClassification", rank))

    v15 = dict(model_type="nomic_bert", architectures=["NomicBertModel"], activation_function="swiglu", n_embd=768, n_head=12, n_layer=12, n_inner=3072,
               n_positions=8192, vocab_size=30528, type_vocab_size=2, layer_norm_epsilon=1e-12, qkv_proj_bias=False, mlp_fc1_bias=False,
               mlp_fc2_bias=False, rotary_emb_base=1000, rotary_emb_fraction=1.0, rotary_emb_interleaved=False, rotary_emb_scale_base=None,
               rotary_scaling_factor=None, prenorm=False, parallel_block=False, causal=False, use_rms_norm=False, scale_attn_weights=True)
    yield dict(name="nomic-embed-text-v1.5", like="nomic-bert-tiny", config=v15, files=pooling("mean_tokens", 768), published="137M",
               shapes=lambda: nomic(v15), names="published code")
    v2 = dict(v15, activation_function="gelu", vocab_size=250048, type_vocab_size=1, layer_norm_epsilon=1e-5, qkv_proj_bias=True, mlp_fc1_bias=True,
              mlp_fc2_bias=True, rotary_emb_base=10000, n_positions=2048, max_trained_positions=2048, num_experts=8, moe_top_k=2, moe_every_n_layers=2,
              moe_normalize_expert_weights=False, expert_choice_router=False, num_shared_experts=0, ffn_div=1, moe_impl="megablocks", pad_token_id=1)
    yield dict(name="nomic-embed-text-v2-moe", like="nomic-moe-tiny", config=v2, files=pooling("mean_tokens", 768), published="475M",
               shapes=lambda: nomic(v2, 8), names="published code")

    distil = dict(model_type="distilbert", architectures=["DistilBertModel"], activation="gelu", dim=768, hidden_dim=3072, n_heads=12, n_layers=6,
                  max_position_embeddings=512, vocab_size=30522, pad_token_id=0, sinusoidal_pos_embds=False)
    yield dict(name="multi-qa-distilbert-cos-v1", like="distilbert-tiny", config=distil, files=pooling("mean_tokens", 768), published="66.4M",
               shapes=lambda: cls("DistilBertModel", distil))
    mpnet = dict(model_type="mpnet", architectures=["MPNetModel"], hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
                 hidden_act="gelu", layer_norm_eps=1e-5, max_position_embeddings=514, relative_attention_num_buckets=32, vocab_size=30527,
                 pad_token_id=1, bos_token_id=0, eos_token_id=2)
    yield dict(name="all-mpnet-base-v2", like="mpnet-tiny", config=mpnet, files=pooling("mean_tokens", 768), published="109M",
               shapes=lambda: cls("MPNetModel", mpnet))
    new = dict(model_type="new", architectures=["NewModel"], hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
               hidden_act="gelu", layer_norm_type="layer_norm", layer_norm_eps=1e-12, max_position_embeddings=8192, position_embedding_type="rope",
               rope_theta=500000, rope_scaling={"factor": 2.0, "type": "ntk"}, pack_qkv=True, type_vocab_size=0, vocab_size=30528, pad_token_id=0,
               unpad_inputs=False, use_memory_efficient_attention=False, logn_attention_scale=False, logn_attention_clip1=False)
    yield dict(name="gte-base-en-v1.5", like="gte-tiny", config=new, files=pooling("cls_token", 768), published="137M", shapes=lambda: gte(new),
               names="published code")
    multi = dict(new, vocab_size=250048, type_vocab_size=1, rope_theta=20000, rope_scaling={"factor": 8.0, "type": "ntk"}, pad_token_id=1)
    yield dict(name="gte-multilingual-base", like="gte-tiny", config=multi, files=pooling("cls_token", 768), published="305M", shapes=lambda: gte(multi),
               names="published code")

    def qwen3(name, like, published, files=None, **over):
        config = dict(QWEN3, **over)
        return dict(name=name, like=like, config=config, files=files or {}, published=published)

    one = qwen3("Qwen3-Embedding-0.6B", "qwen3-embedding-tiny", "595,776,512", pooling("lasttoken", 1024))
    yield dict(one, shapes=lambda: renamed(cls("Qwen3ForCausalLM", one["config"]), (r"^model\.", "")))
    eight = qwen3("Qwen3-Embedding-8B", "qwen3-embedding-tiny", "7.57B", pooling("lasttoken", 4096), hidden_size=4096, intermediate_size=12288,
                  num_hidden_layers=36, num_attention_heads=32, vocab_size=151665, tie_word_embeddings=False, max_position_embeddings=40960)
    yield dict(eight, shapes=lambda: {name: shape for name, shape in renamed(cls("Qwen3ForCausalLM", eight["config"]), (r"^model\.", "")).items()
                                      if name != "lm_head.weight"})
    rank = qwen3("Qwen3-Reranker-0.6B", "qwen3-reranker-tiny", "596M", max_position_embeddings=40960)
    yield dict(rank, shapes=lambda: cls("Qwen3ForCausalLM", rank["config"]))
    jina = qwen3("jina-reranker-v3", "jina-reranker-tiny", "597M", architectures=["JinaForRanking"], vocab_size=151936, max_position_embeddings=131072)
    yield dict(jina, shapes=lambda: cls("Qwen3ForCausalLM", jina["config"], {"projector.0.weight": [512, 1024], "projector.2.weight": [512, 512]}))

    llama = dict(model_type="llama_bidirec", architectures=["LlamaBidirectionalModel"], hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                 num_attention_heads=32, num_key_value_heads=8, head_dim=128, hidden_act="silu", max_position_embeddings=131072, rms_norm_eps=1e-5,
                 rope_theta=500000.0, attention_bias=False, mlp_bias=False, pretraining_tp=1, tie_word_embeddings=False, vocab_size=128256,
                 rope_scaling=dict(factor=8.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=8192, rope_type="llama3"))
    yield dict(name="llama-embed-nemotron-8b", like="llama-bidirec-tiny", config=llama, files=pooling("mean_tokens", 4096), published="7.5B",
               shapes=lambda: cls("LlamaModel", llama))
    mistral = dict(model_type="mistral", architectures=["MistralModel"], hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                   num_attention_heads=32, num_key_value_heads=8, hidden_act="silu", max_position_embeddings=32768, rms_norm_eps=1e-5,
                   rope_theta=10000.0, sliding_window=4096, tie_word_embeddings=False, vocab_size=32000, bos_token_id=1, eos_token_id=2)
    yield dict(name="e5-mistral-7b-instruct", like="mistral-tiny", config=mistral, files=pooling("lasttoken", 4096), published="7.11B",
               shapes=lambda: cls("MistralModel", mistral))

    gemma = dict(model_type="gemma3_text", architectures=["Gemma3TextModel"], hidden_size=768, intermediate_size=1152, num_hidden_layers=24,
                 num_attention_heads=3, num_key_value_heads=1, head_dim=256, hidden_activation="gelu_pytorch_tanh", max_position_embeddings=2048,
                 query_pre_attn_scalar=256, rms_norm_eps=1e-6, rope_theta=1000000.0, rope_local_base_freq=10000.0, sliding_window=512,
                 use_bidirectional_attention=True, attention_bias=False, attn_logit_softcapping=None, final_logit_softcapping=None, vocab_size=262144,
                 layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 4, tie_word_embeddings=True)
    dense = {"2_Dense/config.json": {"in_features": 768, "out_features": 3072, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"},
             "3_Dense/config.json": {"in_features": 3072, "out_features": 768, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"}}
    yield dict(name="embeddinggemma-300m", like="gemma3-text-tiny", config=gemma, files=pooling("mean_tokens", 768) | dense, published="308M",
               shapes=lambda: cls("Gemma3TextModel", gemma), more={"2_Dense/model.safetensors": {"linear.weight": [3072, 768]},
                                                                 "3_Dense/model.safetensors": {"linear.weight": [768, 3072]}})

    yield dict(name="potion-base-8M", like="model2vec-tiny", config=dict(model_type="model2vec", architectures=["StaticModel"], hidden_dim=256, normalize=True,
               apply_pca=256, apply_zipf=True, seq_length=1000000), files={}, published="7.56M", shapes=lambda: {"embeddings": [29528, 256]}, names="published code")

    def qwen3_vl(name, like, published, text, vision, **over):
        config = dict(QWEN3_VL, text_config=text, vision_config=vision, **over)
        return dict(name=name, like=like, config=config, files={}, published=published,
                    shapes=lambda: cls("Qwen3VLForConditionalGeneration", config))

    yield qwen3_vl("Qwen3-VL-Embedding-2B", "qwen3-vl-embed-tiny", "2,127,532,032", QWEN3_VL_TEXT, QWEN3_VL_VISION)
    yield qwen3_vl("Qwen3-VL-Reranker-2B", "qwen3-vl-rerank-tiny", "2,127,532,032", QWEN3_VL_TEXT, QWEN3_VL_VISION)
    text8 = dict(QWEN3_VL_TEXT, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, tie_word_embeddings=False)
    vision8 = dict(QWEN3_VL_VISION, depth=27, hidden_size=1152, intermediate_size=4304, out_hidden_size=4096, deepstack_visual_indexes=[8, 16, 24])
    yield qwen3_vl("Qwen3-VL-Reranker-8B", "qwen3-vl-rerank-tiny", "8,767,123,696", text8, vision8, tie_word_embeddings=False)

    omni = dict(model_type="bidirlm_omni", architectures=["BidirLMOmniModel"], text_config=dict(QWEN3_VL_TEXT, model_type="bidirlm_omni_text"),
                vision_config=dict(QWEN3_VL_VISION, model_type="bidirlm_omni_vision", deepstack_visual_indexes=[8, 16, 24]), audio_config=bidirlm_audio(),
                image_token_id=151655, video_token_id=151656, vision_start_token_id=151652, vision_end_token_id=151653, audio_token_id=151676,
                audio_start_token_id=151669, audio_end_token_id=151670, tie_word_embeddings=True)
    yield dict(name="BidirLM-Omni-2.5B-Embedding", like="bidirlm-omni-tiny", config=omni, files={}, published="2,445,009,536", shapes=bidirlm)

    def siglip(name, like, published, kind, text, vision, files):
        config = dict(model_type=kind.lower().removesuffix("model"), architectures=[kind], text_config=text, vision_config=vision)
        return dict(name=name, like=like, config=config, files=files, published=published, shapes=lambda: cls(kind, config))

    def squares(side):
        return {"preprocessor_config.json": dict(image_processor_type="SiglipImageProcessor", do_resize=True, size={"height": side, "width": side}, resample=2,
                                                 do_rescale=True, rescale_factor=1 / 255, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3)}

    def towers(width, layers, heads, inner, patch, side):
        same = dict(hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, hidden_act="gelu_pytorch_tanh",
                    layer_norm_eps=1e-6)
        return (dict(same, model_type="siglip_text_model", vocab_size=256000, max_position_embeddings=64, projection_size=width),
                dict(same, model_type="siglip_vision_model", image_size=side, patch_size=patch, num_channels=3))

    yield siglip("siglip2-base-patch16-224", "siglip-tiny", "375M", "SiglipModel", *towers(768, 12, 12, 3072, 16, 224), squares(224))
    yield siglip("siglip2-so400m-patch14-384", "siglip-tiny", "1.14B", "SiglipModel", *towers(1152, 27, 16, 4304, 14, 384), squares(384))
    text, vision = towers(768, 12, 12, 3072, 16, 224)
    text, vision = dict(text, model_type="siglip2_text_model"), {k: v for k, v in dict(vision, model_type="siglip2_vision_model", num_patches=256).items()
                                                                  if k != "image_size"}
    naflex = {"preprocessor_config.json": dict(image_processor_type="Siglip2ImageProcessor", do_resize=True, resample=2, do_rescale=True, rescale_factor=1 / 255,
              do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3, patch_size=16, max_num_patches=256)}
    yield siglip("siglip2-base-patch16-naflex", "siglip2-tiny", "375M", "Siglip2Model", text, vision, naflex)

    def clip(name, published, text, vision, dim):
        text = dict(dict(model_type="clip_text_model", max_position_embeddings=77, vocab_size=49408, hidden_act="quick_gelu", layer_norm_eps=1e-5,
                         projection_dim=dim, bos_token_id=0, eos_token_id=2, pad_token_id=1), **text)
        vision = dict(dict(model_type="clip_vision_model", image_size=224, hidden_act="quick_gelu", layer_norm_eps=1e-5, projection_dim=dim, num_channels=3),
                      **vision)
        config = dict(model_type="clip", architectures=["CLIPModel"], text_config=text, vision_config=vision, projection_dim=dim, logit_scale_init_value=2.6592)
        # Texts end in the highest id, which is another in the tiny checkpoint's tokenizer.
        return dict(name=name, like="clip-tiny", config=config, files={"preprocessor_config.json": CLIP_IMAGES}, published=published,
                    ids={"743": 49406, "744": 49407}, shapes=lambda: cls("CLIPModel", config))

    sizes = lambda width, layers, heads: dict(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads)  # noqa: E731
    yield clip("clip-vit-base-patch32", "151M", sizes(512, 12, 8), dict(sizes(768, 12, 12), patch_size=32), 512)
    yield clip("clip-vit-large-patch14", "428M", sizes(768, 12, 12), dict(sizes(1024, 24, 16), patch_size=14), 768)

    lfm2 = dict(model_type="lfm2", architectures=["Lfm2Model"], hidden_size=1024, intermediate_size=6656, num_hidden_layers=16, num_attention_heads=16,
                num_key_value_heads=8, block_auto_adjust_ff_dim=True, block_ffn_dim_multiplier=1.0, block_multiple_of=256, block_ff_dim=6656, conv_L_cache=3,
                conv_bias=False, norm_eps=1e-5, max_position_embeddings=128000, rope_theta=1000000.0, vocab_size=64402,
                layer_types=["full_attention" if i in (2, 5, 8, 10, 12, 14) else "conv" for i in range(16)])
    yield dict(name="LFM2-ColBERT-350M", like="lfm2-tiny", config=lfm2, files={"1_Dense/config.json": {"in_features": 1024, "out_features": 128, "bias": False,
               "activation_function": "torch.nn.modules.linear.Identity", "use_residual": False}}, published="353M", shapes=lambda: cls("Lfm2Model", lfm2),
               more={"1_Dense/model.safetensors": {"linear.weight": [128, 1024]}})

    def clap(name, published, audio):
        text = dict(model_type="clap_text_model", vocab_size=50265, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
                    hidden_act="gelu", max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-12, pad_token_id=1, bos_token_id=0, eos_token_id=2,
                    projection_dim=512, projection_hidden_act="relu")
        sound = dict(model_type="clap_audio_model", window_size=8, num_mel_bins=64, spec_size=256, hidden_act="gelu", patch_size=4, patch_stride=[4, 4],
                     num_classes=527, projection_dim=512, num_attention_heads=[4, 8, 16, 32], enable_fusion=False, aff_block_r=4,
                     patch_embed_input_channels=1, flatten_patch_embeds=True, enable_patch_layer_norm=True, mlp_ratio=4.0, qkv_bias=True,
                     projection_hidden_act="relu", layer_norm_eps=1e-5, **audio)
        config = dict(model_type="clap", architectures=["ClapModel"], text_config=text, audio_config=sound, projection_dim=512, projection_hidden_act="relu",
                      logit_scale_init_value=14.285714285714285)
        extractor = dict(feature_extractor_type="ClapFeatureExtractor", processor_class="ClapProcessor", feature_size=64, sampling_rate=48000, hop_length=480,
                         fft_window_size=1024, max_length_s=10, nb_max_samples=480000, frequency_min=50, frequency_max=14000, padding="repeatpad",
                         truncation="rand_trunc", padding_value=0.0, top_db=None, return_attention_mask=False)
        return dict(name=name, like="clap-tiny", config=config, files={"preprocessor_config.json": extractor}, published=published,
                    shapes=lambda: cls("ClapModel", config))

    yield clap("clap-htsat-unfused", "154M", dict(patch_embeds_hidden_size=96, hidden_size=768, depths=[2, 2, 6, 2]))
    yield clap("larger_clap_general", "194M", dict(patch_embeds_hidden_size=128, hidden_size=1024, depths=[2, 2, 12, 2]))

    three = dict(QWEN25, text_config=QWEN25_TEXT, vision_config=QWEN25_VISION, audio_config=QWEN25_AUDIO)
    yield dict(name="LCO-Embedding-Omni-3B", like="qwen25-omni-tiny", config=three, files={POOLED: {"word_embedding_dimension": 2048, "pooling_mode_lasttoken": True}},
               published="4,703,464,448", shapes=lambda: cls("Qwen2_5OmniThinkerForConditionalGeneration", three))
    seven = dict(QWEN25, text_config=dict(QWEN25_TEXT, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
                                          num_key_value_heads=4, vocab_size=152064),
                 vision_config=dict(QWEN25_VISION, out_hidden_size=3584), audio_config=dict(QWEN25_AUDIO, output_dim=3584))
    yield dict(name="LCO-Embedding-Omni-7B", like="qwen25-omni-tiny", config=seven, files={POOLED: {"word_embedding_dimension": 3584, "pooling_mode_lasttoken": True}},
               published="8,931,813,888", shapes=lambda: cls("Qwen2_5OmniThinkerForConditionalGeneration", seven))

    moe_text = dict(model_type="qwen3_omni_moe_text", hidden_size=2048, intermediate_size=768, num_hidden_layers=48, num_attention_heads=32,
                    num_key_value_heads=4, head_dim=128, hidden_act="silu", max_position_embeddings=65536, rms_norm_eps=1e-6, rope_theta=1000000,
                    rope_scaling=dict(mrope_interleaved=True, mrope_section=[24, 20, 20], rope_type="default"), decoder_sparse_step=1,
                    moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, norm_topk_prob=True, mlp_only_layers=[], attention_bias=False,
                    tie_word_embeddings=False, vocab_size=152064)
    moe_vision = dict(QWEN3_VL_VISION, model_type="qwen3_omni_moe_vision_encoder", depth=27, hidden_size=1152, intermediate_size=4304,
                      deepstack_visual_indexes=[8, 16, 24], image_size=768, apply_vit_abs_pos_embed=True)
    moe_audio = dict(bidirlm_audio(), model_type="qwen3_omni_moe_audio_encoder", d_model=1280, encoder_layers=32, encoder_attention_heads=20,
                     encoder_ffn_dim=5120, n_window=50, n_window_infer=800)
    thinker = dict(model_type="qwen3_omni_moe_thinker", architectures=["Qwen3OmniMoeThinkerForConditionalGeneration"], text_config=moe_text,
                   vision_config=moe_vision, audio_config=moe_audio, audio_token_id=151675, image_token_id=151655, video_token_id=151656,
                   vision_start_token_id=151652, vision_end_token_id=151653, audio_start_token_id=151669, audio_end_token_id=151670,
                   position_id_per_seconds=13, seconds_per_chunk=2)
    whole = dict(model_type="qwen3_omni_moe", architectures=["Qwen3OmniMoeForConditionalGeneration"], thinker_config=thinker, enable_audio_output=False)
    yield dict(name="Qwen3-Omni-30B-A3B-Captioner", like="qwen3-omni-encoders-tiny", config=whole, files={}, published="32B",
               shapes=lambda: renamed(cls("Qwen3OmniMoeThinkerForConditionalGeneration", thinker), (r"^", "thinker.")))

    col_text = dict(model_type="qwen2_vl_text", hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
                    hidden_act="silu", max_position_embeddings=32768, rms_norm_eps=1e-6, rope_theta=1000000.0,
                    rope_scaling=dict(mrope_section=[16, 24, 24], rope_type="default", type="default"), use_sliding_window=False,
                    tie_word_embeddings=True, vocab_size=151936)
    col_vision = dict(model_type="qwen2_vl", depth=32, embed_dim=1280, hidden_size=1536, hidden_act="quick_gelu", mlp_ratio=4, num_heads=16, in_channels=3,
                      patch_size=14, spatial_merge_size=2, temporal_patch_size=2)
    col = dict(model_type="colqwen2", architectures=["ColQwen2ForRetrieval"], embedding_dim=128,
               vlm_config=dict(model_type="qwen2_vl", architectures=["Qwen2VLForConditionalGeneration"], text_config=col_text, vision_config=col_vision,
                               image_token_id=151655, video_token_id=151656, vision_start_token_id=151652, vision_end_token_id=151653,
                               tie_word_embeddings=True))
    yield dict(name="colqwen2-v1.0-hf", like="colqwen2-tiny", config=col, files={}, published="2.21B", shapes=lambda: cls("ColQwen2ForRetrieval", col))

    if reference:
        yield from jina_omni(reference)


def jina_omni(reference):
    """jina-embeddings-v5-omni by the reference set's model, in the layout with channels last."""
    sys.path.insert(0, str(reference))
    import make_fullsize as F
    import refmodel as R
    for family, published in (("small", "1.56B"), ("nano", "0.95B")):
        config = F.config(family)

        def shapes(config=config, family=family):
            with torch.device("meta"):
                model = R.OmniRef(config)
            state = R.to_layout({name: tensor for name, tensor in model.named_parameters()}, F.DIMS[family]["layout"], family)
            return {name: list(tensor.shape) for name, tensor in state.items()}
        yield dict(name=f"jina-embeddings-v5-omni-{family}", like=f"omni-{family}-tiny", config=config, files={}, published=published, shapes=shapes,
                   names="reference set")


def folded(shapes):
    """Names with shapes, runs of numbers folded: one line a group of tensors that differ in their numbers alone."""
    groups = {}
    for name, shape in shapes.items():
        numbers = tuple(int(n) for n in re.findall(r"(?<=\.)\d+(?=\.|$)", name))
        pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "#", name)
        groups.setdefault((pattern, tuple(shape)), []).append(numbers)
    lines = []
    for (pattern, shape), found in groups.items():
        axes = [sorted({numbers[i] for numbers in found}) for i in range(len(found[0]))]
        whole = 1
        for axis in axes:
            whole *= len(axis)
        size = " ".join(map(str, shape)) or "-"
        if whole == len(set(found)):
            name = pattern
            for axis in axes:
                name = name.replace("#", "{%s}" % runs(axis) if len(axis) > 1 else str(axis[0]), 1)
            lines.append(f"{name} {size}")
        else:
            for numbers in found:
                name = pattern
                for number in numbers:
                    name = name.replace("#", str(number), 1)
                lines.append(f"{name} {size}")
    return lines


def runs(numbers):
    parts, start = [], numbers[0]
    for here, after in zip(numbers, numbers[1:] + [None]):
        if after != here + 1:
            parts.append(f"{start}-{here}" if start != here else str(here))
            start = after
    return ",".join(parts)


def main():
    arguments = sys.argv[1:]
    out = Path(arguments.pop(0)) / "fullsize"
    reference = Path(arguments.pop(0)) if arguments and Path(arguments[0]).is_dir() else None
    out.mkdir(parents=True, exist_ok=True)
    for entry in entries(reference):
        if arguments and entry["name"] not in arguments:
            continue
        shapes, more = entry["shapes"](), entry.get("more", {})
        total = sum(torch.Size(shape).numel() for file in [shapes, *more.values()] for shape in file.values())
        made = dict(name=entry["name"], names=entry.get("names", f"transformers {T.__version__}"), like=entry["like"], published=entry["published"],
                    parameters=total, config=entry["config"], files=entry["files"], ids=entry.get("ids", {}), tensors=folded(shapes),
                    more={file: folded(found) for file, found in more.items()})
        text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        (out / f"{entry['name']}.json").write_text(text)
        print(f"{entry['name']:44} {total:>14,} published {entry['published']:>14} {len(shapes)} tensors, {len(text)} bytes")


if __name__ == "__main__":
    main()

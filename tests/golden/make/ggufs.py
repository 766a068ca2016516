"""GGUF files of tiny models as llama.cpp's converter writes them, and what transformers computes from the same values.

  python ggufs.py

Reads the checkpoints. Tensor names, tokenizer fields and packed types come from the package `gguf` 0.19 (`get_tensor_name_map`,
`SpecialVocab`, `quants`); what llama.cpp does to a model besides (words of WordPiece with `▁` in front, rows of Llama's
queries and keys in pairs, 1 added to Gemma's norms) is written out below. Types that the package cannot pack (the K ones)
get random blocks. The reference reads the packed values back with `quants.dequantize` and runs transformers 5.24.0 in f32.

Writes tests/golden/gguf/<name>.gguf, tests/golden/refs/ggufs.json (texts, ids and vectors by file) and
tests/golden/refs/gguf-blocks.json (one block of each packed type with its values).
"""
import json
import math
import sys
import tempfile
import warnings
from pathlib import Path

# A maker beside this one may carry the name of a package, so this folder must not be searched.
HERE = Path(__file__).resolve().parent
sys.path = [p for p in sys.path if Path(p or ".").resolve() != HERE]

import gguf  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from gguf import GGMLQuantizationType as T  # noqa: E402
from gguf import quants  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoConfig, AutoModel, BertConfig, LlamaConfig, LlamaModel  # noqa: E402
from transformers.tokenization_utils_base import generate_merges  # noqa: E402

GOLDEN = HERE.parent
CHECKPOINTS, REFS, OUT = GOLDEN / "checkpoints", GOLDEN / "refs", GOLDEN / "gguf"
POOLING = {"mean": gguf.PoolingType.MEAN, "cls": gguf.PoolingType.CLS, "last": gguf.PoolingType.LAST}
K_TYPES = [T.Q4_K, T.Q5_K, T.Q6_K]


def random_blocks(random, kind, shape):
    """Blocks of a type that the package unpacks only: random codes, scales of a sensible size."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(np.prod(shape)) // values
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    halves = [size - 2] if kind == T.Q6_K else [0, 2]
    for at in halves:
        scale = (0.0004 + 0.0003 * random.random((count, 1))).astype(np.float16) * (1 if kind == T.Q6_K else 2)
        blocks[:, at : at + 2] = scale.astype(np.float16).view(np.uint8)
    return blocks.reshape(*shape[:-1], shape[-1] // values * size)


def packed(values, kind, random):
    """Bytes of a tensor in a type, and the values that they stand for."""
    if kind == T.F32:
        return values, values
    if kind == T.F16:
        return values.astype(np.float16), values.astype(np.float16).astype(np.float32)
    if kind in K_TYPES:
        stored = random_blocks(random, kind, values.shape)
    else:
        stored = quants.quantize(values, kind)
    return stored, quants.dequantize(stored, kind).reshape(values.shape)


def vocabulary(folder, size):
    """As `get_vocab_base` of llama.cpp: tokens and their kinds by id."""
    file = json.loads((folder / "tokenizer.json").read_text())
    words = {id: word for word, id in file["model"]["vocab"].items()}
    added = {token["id"]: token for token in file["added_tokens"]}
    tokens, kinds = [], []
    for id in range(size):
        if id in added:
            tokens.append(added[id]["content"])
            kinds.append(gguf.TokenType.CONTROL if added[id]["special"] else gguf.TokenType.USER_DEFINED)
        elif id in words:
            tokens.append(words[id])
            kinds.append(gguf.TokenType.NORMAL)
        else:
            tokens.append(f"[PAD{id}]")
            kinds.append(gguf.TokenType.UNUSED)
    return tokens, kinds


def phantom(token, kind):
    if kind == gguf.TokenType.CONTROL:
        return token
    return token[2:] if token.startswith("##") else "▁" + token


def pairs(rows, heads):
    """As `permute` of llama.cpp's LlamaModel."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write(name, arch, folder, config, weights, kinds, pooling, fields, tokenizer, seed, extra=()):
    """One file; gives the values that a reader finds, by the names of the checkpoint."""
    random = np.random.default_rng(seed)
    OUT.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(OUT / f"{name}.gguf", gguf.MODEL_ARCH_NAMES[arch])
    writer.add_type("model")
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_pooling_type(POOLING[pooling])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    fields(writer, config)
    rows = next(value.shape[0] for key, value in weights.items() if key.endswith(("embed_tokens.weight", "word_embeddings.weight")))
    tokens, types = vocabulary(folder, rows)
    tokenizer(writer, folder, tokens, types)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found = {}
    for index, (key, value) in enumerate(weights.items()):
        if key.startswith("pooler.") or "position_ids" in key:
            continue
        new = key if key.startswith("dense_") else names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert new, key
        value = value.float().numpy()
        kind = kinds(index, new, value)
        changed, undo = value, lambda v: v
        if arch == gguf.MODEL_ARCH.LLAMA and new.endswith(("attn_q.weight", "attn_k.weight")):
            heads = config.num_attention_heads if "attn_q" in new else config.num_key_value_heads
            changed = pairs(value, heads)
            undo = lambda v, heads=heads: v.reshape(heads, v.shape[0] // heads // 2, 2, *v.shape[1:]).swapaxes(1, 2).reshape(v.shape)
        if arch in (gguf.MODEL_ARCH.GEMMA_EMBEDDING, gguf.MODEL_ARCH.GEMMA3) and new.endswith("norm.weight"):
            changed, undo = value + np.float32(1), lambda v: v - np.float32(1)
        stored, read = packed(changed, kind, random)
        writer.add_tensor(new, stored, raw_dtype=None if kind in (T.F32, T.F16) else kind)
        found[key] = torch.from_numpy(np.ascontiguousarray(undo(read)))
    for new, value in extra:
        writer.add_tensor(new, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def of_bert(writer, config):
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)


def of_decoder(writer, config, theta=None):
    writer.add_head_count_kv(config.num_key_value_heads)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(theta or config.rope_parameters["rope_theta"])
    if getattr(config, "is_causal", True) is False:
        writer.add_causal_attention(False)


def word_pieces(writer, folder, tokens, types):
    writer.add_token_type_count(2)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([phantom(token, kind) for token, kind in zip(tokens, types)])
    writer.add_token_types(types)
    special = {token: tokens.index(token) for token in ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")}
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_eos_token_id(special["[SEP]"])
    writer.add_mask_token_id(special["[MASK]"])


def byte_level(pre):
    def add(writer, folder, tokens, types):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        gguf.SpecialVocab(folder, load_merges=True, n_vocab=len(tokens)).add_to_gguf(writer, quiet=True)

    return add


def gemma(writer, config):
    of_decoder(writer, config, config.rope_parameters["full_attention"]["rope_theta"])
    # As config.json has it: the class halves it. llama.cpp takes every sixth layer for one that sees all, unless it is set.
    writer.add_sliding_window(12)
    writer.add_uint32(f"{writer.arch}.attention.sliding_window_pattern", 3)
    writer.add_dense_features_dims("dense_2", 48, 96)
    writer.add_dense_features_dims("dense_3", 96, 48)


def both_ways(writer, config):
    of_decoder(writer, config)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_causal_attention(False)


def nomic(writer, config):
    of_bert(writer, config)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def sentence_piece(writer, folder, tokens, types):
    """Pieces with scores; merges follow from them, as SentencePiece has it."""
    is_byte = [len(token) == 6 and token.startswith("<0x") for token in tokens]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([scores_of(folder).get(token, -10000.0) for token in tokens])
    writer.add_token_types([gguf.TokenType.BYTE if byte else kind for byte, kind in zip(is_byte, types)])
    writer.add_bos_token_id(tokens.index("<bos>"))
    writer.add_eos_token_id(tokens.index("<eos>"))
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_pad_token_id(tokens.index("<pad>"))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_space_prefix(False)


def scores_of(folder):
    """A score for each piece that is made of two: the later it is made, the lower."""
    file = json.loads((folder / "tokenizer.json").read_text())
    found = {}
    for index, merge in enumerate(file["model"]["merges"]):
        left, right = merge if isinstance(merge, list) else merge.split(" ")
        found.setdefault(left + right, -float(index))
    return found


def from_scores(folder):
    """The tokenizer that transformers makes of such pieces."""
    file = json.loads((folder / "tokenizer.json").read_text())
    vocabulary, scores = file["model"]["vocab"], scores_of(folder)
    by_score = {piece: scores.get(piece, -10000.0) for piece, _ in sorted(vocabulary.items(), key=lambda item: item[1])}
    file["model"]["merges"] = generate_merges(vocabulary, by_score)
    return Tokenizer.from_str(json.dumps(file))


def rope_factors(config):
    """As `generate_extra_tensors` of llama.cpp's LlamaModel."""
    rope = config.rope_parameters
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    length, found = rope["original_max_position_embeddings"], []
    for i in range(0, config.head_dim, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (i / config.head_dim)
        if wave < length / high:
            found.append(1.0)
        elif wave > length / low:
            found.append(rope["factor"])
        else:
            smooth = (length / wave - low) / (high - low)
            found.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(found, dtype=np.float32)


def pooled(rows, pooling):
    return {"mean": rows.mean(0), "cls": rows[0], "last": rows[-1]}[pooling]


def texts_of(checkpoint):
    """Texts with whatever the reference set puts in front of them, and their ids."""
    said = json.loads((REFS / f"{checkpoint}.json").read_text())
    if "texts" in said:
        return [(case["text"], case["ids"]) for case in said["texts"]]
    own = [case for case in said["cases"] if case["kind"] == "text" and len(case["input_ids"]) <= 96]
    return [((case.get("prompt_text") or "") + case["text"], case["input_ids"]) for case in own][:14]


def opened(checkpoint, config, weights):
    """The model of transformers with these values, read as it reads a checkpoint."""
    with tempfile.TemporaryDirectory() as place:
        config.save_pretrained(place)
        save_file({name: value.contiguous() for name, value in weights.items()}, Path(place) / "model.safetensors", metadata={"format": "pt"})
        kind = LlamaModel if isinstance(config, LlamaConfig) else AutoModel
        model, report = kind.from_pretrained(place, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    odd = [name for name in [*report["missing_keys"], *report["unexpected_keys"]] if "pooler" not in name and "position_ids" not in name]
    assert not odd, (checkpoint, odd)
    return model.eval()


def vectors(config, weights, checkpoint, pooling, tokenizer=None):
    dense = [weights.pop(name) for name in ("dense_2.weight", "dense_3.weight") if name in weights]
    model, found = opened(checkpoint, config, weights), []
    with torch.no_grad():
        for text, ids in texts_of(checkpoint):
            ids = tokenizer.encode(text).ids if tokenizer else ids
            if not ids:
                continue
            mask = torch.ones(1, len(ids), dtype=torch.long)
            if isinstance(config, LlamaConfig):
                # Every row sees every row.
                mask = torch.zeros(1, 1, len(ids), len(ids))
            row = pooled(model(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0], pooling)
            for matrix in dense:
                row = matrix @ row
            vector = [round(float(v), 8) for v in row / row.norm()]
            found.append({"text": text, "tokens": len(ids), "vector": vector})
    return found


def own_weights(checkpoint):
    weights = {}
    for file in sorted((CHECKPOINTS / checkpoint).glob("*.safetensors")):
        weights.update(load_file(file))
    return weights


def cycle(*kinds):
    """A type for each matrix in turn; vectors and tables stay f32 but the token table."""

    def choose(index, name, value):
        if value.ndim < 2 or name.startswith(("position_embd", "token_types")):
            return T.F32
        kind = kinds[index % len(kinds)]
        return kind if value.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else T.F16

    return choose


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    written = []

    def made(name, arch, checkpoint, kinds, pooling, fields, tokenizer, config=None, weights=None, extra=(), own_ids=None):
        config = config or AutoConfig.from_pretrained(CHECKPOINTS / checkpoint)
        weights = weights or own_weights(checkpoint)
        read = write(name, arch, CHECKPOINTS / checkpoint, config, weights, kinds, pooling, fields, tokenizer, len(written) + 1, extra)
        found = vectors(config, read, checkpoint, pooling, own_ids)
        print(f"{name}: {(OUT / f'{name}.gguf').stat().st_size} bytes, {len(found)} texts")
        written.append({"file": f"{name}.gguf", "architecture": gguf.MODEL_ARCH_NAMES[arch], "texts": found})

    arch = gguf.MODEL_ARCH
    plain, small = cycle(T.F32), cycle(T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.F16, T.BF16)
    made("bert-f32", arch.BERT, "bert-tiny", plain, "mean", of_bert, word_pieces)
    made("bert-packed", arch.BERT, "bert-tiny", small, "cls", of_bert, word_pieces)
    # Wide enough for the blocks of 256.
    wide = BertConfig(
        vocab_size=111, hidden_size=256, num_hidden_layers=1, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=48, type_vocab_size=2, layer_norm_eps=1e-12,
    )
    torch.manual_seed(3)
    random = dict(AutoModel.from_config(wide).state_dict())
    made("bert-k", arch.BERT, "bert-tiny", cycle(T.Q4_K, T.Q6_K, T.Q5_K), "mean", of_bert, word_pieces, wide, random)
    made("qwen3-q8", arch.QWEN3, "qwen3-embedding-tiny", cycle(T.Q8_0), "last", of_decoder, byte_level("qwen2"))
    made("qwen2-q4", arch.QWEN2, "qwen2-tiny", cycle(T.Q8_0, T.Q4_0), "last", of_decoder, byte_level("qwen2"))
    made("nomic-bert", arch.NOMIC_BERT, "nomic-bert-tiny", cycle(T.Q8_0), "mean", nomic, word_pieces)
    gemma_config = AutoConfig.from_pretrained(CHECKPOINTS / "gemma3-text-tiny")
    # What llama.cpp computes with: the file does not hold it.
    gemma_config.query_pre_attn_scalar = gemma_config.head_dim
    weights = own_weights("gemma3-text-tiny")
    for name in ("2_Dense", "3_Dense"):
        dense = load_file(CHECKPOINTS / "gemma3-text-tiny" / name / "model.safetensors")
        weights[f"dense_{name[0]}.weight"] = dense["linear.weight"]
    own = from_scores(CHECKPOINTS / "gemma3-text-tiny")
    made("gemma-embedding", arch.GEMMA_EMBEDDING, "gemma3-text-tiny", cycle(T.Q8_0), "mean", gemma, sentence_piece, gemma_config, weights, own_ids=own)
    said = json.loads((CHECKPOINTS / "llama-bidirec-tiny" / "config.json").read_text())
    llama = LlamaConfig(**{key: value for key, value in said.items() if key not in ("model_type", "architectures", "pooling", "temperature", "torch_dtype")})
    factors = [("rope_freqs.weight", rope_factors(llama))]
    made("llama", arch.LLAMA, "llama-bidirec-tiny", cycle(T.Q8_0), "mean", both_ways, byte_level("llama-bpe"), llama, extra=factors)

    listed = ",\n".join(json.dumps(case) for case in written)
    (REFS / "ggufs.json").write_text(f"[\n{listed}\n]\n")
    random, blocks = np.random.default_rng(7), []
    for kind in [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, *K_TYPES]:
        values, size = gguf.GGML_QUANT_SIZES[kind]
        block = random.integers(0, 256, (2, size), dtype=np.uint8)
        for at in [size - 2] if kind == T.Q6_K else [0] if kind in (T.Q4_0, T.Q5_0, T.Q8_0) else [0, 2]:
            block[:, at : at + 2] = random.standard_normal((2, 1)).astype(np.float16).view(np.uint8)
        bits = quants.dequantize(block, kind).astype(np.float32).reshape(-1).view(np.uint32)
        blocks.append({"kind": kind.name, "bytes": block.tobytes().hex(), "bits": bits.tolist()})
    listed = ",\n".join(json.dumps(block) for block in blocks)
    (REFS / "gguf-blocks.json").write_text(f"[\n{listed}\n]\n")


main()

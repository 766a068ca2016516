"""Checkpoints of published sizes with random weights, for `cargo xtask bench`: safetensors, GGUF and ONNX of the same values.

    python published_make.py --name bge-small-en-v1.5 --out FOLDER [--gguf f32,q8_0,q4_0]

Configuration, names and shapes are those of tests/golden/fullsize/NAME.json; the tokenizer and the other files those of the tiny
checkpoint that it names. A token table has at most 8,192 rows: they are gathered, so more of them cost disk and nothing else.
Writes FOLDER/checkpoint and FOLDER/TYPE.gguf, each only where it is not there yet.
"""
import argparse
import json
import re
import shutil
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants
from safetensors.numpy import load_file, save_file

GOLDEN = Path(__file__).resolve().parent.parent.parent / "tests/golden"
ROWS = 8192
TABLES = ("embed_tokens.weight", "word_embeddings.weight", "token_embedding.weight")
POOLING = {"pooling_mode_mean_tokens": gguf.PoolingType.MEAN, "pooling_mode_cls_token": gguf.PoolingType.CLS,
           "pooling_mode_lasttoken": gguf.PoolingType.LAST}
ARCHITECTURES = {"bert": gguf.MODEL_ARCH.BERT, "qwen3": gguf.MODEL_ARCH.QWEN3,
                 "gemma3_text": gguf.MODEL_ARCH.GEMMA_EMBEDDING}
TYPES = {"f32": T.F32, "q8_0": T.Q8_0, "q4_0": T.Q4_0}


def unfolded(lines):
    """Names with shapes, of lines in which runs of numbers are folded: `layers.{0-11,13}.weight 3 4`."""
    for line in lines:
        pattern, *shape = line.split()
        names = [""]
        for piece in re.split(r"(\{[^}]*\})", pattern):
            choices = [piece]
            if piece.startswith("{"):
                ends = [part.split("-") for part in piece[1:-1].split(",")]
                choices = [str(n) for e in ends for n in range(int(e[0]), int(e[-1]) + 1)]
            names = [name + choice for name in names for choice in choices]
        for name in names:
            yield name, [int(n) for n in shape if n != "-"]


def drawn(lines, one_is_zero):
    """Weights that keep rows of about unit size; where 1 is added to a norm's weights, they lie about 0."""
    random, tensors = np.random.default_rng(1), {}
    for name, shape in unfolded(lines):
        if name.endswith(TABLES):
            shape = [min(shape[0], ROWS), *shape[1:]]
        values = random.standard_normal(shape, dtype=np.float32)
        if "norm" in name.lower() and name.endswith("weight"):
            values = values * 0.1 + (0 if one_is_zero else 1)
        elif name.endswith("bias"):
            values = values * 0.1
        elif len(shape) > 1 and not name.endswith(("embeddings.weight", "embed_tokens.weight", "embedding.weight")):
            values = values * np.prod(shape[1:]) ** -0.5
        tensors[name] = np.ascontiguousarray(values, np.float32)
    return tensors


def checkpoint(about, out):
    like, made = GOLDEN / "checkpoints" / about["like"], out.with_suffix(".part")
    shutil.rmtree(made, ignore_errors=True)
    leave = shutil.ignore_patterns("*.safetensors", "adapters")
    shutil.copytree(like, made, ignore=leave)
    config = about["config"]
    for part in (config, config.get("text_config", {})):
        if "vocab_size" in part:
            part["vocab_size"] = min(part["vocab_size"], ROWS)
    # Ids of the published tokenizer, which this one does not have.
    ends = {"[PAD]": "pad_token_id", "<bos>": "bos_token_id", "<eos>": "eos_token_id", "<pad>": "pad_token_id",
            "</s>": "eos_token_id", "<|endoftext|>": "eos_token_id"}
    added = {token["content"]: token["id"] for token in json.loads((made / "tokenizer.json").read_text())["added_tokens"]}
    for token, key in ends.items():
        for part in (config, config.get("text_config", {})):
            if token in added and (key in part or "vocab_size" in part):
                part[key] = added[token]
    if "bos_token_id" in config and config["bos_token_id"] >= ROWS:
        config["bos_token_id"] = config.get("eos_token_id", 0)
    (made / "config.json").write_text(json.dumps(config, indent=1))
    for file, value in about["files"].items():
        (made / file).parent.mkdir(exist_ok=True)
        (made / file).write_text(json.dumps(value, indent=1))
    if (made / "sentence_bert_config.json").exists():
        (made / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 512, "do_lower_case": False}))
    gemma = config["model_type"].startswith("gemma")
    save_file(drawn(about["tensors"], gemma), made / "model.safetensors", metadata={"format": "pt"})
    for file, lines in about["more"].items():
        save_file(drawn(lines, False), made / file, metadata={"format": "pt"})
    made.rename(out)


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
    return file, tokens, kinds


def tokenizer(writer, model, folder, size):
    file, tokens, kinds = vocabulary(folder, size)
    ends = {"unk": ("[UNK]", "<unk>"), "sep": ("[SEP]",), "pad": ("[PAD]", "<pad>"), "bos": ("[CLS]", "<bos>"),
            "eos": ("[SEP]", "<eos>"), "mask": ("[MASK]",)}
    if model == "bert":
        control = gguf.TokenType.CONTROL
        shown = [t if kind == control else t[2:] if t.startswith("##") else "▁" + t for t, kind in zip(tokens, kinds)]
        writer.add_token_type_count(2)
        writer.add_tokenizer_model("bert")
    elif model == "qwen3":
        shown, ends = tokens, {}
        writer.add_tokenizer_model("gpt2")
        gguf.SpecialVocab(folder, load_merges=True, n_vocab=size).add_to_gguf(writer, quiet=True)
    else:
        shown, scores = tokens, {}
        for rank, merge in enumerate(file["model"]["merges"]):
            scores.setdefault("".join(merge if isinstance(merge, list) else merge.split(" ")), -float(rank))
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([scores.get(token, -10000.0) for token in tokens])
        kinds = [gguf.TokenType.BYTE if len(t) == 6 and t.startswith("<0x") else kind for t, kind in zip(tokens, kinds)]
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)
        writer.add_add_space_prefix(False)
    writer.add_tokenizer_pre("qwen2" if model == "qwen3" else "default")
    writer.add_token_list(shown)
    writer.add_token_types(kinds)
    for name, choices in ends.items():
        for token in choices:
            if token in tokens:
                getattr(writer, f"add_{name}_token_id")(tokens.index(token))


def packed(folder, kind, out):
    """A GGUF file as llama.cpp's converter writes it: vectors, positions and token types in f32, matrices in `kind`."""
    config = json.loads((folder / "config.json").read_text())
    model = config["model_type"]
    arch, gemma = ARCHITECTURES[model], model == "gemma3_text"
    part = out.with_suffix(".part")
    writer = gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_type("model")
    writer.add_name(out.parent.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    pooling = json.loads((folder / "1_Pooling/config.json").read_text())
    writer.add_pooling_type(next(value for key, value in POOLING.items() if pooling.get(key)))
    writer.add_file_type({"f32": gguf.LlamaFileType.ALL_F32, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
                         .get(kind, gguf.LlamaFileType.MOSTLY_Q4_0))
    if model == "bert":
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        writer.add_causal_attention(False)
    else:
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config["rope_theta"])
    tensors = load_file(folder / "model.safetensors")
    if gemma:
        writer.add_sliding_window(config["sliding_window"])
        for n, ends in [(2, (768, 3072)), (3, (3072, 768))]:
            writer.add_dense_features_dims(f"dense_{n}", *ends)
            tensors[f"dense_{n}.weight"] = load_file(folder / f"{n}_Dense/model.safetensors")["linear.weight"]
    tokenizer(writer, model, folder, config["vocab_size"])
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for name, values in tensors.items():
        if name.startswith("pooler."):
            continue
        new = name if name.startswith("dense_") else names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert new, name
        if gemma and new.endswith("norm.weight"):
            values = values + np.float32(1)
        type = TYPES[kind] if values.ndim > 1 and not new.startswith(("position_embd", "token_types")) else T.F32
        stored = values if type == T.F32 else quants.quantize(values, type)
        writer.add_tensor(new, stored, raw_dtype=None if type == T.F32 else type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(out)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--name", required=True)
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--gguf", default="")
    args = args.parse_args()
    about = json.loads((GOLDEN / "fullsize" / f"{args.name}.json").read_text())
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.out / "checkpoint"
    if not folder.exists():
        checkpoint(about, folder)
    for kind in filter(None, args.gguf.split(",")):
        if not (args.out / f"{kind}.gguf").exists():
            packed(folder, kind, args.out / f"{kind}.gguf")


if __name__ == "__main__":
    main()

"""Compares the ids of many folders of tokenizer files with those of transformers' AutoTokenizer; run by hand.

  cargo build --release -p omniburn-convert --example settings
  python sweep_tokenizers.py SETTINGS_BINARY COUNT SEED TOKENIZER.json ...

Each TOKENIZER.json is laid into a tiny checkpoint (of zeros) with settings drawn at random: classes, flags, special and added
tokens, the older files. Both sides give ids for the same texts. Printed: how many folders are equal, refused here, refused
by both, and every folder that differs, whole. transformers 5.24, tokenizers 0.23.3; no torch is needed.
"""
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

# A file beside this one carries the name of a package that is needed.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
import numpy as np  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")
import transformers  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

transformers.logging.set_verbosity_error()

TEXTS = [
    "The Quick BROWN fox", "\u00c9mile's na\u00efve caf\u00e9", "\u4e2d\u6587 and words", "", " ", "a [MASK] b[SEP]c  [CLS] <new>d <mask>",
    "<|im_end|> x <|endoftext|>y <s>z</s>", "New\u00c9 new\u00e9 <NEW> <new>", "12,345.67 \u0416\u0438\u0437\u043d\u044c\n\tnew line", "\u0130stanbul \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
    "extra1 Extra1 extra1word", "don't   stop\u2026 \ufb01ne",
]


def bert(rows):
    h = 4
    t = {"embeddings.word_embeddings.weight": (rows, h), "embeddings.position_embeddings.weight": (64, h),
         "embeddings.token_type_embeddings.weight": (2, h)}
    for n in ["embeddings.LayerNorm", "encoder.layer.0.attention.output.LayerNorm", "encoder.layer.0.output.LayerNorm"]:
        t[n + ".weight"] = t[n + ".bias"] = (h,)
    for n in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense", "output.dense"]:
        t[f"encoder.layer.0.{n}.weight"], t[f"encoder.layer.0.{n}.bias"] = (h, h), (h,)
    config = {"model_type": "bert", "vocab_size": rows, "hidden_size": h, "num_hidden_layers": 1, "num_attention_heads": 1,
              "intermediate_size": h, "hidden_act": "gelu", "max_position_embeddings": 64, "type_vocab_size": 2}
    return config, t


def omni(rows):
    h = 8
    t = {"language_model.embed_tokens.weight": (rows, h), "language_model.norm.weight": (h,)}
    at = "language_model.layers.0."
    for n in ["input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"]:
        t[at + n + ".weight"] = (h,)
    for n in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]:
        t[at + n + ".weight"] = (h, h)
    config = {"model_type": "jina_embeddings_v5_omni", "architectures": ["JinaEmbeddingsV5OmniModel"], "matryoshka_dimensions": [h],
              "text_config": {"model_type": "qwen3", "hidden_size": h, "num_hidden_layers": 1, "num_attention_heads": 1,
                              "num_key_value_heads": 1, "head_dim": h, "intermediate_size": h, "rms_norm_eps": 1e-6,
                              "vocab_size": rows, "max_position_embeddings": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}}
    return config, t


def words(tokenizer):
    vocab = tokenizer["model"]["vocab"]
    return list(vocab) if isinstance(vocab, dict) else [v[0] for v in vocab]


def token(r, vocab, names):
    """A special token: one there is, one of the vocabulary, a new one, none; as a string or with properties."""
    text = r.choice([r.choice(names), r.choice(vocab), "<new>", "<NEW>", "new\u00e9"])
    k = r.random()
    if k < 0.7:
        return text
    if k < 0.9:
        return {"__type": "AddedToken", **props(r, text)}
    return None


def props(r, text):
    flag = lambda p: r.random() < p  # noqa: E731
    return {"content": text, "lstrip": flag(0.3), "normalized": flag(0.3), "rstrip": flag(0.3), "single_word": flag(0.3), "special": flag(0.7)}


def draw(r, base):
    """Files of one folder: config.json without sizes, and the tokenizer's."""
    tok = copy.deepcopy(base)
    kind = tok["model"].get("type") or "BPE"
    vocab = [w for w in words(tok) if w.strip()]
    names = [t["content"] for t in tok["added_tokens"]] or ["<s>"]
    files = {}
    maybe = lambda p: r.random() < p  # noqa: E731
    wordpiece = kind == "WordPiece"
    root = "bert" if wordpiece or maybe(0.4) else "omni"
    c = {}
    own = ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "MPNetTokenizer", "MPNetTokenizerFast"] if wordpiece else \
        ["XLMRobertaTokenizer", "XLMRobertaTokenizerFast"] if kind == "Unigram" else \
        ["Qwen2Tokenizer", "Qwen2TokenizerFast", "GPT2Tokenizer", "RobertaTokenizerFast", "LlamaTokenizerFast", "HerbertTokenizerFast"]
    which = r.random()
    if which < 0.6:
        c["tokenizer_class"] = r.choice(own)
    elif which < 0.85:
        c["tokenizer_class"] = r.choice(["PreTrainedTokenizerFast", "TokenizersBackend", "NoSuchTokenizer", "PreTrainedTokenizer"])
    for name in ["do_lower_case", "tokenize_chinese_chars", "strip_accents"]:
        if maybe(0.4 if wordpiece else 0.1):
            c[name] = r.choice([True, False, True, False, None])
    for name in ["add_prefix_space", "add_bos_token", "add_eos_token", "legacy"]:
        if maybe(0.2):
            c[name] = r.choice([True, False, True, False, None])
    for name in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]:
        if maybe(0.25):
            c[name] = token(r, vocab, names)
    if maybe(0.1):
        c["image_token"] = r.choice(["<image>", r.choice(vocab)])
    if maybe(0.15):
        c[r.choice(["additional_special_tokens", "extra_special_tokens"])] = [r.choice(["extra1", "<new>", r.choice(vocab), r.choice(names)]) for _ in range(r.randint(0, 3))]
    elif maybe(0.1):
        c["extra_special_tokens"] = {"extra_token": "extra1", "other": r.choice(names)}
    if maybe(0.4):
        decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in tok["added_tokens"] if maybe(0.9)}
        for key in list(decoder):
            if maybe(0.2):
                decoder[key] = props(r, decoder[key]["content"])
        top = max(list(tok["model"]["vocab"].values()) if isinstance(tok["model"]["vocab"], dict) else [len(vocab)])
        top = max([top, *[t["id"] for t in tok["added_tokens"]]])
        for i in range(r.choice([0, 0, 1, 2])):
            decoder[str(top + 1 + i)] = props(r, ["extra1", "New\u00c9"][i])
        c["added_tokens_decoder"] = decoder
    for name, value in [("model_max_length", 128), ("padding_side", "left"), ("truncation_side", "left"), ("clean_up_tokenization_spaces", True),
                        ("do_basic_tokenize", False), ("never_split", ["fox"]), ("use_fast", False), ("backend", "tokenizers"), ("something_else", 3)]:
        if maybe(0.1):
            c[name] = value
    if maybe(0.02):
        c["split_special_tokens"] = True
    if maybe(0.9):
        files["tokenizer_config.json"] = c
    if maybe(0.2):
        files["special_tokens_map.json"] = {n: r.choice([r.choice(names), props(r, r.choice(names + ["<new>"]))]) for n in ["cls_token", "eos_token", "unk_token"] if maybe(0.5)}
        if maybe(0.3):
            files["special_tokens_map.json"]["additional_special_tokens"] = ["extra1"]
    if maybe(0.1):
        files["added_tokens.json"] = {"extra1": 100000, "<new>": 100001}
    # tokenizer.json itself
    if maybe(0.3):
        tok["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    if maybe(0.3):
        tok["padding"] = {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": names[0]}
    n = tok.get("normalizer")
    if n and n.get("type") == "BertNormalizer":
        for name in ["lowercase", "handle_chinese_chars", "strip_accents"]:
            if maybe(0.3):
                n[name] = r.choice([True, False])
    if maybe(0.1):
        tok["post_processor"] = None
    if wordpiece and root == "bert" and maybe(0.1):
        order = sorted(tok["model"]["vocab"], key=tok["model"]["vocab"].get)
        files["vocab.txt"] = "\n".join(order) + "\n"
    else:
        files["tokenizer.json"] = tok
    extra = {"tokenizer_class": r.choice(own)} if maybe(0.05) else {}
    return root, files, extra


def main():
    binary, count, seed, *bases = sys.argv[1:]
    r = random.Random(int(seed))
    bases = [json.loads(Path(b).read_text()) for b in bases]
    program = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    totals, reasons, differing = Counter(), Counter(), 0
    with tempfile.TemporaryDirectory() as tmp:
        weights = {}
        for i in range(int(count)):
            base = r.choice(bases)
            root, files, extra = draw(r, base)
            vocab = base["model"]["vocab"]
            rows = max([*(vocab.values() if isinstance(vocab, dict) else [len(vocab)]), *[t["id"] for t in base["added_tokens"]], len(vocab)]) + 16
            config, shapes = (bert if root == "bert" else omni)(rows)
            if (root, rows) not in weights:
                weights[root, rows] = path = os.path.join(tmp, f"{root}-{rows}.safetensors")
                save_file({k: np.zeros(s, np.float32) for k, s in shapes.items()}, path)
            folder = os.path.join(tmp, "folder")
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder)
            os.link(weights[root, rows], os.path.join(folder, "model.safetensors"))
            for name, content in {"config.json": {**config, **extra}, **files}.items():
                Path(folder, name).write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
            program.stdin.write(json.dumps({"source": folder, "texts": TEXTS}) + "\n")
            program.stdin.flush()
            ours = json.loads(program.stdout.readline())
            try:
                loaded = AutoTokenizer.from_pretrained(folder)
                theirs = []
                for text in TEXTS:
                    try:
                        theirs.append(loaded(text)["input_ids"])
                    except BaseException as error:  # noqa: BLE001  a panic of the Rust side is none of Exception
                        theirs.append(f"error {error}"[:80])
            except BaseException as error:  # noqa: BLE001
                theirs = f"{type(error).__name__}: {error}"[:120]
            if "error" in ours:
                totals["refused by both" if isinstance(theirs, str) else "refused here"] += 1
                if not isinstance(theirs, str):
                    reasons[" ".join(ours["error"].split(": ")[1:2] + ours["error"].split(": ")[-1:])[:150]] += 1
                continue
            if isinstance(theirs, str):
                totals["refused there only"] += 1
                reasons["THERE " + theirs] += 1
                continue
            bad = [(t, a, b) for t, a, b in zip(TEXTS, ours["ids"], theirs) if a != b and not (isinstance(a, str) and isinstance(b, str))]
            totals["differing" if bad else "equal"] += 1
            if bad:
                differing += 1
                if differing <= 5:
                    shown = {k: v for k, v in files.items() if k not in ("tokenizer.json", "vocab.txt")}
                    print(json.dumps({"i": i, "root": root, "extra": extra, "kind": base["model"].get("type"), "loaded": type(loaded).__name__, "files": shown,
                                      "bad": bad[:3], "notes": ours["notes"]}, ensure_ascii=False))
    print(dict(totals))
    for reason, n in reasons.most_common(25):
        print(n, reason)


main()

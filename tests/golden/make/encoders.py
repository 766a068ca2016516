"""Tiny checkpoints of the encoders that the reference set lacks, with what their reference computes from them.

  python encoders.py CHECKPOINTS REFS [--seed N]

Writes CHECKPOINTS/<name>/ (published layout, seeded random weights in bf16, a word-piece tokenizer of its own) and
REFS/<name>.json and .safetensors (ids and vectors), in the form that `tests/families.rs` reads; any seed makes another set,
for OMNIBURN_TEST_SETS. With seed 1 also REFS/activations.json and .safetensors: vectors of encoders that are there, under
every activation that is computed.

  distilbert-tiny, mpnet-tiny   the classes of transformers, in f32, eager
  gte-tiny                      `Gte` below, ours, from the published configuration and module names of Alibaba-NLP/new-impl:
                                transformers' GteModel knows no NTK scaling; without it the two are compared here
  nomic-moe-tiny                `NomicMoe` below, ours, from the published configuration and module names of
                                nomic-ai/nomic-embed-text-v2-moe, of which transformers has no class

transformers 5.23.0, torch 2.15.0, tokenizers 0.23.3.
"""
import argparse
import copy
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

# A file beside this one carries the name of a package that is needed.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
os.environ["HF_HUB_OFFLINE"] = "1"
import torch  # noqa: E402
import transformers as tf  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402
from torch import nn  # noqa: E402

torch.set_num_threads(1)
tf.logging.set_verbosity_error()

VOCAB = 600
# Width of an expert.
INNER = 64
LINES = """
A kettle sings on the stove while rain taps at the kitchen window.
The archive keeps maps, letters and recordings from four centuries.
Which of these three trains stops at the old mill near the river?
Small boats carry salt and apples to the islands every second Tuesday.
Der Bäcker öffnet früh, und die Straße riecht nach frischem Brot.
Ein Uhrmacher prüft jede Feder, bevor er das Gehäuse schließt.
Le marché ferme à midi; les pêcheurs rentrent déjà vers le port.
El faro guía a los barcos cuando la niebla cubre toda la bahía.
山上的茶園在春天最美,我們慢慢走回村子。
図書館は駅の近くにあります。本を三冊借りました。
Зимой озеро замерзает, и дети катаются на коньках до вечера.
المكتبة القديمة تفتح أبوابها في الصباح الباكر كل يوم
let total: f32 = values.iter().map(|v| v * v).sum::<f32>().sqrt();
for (i, row) in rows.iter().enumerate() { println!("{i:>3} {row:?}"); }
On 14.07.1998 the meter read 3,206.5 kWh at 21:45, up 0.8 % from 1997.
""".strip().split("\n")


def corpus(seed):
    r = random.Random(seed)
    parts = ["ka", "lem", "ri", "so", "ven", "ta", "mor", "e", "ling", "ness", "ous", "ward", "un", "pre", "fi", "dra"]
    words = ["".join(r.choice(parts) for _ in range(r.randint(1, 4))) for _ in range(200)]
    lines = LINES * 5 + [" ".join(r.choice(words) for _ in range(r.randint(4, 12))).capitalize() + r.choice(".?!") for _ in range(400)]
    r.shuffle(lines)
    return lines


def texts(seed):
    r = random.Random(seed + 1)
    lines = corpus(seed)
    long = " ".join(lines[: r.randint(24, 30)])
    named = {"empty": "", "space": " ", "single": "a", "plain": LINES[r.randrange(4)], "german": LINES[4], "chinese": LINES[8], "arabic": LINES[11],
             "code": LINES[12], "digits": LINES[14], "medium": " ".join(lines[:3]), "long": long}
    named["mark"] = f"{LINES[1]} <pad> [PAD] {LINES[2]}"
    return named


def wordpiece(seed, special, unk, ends):
    """Word pieces that cover most of the corpus; ties are broken by the piece itself, so that a seed gives one vocabulary."""
    t = Tokenizer(models.WordPiece(unk_token=unk))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    head, tail = Counter(), Counter()
    for line in corpus(seed):
        for word, _ in t.pre_tokenizer.pre_tokenize_str(t.normalizer.normalize_str(line)):
            for i in range(len(word)):
                for j in range(i + 1, min(len(word), i + 6) + 1):
                    (head if i == 0 else tail)[word[i:j]] += 1

    def best(counts, n):
        chars = sorted(p for p in counts if len(p) == 1)
        return (chars + sorted((p for p in counts if len(p) > 1), key=lambda p: (-counts[p] * len(p), p)))[:n]

    pieces = special + best(head, (VOCAB - len(special)) * 3 // 5)
    pieces += ["##" + p for p in best(tail, VOCAB - len(pieces))]
    t.model = models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token=unk)
    assert t.get_vocab_size() == VOCAB, t.get_vocab_size()
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    t.post_processor = processors.TemplateProcessing(
        single=f"{ends[0]} $A {ends[1]}", pair=f"{ends[0]} $A {ends[1]} $B:1 {ends[1]}:1", special_tokens=[(e, t.token_to_id(e)) for e in ends])
    return t


def draw(model, seed):
    """Seeded weights at which every part of a layer moves the result; rounded to what the file holds."""
    with torch.no_grad():
        for at, (name, p) in enumerate(sorted(model.named_parameters())):
            values = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed * 100_003 + at))
            if "norm" in name.lower() or name.split(".")[-2].endswith("_ln"):
                values = 1 + 0.2 * values if name.endswith("weight") else 0.1 * values
            elif name.endswith("bias"):
                values = 0.1 * values
            elif "relative" in name:
                values = 1.5 * values
            elif "router" in name:
                values = 4 * values * p.shape[1] ** -0.5
            elif name.endswith("w2"):
                values = values * INNER ** -0.5
            elif "embeddings" in name:
                values = 0.7 * values
            else:
                values = values * p.shape[1] ** -0.5
            p.copy_(values.to(torch.bfloat16))


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def folder(path, model, config, tokenizer, settings, pooling, prompts):
    shutil.rmtree(path, ignore_errors=True)
    dump(path / "config.json", config)
    tensors = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in sorted(model.state_dict().items())}
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    tokenizer.save(str(path / "tokenizer.json"))
    dump(path / "tokenizer_config.json", {**settings, "model_max_length": config.get("max_position_embeddings") or config["n_positions"], "clean_up_tokenization_spaces": False})
    kinds = ["Transformer", "Pooling", "Normalize"]
    places = ["", "1_Pooling", "2_Normalize"]
    modules = [{"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{k}"} for i, (k, p) in enumerate(zip(kinds, places))]
    dump(path / "modules.json", modules)
    hidden = config.get("hidden_size") or config.get("dim") or config["n_embd"]
    dump(path / "1_Pooling/config.json", {"word_embedding_dimension": hidden, "pooling_mode_cls_token": pooling == "cls",
                                          "pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_max_tokens": False,
                                          "pooling_mode_mean_sqrt_len_tokens": False})
    dump(path / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"})


def published(config, architecture):
    c = {k: v for k, v in config.to_dict().items() if k not in ("transformers_version", "dtype", "_name_or_path", "architectures")}
    return {"architectures": [architecture], **c, "torch_dtype": "bfloat16"}


SPECIAL_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NAMED_BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
SPECIAL_MPNET = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]
NAMED_MPNET = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "[UNK]", "pad_token": "<pad>", "mask_token": "<mask>"}


def make_distilbert(path, seed):
    config = tf.DistilBertConfig(vocab_size=VOCAB, dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=128, sinusoidal_pos_embds=True,
                                 tie_weights_=True)
    model = tf.DistilBertModel(config)
    draw(model, seed)
    tokenizer = wordpiece(seed, SPECIAL_BERT, "[UNK]", ["[CLS]", "[SEP]"])
    folder(path, model, published(config, "DistilBertModel"), tokenizer, {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True, **NAMED_BERT}, "mean", {})


def make_mpnet(path, seed):
    config = tf.MPNetConfig(vocab_size=VOCAB, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, max_position_embeddings=258,
                            layer_norm_eps=1e-5, relative_attention_num_buckets=32)
    model = tf.MPNetModel(config, add_pooling_layer=False)
    draw(model, seed + 10)
    tokenizer = wordpiece(seed, SPECIAL_MPNET, "[UNK]", ["<s>", "</s>"])
    folder(path, model, published(config, "MPNetModel"), tokenizer, {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True, **NAMED_MPNET}, "mean", {})


# What a configuration of GTE says; `Gte` computes what it means.
GTE = {"architectures": ["NewModel"], "model_type": "new", "vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
       "intermediate_size": 96, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 0, "layer_norm_type": "layer_norm",
       "layer_norm_eps": 1e-12, "position_embedding_type": "rope", "rope_theta": 160000, "rope_scaling": {"type": "ntk", "factor": 2.0}, "pack_qkv": True,
       "unpad_inputs": False, "use_memory_efficient_attention": False, "logn_attention_scale": False, "logn_attention_clip1": False, "pad_token_id": 0,
       "torch_dtype": "bfloat16"}


def turned(x, base, factor=1.0):
    """Rotary positions of `x`, [heads, tokens, head_dim]: the base is multiplied by the factor, and what comes out divided by its
    power of two over the head's width."""
    width = x.shape[-1]
    pairs = torch.arange(0, width, 2, dtype=torch.float32) / width
    frequencies = 1.0 / (base * factor) ** pairs / factor ** (2 / width)
    angles = torch.outer(torch.arange(x.shape[1], dtype=torch.float32), frequencies).repeat(1, 2)
    half = width // 2
    return x * angles.cos().to(x.dtype) + torch.cat([-x[..., half:], x[..., :half]], -1) * angles.sin().to(x.dtype)


def attention(qkv, heads, base, factor=1.0):
    """Rows of all heads side by side from queries, keys and values side by side, [tokens, 3 * hidden]."""
    tokens, width = qkv.shape[0], qkv.shape[1] // 3
    split = qkv.reshape(tokens, 3, heads, width // heads).permute(1, 2, 0, 3)
    query, key = (turned(x, base, factor) for x in split[:2])
    weights = (query @ key.transpose(1, 2) / (width // heads) ** 0.5).softmax(-1)
    return (weights @ split[2]).transpose(0, 1).reshape(tokens, width)


def named(**parts):
    return nn.ModuleDict(parts)


class Gte(nn.Module):
    """The encoder of GTE: words, rotary positions with fixed NTK scaling, norms behind attention and MLP, one product for up
    and gate in this order. Modules carry the names of published checkpoints."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        width, inner = c["hidden_size"], c["intermediate_size"]
        norm = lambda: nn.LayerNorm(width, eps=c["layer_norm_eps"])  # noqa: E731
        self.embeddings = named(word_embeddings=nn.Embedding(c["vocab_size"], width), LayerNorm=norm())
        layer = lambda: named(attention=named(qkv_proj=nn.Linear(width, 3 * width), o_proj=nn.Linear(width, width)), attn_ln=norm(),  # noqa: E731
                              mlp=named(up_gate_proj=nn.Linear(width, 2 * inner, bias=False), down_proj=nn.Linear(inner, width)), mlp_ln=norm())
        self.encoder = named(layer=nn.ModuleList(layer() for _ in range(c["num_hidden_layers"])))

    def forward(self, ids):
        """Rows of one text, [tokens, hidden]."""
        x = self.embeddings["LayerNorm"](self.embeddings["word_embeddings"](ids))
        factor = (self.c["rope_scaling"] or {"factor": 1.0})["factor"]
        for layer in self.encoder["layer"]:
            context = attention(layer["attention"]["qkv_proj"](x), self.c["num_attention_heads"], self.c["rope_theta"], factor)
            x = layer["attn_ln"](x + layer["attention"]["o_proj"](context))
            up, gate = layer["mlp"]["up_gate_proj"](x).chunk(2, -1)
            x = layer["mlp_ln"](x + layer["mlp"]["down_proj"](nn.functional.gelu(gate) * up))
        return x


# What the configuration of nomic-embed-text-v2-moe says; `NomicMoe` computes what it means.
NOMIC = {"architectures": ["NomicBertModel"], "model_type": "nomic_bert", "vocab_size": VOCAB, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": INNER,
         "n_positions": 256, "max_trained_positions": 256, "activation_function": "gelu", "layer_norm_epsilon": 1e-5, "type_vocab_size": 1,
         "rotary_emb_base": 10000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None,
         "rotary_scaling_factor": None, "qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True, "prenorm": False, "parallel_block": False,
         "causal": False, "use_rms_norm": None, "scale_attn_weights": True, "num_experts": 4, "moe_top_k": 2, "moe_every_n_layers": 2,
         "moe_normalize_expert_weights": False, "expert_choice_router": False, "num_shared_experts": 0, "ffn_div": 1, "moe_impl": "megablocks",
         "pad_token_id": 0, "torch_dtype": "bfloat16"}


class Router(nn.Module):
    """A mixture: each row goes to the experts with the largest shares, and what comes back is weighted by them as they are."""

    def __init__(self, c):
        super().__init__()
        width, self.count, self.used = c["n_embd"], c["num_experts"], c["moe_top_k"]
        self.router = named(layer=nn.Linear(width, self.count, bias=False))
        self.experts = nn.Module()
        self.experts.mlp = nn.Module()
        self.experts.mlp.w1 = nn.Parameter(torch.empty(self.count * c["n_inner"], width))
        self.experts.mlp.w2 = nn.Parameter(torch.empty(self.count * c["n_inner"], width))
        self.experts.bias = nn.Parameter(torch.empty(width))

    def forward(self, x):
        shares = self.router["layer"](x).softmax(-1)
        first, second = (self.experts.mlp.w1, self.experts.mlp.w2)
        rows = []
        for row, share in zip(x, shares):
            total = self.experts.bias
            order = share.argsort(descending=True)
            # A tie between two experts could be broken either way.
            assert share[order[self.used - 1]] - share[order[self.used]] > 1e-6, "draw another seed"
            for expert in order[: self.used]:
                w1, w2 = (w.chunk(self.count)[expert] for w in (first, second))
                total = total + share[expert] * (nn.functional.gelu(row @ w1.T) @ w2)
            rows.append(total)
        return torch.stack(rows)


class NomicMoe(nn.Module):
    """The encoder of nomic-embed-text-v2-moe: words and the row of the first kind, rotary positions, norms behind attention and
    MLP, GELU by erf, a mixture of experts in layers with odd numbers. Modules carry the names of published checkpoints."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        width, inner = c["n_embd"], c["n_inner"]
        norm = lambda: nn.LayerNorm(width, eps=c["layer_norm_epsilon"])  # noqa: E731
        self.embeddings = named(word_embeddings=nn.Embedding(c["vocab_size"], width), token_type_embeddings=nn.Embedding(c["type_vocab_size"], width))
        self.emb_ln = norm()
        plain = lambda: named(fc1=nn.Linear(width, inner), fc2=nn.Linear(inner, width))  # noqa: E731
        layer = lambda i: named(attn=named(Wqkv=nn.Linear(width, 3 * width), out_proj=nn.Linear(width, width)), norm1=norm(),  # noqa: E731
                                mlp=Router(c) if i % c["moe_every_n_layers"] == 1 else plain(), norm2=norm())
        self.encoder = named(layers=nn.ModuleList(layer(i) for i in range(c["n_layer"])))

    def forward(self, ids):
        """Rows of one text, [tokens, hidden]."""
        x = self.emb_ln(self.embeddings["word_embeddings"](ids) + self.embeddings["token_type_embeddings"].weight[0])
        for layer in self.encoder["layers"]:
            context = attention(layer["attn"]["Wqkv"](x), self.c["n_head"], self.c["rotary_emb_base"])
            x = layer["norm1"](x + layer["attn"]["out_proj"](context))
            mlp = layer["mlp"]
            x = layer["norm2"](x + (mlp(x) if isinstance(mlp, Router) else mlp["fc2"](nn.functional.gelu(mlp["fc1"](x)))))
        return x


# References of our own, by the name of their checkpoint.
OURS = {"gte-tiny": Gte, "nomic-moe-tiny": NomicMoe}


def make_nomic_moe(path, seed):
    model = NomicMoe(NOMIC)
    draw(model, seed + 30)
    tokenizer = wordpiece(seed, SPECIAL_BERT, "[UNK]", ["[CLS]", "[SEP]"])
    prompts = {"query": "search_query: ", "document": "search_document: "}
    folder(path, model, NOMIC, tokenizer, {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **NAMED_BERT}, "mean", prompts)


def make_gte(path, seed):
    model = Gte(GTE)
    draw(model, seed + 20)
    tokenizer = wordpiece(seed, SPECIAL_BERT, "[UNK]", ["[CLS]", "[SEP]"])
    folder(path, model, GTE, tokenizer, {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **NAMED_BERT}, "cls", {"query": "query: ", "document": ""})


def load(path, name):
    """Rows of ids by the reference, in f32 and in f64."""
    if name not in OURS:
        kinds = [tf.AutoModel.from_pretrained(path, dtype=dtype, attn_implementation="eager").eval() for dtype in (torch.float32, torch.float64)]
        return [lambda ids, m=m: m(input_ids=ids[None], attention_mask=torch.ones_like(ids[None])).last_hidden_state[0] for m in kinds]
    from safetensors.torch import load_file
    model = OURS[name](json.loads((path / "config.json").read_text()))
    model.load_state_dict({k: v.float() for k, v in load_file(str(path / "model.safetensors")).items()})
    return [model.eval(), copy.deepcopy(model).double().eval()]


def check_gte(path):
    """Our reference without scaling equals the class of transformers, which has none."""
    with tempfile.TemporaryDirectory() as tmp:
        copy_of = Path(tmp, "gte")
        shutil.copytree(path, copy_of)
        config = {**GTE, "model_type": "gte", "architectures": ["GteModel"], "rope_scaling": None, "rope_theta": 160000.0}
        dump(copy_of / "config.json", config)
        theirs = tf.AutoModel.from_pretrained(copy_of, dtype=torch.float32, attn_implementation="eager").eval()
        ours, _ = load(copy_of, "gte-tiny")
        ids = torch.arange(7, 90)
        with torch.no_grad():
            far = (theirs(input_ids=ids[None]).last_hidden_state[0] - ours(ids)).abs().max().item()
        assert far < 1e-5, far


def unit(rows, pooling):
    v = rows[0] if pooling == "cls" else rows.mean(0)
    return v / v.norm()


def reference(path, refs, name, seed, pooling, longest, note):
    small, wide = load(path, name)
    class_of = tf.BertTokenizer if name in OURS else tf.AutoTokenizer
    tokenizer = class_of.from_pretrained(path)
    prompts = json.loads((path / "config_sentence_transformers.json").read_text())["prompts"] or {"document": ""}
    cases, tensors, noise = [], {}, 0.0
    with torch.no_grad():
        for role, prompt in prompts.items():
            for at, text in texts(seed).items():
                ids = tokenizer(prompt + text, truncation=True, max_length=longest)["input_ids"]
                v, w = unit(small(torch.tensor(ids)), pooling), unit(wide(torch.tensor(ids)), pooling)
                key = f"text/{at}/{role}"
                tensors[key], noise = v.float().contiguous(), max(noise, (v.double() - w).abs().max().item())
                cases.append({"kind": "text", "name": at, "prompt": role, "prompt_text": prompt, "text": text, "input_ids": ids, "embedding": key})
    head = {"model": name, "seed": seed, "compute": "float32, eager attention", "transformers": tf.__version__, "torch": torch.__version__.split("+")[0],
            "pooling": pooling, "normalize": True, "note": note, "noise_floor_max_abs": float(f"{noise:.2e}")}
    write(refs, name, head, cases, tensors)


def write(refs, name, head, cases, tensors):
    refs.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (refs / f"{name}.json").write_text(json.dumps(head, ensure_ascii=False)[:-1] + f', "cases": [\n{lines}\n]}}\n')
    save_file(tensors, str(refs / f"{name}.safetensors"))


# Activations of published configurations that are computed, one of each formula and its other names.
ACTIVATIONS = ["gelu", "gelu_python", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "relu"]


def activations(checkpoints, refs):
    """Vectors of encoders under another activation than their own configuration says: its field, the name, and what comes out."""
    cases, tensors = [], {}
    for name, field in [("bert-tiny", "hidden_act"), ("xlm-roberta-tiny", "hidden_act"), ("distilbert-tiny", "activation"), ("mpnet-tiny", "hidden_act")]:
        pooling = json.loads((checkpoints / name / "1_Pooling/config.json").read_text())
        pooling = "cls" if pooling.get("pooling_mode_cls_token") else "mean"
        for act in ACTIVATIONS:
            with tempfile.TemporaryDirectory() as tmp:
                path = Path(tmp, name)
                shutil.copytree(checkpoints / name, path)
                config = json.loads((path / "config.json").read_text())
                (path / "config.json").write_text(json.dumps({**config, field: act}))
                small, _ = load(path, name)
                # Ids of the file alone: classes are another golden's subject.
                tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
                tokenizer.no_padding()
                text = LINES[0]
                ids = tokenizer.encode(text).ids
                with torch.no_grad():
                    tensors[f"{name}/{act}"] = unit(small(torch.tensor(ids)), pooling).float().contiguous()
                cases.append({"kind": "activation", "model": name, "field": field, "act": act, "text": text, "input_ids": ids, "embedding": f"{name}/{act}"})
    write(refs, "activations", {"transformers": tf.__version__, "torch": torch.__version__.split("+")[0]}, cases, tensors)


MAKERS = {
    "distilbert-tiny": (make_distilbert, "mean", 128, "Post-norm, learned positions (drawn anew: sinusoidal_pos_embds only says what they began as), no kinds of rows."),
    "mpnet-tiny": (make_mpnet, "mean", 256, "Post-norm, learned positions from row 2 on (row 1 for the padding's id inside a text), a bias by distance in 32 buckets "
                   "shared by all layers: key after query in the upper half, exact below 8, logarithmic up to 128."),
    "nomic-moe-tiny": (make_nomic_moe, "mean", 256, "Reference of our own, see make/encoders.py: post-norm, rotary, biases everywhere, GELU by erf, four experts in layer 1 of "
                       "which a row goes to two; shares are a softmax over all four and are not brought to a sum of one."),
    "gte-tiny": (make_gte, "cls", 512, "Reference of our own, see make/encoders.py: post-norm, rotary with base x factor and frequencies over factor^(2/width), fused "
                 "projection with biases, up and gate in one product without, GELU by erf of the gate, no kinds of rows."),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("refs", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for name, (make, pooling, longest, note) in MAKERS.items():
        make(args.checkpoints / name, args.seed)
        reference(args.checkpoints / name, args.refs, name, args.seed, pooling, longest, note)
    check_gte(args.checkpoints / "gte-tiny")
    if args.seed == 1:
        activations(args.checkpoints, args.refs)


if __name__ == "__main__":
    main()

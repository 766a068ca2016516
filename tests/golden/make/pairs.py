"""A cross encoder of the bert family with seeded random weights, and what it computes, written out in numpy.

  python pairs.py

Writes tests/golden/checkpoints/bert-reranker-tiny and tests/golden/refs/bert-reranker-tiny.{json,safetensors}. The model is
BertForSequenceClassification of transformers 5.24.0 with one label, written out below in f64 over its f32 weights. Pairs are laid out
and cut by the tokenizers library (the longer text first), as sentence-transformers' CrossEncoder asks for it; the score is
the sigmoid of the logit, its default for one label.

What the checkpoint makes visible on purpose: a token type of its own for the document, whose row is as large as a word's; a
pooler behind which the score lies; a length that some pairs pass, by the query, by the document and by both.
"""
import json
import math
import sys
from pathlib import Path

# A maker beside this one carries the name of a package, so this folder must not be searched.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import numpy as np  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402

GOLDEN = Path(__file__).resolve().parent.parent
NAME = "bert-reranker-tiny"
LIMIT, HIDDEN, LAYERS, HEADS, INNER, POSITIONS, EPS = 32, 32, 2, 4, 64, 64, 1e-12
SHORT, LONG = "the red car", "a long text about the house by the sea, the sun, the tree and the car, which says the same again"
PAIRS = [
    ("a", "red car"),
    ("red car", "a"),
    ("which dog is quick", "The quick brown fox jumps over the lazy dog"),
    ("two dogs, one cat", "two dogs, one cat and 17 birds!"),
    ("zyxwv", ""),
    ("", "the sun"),
    (SHORT, LONG),
    (LONG, SHORT),
    (LONG, LONG),
]


def tokenizer():
    """WordPiece over letters, a few words and endings."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = "the red car dog cat sun tree house sea quick brown fox lazy two one and over long text words says".split()
    endings = "s ed ing er ly es tion rd ome".split()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), ".", ",", "!", "?", ":"]
    pieces += [*words, *("##" + e for e in endings if len(e) > 1)]
    made = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return made


def draw(vocab):
    random = np.random.default_rng(11)

    def tensor(*shape, std=0.2, mean=0.0):
        return (mean + std * random.standard_normal(shape)).astype(np.float32)

    def norm(name):
        return {f"{name}.weight": tensor(HIDDEN, std=0.1, mean=1.0), f"{name}.bias": tensor(HIDDEN)}

    def linear(name, inputs, outputs, std=0.2):
        return {f"{name}.weight": tensor(outputs, inputs, std=std), f"{name}.bias": tensor(outputs, std=std)}

    weights = {
        "bert.embeddings.word_embeddings.weight": tensor(vocab, HIDDEN),
        "bert.embeddings.position_embeddings.weight": tensor(POSITIONS, HIDDEN),
        "bert.embeddings.token_type_embeddings.weight": tensor(2, HIDDEN),
        **norm("bert.embeddings.LayerNorm"),
    }
    for i in range(LAYERS):
        at = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            weights |= linear(f"{at}.attention.self.{name}", HIDDEN, HIDDEN)
        weights |= linear(f"{at}.attention.output.dense", HIDDEN, HIDDEN) | norm(f"{at}.attention.output.LayerNorm")
        weights |= linear(f"{at}.intermediate.dense", HIDDEN, INNER) | linear(f"{at}.output.dense", INNER, HIDDEN)
        weights |= norm(f"{at}.output.LayerNorm")
    return weights | linear("bert.pooler.dense", HIDDEN, HIDDEN) | linear("classifier", HIDDEN, 1, std=0.5)


erf = np.vectorize(math.erf)


def logit(weights, ids, types, pooled_tanh=True):
    """One pair through BertForSequenceClassification, in f64."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def norm(x, name):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + EPS) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    at = "bert.embeddings"
    x = w[f"{at}.word_embeddings.weight"][ids] + w[f"{at}.position_embeddings.weight"][: len(ids)]
    x = norm(x + w[f"{at}.token_type_embeddings.weight"][types], f"{at}.LayerNorm")
    for i in range(LAYERS):
        at = f"bert.encoder.layer.{i}"
        cut = lambda y: y.reshape(len(ids), HEADS, -1).transpose(1, 0, 2)  # noqa: E731  [heads, tokens, head_dim]
        query, key, value = (cut(linear(x, f"{at}.attention.self.{name}")) for name in ("query", "key", "value"))
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(HIDDEN // HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        context = (scores / scores.sum(-1, keepdims=True)) @ value
        context = context.transpose(1, 0, 2).reshape(len(ids), HIDDEN)
        x = norm(x + linear(context, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = linear(x, f"{at}.intermediate.dense")
        inner = 0.5 * inner * (1 + erf(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    pooled = linear(x[0], "bert.pooler.dense")
    return float(linear(np.tanh(pooled) if pooled_tanh else pooled, "classifier")[0])


def main():
    made, folder = tokenizer(), GOLDEN / "checkpoints" / NAME
    weights = draw(made.get_vocab_size())
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, str(folder / "model.safetensors"))
    config = {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": made.get_vocab_size(),
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER, "hidden_act": "gelu",
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": EPS, "pad_token_id": 0,
        "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
        "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "4.1.0"},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    made.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": LIMIT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))

    lengths = lambda pair: [len(made.encode(text, add_special_tokens=False).ids) for text in pair]  # noqa: E731
    whole = [lengths(pair) for pair in PAIRS]
    made.enable_truncation(LIMIT, strategy="longest_first")
    cases, tensors, logits, without = [], {}, [], {"every row of the first token type": 0.0, "no tanh behind the pooler": 0.0}
    for i, pair in enumerate(PAIRS):
        encoded = made.encode(*pair)
        ids, types = encoded.ids, encoded.type_ids
        value = logit(weights, ids, types)
        logits.append(value)
        tensors[f"pair/{i}/logit"] = np.array([value], np.float32)
        tensors[f"pair/{i}/score"] = np.array([1 / (1 + math.exp(-value))], np.float32)
        kept = [types.count(0) - 2, types.count(1) - 1]
        cases.append({
            "kind": "pair", "query_text": pair[0], "document_text": pair[1], "input_ids": ids, "token_types": types,
            "logit": f"pair/{i}/logit", "score": f"pair/{i}/score", "cut": [a < b for a, b in zip(kept, whole[i])],
        })
        for name, other in (
            ("every row of the first token type", logit(weights, ids, [0] * len(ids))),
            ("no tanh behind the pooler", logit(weights, ids, types, pooled_tanh=False)),
        ):
            without[name] = max(without[name], abs(other - value))
    tensors["pair_batch"] = np.array([1 / (1 + math.exp(-value)) for value in logits], np.float32)
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    cases.append({"kind": "pair_batch", "scores": "pair_batch", "order": order})
    manifest = {
        "model": NAME, "compute": "float64 over float32 weights", "limit": LIMIT,
        "negative_controls": [{"name": name, "max_abs": moved} for name, moved in without.items()], "cases": cases,
    }
    (GOLDEN / "refs" / f"{NAME}.json").write_text(json.dumps(manifest, indent=1))
    save_file(tensors, str(GOLDEN / "refs" / f"{NAME}.safetensors"))


if __name__ == "__main__":
    main()

"""Settings of sentence-transformers, and the vectors the library gives with them.

  python st_settings.py

Reads the checkpoint bert-tiny, lays the files of a case over it, encodes a few texts with sentence-transformers 6.2.0 for the
roles named, and writes tests/golden/refs/st-settings.json: by case the files, the roles and the vectors. The tests lay the
same files over the same checkpoint and convert that. Cases with Dense modules are folders that the library itself saves, with the
weights of these modules, rounded to four digits, as lists.
"""
import json
import sys
import tempfile
from pathlib import Path

# A maker beside this one may carry the name of a package, so this folder is searched last.
HERE = Path(__file__).resolve().parent
sys.path = [p for p in sys.path if Path(p or ".").resolve() != HERE] + [str(HERE)]

import torch  # noqa: E402
from _st_variants import SETTINGS, STANDARD, encoded, flags, lay, modules, opened, settings  # noqa: E402

GOLDEN = HERE.parent
CHECKPOINT = GOLDEN / "checkpoints" / "bert-tiny"
TEXTS = ["red car", "The quick brown fox jumps over the lazy dog"]
PLAIN = {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}}
POOL = "1_Pooling/config.json"
PROMPTS = {"query": "red: ", "document": "words says: ", "sts": "cat "}

CASES = {
    "cls in a word": ({POOL: {"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True}}, ["none"]),
    "max in a word": ({POOL: {"embedding_dimension": 32, "pooling_mode": "max"}}, ["none"]),
    "max as a flag": ({POOL: flags("max", word_embedding_dimension=32)}, ["none"]),
    "square root of the length": ({POOL: {"embedding_dimension": 32, "pooling_mode": "mean_sqrt_len_tokens"}}, ["none"]),
    "weighted mean as a flag": ({POOL: flags("weightedmean", word_embedding_dimension=32)}, ["none"]),
    "last token in a list": ({POOL: {"embedding_dimension": 32, "pooling_mode": ["lasttoken"]}}, ["none"]),
    "two as flags": ({POOL: flags("mean", "cls", word_embedding_dimension=32)}, ["none"]),
    "three in a list": ({POOL: {"embedding_dimension": 32, "pooling_mode": ["weightedmean", "mean_sqrt_len_tokens", "max"]}}, ["none"]),
    "none chosen": ({POOL: flags(word_embedding_dimension=32)}, ["none"]),
    "a word over flags": ({POOL: flags("mean", word_embedding_dimension=32, pooling_mode="cls")}, ["none"]),
    "pooling elsewhere": (
        {
            "1_Pooling": None,
            "7_rows/config.json": {"embedding_dimension": 32, "pooling_mode": "cls"},
            "modules.json": modules(("Transformer", ""), ("Pooling", "7_rows"), spelling="module"),
        },
        ["none"],
    ),
    "prompts by role": ({SETTINGS: settings(PROMPTS)}, ["query", "document", "none"]),
    "passage": ({SETTINGS: settings({"query": "red: ", "passage": "sun "})}, ["document"]),
    "a default prompt": ({SETTINGS: settings({"query": "red: ", "other": "tree "}, "other")}, ["query", "document", "none"]),
    "prompts not pooled by the mean": (
        {SETTINGS: settings(PROMPTS), POOL: flags("mean", word_embedding_dimension=32, include_prompt=False)},
        ["query", "none"],
    ),
    "prompts not pooled otherwise": (
        {
            SETTINGS: settings(PROMPTS),
            POOL: {"embedding_dimension": 32, "pooling_mode": ["weightedmean", "cls", "max", "lasttoken"], "include_prompt": False},
        },
        ["document"],
    ),
    "cut to fewer numbers": ({SETTINGS: settings(truncate_dim=12)}, ["none"]),
    "a transformer in a folder": (
        {"modules.json": modules(("Transformer", "0_Transformer"), ("Pooling", "1_Pooling"), ("Dropout", "2_Dropout")), "2_Dropout/config.json": {"dropout": 0.2}},
        ["none"],
    ),
}


def dense_cases():
    """Modules behind the checkpoint's transformer, by case."""
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling
    from torch import nn

    kinds = "Identity Tanh ReLU ReLU6 GELU SiLU Sigmoid LeakyReLU ELU SELU Softplus Softsign Mish Hardtanh Hardsigmoid Hardswish Tanhshrink"
    mean = lambda: Pooling(32, "mean")  # noqa: E731
    yield "dense as it is by default, and Normalize", [mean(), Dense(32, 8), Normalize()]
    yield "dense to more numbers and back", [mean(), Dense(32, 48, bias=False, activation_function=nn.Identity()), Dense(48, 32, bias=False, activation_function=nn.Identity()), Normalize()]
    yield "dense with a residual", [mean(), Dense(32, 32, activation_function=nn.SiLU(), use_residual=True)]
    yield "dense with a residual of another width", [mean(), Dense(32, 6, activation_function=nn.Tanh(), use_residual=True)]
    yield "dense behind Normalize", [mean(), Normalize(), Dense(32, 6, activation_function=nn.GELU())]
    yield "dense behind two poolings", [Pooling(32, ["cls", "max"]), Dense(64, 6, activation_function=nn.Sigmoid())]
    for kind in kinds.split():
        yield f"dense with {kind}", [mean(), Dense(32, 5, activation_function=getattr(nn, kind)())]


def saved(checkpoint, modules):
    """A folder that the library saves, and its model: files by path, weights of Dense modules by file and name."""
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(modules=[checkpoint[0], *modules], device="cpu")
    with torch.no_grad():
        for module in modules:
            for weight in module.parameters():
                # Large enough that every activation bends.
                weight.copy_(torch.round(torch.randn(weight.shape) * (2.5 if weight.dim() == 1 else 0.8) * 1e4) / 1e4)
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        folder = Path(place)
        files = {"modules.json": json.loads((folder / "modules.json").read_text())}
        weights = {}
        for path in sorted(folder.glob("*/config.json")):
            files[str(path.relative_to(folder))] = json.loads(path.read_text())
        for path in sorted(folder.glob("*/model.safetensors")):
            tensors = load_file(path)
            weights[str(path.relative_to(folder))] = {name: [[round(float(v), 4) for v in row] for row in t] if t.dim() > 1 else [round(float(v), 4) for v in t] for name, t in sorted(tensors.items())}
    return model, files, weights


def main():
    torch.manual_seed(5)
    torch.set_num_threads(1)
    written = []
    for name, (files, roles) in CASES.items():
        nested = "0_Transformer" if "folder" in name else None
        with tempfile.TemporaryDirectory() as place:
            model = opened(lay(CHECKPOINT, {**PLAIN, **files}, Path(place) / "folder", nested))
            vectors = {role: [[round(float(v), 7) for v in row] for row in encoded(model, role, TEXTS)] for role in roles}
        written.append({"name": name, "nested": nested, "files": files, "vectors": vectors})
    with tempfile.TemporaryDirectory() as place:
        checkpoint = opened(lay(CHECKPOINT, PLAIN, Path(place) / "folder"))
        for name, modules in dense_cases():
            model, files, weights = saved(checkpoint, modules)
            rows = model.encode(TEXTS, normalize_embeddings=True)
            vectors = {"none": [[round(float(v), 7) for v in row] for row in rows]}
            written.append({"name": name, "nested": None, "files": files, "weights": weights, "vectors": vectors})
    listed = ",\n".join(json.dumps(case) for case in written)
    text = f'{{"texts": {json.dumps(TEXTS)},\n"cases": [\n{listed}\n]}}\n'
    (GOLDEN / "refs" / "st-settings.json").write_text(text)
    assert STANDARD == json.loads((CHECKPOINT / "modules.json").read_text())


main()

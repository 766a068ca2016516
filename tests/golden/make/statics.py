"""Tiny static tables of token rows, and what model2vec and sentence-transformers compute from them.

  python statics.py [SEED FOLDER]

Writes tests/golden/checkpoints/{model2vec-tiny,static-embedding-tiny} and tests/golden/refs/ of the same names. The first is a folder
that model2vec 0.10.0 saves, with rows that ids share, a factor for each id and a limit; its vectors are model2vec's, which leave
unknown pieces out. The second is a folder that sentence-transformers 6.2.0 saves, StaticEmbedding without a configuration and
Normalize; its vectors are that library's, which count unknown pieces. With SEED and FOLDER the set is another one, in
FOLDER/checkpoints and FOLDER/refs.

What the checkpoints make visible on purpose: special tokens in the tokenizer's template that must not count, words of which a piece is
unknown, rows of lengths that differ.
"""
import json
import shutil
import sys
from pathlib import Path

# A maker beside this one carries the name of a package, so this folder must not be searched.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import numpy as np  # noqa: E402
from model2vec import StaticModel  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402

GOLDEN = Path(__file__).resolve().parent.parent
TEXTS = {
    "letter": "a",
    "words": "red car",
    "plain": "The quick brown fox jumps over the lazy dog",
    "digits": "two dogs, one cat and 17 birds!",
    "unknown": "the sun; the 天 and the sea",
    "unknown first": "€ sea",
    "long": "a long text about the house by the sea, the sun, the tree and the car",
}


def tokenizer():
    """WordPiece over letters, a few words and endings, with special tokens around a text."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = "the red car dog cat sun tree house sea quick brown fox lazy two one and over long text".split()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), ".", ",", "!", *words]
    made = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return made


def rows(random, count, width):
    """Rows whose lengths differ by up to nine times."""
    return (random.standard_normal((count, width)) * np.exp(random.uniform(-1.1, 1.1, (count, 1)))).astype(np.float32)


def model2vec(random, folder):
    made = tokenizer()
    ids = made.get_vocab_size()
    vectors, mapping = rows(random, 40, 24), random.integers(0, 40, ids).astype(np.int32)
    weights = random.uniform(0.2, 3, ids).astype(np.float32)
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "tokenizer_name": "none", "hidden_dim": 24, "seq_length": 1000000, "normalize": True}
    model = StaticModel(vectors, made, config, normalize=True, weights=weights, token_mapping=mapping, max_length=48)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    model = StaticModel.from_pretrained(folder)
    vectors = {name: model.encode(text) for name, text in TEXTS.items()}
    return model.tokenizer, vectors


def static_embedding(random, folder):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer.modules.static_embedding import StaticEmbedding

    made = tokenizer()
    made.enable_truncation(64)
    model = SentenceTransformer(modules=[StaticEmbedding(made, rows(random, made.get_vocab_size(), 16)), Normalize()], device="cpu")
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    model = SentenceTransformer(str(folder), device="cpu")
    return made, {name: model.encode(text) for name, text in TEXTS.items()}


def main(seed, checkpoints, refs):
    refs.mkdir(parents=True, exist_ok=True)
    for number, (name, make) in enumerate([("model2vec-tiny", model2vec), ("static-embedding-tiny", static_embedding)]):
        folder = checkpoints / name
        shutil.rmtree(folder, ignore_errors=True)
        made, vectors = make(np.random.default_rng(seed + number), folder)
        made.no_truncation()
        tensors, cases = {}, []
        for text_name, text in TEXTS.items():
            key = f"text/{text_name}"
            tensors[key] = np.ascontiguousarray(vectors[text_name], dtype=np.float32)
            assert abs(np.linalg.norm(tensors[key]) - 1) < 1e-5, (name, text_name)
            ids = made.encode(text, add_special_tokens=False).ids
            cases.append({"kind": "text", "name": text_name, "prompt_text": "", "text": text, "input_ids": ids, "embedding": key})
        save_file(tensors, str(refs / f"{name}.safetensors"))
        manifest = {"model": name, "seed": seed, "pooling": "mean", "normalize": True, "cases": cases}
        (refs / f"{name}.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {len(cases)} cases, files {sorted(p.name for p in folder.rglob('*'))}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(int(sys.argv[1]), Path(sys.argv[2]) / "checkpoints", Path(sys.argv[2]) / "refs")
    else:
        main(5, GOLDEN / "checkpoints", GOLDEN / "refs")

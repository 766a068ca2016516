"""Hundreds of sentence-transformers folders, converted and embedded by the program, and encoded by the library.

  python sweep_st.py PROGRAM [EVERY [FIRST]]

Not run by tests. PROGRAM is the built command line; with EVERY, only one folder of so many is tried, from FIRST on. The folders are
tests/golden/checkpoints/bert-tiny with other files laid over it.
Every folder must give the library's vectors within 1e-5 at length 1, or be refused by a message that names the setting.
Prints counts: equal, refused by name, refused by the library too, differing; the last must be 0.
"""
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path = [p for p in sys.path if Path(p or ".").resolve() != HERE] + [str(HERE)]

import numpy as np  # noqa: E402
from _st_variants import POOLINGS, SETTINGS, encoded, flags, lay, modules, opened, settings  # noqa: E402

TEXTS = ["red car", "The quick brown fox jumps over the lazy dog", "two dogs, one cat and 17 birds!", "a"]
TOKENS = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
POOL = "1_Pooling/config.json"
PROMPTS = [
    None,
    settings({"query": "red: ", "document": "words: "}),
    settings({"query": "red: ", "passage": "words: "}),
    settings({"corpus": "the sun "}),
    settings({"query": "red: ", "document": ""}, "query"),
    settings({"query": "red: ", "retrieval": "tree "}, "retrieval"),
    settings({"query": None, "document": None, "x": "tree "}, "x"),
    settings({"a": "tree"}, "a", model_type="SentenceTransformer", __version__={"sentence_transformers": "6.2.0"}),
]


def variants(hidden):
    """Name, files, folder of the transformer, what a refusal must name (or None)."""
    plain = {"tokenizer_config.json": TOKENS}
    new = lambda mode, **more: {"embedding_dimension": hidden, "pooling_mode": mode, **more}  # noqa: E731
    # Every pooling, in either spelling, with and without the prompt, under every set of prompts.
    for mode, include, prompts in itertools.product(POOLINGS, [True, False], PROMPTS):
        files = {**plain, POOL: new(mode, include_prompt=include)}
        if prompts:
            files[SETTINGS] = prompts
        yield f"{mode} include={include} {json.dumps(prompts)}", files, None, None
    for mode in POOLINGS:
        yield f"flag {mode}", {**plain, POOL: flags(mode, word_embedding_dimension=hidden)}, None, None
    pairs = list(itertools.permutations(POOLINGS, 2))
    for pair in pairs:
        yield f"list {pair}", {**plain, POOL: new(list(pair))}, None, None
    for chosen in itertools.chain(itertools.combinations(POOLINGS, 2), itertools.combinations(POOLINGS, 3)):
        yield f"flags {chosen}", {**plain, POOL: flags(*chosen, word_embedding_dimension=hidden)}, None, None
    yield "all six", {**plain, POOL: flags(*POOLINGS, word_embedding_dimension=hidden)}, None, None
    yield "none", {**plain, POOL: flags(word_embedding_dimension=hidden)}, None, None
    yield "nothing said", {**plain, POOL: {"word_embedding_dimension": hidden}}, None, None
    yield "word over flags", {**plain, POOL: flags("mean", word_embedding_dimension=hidden, pooling_mode="max")}, None, None
    # Lists of modules.
    for spelling in ["plain", "module"]:
        for at in ["", "0_Transformer"]:
            for pool in ["1_Pooling", "2_rows", "deep/er/rows"]:
                for tail in [[], [("Normalize", "2_Normalize")], [("Dropout", "9_Dropout")], [("Normalize", "n"), ("Normalize", "m")]]:
                    listed = modules(("Transformer", at), ("Pooling", pool), *tail, spelling=spelling)
                    files = {**plain, "1_Pooling": None, f"{pool}/config.json": new("cls"), "modules.json": listed}
                    if ("Dropout", "9_Dropout") in tail:
                        files["9_Dropout/config.json"] = {"dropout": 0.3}
                    yield f"{spelling} {at} {pool} {tail}", files, at or None, None
    renumbered = modules(("Transformer", ""), ("Pooling", "1_Pooling"))
    for module, idx, name in zip(renumbered, [3, 1], ["encoder", "pool"]):
        module.update(idx=idx, name=name)
    yield "other numbers and names", {**plain, "modules.json": renumbered}, None, None
    for dim in [1, 7, hidden]:
        yield f"truncate {dim}", {**plain, SETTINGS: settings(truncate_dim=dim)}, None, None
    for name in ["dot", "euclidean", "manhattan", None]:
        yield f"similarity {name}", {**plain, SETTINGS: {"similarity_fn_name": name}}, None, None
    length = {"max_seq_length": 8, "do_lower_case": False}
    for name in ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"]:
        files = {**plain, "sentence_bert_config.json": None, f"sentence_{name}_config.json": length}
        yield f"length in sentence_{name}_config.json", files, None, None
    yield "length as an argument", {**plain, "sentence_bert_config.json": {"tokenizer_args": {"model_max_length": 6}}}, None, None
    saved = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
    }
    yield "as saved today", {**plain, "sentence_bert_config.json": saved}, None, None
    # What is refused, by the name that the message must hold.
    bert = "sentence_bert_config.json"
    for files, says in [
        ({POOL: new("middle")}, "middle"),
        ({POOL: new([])}, "pooling_mode"),
        ({POOL: {**flags("mean", word_embedding_dimension=hidden), "pooling_mode_attention": True}}, "pooling_mode_attention"),
        ({POOL: None}, "1_Pooling/config.json"),
        ({"modules.json": modules(("Transformer", ""))}, "Pooling"),
        ({"modules.json": modules(("Transformer", ""), ("Pooling", "1_Pooling"), ("CNN", "2_CNN"))}, "CNN"),
        ({"modules.json": modules(("Transformer", ""), ("WeightedLayerPooling", "1"), ("Pooling", "1_Pooling"))}, "WeightedLayerPooling"),
        ({"modules.json": modules(("Transformer", ""), ("Pooling", "../1_Pooling"))}, "../1_Pooling"),
        ({"modules.json": [*modules(("Transformer", "")), {"idx": 1, "name": "1", "path": "1_Pooling", "type": "mine.Pooling"}]}, "mine.Pooling"),
        ({SETTINGS: settings({"query": "a"}, "nowhere")}, "default_prompt_name"),
        ({SETTINGS: settings(model_type="CrossEncoder")}, "model_type"),
        ({SETTINGS: settings(model_type="SparseEncoder")}, "model_type"),
        ({bert: {**saved, "transformer_task": "fill-mask"}}, "transformer_task"),
        ({bert: {**saved, "modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}, "module_output_name": "sentence_embedding"}}, "method_output_name"),
        ({bert: {**saved, "processing_kwargs": {"text": {"max_length": 5}}}}, "processing_kwargs"),
        ({bert: {**saved, "query_length": 5}}, "query_length"),
        ({bert: {"max_seq_length": 80, "config_args": {"num_hidden_layers": 1}}}, "num_hidden_layers"),
        ({"modules.json": None, POOL: new("cls")}, "modules.json"),
        ({"modules.json": None, SETTINGS: settings({"query": "a"})}, "modules.json"),
    ]:
        yield f"refused: {says}", {**plain, **files}, None, says


def main(program, every, first, checkpoint):
    hidden = json.loads((checkpoint / "config.json").read_text())["hidden_size"]
    counts = {"equal": 0, "refused by name": 0, "refused by both": 0, "differing": 0}
    worst = 0.0
    items = "\n".join(json.dumps({"text": text}) for text in TEXTS)
    for name, files, nested, says in itertools.islice(variants(hidden), first, None, every):
        with tempfile.TemporaryDirectory() as place:
            folder = lay(checkpoint, files, Path(place) / "folder", nested)
            record = Path(place) / "record"
            made = subprocess.run([program, "convert", folder, record, "--dtype", "f32"], capture_output=True, text=True)
            if made.returncode:
                if says and says in made.stderr:
                    counts["refused by name"] += 1
                    continue
                try:
                    opened(folder)
                    counts["differing"] += 1
                    print("REFUSED", name, made.stderr.strip())
                except Exception:
                    counts["refused by both"] += 1
                continue
            if says:
                counts["differing"] += 1
                print("NOT REFUSED", name)
                continue
            model = opened(folder)
            for role in ["query", "document", "none"]:
                args = [program, "embed", "--quiet", "--model", record, "--role", role, "--dtype", "f32", "--truncate", "right", "--items", "-"]
                rows = subprocess.run(args, input=items, capture_output=True, text=True).stdout.splitlines()
                got = np.array([json.loads(row).get("embedding", [np.nan]) for row in rows])
                want = encoded(model, role, TEXTS)
                far = np.abs(got - want).max() if got.shape == want.shape else np.inf
                if not far < 1e-5:
                    counts["differing"] += 1
                    print("DIFFERS", role, name, far)
                    break
                worst = max(worst, far)
            else:
                counts["equal"] += 1
            if not sum(counts.values()) % 20:
                print(counts, flush=True)
    print(counts, f"largest difference of equal ones {worst:.1e}")


every, first = (int(word) for word in (sys.argv[2:] + ["1", "0"][len(sys.argv) - 2 :])[:2])
main(sys.argv[1], every, first, HERE.parent / "checkpoints" / "bert-tiny")

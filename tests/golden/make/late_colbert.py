"""A model of late interaction as colbert-ai saves it, with seeded random weights, and what colbert-ai computes with it.

  pip install --no-deps colbert-ai==0.2.22        # beside transformers 5.23.0 and torch 2.15.0
  python late_colbert.py

Writes tests/golden/checkpoints/bert-colbert-ai-tiny and tests/golden/refs/ of the same name. The rows are those of `Checkpoint` of
colbert-ai itself, in f32 on the processor; what it only needs to train and to index stands empty here.

What the checkpoint makes visible on purpose: markers that are words of the vocabulary, one product without a bias, punctuation that the
vocabulary does not have and that is skipped as the unknown token, expansion of queries that no row sees.
"""
import json
import shutil
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import torch
from late import GOLDEN, SEED, TEXTS, drawn, dump
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, BertPreTrainedModel

NAME = "bert-colbert-ai-tiny"
DIM, QUERY, DOCUMENT = 20, 16, 18
MORE = {"unknown": "the dog; the house - 7 (sea)"}


def colbert():
    """The modules that compute rows, without those that train and index."""
    if find_spec("colbert") is None:
        sys.exit("colbert-ai is not there: see the first lines")
    root = find_spec("colbert").submodule_search_locations[0]
    package = types.ModuleType("colbert")
    package.__path__ = [root]
    sys.modules["colbert"] = package
    for name in ["git", "ujson"]:
        if find_spec(name) is None:
            sys.modules[name] = json if name == "ujson" else types.ModuleType(name)
    from colbert.modeling import base_colbert, checkpoint
    from colbert.utils import amp

    checkpoint.ColBERT.loaded_extensions = True
    # Its class of 2023 does not set what transformers 5 asks of every model.
    BertPreTrainedModel.all_tied_weights_keys = {}
    made = base_colbert.class_factory

    def class_factory(name):
        found = made(name)
        found._keys_to_ignore_on_load_unexpected = {"cls"}
        return found

    base_colbert.class_factory = class_factory
    amp.MixedPrecisionManager.context = lambda self: torch.no_grad()
    return checkpoint.Checkpoint


def folder():
    path = GOLDEN / "checkpoints" / NAME
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    file = json.loads((GOLDEN / "checkpoints" / "bert-tiny" / "tokenizer.json").read_text())
    vocab = file["model"]["vocab"]
    for word in ["[unused0]", "[unused1]"]:
        vocab[word] = len(vocab)
    made = Tokenizer.from_str(json.dumps(file))
    made.save(str(path / "tokenizer.json"))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ["pad", "unk", "cls", "sep", "mask"]}
    dump(path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64, **names})
    config = dict(model_type="bert", vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                  intermediate_size=64, hidden_act="gelu", max_position_embeddings=64, type_vocab_size=2, layer_norm_eps=1e-12)
    bert = drawn(BertModel(BertConfig(**config)), SEED + 20)
    linear = drawn(torch.nn.Linear(32, DIM, bias=False), SEED + 21)
    state = {f"bert.{name}": tensor for name, tensor in bert.state_dict().items() if "position_ids" not in name}
    state["linear.weight"] = linear.weight
    save_file({name: tensor.detach().half().contiguous() for name, tensor in state.items()}, str(path / "model.safetensors"),
              metadata={"format": "pt"})
    dump(path / "config.json", {"architectures": ["HF_ColBERT"], **config})
    # The fields that the published file of colbertv2.0 has, of training and of indexing too.
    dump(path / "artifact.metadata", {
        "query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_token": "[Q]", "doc_token": "[D]", "ncells": None,
        "centroid_score_threshold": None, "ndocs": None, "index_path": None, "nbits": 1, "kmeans_niters": 20, "resume": False,
        "similarity": "cosine", "bsize": 8, "accumsteps": 1, "lr": 1e-05, "maxsteps": 400000, "save_every": None, "warmup": 20000,
        "warmup_bert": None, "relu": False, "nway": 64, "use_ib_negatives": True, "reranker": False, "distillation_alpha": 1.0,
        "ignore_scores": False, "query_maxlen": QUERY, "attend_to_mask_tokens": False, "interaction": "colbert", "dim": DIM,
        "doc_maxlen": DOCUMENT, "mask_punctuation": True, "checkpoint": "some/folder", "triples": "triples.json",
        "collection": "collection.tsv", "queries": "queries.tsv", "index_name": None, "overwrite": False, "root": "experiments",
        "experiment": "default", "index_root": None, "name": "run", "rank": 0, "nranks": 4, "amp": True, "gpus": 8,
        "meta": {"hostname": "a", "version": "colbert-v0.4"}})
    return path


def main():
    path, tensors, cases = folder(), {}, []
    checkpoint = colbert()
    for attended in [False, True]:
        if attended:
            shutil.copytree(path, GOLDEN / "attended")
            path = GOLDEN / "attended"
            said = json.loads((path / "artifact.metadata").read_text())
            dump(path / "artifact.metadata", {**said, "attend_to_mask_tokens": True})
        from colbert.infra import ColBERTConfig

        model = checkpoint(str(path), colbert_config=ColBERTConfig.load_from_checkpoint(str(path)), verbose=0)
        # transformers 5 opens weights in the type that they are stored in.
        model = model.float()
        assert model.colbert_config.attend_to_mask_tokens == attended
        for role in ["query", "document"]:
            for name, text in {**TEXTS, **MORE}.items():
                if role == "query":
                    ids = model.query_tokenizer.tensorize([text])[0][0]
                    rows = model.queryFromText([text])[0]
                else:
                    ids = model.doc_tokenizer.tensorize([text])[0][0]
                    rows = model.docFromText([text], keep_dims=False)[0]
                    rows = rows[0] if rows.ndim == 3 else rows
                kind, more = ("changed", {"change": {"attend_to_mask_tokens": True}}) if attended else ("tokens", {})
                key = f"{kind}/{name}/{role}"
                tensors[key] = rows.float().contiguous()
                cases.append({"kind": kind, "name": name, "role": role, "text": text, "input_ids": ids.tolist(), "embedding": key, **more})
    shutil.rmtree(GOLDEN / "attended")
    queries, documents = ["word", "short", "plain"], ["plain", "marks", "long"]
    scores = [[(tensors[f"tokens/{q}/query"] @ tensors[f"tokens/{d}/document"].T).max(1).values.sum() for d in documents] for q in queries]
    tensors["scores"] = torch.tensor(scores)
    cases.append({"kind": "scores", "queries": queries, "documents": documents, "scores": "scores"})
    dump(GOLDEN / "refs" / f"{NAME}.json", {"model": NAME, "seed": SEED, "colbert_ai": "0.2.22", "cases": cases})
    save_file(tensors, str(GOLDEN / "refs" / f"{NAME}.safetensors"))
    for case in cases[:14]:
        print(case["kind"], case["name"], case["role"], case["input_ids"], tuple(tensors[case["embedding"]].shape))


if __name__ == "__main__":
    main()

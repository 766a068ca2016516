"""Models of late interaction, a vector a token, with seeded random weights, and what sentence-transformers computes with them.

  python late.py

Writes tests/golden/checkpoints/{bert,modernbert}-colbert-tiny and tests/golden/refs/ of the same names. The first is laid out as pylate
saves its models: settings in `config_sentence_transformers.json`, markers that the tokenizer has as added tokens, queries expanded
with the mask token. The second is what sentence-transformers 6.2.0 saves itself: settings in the modules. Both are read by
`MultiVectorEncoder` of sentence-transformers 6.2.0 (transformers 5.23.0, torch 2.15.0), which gives the rows.

What the checkpoints make visible on purpose: markers whose text a lower-casing tokenizer would cut into pieces; expansion that no row sees,
beyond and inside a window of attention; skipped words, one of which is no token; two Dense modules, one with a residual.
"""
import json
import shutil
import sys
from pathlib import Path

# A maker beside this one carries the name of a package, so this folder must not be searched.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from sentence_transformers import MultiVectorEncoder  # noqa: E402
from tokenizers import AddedToken, Tokenizer  # noqa: E402
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel  # noqa: E402

GOLDEN = Path(__file__).resolve().parent.parent
SEED = 11
TEXTS = {
    "empty": "",
    "word": "dog",
    "short": "which dog is quick?",
    "plain": "The quick brown fox, over the lazy dog.",
    "marks": "!., two?! one: ,,",
    "long": "a long text about the house by the sea, the sun, the tree and the car, which says the same again",
}


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def drawn(model, seed):
    """Weights as large as those of a trained model, in f16 on disk and here."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                values = values * 0.1 + (1.0 if name.endswith("weight") else 0.0)
            elif "embeddings" in name:
                values = values * 0.5
            else:
                values = values * parameter.shape[-1] ** -0.5
            parameter.copy_(values.half().float())
    return model.eval()


def tokenizer(folder, added):
    made = Tokenizer.from_file(str(GOLDEN / "checkpoints" / "bert-tiny" / "tokenizer.json"))
    made.add_tokens([AddedToken(token, normalized=True, special=False) for token in added])
    made.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ["pad", "unk", "cls", "sep", "mask"]}
    dump(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64, **names})
    return made.get_vocab_size()


def dense(folder, inputs, outputs, seed, extra):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: (torch.randn(outputs, inputs, generator=generator) * inputs**-0.5).half()  # noqa: E731
    tensors = {"linear.weight": draw()}
    if extra.get("use_residual") and inputs != outputs:
        tensors["residual.weight"] = draw()
    dump(folder / "config.json", {"in_features": inputs, "out_features": outputs, "bias": False,
                                  "activation_function": "torch.nn.modules.linear.Identity", **extra})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(folder / "model.safetensors"))


def weights(model, folder, architecture, config):
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items() if "position_ids" not in name}
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    dump(folder / "config.json", {"architectures": [architecture], **config})


def module(index, path, kind):
    return {"idx": index, "name": str(index), "path": path, "type": kind}


def pylate(folder):
    vocab = tokenizer(folder, ["[Q] ", "[D] "])
    config = dict(model_type="bert", vocab_size=vocab, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                  hidden_act="gelu", max_position_embeddings=64, type_vocab_size=2, layer_norm_eps=1e-12)
    weights(drawn(BertModel(BertConfig(**config), add_pooling_layer=False), SEED), folder, "BertModel", config)
    dense(folder / "1_Dense", 32, 24, SEED + 1, {"use_residual": False})
    dump(folder / "modules.json", [module(0, "", "sentence_transformers.models.Transformer"), module(1, "1_Dense", "pylate.models.Dense.Dense")])
    dump(folder / "config_sentence_transformers.json", {
        "model_type": "ColBERT", "prompts": {"query": "", "document": ""}, "default_prompt_name": None, "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 16, "document_length": 40, "attend_to_expansion_tokens": False,
        "skiplist_words": [".", ",", "!", "\u00a7"], "do_query_expansion": True})


def native(folder):
    vocab = tokenizer(folder, [])
    config = dict(model_type="modernbert", vocab_size=vocab, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
                  hidden_activation="gelu", max_position_embeddings=64, norm_eps=1e-5, global_attn_every_n_layers=3, local_attention=32,
                  global_rope_theta=160000.0, local_rope_theta=10000.0, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2,
                  eos_token_id=3)
    weights(drawn(ModernBertModel(ModernBertConfig(**config)), SEED + 2), folder, "ModernBertModel", config)
    over = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    dense(folder / "1_Dense", 32, 40, SEED + 3, {"use_residual": True, **over})
    dense(folder / "2_Dense", 40, 16, SEED + 4, over)
    base = "sentence_transformers.base.modules"
    dump(folder / "modules.json", [
        module(0, "", f"{base}.transformer.Transformer"), module(1, "1_Dense", f"{base}.dense.Dense"), module(2, "2_Dense", f"{base}.dense.Dense"),
        module(3, "3_MultiVectorMask", "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"),
        module(4, "4_Normalize", "sentence_transformers.sentence_transformer.modules.normalize.Normalize")])
    dump(folder / "3_MultiVectorMask" / "config.json", {"skiplist_words": [".", ",", "?"], "skiplist_tasks": ["document"], "keep_only_token_ids": None})
    dump(folder / "4_Normalize" / "config.json", {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"})
    dump(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False, "document_length": 40,
                                                "query_expansion": {"strategy": "fixed", "attend": False, "token": None, "length": 14}})
    dump(folder / "config_sentence_transformers.json", {"model_type": "MultiVectorEncoder", "similarity_fn_name": "maxsim",
                                                        "prompts": {"query": "words: ", "document": ""}, "default_prompt_name": None})


def references(name, folder, changes):
    tensors, cases = {}, []

    def rows(model, kind, **more):
        for role, encode in [("query", model.encode_query), ("document", model.encode_document)]:
            for text_name, text in TEXTS.items():
                with torch.no_grad():
                    found = encode([text])[0].float()
                key = "/".join([kind, *map(str, more.values()), text_name, role])
                if kind == "changed":
                    key = f"changed/{len(cases)}"
                tensors[key] = found.contiguous()
                prompt = model.prompts.get(role) or ""
                ids = model.preprocess([prompt + text], task=role)["input_ids"][0].tolist()
                cases.append({"kind": kind, "name": text_name, "role": role, "text": text, "input_ids": ids, "embedding": key, **more})

    model = MultiVectorEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}).eval().float()
    rows(model, "tokens")
    queries, documents = ["word", "short", "plain"], ["plain", "marks", "long"]
    scores = [[(tensors[f"tokens/{q}/query"] @ tensors[f"tokens/{d}/document"].T).max(1).values.sum() for d in documents] for q in queries]
    tensors["scores"] = torch.tensor(scores)
    cases.append({"kind": "scores", "queries": queries, "documents": documents, "scores": "scores"})
    for change in changes:
        model[0].query_expansion = change
        rows(model, "changed", change=change)
    dump(GOLDEN / "refs" / f"{name}.json", {"model": name, "seed": SEED, "sentence_transformers": "6.2.0", "cases": cases})
    save_file(tensors, str(GOLDEN / "refs" / f"{name}.safetensors"))


def main():
    changes = [{"strategy": "min", "attend": True, "token": None, "length": 9}, {"strategy": "min", "attend": False, "token": "[UNK]", "length": 9}]
    for name, make, changed in [("bert-colbert-tiny", pylate, []), ("modernbert-colbert-tiny", native, changes)]:
        folder = GOLDEN / "checkpoints" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        references(name, folder, changed)


if __name__ == "__main__":
    main()

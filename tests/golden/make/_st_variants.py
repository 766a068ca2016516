"""Folders of sentence-transformers as they are published: every spelling of modules, pooling, prompts and lengths, each
as files laid over a checkpoint. Shared by st_settings.py, which keeps a few as goldens, and sweep_st.py, which tries all."""
import json
import shutil
from pathlib import Path

# Today's names of poolings, and the fields that were true or false before.
POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
# A class of each module under the paths it was saved with.
SPELLINGS = {
    "plain": "sentence_transformers.models.{0}",
    "module": {
        "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
        "Dropout": "sentence_transformers.sentence_transformer.modules.dropout.Dropout",
        "Dense": "sentence_transformers.base.modules.dense.Dense",
        "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    },
}
SETTINGS = "config_sentence_transformers.json"


def kind(name, spelling="plain"):
    form = SPELLINGS[spelling]
    return form.format(name) if isinstance(form, str) else form[name]


def modules(*listed, spelling="plain"):
    """A list of modules from pairs of name and folder."""
    return [
        {"idx": i, "name": str(i), "path": path, "type": kind(name, spelling)} for i, (name, path) in enumerate(listed)
    ]


def flags(*chosen, **more):
    return {**{flag: name in chosen for name, flag in POOLINGS.items()}, **more}


def settings(prompts=None, default=None, **more):
    return {"prompts": prompts or {}, "default_prompt_name": default, "similarity_fn_name": "cosine", **more}


STANDARD = modules(("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))


def lay(checkpoint, files, into, nested=None):
    """The checkpoint with `files` laid over it: JSON by path, or None to take a file or folder away. With `nested`, everything
    of the transformer lies in that folder."""
    into = Path(into)
    shutil.copytree(checkpoint, into)
    for path, content in files.items():
        place = into / path
        if content is None:
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        elif isinstance(content, bytes):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(content, indent=1) + "\n")
    if nested:
        (into / nested).mkdir()
        for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"]:
            if (into / name).exists():
                shutil.move(into / name, into / nested / name)
    return into


def encoded(model, role, texts):
    """What the library gives for a role, at length 1. `encode_document` of 6.2 finds its own empty `document` before the
    `passage`, `corpus` or default prompt of the file, so these are asked for by name."""
    saved = model.saved_prompts
    name = None
    if role == "query":
        name = "query" if "query" in saved else None
    elif role == "document":
        name = next((n for n in ["document", "passage", "corpus"] if n in saved), None)
    return model.encode(texts, prompt_name=name, normalize_embeddings=True, batch_size=4)


def opened(folder):
    """The library's model, with the names of the prompts its folder has."""
    from sentence_transformers import SentenceTransformer

    # Weights as they are stored, computed with in f32.
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    path = Path(folder) / SETTINGS
    model.saved_prompts = (json.loads(path.read_text()).get("prompts") or {}) if path.exists() else {}
    return model

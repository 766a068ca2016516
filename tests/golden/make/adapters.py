"""Adapters with seeded random factors, and what PEFT computes with them.

  python adapters.py

Reads the checkpoints, trains nothing: PEFT 0.21.2 puts an adapter around a checkpoint in f32, every trainable value is drawn anew, the
adapter is saved and opened again around a fresh checkpoint, and the texts, pictures and pairs below are computed, unmerged. Writes
tests/golden/adapters/<case>/adapter_{config.json,model.safetensors} and tests/golden/refs/adapters.json.

What the cases make visible on purpose: ranks and alphas by pattern, one of them given by a layer; a scale by the square root
of the rank; targets as a list, a pattern and all linears; layers by number; a pooler that no vector depends on; biases of
targets and of everything; a bias of the second factor; magnitudes of linears and of a table; a table with its own weights
beside its factors; a convolution; both towers of a model; a classifier saved whole.
"""
import json
import shutil
import sys
import warnings
from pathlib import Path

# A maker beside this one may carry the name of a package, so this folder must not be searched.
HERE = Path(__file__).resolve().parent
sys.path = [p for p in sys.path if Path(p or ".").resolve() != HERE]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoModel, BertForSequenceClassification, CLIPImageProcessor, CLIPModel  # noqa: E402

GOLDEN = HERE.parent
CHECKPOINTS, REFS, OUT = GOLDEN / "checkpoints", GOLDEN / "refs", GOLDEN / "adapters"
IMAGES = ["odd", "tall"]
CASES = {
    "bert-list": ("bert-tiny", dict(
        r=4, lora_alpha=6, target_modules=["query", "value"], use_rslora=True,
        rank_pattern={"layer.1.attention.self.query": 2}, alpha_pattern={r".*layer\.0\..*value": 12},
    )),
    "bert-pattern": ("bert-tiny", dict(
        r=3, lora_alpha=6, bias="lora_only", target_modules=r"encoder\.layer\.[01]\.(attention\.self\.key|intermediate\.dense)",
    )),
    "bert-everything": ("bert-tiny", dict(
        r=2, lora_alpha=4, bias="all", target_modules=["dense"], exclude_modules=["layer.0.output.dense"],
    )),
    "bert-factor-bias": ("bert-tiny", dict(r=2, lora_alpha=3, lora_bias=True, target_modules=["query", "output.dense"])),
    "roberta-layers": ("xlm-roberta-tiny", dict(
        r=2, lora_alpha=4, target_modules=["query", "key", "value"], layers_to_transform=[0, 2], layers_pattern="layer",
        modules_to_save=["embeddings.LayerNorm"],
    )),
    "modernbert-linears": ("modernbert-tiny", dict(r=2, lora_alpha=4, target_modules="all-linear", use_dora=True)),
    "qwen3-table": ("qwen3-embedding-tiny", dict(
        r=2, lora_alpha=4, use_dora=True, target_modules=["embed_tokens", "o_proj"],
    )),
    "qwen3-plain-table": ("qwen3-embedding-tiny", dict(r=3, lora_alpha=3, target_modules=r"embed_tokens|.*\.3\.mlp\..*_proj")),
    "clip-both": ("clip-tiny", dict(
        r=2, lora_alpha=4, target_modules=["q_proj", "fc1", "patch_embedding", "visual_projection", "text_projection"],
    )),
    "bert-reranker": ("bert-reranker-tiny", dict(r=2, lora_alpha=4, task_type="SEQ_CLS", target_modules=["query", "value"])),
}


def opened(checkpoint):
    folder = CHECKPOINTS / checkpoint
    kind = {"clip-tiny": CLIPModel, "bert-reranker-tiny": BertForSequenceClassification}.get(checkpoint, AutoModel)
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def redraw(model, seed):
    """Every trainable value, as far from what it was as a trained one is."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=draw)
                factor = "lora_A" in name or "lora_B" in name or "lora_embedding" in name
                parameter.copy_(0.15 * noise if factor else parameter + 0.1 * noise)


def pooled(rows, checkpoint):
    said = json.loads((CHECKPOINTS / checkpoint / "1_Pooling" / "config.json").read_text())
    mode = said.get("pooling_mode") or next(
        name for name in ("cls_token", "mean_tokens", "lasttoken") if said.get(f"pooling_mode_{name}")
    )
    if mode in ("cls", "cls_token"):
        return rows[0]
    return rows[-1] if mode in ("lasttoken",) else rows.mean(0)


def unit(vector):
    return [round(float(v), 8) for v in (vector / vector.norm())]


def cases_of(checkpoint):
    said = json.loads((REFS / f"{checkpoint}.json").read_text())
    if "texts" in said:
        return [{"kind": "text", "text": case["text"], "input_ids": case["ids"]} for case in said["texts"][1:3]]
    return [case for case in said["cases"] if case.get("name", "plain") in ("plain", "single") and not case.get("prompt_text")]


def outputs(model, checkpoint):
    """What the model gives: by kind a list of inputs and their vectors, or logits."""
    found = []
    with torch.no_grad():
        if checkpoint == "bert-reranker-tiny":
            for case in cases_of(checkpoint)[:3]:
                ids, types = torch.tensor([case["input_ids"]]), torch.tensor([case["token_types"]])
                logit = model(input_ids=ids, token_type_ids=types).logits[0, 0]
                found.append({"query": case["query_text"], "document": case["document_text"], "logit": round(float(logit), 8)})
            return found
        for case in cases_of(checkpoint):
            if case["kind"] != "text":
                continue
            ids = torch.tensor([case["input_ids"]])
            if checkpoint == "clip-tiny":
                vector = model.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids))
                vector = getattr(vector, "pooler_output", vector)[0]
            else:
                vector = pooled(model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0], checkpoint)
            found.append({"text": case["text"], "vector": unit(vector)})
        if checkpoint == "clip-tiny":
            processor = CLIPImageProcessor.from_pretrained(CHECKPOINTS / checkpoint)
            for name in IMAGES:
                picture = Image.open(REFS / "media" / "images" / f"{name}.png").convert("RGB")
                pixels = processor(picture, return_tensors="pt")["pixel_values"]
                vector = model.get_image_features(pixel_values=pixels)
                found.append({"image": name, "vector": unit(getattr(vector, "pooler_output", vector)[0])})
    return found


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    written = []
    for seed, (name, (checkpoint, settings)) in enumerate(CASES.items(), start=21):
        torch.manual_seed(seed)
        around = get_peft_model(opened(checkpoint), LoraConfig(**settings))
        redraw(around, seed)
        folder = OUT / name
        around.save_pretrained(folder)
        (folder / "README.md").unlink()
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = checkpoint
        config["target_modules"] = settings["target_modules"] if name != "modernbert-linears" else "all-linear"
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        adapted = PeftModel.from_pretrained(opened(checkpoint), folder).eval()
        found, plain = outputs(adapted, checkpoint), outputs(opened(checkpoint), checkpoint)
        far = max(float(np.abs(np.subtract(a.get("vector", a.get("logit")), b.get("vector", b.get("logit")))).max()) for a, b in zip(found, plain))
        assert len(found) >= 2 and all(a != b for a, b in zip(found, plain)), name
        print(f"{name}: {len(found)} outputs, {far:.3f} from the checkpoint's own")
        written.append({"name": name, "checkpoint": checkpoint, "outputs": found})
    listed = ",\n".join(json.dumps(case) for case in written)
    (REFS / "adapters.json").write_text(f"[\n{listed}\n]\n")


main()

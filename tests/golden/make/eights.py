"""Checkpoints whose weights are stored in 8 bits, and what transformers computes from the widened values.

  python eights.py

Reads the checkpoints qwen3-embedding-tiny and bert-tiny, and lays over each: E4M3 with a scale a block (DeepSeek's and Qwen's
`fp8`), int8 with a scale a row and E4M3 with a scale a tensor (`compressed-tensors`). Values are put into the types by
torch; the reference widens them in f32 (`value * scale`, with the zero point taken off before) and runs transformers
5.24.0. Writes tests/golden/eights/<name>/{config.json,model.safetensors} (the rest of a folder is the checkpoint's) and
tests/golden/refs/eights.json.
"""
import json
import shutil
import sys
import warnings
from pathlib import Path

# A maker beside this one may carry the name of a package, so this folder must not be searched.
HERE = Path(__file__).resolve().parent
sys.path = [p for p in sys.path if Path(p or ".").resolve() != HERE]

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, AutoModel  # noqa: E402

GOLDEN = HERE.parent
CHECKPOINTS, REFS, OUT = GOLDEN / "checkpoints", GOLDEN / "refs", GOLDEN / "eights"
E4M3 = torch.float8_e4m3fn


def spread(scale, block, shape):
    """A scale for each value of a matrix."""
    return scale.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[: shape[0], : shape[1]]


def blocks(weight, side):
    """E4M3 with the largest value of each block as 448."""
    rows, columns = -(-weight.shape[0] // side), -(-weight.shape[1] // side)
    most = torch.zeros(rows, columns)
    for i in range(rows):
        for j in range(columns):
            most[i, j] = weight[i * side : (i + 1) * side, j * side : (j + 1) * side].abs().max()
    scale = most / 448
    stored = (weight / spread(scale, (side, side), weight.shape)).to(E4M3)
    return {"weight": stored, "weight_scale_inv": scale}, stored.float() * spread(scale, (side, side), weight.shape)


def rows(weight):
    """int8 with a scale a row, in bf16 as such checkpoints have it."""
    scale = (weight.abs().amax(1, keepdim=True) / 127).to(torch.bfloat16)
    stored = (weight / scale.float()).round().clamp(-128, 127).to(torch.int8)
    return {"weight": stored, "weight_scale": scale}, stored.float() * scale.float()


def shifted(weight):
    """int8 with a scale and a zero point a group of 32 columns."""
    grouped = weight.reshape(weight.shape[0], -1, 32)
    least, most = grouped.amin(2), grouped.amax(2)
    scale = (most - least) / 255
    zero = (-128 - least / scale).round().clamp(-128, 127).to(torch.int8)
    wide, offset = spread(scale, (1, 32), weight.shape), spread(zero, (1, 32), weight.shape).float()
    stored = (weight / wide + offset).round().clamp(-128, 127).to(torch.int8)
    return {"weight": stored, "weight_scale": scale, "weight_zero_point": zero}, (stored.float() - offset) * wide


def whole(weight):
    """E4M3 with one scale, and that of the layer's inputs beside it."""
    scale = (weight.abs().max() / 448).reshape(1)
    stored = (weight / scale).to(E4M3)
    return {"weight": stored, "weight_scale": scale, "input_scale": torch.tensor([0.01])}, stored.float() * scale


def compressed(kind, strategy, form, **more):
    weights = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": strategy, "dynamic": False, "group_size": None, "actorder": None, **more}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": {"num_bits": 8, "type": kind, "dynamic": True, "strategy": "token", "symmetric": True}, "output_activations": None}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}, "ignore": ["lm_head"], "kv_cache_scheme": None, "quantization_status": "compressed", "global_compression_ratio": None}


CASES = {
    "qwen3-fp8-blocks": ("qwen3-embedding-tiny", lambda w: blocks(w, 48), {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [48, 48], "modules_to_not_convert": ["lm_head"]}),
    "qwen3-int8-rows": ("qwen3-embedding-tiny", rows, compressed("int", "channel", "int-quantized")),
    "bert-int8-groups": ("bert-tiny", shifted, compressed("int", "group", "int-quantized", symmetric=False, group_size=32)),
    "bert-fp8-tensor": ("bert-tiny", whole, compressed("float", "tensor", "float-quantized")),
}


def is_linear(name, value):
    return value.ndim == 2 and name.endswith(".weight") and "embed" not in name and "pooler" not in name


def pooled(states, checkpoint):
    return states[-1] if checkpoint.startswith("qwen3") else states.mean(0)


def texts_of(checkpoint):
    said = json.loads((REFS / f"{checkpoint}.json").read_text())
    if "texts" in said:
        return [(case["text"], case["ids"]) for case in said["texts"]]
    return [(case["text"], case["input_ids"]) for case in said["cases"] if case["kind"] == "text" and not case.get("prompt_text")]


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    written = []
    for name, (checkpoint, packed, said) in CASES.items():
        weights = {}
        for file in sorted((CHECKPOINTS / checkpoint).glob("*.safetensors")):
            weights.update(load_file(file))
        stored, wide = {}, {}
        for key, value in weights.items():
            if is_linear(key, value):
                parts, wide[key] = packed(value.float())
                stored.update({f"{key[: -len('weight')]}{part}": tensor.contiguous() for part, tensor in parts.items()})
            else:
                stored[key], wide[key] = value, value.float()
        folder = OUT / name
        folder.mkdir(parents=True)
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((CHECKPOINTS / checkpoint / "config.json").read_text())
        config["quantization_config"] = said
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        model = AutoModel.from_config(AutoConfig.from_pretrained(CHECKPOINTS / checkpoint), attn_implementation="eager").float().eval()
        missing, unexpected = model.load_state_dict(wide, strict=False)
        assert all("pooler" in key for key in missing) and all("position_ids" in key for key in unexpected), (missing, unexpected)
        found = []
        with torch.no_grad():
            for text, ids in texts_of(checkpoint)[:8]:
                if len(ids) > 1:
                    row = pooled(model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).last_hidden_state[0], checkpoint)
                    found.append({"text": text, "vector": [round(float(v), 8) for v in row / row.norm()]})
        print(f"{name}: {(folder / 'model.safetensors').stat().st_size} bytes, {len(found)} texts")
        written.append({"name": name, "checkpoint": checkpoint, "texts": found})
    listed = ",\n".join(json.dumps(case) for case in written)
    (REFS / "eights.json").write_text(f"[\n{listed}\n]\n")


main()

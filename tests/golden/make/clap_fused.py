"""CLAP with fusion (`enable_fusion`, as laion/clap-htsat-fused is published), tiny, with seeded random weights.

  python clap_fused.py

Writes tests/golden/checkpoints/clap-fused-tiny and tests/golden/refs/ of the same name with transformers 5.23.0. Audio is that of
tests/golden/refs/media, whose samples are taken as 48 kHz; a clip is one second. Where the feature extractor takes places of longer audio
by chance, the middle of each third is taken here; audio that is not longer is not called longer, as it is by chance in a batch of such.
"""
import json
import shutil
import sys
from pathlib import Path

# A maker beside this one carries the name of a package, so this folder must not be searched.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import numpy as np  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
import transformers as tf  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

GOLDEN = Path(__file__).resolve().parent.parent
NAME, SEED = "clap-fused-tiny", 41
DROPPED = ("position_ids", "relative_position_index", "token_type_ids")


def dump(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def folder():
    path, other = GOLDEN / "checkpoints" / NAME, GOLDEN / "checkpoints" / "clap-tiny"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    for file in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(other / file, path / file)
    vocab = json.loads((other / "config.json").read_text())["text_config"]["vocab_size"]
    config = tf.ClapConfig(
        text_config=dict(vocab_size=vocab, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                         max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-12, projection_dim=24, pad_token_id=1, bos_token_id=0,
                         eos_token_id=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
        audio_config=dict(window_size=8, num_mel_bins=64, spec_size=128, patch_size=4, patch_stride=[4, 4], num_classes=4, hidden_size=32,
                          projection_dim=24, depths=[2, 1], num_attention_heads=[2, 4], enable_fusion=True, fusion_type=None, aff_block_r=4,
                          patch_embed_input_channels=1, flatten_patch_embeds=True, patch_embeds_hidden_size=16, enable_patch_layer_norm=True,
                          drop_path_rate=0.0, mlp_ratio=2.0, num_hidden_layers=2, qkv_bias=True, hidden_dropout_prob=0.0), projection_dim=24)
    model = tf.ClapModel(config).eval()
    generator = torch.Generator().manual_seed(SEED)
    state = {}
    for name, tensor in model.state_dict().items():
        if any(part in name for part in DROPPED):
            continue
        drawn = torch.randn(tensor.shape, generator=generator)
        if "num_batches_tracked" in name:
            state[name] = tensor
            continue
        if name.endswith("running_var"):
            drawn = drawn.abs() * 100 + 150 if "encoder.batch_norm" in name else drawn.abs() * 0.3 + 0.5
        elif name.endswith("running_mean"):
            drawn = drawn * 3 - 30 if "encoder.batch_norm" in name else drawn * 0.3
        elif name.startswith("logit_scale"):
            drawn = torch.tensor(2.0 if name.endswith("a") else 2.2)
        elif "bias_table" in name:
            drawn = drawn * 0.5
        elif tensor.ndim == 1:
            drawn = drawn * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        elif "embeddings" in name:
            drawn = drawn * 0.5
        else:
            drawn = drawn * tensor[0].numel() ** -0.5
        state[name] = drawn.bfloat16()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, str(path / "model.safetensors"), metadata={"format": "pt"})
    written = config.to_dict()
    written["architectures"] = ["ClapModel"]
    dump(path / "config.json", written)
    dump(path / "preprocessor_config.json", {
        "feature_extractor_type": "ClapFeatureExtractor", "processor_class": "ClapProcessor", "feature_size": 64, "sampling_rate": 48000,
        "hop_length": 480, "fft_window_size": 1024, "max_length_s": 1, "frequency_min": 50, "frequency_max": 14000, "padding": "repeatpad",
        "truncation": "fusion", "padding_value": 0.0, "top_db": None, "return_attention_mask": False, "nb_max_samples": 48000})
    return path


def main():
    path = folder()
    model = tf.ClapModel.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    settings = json.loads((path / "preprocessor_config.json").read_text())
    extractor = tf.ClapFeatureExtractor(**{k: v for k, v in settings.items() if k not in ("feature_extractor_type", "processor_class")})
    np.random.choice = lambda places: places[len(places) // 2]
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
    unit = lambda rows: rows / rows.norm(dim=-1, keepdim=True)  # noqa: E731
    tensors, cases = {}, []
    for name, text in {"empty": "", "plain": "The violin signals the harbour near Córdoba at 20:23.", "word": "a"}.items():
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            rows = model.text_model(input_ids=torch.tensor([ids])).pooler_output
            tensors[f"text/{name}"] = unit(model.text_projection(rows))[0]
        cases.append({"kind": "text", "name": name, "text": text, "input_ids": ids, "embedding": f"text/{name}"})
    media = GOLDEN / "refs" / "media"
    samples = {row["name"]: row["file"] for row in json.loads((media / "media.json").read_text())["audio"] if row.get("reference") is not False}
    read = lambda name: soundfile.read(media / "audio" / samples[name], dtype="float32")[0]  # noqa: E731
    lists = [[name] for name in sorted(samples)]
    lists += [["mixed", "second", "edge", "half"], ["three", "short"], ["mixed", "three", "second", "three", "edge"], ["three"] * 7 + ["mixed"]]
    for names in lists:
        waves = [read(name) for name in names]
        if waves[0].ndim == 1:
            taken, what = np.concatenate(waves), "+".join(names)
            mel, longer = extractor._get_input_mel(taken.astype(np.float64), 48000, "fusion", "repeatpad")
            features = torch.tensor(np.array(mel))[None].float()
            with torch.no_grad():
                rows = model.audio_model(input_features=features, is_longer=torch.tensor([[longer]])).pooler_output
                vector = unit(model.audio_projection(rows))[0]
            key = f"audio/{what}"
            tensors[key] = vector
            row = {"kind": "audio", "name": what, "files": [f"audio/{samples[name]}" for name in names], "longer": longer, "embedding": key}
            if longer and "mel" not in str(cases):
                row["mel"] = f"{key}/mel"
                # Every seventh frame.
                tensors[row["mel"]] = features[0].reshape(-1, 64)[::7].contiguous()
            cases.append(row)
            print(what, len(taken), longer, vector[:3])
    dump(GOLDEN / "refs" / f"{NAME}.json", {"model": NAME, "seed": SEED, "transformers": "5.23.0", "cases": cases})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(GOLDEN / "refs" / f"{NAME}.safetensors"))


if __name__ == "__main__":
    main()

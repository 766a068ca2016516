"""The encoders of Qwen3-Omni by transformers, at full size with random weights in bf16: the other arm of `benches/encoders.rs`.

Cases are `audio:1s:8:alone` and `image:256:8:batch`: so many requests, each through the encoder by itself or all in one call.
From decoded pixels or samples to rows on the host; both go through the published processors.
"""
import json
import os
import sys
import time

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessor, WhisperFeatureExtractor
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as omni
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import (
    Qwen3OmniMoeAudioEncoderConfig,
    Qwen3OmniMoeVisionEncoderConfig,
)

VISION = dict(depth=27, hidden_size=1152, intermediate_size=4304, num_heads=16, patch_size=16, spatial_merge_size=2,
              temporal_patch_size=2, out_hidden_size=2048, num_position_embeddings=2304, deepstack_visual_indexes=[8, 16, 24])
AUDIO = dict(num_mel_bins=128, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120, d_model=1280,
             n_window=50, n_window_infer=800, output_dim=2048, downsample_hidden_size=480, max_source_positions=1500)


def settled(make):
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(1)
    block = torch.randn(1 << 20, generator=generator)
    for name, p in model.named_parameters():
        if p.ndim == 1:
            p.data.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            p.data = (block * p[0].numel() ** -0.5).repeat(-(-p.numel() // block.numel()))[: p.numel()].view(p.shape).clone()
    return model


def main():
    sdpa = dict(attn_implementation="sdpa")
    torch.set_num_threads(os.cpu_count())
    vision = settled(lambda: omni.Qwen3OmniMoeVisionEncoder(Qwen3OmniMoeVisionEncoderConfig(**VISION, **sdpa)))
    audio = settled(lambda: omni.Qwen3OmniMoeAudioEncoder(Qwen3OmniMoeAudioEncoderConfig(**AUDIO, **sdpa)))
    # Buffers that no checkpoint holds, made as the classes make them.
    vision.rotary_pos_emb = type(vision.rotary_pos_emb)(vision.config)
    audio.positional_embedding = omni.SinusoidsPositionEmbedding(1500, 1280)
    vision, audio = vision.to(torch.bfloat16).eval(), audio.to(torch.bfloat16).eval()
    images = Qwen2VLImageProcessor(patch_size=16, merge_size=2, temporal_patch_size=2, image_mean=[0.5] * 3,
                                   image_std=[0.5] * 3, size=dict(shortest_edge=65_536, longest_edge=16_777_216))
    extractor = WhisperFeatureExtractor(feature_size=128)

    def inputs(kind, size, count):
        if kind == "image":
            random = np.random.default_rng(0)
            side = int(size)
            return [Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]
        t = np.arange(int(float(size.rstrip("s")) * 16000)) / 16000
        tone = (0.4 * np.sin(t * 2764.6) + 0.2 * np.sin(t * 1382.3)).astype(np.float32)
        return [tone / (1 + n) for n in range(count)]

    def see(pictures):
        made = images(images=pictures, return_tensors="pt")
        found = vision(made["pixel_values"].to(torch.bfloat16), grid_thw=made["image_grid_thw"])
        rows = found.pooler_output if hasattr(found, "pooler_output") else found[0]
        sets = found.deepstack_features if hasattr(found, "deepstack_features") else found[1]
        return [rows.float().numpy(), *[one.float().numpy() for one in sets]]

    def hear(sounds):
        made = extractor(sounds, sampling_rate=16000, return_attention_mask=True, return_tensors="pt", padding="longest",
                         truncation=False)
        lengths = made["attention_mask"].sum(-1)
        mel = made["input_features"].permute(0, 2, 1)[made["attention_mask"].bool()].permute(1, 0)
        return [audio(mel.to(torch.bfloat16), feature_lens=lengths).last_hidden_state.float().numpy()]

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"ready": f"PyTorch {torch.__version__.split('+')[0]}"}), file=out, flush=True)
    for line in sys.stdin:
        kind, size, count, mode = json.loads(line)["case"].split(":")
        run, given = (see if kind == "image" else hear), inputs(kind, size, int(count))
        with torch.inference_mode():
            started = time.perf_counter()
            for group in ([given] if mode == "batch" else [[one] for one in given]):
                assert all(np.isfinite(rows).all() for rows in run(group))
            took = (time.perf_counter() - started) * 1e3
        print(json.dumps({"ms": [took]}), file=out, flush=True)


if __name__ == "__main__":
    main()

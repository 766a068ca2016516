"""The PyTorch arm of `cargo xtask bench`: transformers' own modules at full size with random weights.

    python torch_arm.py --family small|nano --dtype f32|bf16 --mode eager|compile --threads N --modality text|image|audio

From ids, a decoded picture or samples to a unit vector; pictures and sound go through the published processors.
The modules are those of the checkpoints: Qwen3 or EuroBERT, the Qwen3-VL picture tower with a merger of its own, the
Qwen2.5-Omni sound tower without its projection. sdpa attention, inference mode. The token table has 1,024 rows.
"""
import argparse
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from transformers import EuroBertConfig, EuroBertModel, Qwen3Config, Qwen3Model, WhisperFeatureExtractor
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as sound
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig
from transformers.models.qwen3_vl import modeling_qwen3_vl as sight
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig

from protocol import serve

VOCAB, MIN_PIXELS, MAX_PIXELS = 1024, 262_144, 4_194_304
SMALL = dict(hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
             intermediate_size=3072, rms_norm_eps=1e-6, rope_parameters=dict(rope_type="default", rope_theta=3.5e6),
             max_position_embeddings=32768)
NANO = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=12, head_dim=64,
            intermediate_size=3072, rms_norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=1e6),
            max_position_embeddings=8192, bos_token_id=0, eos_token_id=1, pad_token_id=2, mask_token_id=3)
SIGHT = dict(num_position_embeddings=2304, patch_size=16, spatial_merge_size=2, temporal_patch_size=2, in_channels=3,
             hidden_act="gelu_pytorch_tanh", deepstack_visual_indexes=[])
SOUND = dict(d_model=1280, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120, n_window=100,
             num_mel_bins=128, max_source_positions=1500, output_dim=3584, activation_function="gelu")


class Model(nn.Module):
    def __init__(self, family, modality):
        super().__init__()
        small, sdpa = family == "small", dict(attn_implementation="sdpa")
        if small:
            self.text = Qwen3Model(Qwen3Config(vocab_size=VOCAB, attention_bias=False, **SMALL, **sdpa))
        else:
            self.text = EuroBertModel(EuroBertConfig(vocab_size=VOCAB, **NANO, **sdpa))
        hidden = self.text.config.hidden_size
        if modality in ("image", "video"):
            config = Qwen3VLVisionConfig(hidden_size=hidden, depth=24 if small else 12, num_heads=hidden // 64,
                                         intermediate_size=4 * hidden, out_hidden_size=hidden, **SIGHT, **sdpa)
            self.vision = sight.Qwen3VLVisionModel(config)
            self.vision.merger = nn.Identity()
            self.merger = sight.Qwen3VLVisionPatchMerger(config, use_postshuffle_norm=False)
        if modality == "audio":
            self.audio = sound.Qwen2_5OmniAudioEncoder(Qwen2_5OmniAudioEncoderConfig(**SOUND, **sdpa))
            self.audio.proj = nn.Identity()
            self.projector = nn.Linear(SOUND["d_model"], hidden)

    def settle(self, dtype):
        """Weights of the size that a unit gain wants, and the buffers that no checkpoint holds."""
        self.to_empty(device="cpu").to(dtype)
        block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(1)).to(dtype)
        for name, p in self.named_parameters():
            if p.ndim == 1:
                p.data.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                scale = 1.0 if "embed_tokens" in name else p[0].numel() ** -0.5
                p.data = (block * scale).repeat(-(-p.numel() // block.numel()))[: p.numel()].view(p.shape).clone()
        self.text.rotary_emb = type(self.text.rotary_emb)(self.text.config)
        if hasattr(self, "vision"):
            self.vision.rotary_pos_emb = sight.Qwen3VLVisionRotaryEmbedding(self.vision.config)
        if hasattr(self, "audio"):
            table = sound.SinusoidsPositionEmbedding(SOUND["max_source_positions"], SOUND["d_model"])
            self.audio.positional_embedding = table
        return self.eval()

    def finish(self, rows):
        """The unit vector of each sequence, from its last row."""
        extra = {"use_cache": False} if isinstance(self.text, Qwen3Model) else {}
        return F.normalize(self.text(inputs_embeds=rows, **extra).last_hidden_state[:, -1].float(), dim=-1)


def picture_processor():
    """What users of these checkpoints have: the processor of transformers."""
    from transformers import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor(patch_size=16, merge_size=2, temporal_patch_size=2, image_mean=[0.5] * 3,
                                 image_std=[0.5] * 3, size=dict(shortest_edge=MIN_PIXELS, longest_edge=MAX_PIXELS))


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--family", choices=["small", "nano"], required=True)
    args.add_argument("--dtype", choices=["f32", "bf16"], required=True)
    args.add_argument("--mode", choices=["eager", "compile"], required=True)
    args.add_argument("--modality", choices=["text", "image", "video", "audio"], required=True)
    args.add_argument("--threads", type=int, required=True)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    with torch.device("meta"):
        model = Model(args.family, args.modality)
    model = model.settle(dtype)
    if args.mode == "compile":
        # Weights as constants, so that they are packed ahead of time: the fastest that torch.compile has on a CPU.
        torch._inductor.config.freezing = True
        for blocks in [model.text.layers, getattr(getattr(model, "vision", None), "blocks", []),
                       getattr(getattr(model, "audio", None), "layers", [])]:
            for block in blocks:
                block.compile(dynamic=False)
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 4096
    generator = torch.Generator().manual_seed(0)
    embed = model.text.embed_tokens

    def make(kind, numbers, _texts=None):
        if kind == "text":
            ids = torch.randint(4, VOCAB, numbers, generator=generator)
            return lambda: model.finish(embed(ids)).numpy()
        if kind in ("image", "video"):
            processor = picture_processor()
            width, height = numbers[-2:]
            values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
            if kind == "video":
                raise ValueError("not written")
            picture = Image.fromarray(values)

            def see():
                made = processor(images=[picture], return_tensors="pt")
                rows = model.vision(made["pixel_values"].to(dtype), grid_thw=made["image_grid_thw"]).last_hidden_state
                return model.finish(model.merger(rows)[None]).numpy()
            return see
        extractor = WhisperFeatureExtractor(feature_size=128)
        t = np.arange(int(numbers[0] * 16000)) / 16000
        samples = (0.4 * np.sin(t * 2764.6) + 0.2 * np.sin(t * 1382.3)).astype(np.float32)

        def hear():
            made = extractor(samples, sampling_rate=16000, return_attention_mask=True, return_tensors="pt",
                             padding="longest", truncation=False)
            frames = int(made["attention_mask"].sum())
            mel = made["input_features"][0, :, :frames].to(dtype)
            rows = model.audio(mel, feature_lens=torch.tensor([frames])).last_hidden_state
            return model.finish(model.projector(rows)[None]).numpy()
        return hear

    def peak():
        found = {}
        for name, kind in [("matmul_f32_gflops", torch.float32), ("matmul_bf16_gflops", torch.bfloat16)]:
            left, right = torch.randn(1024, 1024).to(kind), torch.randn(8192, 1024).to(kind)
            best, end = float("inf"), time.perf_counter() + 1
            while time.perf_counter() < end:
                started = time.perf_counter()
                F.linear(left, right)
                best = min(best, time.perf_counter() - started)
            found[name] = 2 * 1024 * 1024 * 8192 / best / 1e9
        return found

    def guarded(kind, numbers, _texts):
        run = make(kind, numbers)

        def once():
            with torch.inference_mode(args.mode == "eager"), torch.no_grad():
                vector = run()
            assert np.isfinite(vector).all()
        return once

    with torch.no_grad():
        serve(f"PyTorch {torch.__version__.split('+')[0]}", guarded, peak)


if __name__ == "__main__":
    main()

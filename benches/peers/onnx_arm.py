"""The ONNX Runtime arm of `cargo xtask bench`: the model that ships, exported from the weights of its record.

    python onnx_arm.py --record models/mini/record --dtype f32|int8 --threads N [--family mini]

From a text, a decoded picture or samples to a unit vector. f32 holds the record's int8 weights as the f32 they stand for;
int8 is ONNX Runtime's own dynamic quantisation of that graph, products only: its integer convolutions are slower than f32.
"""
import argparse
import json
import math
import struct
import tempfile
from pathlib import Path

import cbor2
import numpy as np
import onnxruntime as ort
import torch
import torch.nn as nn
import torch.nn.functional as F
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image
from tokenizers import Tokenizer

from protocol import serve

TYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8}
ALIGNMENT = 256


def read(path):
    """Every tensor of a part, int8 as the f32 it stands for: matrices are inputs by outputs with a scale an output."""
    data = path.read_bytes()
    (length,) = struct.unpack("<I", data[6:10])
    described = cbor2.loads(data[10 : 10 + length])["tensors"]
    start = -(-(10 + length) // ALIGNMENT) * ALIGNMENT
    raw = {}
    for name, about in described.items():
        begin, end = (start + offset for offset in about["data_offsets"])
        count = math.prod(about["shape"])
        raw[name] = np.frombuffer(data[begin:end], TYPES[about["dtype"]], count).reshape(about["shape"])
    out = {}
    for name, values in raw.items():
        if name.endswith(".scale"):
            continue
        if values.dtype == np.int8:
            scale = raw[name + ".scale"].astype(np.float32)
            by_output = values.ndim == 2 and len(scale) == values.shape[1] and not name.endswith(ROWS)
            values = values * (scale if by_output else scale.reshape(-1, *[1] * (values.ndim - 1)))
        out[name] = torch.from_numpy(values.astype(np.float32))
    return out


# Tables, whose scales are by row.
ROWS = ("embed_tokens.weight", "positions.weight", "token_types.weight", "class_rows.weight", "class_vectors.weight")


class Part(nn.Module):
    def __init__(self, weights, config):
        super().__init__()
        # Sizes as plain numbers: those of a tensor under export are tensors themselves.
        self.c, self.names, self.sizes = config, {}, {name: tuple(value.shape) for name, value in weights.items()}
        for i, (name, value) in enumerate(weights.items()):
            self.register_buffer(f"w{i}", value)
            self.names[name] = f"w{i}"

    def w(self, name):
        return getattr(self, self.names[name])

    def linear(self, name, x):
        return x @ self.w(name + ".weight") + self.w(name + ".bias")

    def norm(self, name, x, eps=1e-5):
        return F.layer_norm(x, self.sizes[name + ".weight"], self.w(name + ".weight"), self.w(name + ".bias"), eps)

    def attend(self, name, x, heads):
        (n, t, _), d = x.shape, self.sizes[name + ".weight"][0]
        q, k, v = self.linear(name, x).view(n, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4).unbind(0)
        a = (q @ k.transpose(-1, -2) * (d // heads) ** -0.5).softmax(-1) @ v
        return a.transpose(1, 2).reshape(n, t, d)

    def encode(self, rows):
        """Rows with both ends to unit vectors."""
        c, b = self.c["text"], "backbone"
        x = rows + self.w(b + ".positions.weight")[: rows.shape[1]] + self.w(b + ".token_types.weight")[0]
        x = self.norm(b + ".norm", x, c["norm_eps"])
        for i in range(c["layers"]):
            p = f"{b}.layers.{i}"
            context = self.attend(p + ".attention.qkv", x, c["heads"])
            x = self.norm(p + ".attention.norm", x + self.linear(p + ".attention.out", context), c["norm_eps"])
            inner = F.gelu(self.linear(p + ".mlp.fc1", x))
            x = self.norm(p + ".mlp.norm", x + self.linear(p + ".mlp.fc2", inner), c["norm_eps"])
        return F.normalize(x.mean(1), dim=-1)

    def framed(self, rows):
        table = self.w("embed_tokens.weight")
        ends = [table[self.c[end]].expand(rows.shape[0], 1, -1) for end in ("start", "end")]
        return self.encode(torch.cat([ends[0], rows, ends[1]], 1))

    def mlp(self, name, x):
        return self.linear(name + ".2", F.gelu(self.linear(name + ".0", x)))


class Text(Part):
    def forward(self, ids):
        return self.encode(F.embedding(ids, self.w("embed_tokens.weight")))


class Picture(Part):
    def conv(self, name, x, stride, groups=1):
        weight, side = self.w(name + ".weight"), int(x.shape[-1])
        total = (-(-side // stride) - 1) * stride + self.sizes[name + ".weight"][-1] - side
        before = max(total, 0) // 2
        after = max(total, 0) - before
        return F.conv2d(F.pad(x, (before, after, before, after)), weight, self.w(name + ".bias"), stride, groups=groups)

    def forward(self, pixels):
        c, x = self.c["picture"], pixels
        x = self.conv("picture.stem", x, 2).clamp(0, 6)
        channels, block = c["tower"]["stem"], 0
        for stage in c["tower"]["stages"]:
            for repeat in range(stage["repeats"]):
                name, before, inner = f"picture.blocks.{block}", x, channels * stage["expand"]
                stride = stage["stride"] if repeat == 0 else 1
                if inner != channels:
                    x = self.conv(name + ".expand", x, 1).clamp(0, 6)
                x = self.conv(name + ".depthwise", x, stride, inner).clamp(0, 6)
                x = self.conv(name + ".project", x, 1)
                if stride == 1 and channels == stage["channels"]:
                    x = x + before
                channels, block = stage["channels"], block + 1
        x = self.conv("picture.head", x, 1).clamp(0, 6)
        whole = x.mean((2, 3))
        # Means over three by three cells, and of two by two of these.
        side = int(x.shape[-1])
        cells = [slice(i * side // 3, -(-(i + 1) * side // 3)) for i in range(3)]
        grid = [[x[:, :, down, across].mean((2, 3)) for across in cells] for down in cells]
        corners = [(i, j) for i in (0, 1) for j in (0, 1)]
        quadrants = [(grid[i][j] + grid[i][j + 1] + grid[i + 1][j] + grid[i + 1][j + 1]) / 4 for i, j in corners]
        likely = (self.linear("classifier", whole) / c["temperature"]).softmax(-1)
        name = "picture_connector"
        rows = [likely @ self.w(name + ".class_rows.weight"), self.mlp(name + ".global", whole)]
        rows += list(self.mlp(name + ".quadrant", torch.stack(quadrants, 1)).unbind(1))
        least = likely.topk(c["top_classes"], 1).values[:, -1:]
        top = torch.where(likely < least, torch.zeros_like(likely), likely)
        u = self.framed(torch.stack(rows, 1))
        s = F.normalize(self.mlp(name + ".head", whole), dim=-1)
        k = F.normalize(top @ self.w(name + ".class_vectors.weight"), dim=-1)
        a, b, d = c["weights"]
        return F.normalize(a * u + b * s + d * k, dim=-1)


def gathered(x, taps, stride=1):
    """Each row with its neighbours beside it, zeros beyond the ends: a convolution is then a product."""
    t = int(x.shape[1])
    padded = F.pad(x, (0, 0, taps // 2, taps // 2))
    return torch.cat([padded[:, tap : tap + t : stride] for tap in range(taps)], -1)


class Speech(Part):
    def trunk(self, name, x):
        one, two = self.c["speech"]["kernels"]
        x = F.gelu(self.linear(name + ".conv1", gathered(self.norm(name + ".norm1", x), one)))
        x = x + F.gelu(self.linear(name + ".conv2", gathered(x, two)))
        x = self.norm(name + ".norm2", x)
        return self.linear(name + ".attention", x).softmax(1).transpose(1, 2) @ x

    def forward(self, mel):
        c, x = self.c["speech"]["tower"], mel
        x = F.gelu(self.linear("speech.conv1", gathered(x, 3)))
        x = F.gelu(self.linear("speech.conv2", gathered(x, 3, 2)))
        half = c["hidden"] // 2
        angles = torch.arange(int(x.shape[1]))[:, None] * torch.exp(-math.log(1e4) / (half - 1) * torch.arange(half))[None]
        x = x + torch.cat([angles.sin(), angles.cos()], 1)
        for i in range(c["layers"]):
            p = f"speech.layers.{i}"
            context = self.attend(p + ".self_attn.qkv_proj", self.norm(p + ".self_attn_layer_norm", x), c["heads"])
            x = x + self.linear(p + ".self_attn.out_proj", context)
            inner = F.gelu(self.linear(p + ".fc1", self.norm(p + ".final_layer_norm", x)))
            x = x + self.linear(p + ".fc2", inner)
        each = self.c["speech"]["mean_rows"]
        x = self.norm("speech.ln_post", x)
        x = x.reshape(1, int(x.shape[1]) // each, each, c["hidden"]).mean(2)
        direct = self.trunk("speech_connector.a", x - x.mean(1, keepdim=True)).flatten(1)
        s = F.normalize(self.linear("speech_connector.a.out", direct), dim=-1)
        rows = self.trunk("speech_connector.b", x) @ self.w("speech_connector.b.rows.weight")
        return F.normalize(self.framed(rows + self.w("speech_connector.b.rows.bias")) + s, dim=-1)


def log_mel(samples):
    """As the Whisper extractor with 80 bands, silence after the end."""
    from transformers.audio_utils import mel_filter_bank

    bands = mel_filter_bank(201, 80, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney").astype(np.float32)
    window = np.hanning(401)[:-1].astype(np.float32)

    def run():
        padded = np.concatenate([samples[200:0:-1], samples, np.zeros(200, np.float32)])
        frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160][: len(samples) // 160]
        power = np.abs(np.fft.rfft(frames * window)) ** 2
        log = np.log10(np.maximum(power.astype(np.float32) @ bands, 1e-10))
        return ((np.maximum(log, log.max() - 8.0) + 4.0) / 4.0)[None].astype(np.float32)
    return run


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--record", type=Path, required=True)
    args.add_argument("--family", choices=["mini"], default="mini")
    args.add_argument("--dtype", choices=["f32", "int8"], required=True)
    args.add_argument("--threads", type=int, required=True)
    args = args.parse_args()
    header = json.loads((args.record / "model.json").read_text())
    config = header["family"]["config"]
    weights = {}
    for part in ("tokens.bpk", "towers.bpk", f"text.{header['default_task']}.bpk"):
        weights |= read(args.record / part)
    folder = tempfile.TemporaryDirectory()

    def session(part, example, dynamic):
        path = Path(folder.name) / f"{type(part).__name__}.onnx"
        with torch.no_grad():
            torch.onnx.export(part.eval(), (example,), str(path), input_names=["x"], dynamo=False, opset_version=17,
                              dynamic_axes=dynamic)
        if args.dtype == "int8":
            small = path.with_suffix(".int8.onnx")
            quantize_dynamic(path, small, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
                             weight_type=QuantType.QInt8)
            path = small
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
        opened = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda x: opened.run(None, {"x": x})[0]

    def parts(*prefixes):
        return {name: value for name, value in weights.items() if name.startswith(prefixes)}

    sessions = {}

    def make(kind, numbers, _texts=None):
        if kind == "text":
            count, tokens = numbers
            tokenizer = Tokenizer.from_file(str(args.record / "tokenizer.json"))
            tokenizer.no_padding()
            random = np.random.default_rng(0)
            texts = [" ".join(chr(97 + letter) for letter in random.integers(0, 26, tokens - 2)) for _ in range(count)]
            if kind not in sessions:
                example = torch.zeros(2, 8, dtype=torch.long)
                part = Text(parts("embed_tokens", "backbone"), config)
                sessions[kind] = session(part, example, {"x": {0: "n", 1: "t"}})

            def run():
                ids = [found.ids for found in tokenizer.encode_batch(texts)]
                return sessions[kind](np.array(ids, dtype=np.int64))
        elif kind == "image":
            values = np.random.default_rng(0).integers(0, 256, (numbers[1], numbers[0], 3), dtype=np.uint8)
            picture, side = Image.fromarray(values), config["picture"]["tower"]["image_size"]
            about = header["preprocess"]["letterbox"]
            if kind not in sessions:
                part = Picture(parts("embed_tokens", "backbone", "picture", "classifier"), config)
                sessions[kind] = session(part, torch.zeros(1, 3, side, side), None)

            def run():
                pixels = np.asarray(picture.resize((side, side), Image.BICUBIC), np.float32)
                pixels = (pixels - about["mean"]) / about["std"]
                return sessions[kind](np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32))
        elif kind == "audio":
            t = np.arange(int(numbers[0] * 16000)) / 16000
            mel = log_mel((0.4 * np.sin(t * 2764.6) + 0.2 * np.sin(t * 1382.3)).astype(np.float32))
            # Positions are constants of the graph, so each length has its own.
            part = Speech(parts("embed_tokens", "backbone", "speech"), config)
            once = session(part, torch.from_numpy(mel()), None)

            def run():
                return once(mel())
        else:
            raise ValueError(f"{kind} is not written for ONNX Runtime")

        def checked():
            vector = run()
            assert np.allclose(np.linalg.norm(vector, axis=-1), 1, atol=1e-3)
        return checked

    serve(f"ONNX Runtime {ort.__version__}", make)


if __name__ == "__main__":
    main()

"""Arms of `cargo xtask bench` for published checkpoints with random weights (`published_make.py`).

    python published_arm.py --checkpoint FOLDER --program torch|onnx|llama --mode eager|compile --dtype f32|int8|q8_0|q4_0
                            --threads N --modality text|image|images

From a text or decoded pixels to unit vectors, the texts of a case in one batch. torch: transformers' own class, sdpa attention, as
it comes or compiled whole with its weights as constants. onnx: that same module exported with ONNX Runtime's own operator for
attention, the rest of an encoder made fewer by its optimiser for transformers; int8 is dynamic quantisation of the products, weights
of 7 bits where the processor adds pairs in 16 bits (`reduce_range`). llama: llama.cpp by the package xllamacpp, FOLDER/../TYPE.gguf, given
the ids of the tokens.
"""
import argparse
import base64
import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from protocol import serve


def noise(side, seed):
    """The pixels of `omniburn_benches::noise`."""
    state = (seed * 0x9E3779B9) & 0xFFFFFFFF ^ 0x6A09E667 | 1
    drawn = bytearray()
    for _ in range(8 + side * side * 3):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        drawn.append(state >> 24)
    return np.frombuffer(bytes(drawn[8:]), np.uint8).reshape(side, side, 3)


def prepared(folder, config, modality):
    """What makes of texts or pixels the rows that a model takes."""
    if modality == "text":
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        if "text_config" in config:
            length = config["text_config"]["max_position_embeddings"]
            tokenizer.enable_padding(length=length, pad_id=0, pad_token="<pad>")
            tokenizer.enable_truncation(length)
        return lambda texts: np.array([one.ids for one in tokenizer.encode_batch(texts)], np.int64)
    from PIL import Image

    about = json.loads((folder / "preprocessor_config.json").read_text())
    side, mean, std = about["size"]["height"], about["image_mean"], about["image_std"]

    def see(pictures):
        rows = [picture if picture.shape[0] == side else
                np.asarray(Image.fromarray(picture).resize((side, side), about["resample"])) for picture in pictures]
        rows = (np.stack(rows).astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
        return np.ascontiguousarray(rows.transpose(0, 3, 1, 2))
    return see


def module(folder, config, modality, attention="sdpa"):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    from safetensors.torch import load_file
    from transformers import AutoModel

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            loaded = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()
            self.dense = nn.ModuleList()
            if "text_config" in config:
                self.body = loaded.text_model if modality == "text" else loaded.vision_model
                self.pool = "pooled"
                return
            self.body = loaded
            about = json.loads((folder / "1_Pooling/config.json").read_text())
            kinds = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first", "pooling_mode_lasttoken": "last"}
            self.pool = next(kind for key, kind in kinds.items() if about.get(key))
            for file in sorted(folder.glob("*_Dense/model.safetensors")):
                weight = load_file(file)["linear.weight"]
                linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                linear.weight = nn.Parameter(weight)
                self.dense.append(linear)

        def forward(self, x):
            more = {"use_cache": False} if config["model_type"] in ("qwen3", "gemma3_text") else {}
            if more and attention != "sdpa":
                # No mask is made: the attention knows what it needs, and 128 tokens lie within every window.
                more["attention_mask"] = {"full_attention": None, "sliding_attention": None}
            out = self.body(x, **more)
            rows = out.pooler_output if self.pool == "pooled" else out.last_hidden_state
            row = {"mean": lambda: rows.mean(1), "first": lambda: rows[:, 0], "last": lambda: rows[:, -1],
                   "pooled": lambda: rows}[self.pool]()
            for dense in self.dense:
                row = dense(row)
            return F.normalize(row, dim=-1)

    return Whole().eval()


def of_torch(args, config):
    import torch

    torch.set_num_threads(args.threads)
    model = module(args.checkpoint, config, args.modality)
    if args.mode == "compile":
        torch._inductor.config.freezing = True
        model = torch.compile(model, dynamic=False)

    def run(rows):
        with torch.no_grad():
            return model(torch.from_numpy(rows)).numpy()
    return f"PyTorch {torch.__version__.split('+')[0]}", lambda: run


def of_onnx(args, config):
    import onnxruntime as ort

    base = args.checkpoint.parent / f"onnx-{'text' if args.modality == 'text' else 'image'}"
    path = base / "f32.onnx"
    fused = base / "fused.txt"
    if not fused.exists():
        base.mkdir(exist_ok=True)
        exported(args, config, path, fused)
    if args.dtype == "int8":
        path = base / "int8.onnx"
        if not path.exists():
            import onnx
            from onnxruntime.quantization import QuantType, quantize_dynamic

            flags = Path("/proc/cpuinfo").read_text()
            narrow = not any(flag in flags for flag in ("avx512_vnni", "avx_vnni"))
            part = base / "int8.part.onnx"
            quantize_dynamic(base / "f32.onnx", part, per_channel=True, weight_type=QuantType.QInt8, reduce_range=narrow,
                             op_types_to_quantize=["MatMul", "Gemm"],
                             extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
            part.rename(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return f"ONNX Runtime {ort.__version__}, {fused.read_text()}", lambda: lambda rows: session.run(None, {"x": rows})[0]


def own_attention(causal):
    """The name of an attention that is exported as ONNX Runtime's operator: its optimiser does not find what transformers 5
    exports."""
    import torch
    import torch.nn.functional as F
    from transformers import AttentionInterface

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v, heads, scale, causal):
            split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v)]
            return F.scaled_dot_product_attention(*split, scale=scale, is_causal=causal).transpose(1, 2).flatten(2)

        @staticmethod
        def symbolic(g, q, k, v, heads, scale, causal):
            out = g.op("com.microsoft::MultiHeadAttention", q, k, v, num_heads_i=heads, scale_f=scale,
                       unidirectional_i=int(causal))
            return out.setType(q.type())

    def attend(layer, q, k, v, attention_mask, scaling=None, **more):
        assert attention_mask is None
        heads, wide, times = int(q.shape[1]), int(q.shape[3]), int(q.shape[1]) // int(k.shape[1])
        if times > 1:
            k, v = (x.repeat_interleave(times, dim=1) for x in (k, v))
        rows = [x.transpose(1, 2).flatten(2) for x in (q, k, v)]
        out = Attention.apply(*rows, heads, float(scaling or wide ** -0.5), causal)
        return out.unflatten(-1, (heads, wide)), None

    AttentionInterface.register("own", attend)
    return "own"


def exported(args, config, path, fused):
    """The graph, and in words what the optimiser found in it."""
    import torch

    encoder = config["model_type"] in ("bert", "siglip")
    model = module(args.checkpoint, config, args.modality, own_attention(config["model_type"] == "qwen3"))
    rows = torch.full((2, 64), 5) if args.modality == "text" else torch.zeros(2, 3, 224, 224)
    axes = {0: "n", 1: "t"} if args.modality == "text" and "text_config" not in config else {0: "n"}
    with torch.no_grad():
        torch.onnx.export(model, (rows,), str(path), input_names=["x"], output_names=["y"], dynamo=False,
                          opset_version=17, dynamic_axes={"x": axes, "y": {0: "n"}},
                          custom_opsets={"com.microsoft": 1})
    said = "attention as its operator"
    if encoder:
        from onnxruntime.transformers.optimizer import optimize_model

        part = config.get("text_config" if args.modality == "text" else "vision_config", config)
        better = optimize_model(str(path), model_type="bert", num_heads=part["num_attention_heads"],
                                hidden_size=part["hidden_size"], opt_level=1)
        better.save_model_to_file(str(path))
        found = {name: count for name, count in better.get_fused_operator_statistics().items() if count}
        said = "fused: " + ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
    fused.write_text(said)


def of_llama(args, config):
    import xllamacpp as llama

    path = args.checkpoint.parent / f"{args.dtype}.gguf"

    def make():
        # A server for each number of texts: it lays them into as many slots.
        servers = {}

        def run(ids):
            count, length = ids.shape
            if (count, length) not in servers:
                servers.clear()
                params = llama.CommonParams()
                params.model.path = str(path)
                params.embedding, params.embd_normalize, params.cache_prompt = True, 2, False
                params.n_parallel, params.n_ctx = count, max(count * length, 64 * count)
                params.n_batch = params.n_ubatch = max(count * length, 512)
                params.verbosity = -1
                params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
                servers[count, length] = llama.Server(params)
            asked = {"input": ids.tolist(), "encoding_format": "base64"}
            said = servers[count, length].handle_embeddings(asked)
            found = sorted(said["data"], key=lambda one: one["index"])
            return np.stack([np.frombuffer(base64.b64decode(one["embedding"]), np.float32) for one in found])
        return run
    return f"llama.cpp of xllamacpp {llama.__version__}", make


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--checkpoint", type=Path, required=True)
    args.add_argument("--program", choices=["torch", "onnx", "llama"], required=True)
    args.add_argument("--mode", choices=["eager", "compile"], default="eager")
    args.add_argument("--dtype", choices=["f32", "int8", "q8_0", "q4_0"], required=True)
    args.add_argument("--threads", type=int, required=True)
    args.add_argument("--modality", choices=["text", "image", "images"], required=True)
    args.add_argument("--family")
    args = args.parse_args()
    config = json.loads((args.checkpoint / "config.json").read_text())
    ready = prepared(args.checkpoint, config, args.modality)
    name, make = {"torch": of_torch, "onnx": of_onnx, "llama": of_llama}[args.program](args, config)

    def case(kind, numbers, texts):
        given = texts
        if kind != "text":
            count = numbers[0] if kind == "images" else 1
            given = [noise(numbers[-1], n) for n in range(count)]
        # What is computed from the same rows again is computed again.
        run = make()
        if args.program == "llama":
            rows = ready(given)
            return lambda: run(rows)
        return lambda: run(ready(given))
    serve(name, case)


if __name__ == "__main__":
    main()

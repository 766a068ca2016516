"""Checkpoints of the mini and bert families with seeded random weights, and what PyTorch computes from them.

  python mini.py

Writes tests/golden/checkpoints/{mini-tiny,bert-tiny} in the layout `omniburn convert` reads, and
tests/golden/refs/{mini-tiny,bert-tiny}.{json,safetensors}. Text and speech towers are BertModel and WhisperEncoder of
transformers 5.23.0 in f32 with eager attention; the convolution tower and the connectors are written out here.

What the checkpoints make visible on purpose: three different widths (text 32, speech 24, map 24 of a 4 x 4 grid), fewer top classes than classes,
class tables that are no linears, a pooler that must be left aside, positions that a shorter limit cuts,
and in the second checkpoint weights in f16.
"""
import json
import math
import sys
from pathlib import Path

# A maker beside this one carries the name of a package, so this folder must not be searched.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402
from transformers import BertConfig, BertModel, WhisperConfig  # noqa: E402
from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: E402

GOLDEN = Path(__file__).resolve().parent.parent
TEXTS = [
    "a",
    "red car",
    "The quick brown fox jumps over the lazy dog",
    "two dogs, one cat and 17 birds!",
    "words nobody knows: zyxwv qqq",
    "a long text about the house by the sea, the sun, the tree and the car, which says the same again",
]
torch.manual_seed(5)
torch.set_num_threads(1)


def tokenizer():
    """WordPiece over letters, a few words and endings."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = "the red car dog cat sun tree house sea quick brown fox lazy two one and over long text words says".split()
    endings = "s ed ing er ly es tion rd ome".split()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), ".", ",", "!", "?", ":"]
    pieces += [*words, *("##" + e for e in endings if len(e) > 1)]
    made = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return made


def randomise(module):
    """Unit-gain matrices, gains near one, small biases: activations keep their size."""
    for name, p in module.named_parameters():
        with torch.no_grad():
            if p.ndim == 1 and name.endswith("weight"):
                p.copy_(1 + 0.2 * torch.randn(p.shape))
            elif p.ndim == 1:
                p.copy_(0.1 * torch.randn(p.shape))
            else:
                p.copy_(torch.randn(p.shape) / math.sqrt(p[0].numel()))
    return module.eval()


def bert(config):
    made = BertModel(BertConfig(**config, attn_implementation="eager"), add_pooling_layer=True)
    return randomise(made)


def mean_vector(model, **inputs):
    return model(**inputs).last_hidden_state.mean(1)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def write(folder, config, tensors, made_tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    made_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    save_file({k: v.detach().contiguous() for k, v in sorted(tensors.items())}, folder / "model.safetensors")


def write_refs(name, manifest, tensors):
    (GOLDEN / "refs" / f"{name}.json").write_text(json.dumps(manifest, indent=1) + "\n")
    save_file({k: v.detach().contiguous() for k, v in sorted(tensors.items())}, GOLDEN / "refs" / f"{name}.safetensors")


TOKENIZER = tokenizer()
TEXT_CONFIG = {
    "vocab_size": TOKENIZER.get_vocab_size(),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "max_position_embeddings": 96,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


@torch.no_grad()
def bert_tiny():
    model = bert(TEXT_CONFIG).half().float()
    folder = GOLDEN / "checkpoints" / "bert-tiny"
    halves = {k: v.half() for k, v in model.state_dict().items()}
    tensors = {**halves, "embeddings.position_ids": torch.arange(96)[None]}
    write(folder, {"model_type": "bert", **TEXT_CONFIG}, tensors, TOKENIZER)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {"cls_token": False, "mean_tokens": True, "max_tokens": False, "mean_sqrt_len_tokens": False}
    pooling = {"word_embedding_dimension": 32, **{f"pooling_mode_{mode}": on for mode, on in modes.items()}}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling, indent=1) + "\n")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 80, "do_lower_case": false}\n')
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=1) + "\n")
    texts, refs = [], {}
    for i, text in enumerate(TEXTS):
        ids = TOKENIZER.encode(text).ids
        hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        texts.append({"text": text, "ids": ids})
        refs[f"text/{i}/mean"], refs[f"text/{i}/cls"] = hidden.mean(0), hidden[0].clone()
        if i == 2:
            refs[f"text/{i}/hidden"] = hidden
    write_refs("bert-tiny", {"texts": texts}, refs)


PICTURE = {
    "model_type": "efficientnet-lite",
    "image_size": 64,
    "mean": 127.0,
    "std": 128.0,
    "stem": 8,
    "head": 24,
    "classes": 12,
    "blocks": [[1, 8, 1, 1, 3], [6, 12, 2, 2, 3], [6, 16, 2, 2, 5], [4, 16, 1, 2, 5]],
}
SPEECH = {
    "model_type": "whisper-encoder",
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 48,
    "num_mel_bins": 80,
    "max_source_positions": 200,
    "sampling_rate": 16000,
    "n_fft": 400,
    "hop_length": 160,
}
PICTURE_CONNECTOR = {"row_hidden": 20, "head_hidden": 28, "temperature": 1.5, "top_classes": 5, "weights": [0.4, 0.4, 0.2]}
SPEECH_CONNECTOR = {"hidden": 20, "rows": 4, "mean_frames": 5, "kernels": [3, 5]}


def same(x, weight, bias, stride, groups=1):
    """TensorFlow's SAME padding: what is odd goes to the bottom and right."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        kernel = weight.shape[2]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, bias, stride, groups=groups)


class Mini:
    def __init__(self):
        self.text = bert(TEXT_CONFIG)
        self.whisper = self.encoder(SPEECH["max_source_positions"])
        randomise(self.whisper)
        self.t = {}
        self.conv("picture.stem", PICTURE["stem"], 3, 3)
        self.blocks, inputs, i = [], PICTURE["stem"], 0
        for expand, outputs, repeats, stride, kernel in PICTURE["blocks"]:
            for repeat in range(repeats):
                inner, name = inputs * expand, f"picture.blocks.{i}"
                if expand > 1:
                    self.conv(f"{name}.expand", inner, inputs, 1)
                self.conv(f"{name}.depthwise", inner, 1, kernel)
                self.conv(f"{name}.project", outputs, inner, 1)
                step = stride if repeat == 0 else 1
                self.blocks.append((name, expand > 1, step, inner, step == 1 and inputs == outputs))
                inputs, i = outputs, i + 1
        channels, hidden, classes = PICTURE["head"], TEXT_CONFIG["hidden_size"], PICTURE["classes"]
        self.conv("picture.head", channels, inputs, 1)
        self.linear("picture.classifier", classes, channels, gain=4.0)
        for name, inner in (("global", "row_hidden"), ("quadrant", "row_hidden"), ("head", "head_hidden")):
            inner = PICTURE_CONNECTOR[inner]
            self.linear(f"picture_connector.{name}.0", inner, channels)
            self.linear(f"picture_connector.{name}.2", hidden, inner)
        self.t["picture_connector.class_rows.weight"] = 0.5 * torch.randn(classes, hidden)
        self.t["picture_connector.class_vectors.weight"] = unit(torch.randn(classes, hidden))
        width, inner, rows = SPEECH["d_model"], SPEECH_CONNECTOR["hidden"], SPEECH_CONNECTOR["rows"]
        for trunk in "ab":
            at = f"speech_connector.{trunk}"
            self.norm(f"{at}.norm1", width)
            self.linear(f"{at}.conv1", inner, width, SPEECH_CONNECTOR["kernels"][0])
            self.linear(f"{at}.conv2", inner, inner, SPEECH_CONNECTOR["kernels"][1])
            self.norm(f"{at}.norm2", inner)
            self.linear(f"{at}.attention", rows, inner)
        self.linear("speech_connector.a.out", hidden, rows * inner)
        self.linear("speech_connector.b.rows", hidden, inner)
        self.t["speech_connector.b.rows.bias"] = 0.3 * torch.randn(rows, hidden)

    def encoder(self, positions):
        keys = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins")
        sizes = {k: SPEECH[k] for k in keys}
        config = WhisperConfig(**sizes, max_source_positions=positions, attn_implementation="eager")
        return WhisperEncoder(config).eval()

    def conv(self, name, outputs, inputs, kernel):
        scale = 1.6 / math.sqrt(inputs * kernel * kernel)
        self.t[f"{name}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel)
        self.t[f"{name}.bias"] = 0.2 * torch.randn(outputs)

    def linear(self, name, outputs, inputs, *kernel, gain=1.0):
        fan = inputs * math.prod(kernel)
        self.t[f"{name}.weight"] = gain * torch.randn(outputs, inputs, *kernel) / math.sqrt(fan)
        self.t[f"{name}.bias"] = 0.1 * torch.randn(outputs)

    def norm(self, name, width):
        self.t[f"{name}.weight"] = 1 + 0.2 * torch.randn(width)
        self.t[f"{name}.bias"] = 0.1 * torch.randn(width)

    def tensors(self):
        text = {f"text.{k}": v for k, v in self.text.state_dict().items() if not k.startswith("pooler.")}
        kept = {k: v for k, v in self.whisper.state_dict().items() if not k.startswith("embed_positions")}
        return {**text, **{f"speech.{k}": v for k, v in kept.items()}, **self.t}

    def apply(self, name, x):
        return F.linear(x, self.t[f"{name}.weight"], self.t[f"{name}.bias"])

    def mlp(self, name, x):
        return self.apply(f"{name}.2", F.gelu(self.apply(f"{name}.0", x)))

    def layer_norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.t[f"{name}.weight"], self.t[f"{name}.bias"], 1e-5)

    def text_vector(self, ids):
        return unit(mean_vector(self.text, input_ids=torch.tensor([ids])))[0]

    def through_text(self, rows):
        """Rows [k, hidden] between the rows of both ends."""
        table = self.text.embeddings.word_embeddings.weight
        x = torch.cat([table[2:3], rows, table[3:4]])[None]
        return unit(mean_vector(self.text, inputs_embeds=x))[0]

    def map(self, pixels):
        x = (pixels.float().permute(2, 0, 1)[None] - PICTURE["mean"]) / PICTURE["std"]
        step = lambda name, x, stride=1, groups=1: same(
            x, self.t[f"{name}.weight"], self.t[f"{name}.bias"], stride, groups
        )
        x = F.relu6(step("picture.stem", x, 2))
        for name, expands, stride, inner, residual in self.blocks:
            y = F.relu6(step(f"{name}.expand", x)) if expands else x
            y = step(f"{name}.project", F.relu6(step(f"{name}.depthwise", y, stride, inner)))
            x = x + y if residual else y
        return F.relu6(step("picture.head", x))[0]

    def picture(self, m):
        at = "picture_connector"
        g = m.mean((1, 2))
        cells = F.adaptive_avg_pool2d(m[None], 3)[0]
        quadrants = [cells[:, i : i + 2, j : j + 2].mean((1, 2)) for i in (0, 1) for j in (0, 1)]
        logits = self.apply("picture.classifier", g)
        p = F.softmax(logits / PICTURE_CONNECTOR["temperature"], -1)
        rows = [p @ self.t[f"{at}.class_rows.weight"], self.mlp(f"{at}.global", g)]
        rows += [self.mlp(f"{at}.quadrant", q) for q in quadrants]
        top = p.topk(PICTURE_CONNECTOR["top_classes"])
        shares = top.values / top.values.sum()
        c = unit(shares @ self.t[f"{at}.class_vectors.weight"][top.indices])
        u, s = self.through_text(torch.stack(rows)), unit(self.mlp(f"{at}.head", g))
        w = PICTURE_CONNECTOR["weights"]
        return {"logits": logits, "u": u, "s": s, "c": c, "vector": unit(w[0] * u + w[1] * s + w[2] * c)}

    def listen(self, mel):
        """Rows of the connector, [T, d], of log-mel frames [frames, 80]."""
        encoder = self.encoder(mel.shape[0] // 2)
        known = {k: v for k, v in self.whisper.state_dict().items() if not k.startswith("embed_positions")}
        encoder.load_state_dict(known, strict=False)
        hidden = encoder(mel.T[None]).last_hidden_state[0]
        return hidden.unflatten(0, (-1, SPEECH_CONNECTOR["mean_frames"])).mean(1)

    def trunk(self, at, x):
        conv = lambda name, x: F.conv1d(
            x.T[None], self.t[f"{at}.{name}.weight"], self.t[f"{at}.{name}.bias"], padding="same"
        )[0].T
        h = F.gelu(conv("conv1", self.layer_norm(f"{at}.norm1", x)))
        h = self.layer_norm(f"{at}.norm2", h + F.gelu(conv("conv2", h)))
        return F.softmax(self.apply(f"{at}.attention", h), 0).T @ h

    def speech(self, x):
        at = "speech_connector"
        s = unit(self.apply(f"{at}.a.out", self.trunk(f"{at}.a", x - x.mean(0)).flatten()))
        rows = self.trunk(f"{at}.b", x) @ self.t[f"{at}.b.rows.weight"].T + self.t[f"{at}.b.rows.bias"]
        u = self.through_text(rows)
        return {"u": u, "s": s, "vector": unit(u + s)}


def pixels(seed):
    """A soft gradient with a square and noise, [64, 64, 3] u8."""
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:64, 0:64] / 63
    base = np.stack([255 * x, 255 * y, 255 * (1 - x * y)], 2)[..., r.permutation(3)]
    top, left = r.integers(4, 40, 2)
    base[top : top + 20, left : left + 16] = r.integers(0, 256, 3)
    return torch.from_numpy(np.clip(base + r.normal(0, 12, base.shape), 0, 255).astype(np.uint8))


@torch.no_grad()
def mini_tiny():
    model = Mini()
    config = {
        "model_type": "omniburn-mini",
        "text_config": {"model_type": "bert", **TEXT_CONFIG, "max_seq_length": 64},
        "picture_config": PICTURE,
        "speech_config": SPEECH,
        "picture_connector": PICTURE_CONNECTOR,
        "speech_connector": SPEECH_CONNECTOR,
        "video_frames": 8,
    }
    write(GOLDEN / "checkpoints" / "mini-tiny", config, model.tensors(), TOKENIZER)
    texts, refs = [], {}
    for i, text in enumerate(TEXTS):
        ids = TOKENIZER.encode(text).ids
        texts.append({"text": text, "ids": ids})
        refs[f"text/{i}"] = model.text_vector(ids)
    pictures = [pixels(i) for i in range(3)]
    frames = [torch.roll(pictures[0], 6 * i, 1) for i in range(3)]
    for kind, images in (("picture", pictures), ("frame", frames)):
        for i, image in enumerate(images):
            refs[f"{kind}/{i}/pixels"] = image
    for i, image in enumerate(pictures):
        m = model.map(image)
        refs[f"picture/{i}/map"] = m
        refs |= {f"picture/{i}/{k}": v for k, v in model.picture(m).items()}
    film = torch.stack([model.map(frame) for frame in frames]).mean(0)
    refs |= {f"film/{k}": v for k, v in model.picture(film).items()}
    for i, frames in enumerate((200, 200, 300)):
        # Halves are enough for an input, and exact in f32.
        t = torch.arange(frames)[:, None] * torch.linspace(0.01, 0.5, 80)[None]
        mel = (0.4 * torch.sin(t + i) + 0.3 * torch.randn(frames, 80)).half()
        x = model.listen(mel.float())
        refs[f"speech/{i}/mel"], refs[f"speech/{i}/rows"] = mel, x
        refs |= {f"speech/{i}/{k}": v for k, v in model.speech(x).items()}
    write_refs("mini-tiny", {"texts": texts, "pictures": 3, "frames": 3, "speech": 3}, refs)


bert_tiny()
mini_tiny()

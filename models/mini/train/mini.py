"""The model's forward pass, once, over one dict of named f32 tensors: the names are those of the exported folder."""
import json, math
import numpy as np, torch, torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

TEXT = dict(model_type="bert", vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
            hidden_act="gelu", max_position_embeddings=512, type_vocab_size=2, layer_norm_eps=1e-12, max_seq_length=256)
# expand, channels, repeats, stride, kernel
BLOCKS = [[1, 16, 1, 1, 3], [6, 24, 2, 2, 3], [6, 40, 2, 2, 5], [6, 80, 3, 2, 3], [6, 112, 3, 1, 5], [6, 192, 4, 2, 5], [6, 320, 1, 1, 3]]
PICTURE = dict(model_type="efficientnet-lite", image_size=224, mean=127.0, std=128.0, stem=32, head=1280, classes=1000, blocks=BLOCKS)
SPEECH = dict(model_type="whisper-encoder", d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, num_mel_bins=80,
              max_source_positions=1500, sampling_rate=16000, n_fft=400, hop_length=160)
PICTURE_CONNECTOR = dict(row_hidden=512, head_hidden=1024, temperature=1.5, top_classes=50, weights=[0.4, 0.4, 0.2])
SPEECH_CONNECTOR = dict(hidden=512, rows=4, mean_frames=5, kernels=[3, 5])
CONFIG = dict(model_type="omniburn-mini", text_config=TEXT, picture_config=PICTURE, speech_config=SPEECH,
              picture_connector=PICTURE_CONNECTOR, speech_connector=SPEECH_CONNECTOR, video_frames=8)


def l2(x):
    return F.normalize(x, dim=-1)


def linear(w, name, x):
    return F.linear(x, w[name + ".weight"], w.get(name + ".bias"))


def norm(w, name, x, eps=1e-5):
    return F.layer_norm(x, (x.shape[-1],), w[name + ".weight"], w[name + ".bias"], eps)


def mlp(w, name, x):
    return linear(w, name + ".2", F.gelu(linear(w, name + ".0", x)))


class Backbone:
    """MiniLM. `dtype` bfloat16 for training; q, k and v are one product and attention is plain matmul: fused attention is slower here."""

    def __init__(self, w, dtype=torch.float32):
        e = "text.embeddings."
        self.words, self.positions = w[e + "word_embeddings.weight"], w[e + "position_embeddings.weight"]
        self.kind = w[e + "token_type_embeddings.weight"][0]
        self.ln = (w[e + "LayerNorm.weight"], w[e + "LayerNorm.bias"])
        self.dtype, self.layers = dtype, []
        for i in range(TEXT["num_hidden_layers"]):
            p = f"text.encoder.layer.{i}."
            q = [p + f"attention.self.{n}." for n in ("query", "key", "value")]
            t = [torch.cat([w[n + "weight"] for n in q]), torch.cat([w[n + "bias"] for n in q])]
            for n in ("attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"):
                t += [w[p + n + ".weight"], w[p + n + ".bias"]]
            self.layers.append([v.to(dtype) for v in t])

    def __call__(self, x):
        """[n, k, 384] word embeddings or connector rows, both ends included -> unit vectors [n, 384]."""
        n, k, d = x.shape
        heads, eps = TEXT["num_attention_heads"], TEXT["layer_norm_eps"]
        x = x + self.positions[:k] + self.kind
        h = F.layer_norm(x, (d,), *self.ln, eps).to(self.dtype)
        for wq, bq, wo, bo, g1, c1, wi, bi, wd, bd, g2, c2 in self.layers:
            q, key, v = F.linear(h, wq, bq).view(n, k, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
            a = (q @ key.transpose(-1, -2) / math.sqrt(d // heads)).softmax(-1) @ v
            h = F.layer_norm(h + F.linear(a.transpose(1, 2).reshape(n, k, d), wo, bo), (d,), g1, c1, eps)
            h = F.layer_norm(h + F.linear(F.gelu(F.linear(h, wi, bi)), wd, bd), (d,), g2, c2, eps)
        return l2(h.float().mean(1))

    def rows(self, rows):
        """Connector rows stand where word embeddings would stand, between [CLS] and [SEP]."""
        n = rows.shape[0]
        ends = [self.words[i].expand(n, 1, -1) for i in (101, 102)]
        return self(torch.cat([ends[0], rows, ends[1]], 1))


class Texts:
    def __init__(self, backbone, tokenizer):
        self.backbone, self.tokenizer = backbone, tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(TEXT["max_seq_length"])

    def __call__(self, texts, batch=64):
        """Unit vectors [n, 384]; texts of one length at a time, so that no mask is needed."""
        ids = [e.ids for e in self.tokenizer.encode_batch(list(texts))]
        out = torch.empty(len(ids), 384)
        by_length = {}
        for i, t in enumerate(ids):
            by_length.setdefault(len(t), []).append(i)
        with torch.no_grad():
            for group in by_length.values():
                for s in range(0, len(group), batch):
                    g = group[s:s + batch]
                    out[g] = self.backbone(self.backbone.words[torch.tensor([ids[i] for i in g])])
        return out


# Pictures

def picture_canvas(image):
    """EXIF orientation, transparency over white, longer side to 224 (bicubic), centred on white: uint8 [224, 224, 3]."""
    size = PICTURE["image_size"]
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(page, image)
    image = image.convert("RGB")
    w, h = image.size
    long = max(w, h)
    w, h = (max(1, (2 * side * size + long) // (2 * long)) for side in (w, h))
    if image.size != (w, h):
        image = image.resize((w, h), Image.BICUBIC)
    page = Image.new("RGB", (size, size), (255, 255, 255))
    page.paste(image, ((size - w) // 2, (size - h) // 2))
    return np.asarray(page)


def pixels(canvases):
    """uint8 [n, 224, 224, 3] -> f32 [n, 3, 224, 224]."""
    x = torch.as_tensor(np.asarray(canvases)).permute(0, 3, 1, 2).float()
    return (x - PICTURE["mean"]) / PICTURE["std"]


def conv_same(x, w, name, stride, groups=1):
    """TensorFlow SAME: the extra row and column are at the bottom and right."""
    k = w[name + ".weight"].shape[-1]
    pads = [max((-(-n // stride) - 1) * stride + k - n, 0) for n in x.shape[-2:]]
    (th, tw) = pads
    if th % 2 == 0 and tw % 2 == 0:
        pad = (th // 2, tw // 2)
    else:
        x, pad = F.pad(x, (tw // 2, tw - tw // 2, th // 2, th - th // 2)), 0
    return F.conv2d(x, w[name + ".weight"], w[name + ".bias"], stride, pad, 1, groups)


def picture_map(w, x):
    """[n, 3, 224, 224] -> [n, 1280, 7, 7]."""
    x = F.relu6(conv_same(x, w, "picture.stem", 2))
    i, channels = 0, PICTURE["stem"]
    for expand, out, repeats, stride, _ in BLOCKS:
        for r in range(repeats):
            p, s, y = f"picture.blocks.{i}.", stride if r == 0 else 1, x
            if expand != 1:
                y = F.relu6(conv_same(y, w, p + "expand", 1))
            y = F.relu6(conv_same(y, w, p + "depthwise", s, groups=channels * expand))
            y = conv_same(y, w, p + "project", 1)
            x = x + y if s == 1 and channels == out else y
            i, channels = i + 1, out
    return F.relu6(conv_same(x, w, "picture.head", 1))


def pool(m):
    """Map -> global mean [n, 1280] and 3x3 cells [n, 9, 1280]."""
    return m.mean((2, 3)), F.adaptive_avg_pool2d(m, 3).flatten(2).transpose(1, 2)


# Quadrant (i, j) is the mean of the four cells at i..i+1, j..j+1.
QUADRANTS = torch.zeros(4, 9)
for _i in (0, 1):
    for _j in (0, 1):
        for _c in (0, 1, 3, 4):
            QUADRANTS[2 * _i + _j, 3 * _i + _j + _c] = 0.25


def quadrants(cells):
    return QUADRANTS @ cells


def logits_of(w, g):
    return linear(w, "picture.classifier", g)


def class_vector(w, p, top=PICTURE_CONNECTOR["top_classes"]):
    """ConSE: the largest of the posterior, renormalised, over the class vectors."""
    v, i = p.topk(top, -1)
    v = v / v.sum(-1, keepdim=True)
    return l2((v.unsqueeze(-1) * w["picture_connector.class_vectors.weight"][i]).sum(-2))


def picture_rows(w, p, g, q):
    c = p @ w["picture_connector.class_rows.weight"]
    return torch.cat([c.unsqueeze(1), mlp(w, "picture_connector.global", g).unsqueeze(1), mlp(w, "picture_connector.quadrant", q)], 1)


def picture_vector(w, backbone, g, cells):
    """Means of one picture, or of a film's frames -> u, s, c and the vector."""
    p = (logits_of(w, g) / PICTURE_CONNECTOR["temperature"]).softmax(-1)
    u = backbone.rows(picture_rows(w, p, g, quadrants(cells)))
    s = l2(mlp(w, "picture_connector.head", g))
    c = class_vector(w, p)
    a, b, d = PICTURE_CONNECTOR["weights"]
    return u, s, c, l2(a * u + b * s + d * c)


# Speech

def mel_filters():
    from transformers.audio_utils import mel_filter_bank
    return torch.tensor(mel_filter_bank(201, 80, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney"), dtype=torch.float32)


_MEL = None


def pad_samples(x):
    """Zeros up to whole seconds, at least 2."""
    n = max(2, -(-len(x) // 16000)) * 16000
    return np.pad(np.asarray(x, np.float32), (0, n - len(x)))


def log_mel(x):
    """[n, samples] of whole seconds -> [n, 80, samples / 160]. The clip is followed by zeros, not by its mirror image."""
    global _MEL
    if _MEL is None:
        _MEL = mel_filters()
    frames = x.shape[-1] // 160
    z = torch.stft(F.pad(x, (0, 400)), 400, 160, window=torch.hann_window(400), center=True, pad_mode="reflect", return_complex=True)
    power = z[..., :frames].abs() ** 2
    m = (_MEL.T @ power).clamp(min=1e-10).log10()
    m = torch.maximum(m, m.amax((1, 2), keepdim=True) - 8.0)
    return (m + 4.0) / 4.0


def sinusoid(n, d=384):
    step = math.log(10000.0) / (d // 2 - 1)
    a = torch.arange(n).float()[:, None] * torch.exp(-step * torch.arange(d // 2).float())[None]
    return torch.cat([a.sin(), a.cos()], 1)


def speech_tower(w, mel):
    """[n, 80, t] -> [n, t / 2, 384]."""
    x = F.gelu(F.conv1d(mel, w["speech.conv1.weight"], w["speech.conv1.bias"], padding=1))
    x = F.gelu(F.conv1d(x, w["speech.conv2.weight"], w["speech.conv2.bias"], stride=2, padding=1)).transpose(1, 2)
    n, t, d = x.shape
    x = x + sinusoid(t).to(x.dtype)
    heads = SPEECH["encoder_attention_heads"]
    for i in range(SPEECH["encoder_layers"]):
        p = f"speech.layers.{i}."
        h = norm(w, p + "self_attn_layer_norm", x)
        q, k, v = (linear(w, p + f"self_attn.{a}_proj", h).view(n, t, heads, d // heads).transpose(1, 2) for a in "qkv")
        a = (q @ k.transpose(-1, -2) / math.sqrt(d // heads)).softmax(-1) @ v
        x = x + linear(w, p + "self_attn.out_proj", a.transpose(1, 2).reshape(n, t, d))
        x = x + linear(w, p + "fc2", F.gelu(linear(w, p + "fc1", norm(w, p + "final_layer_norm", x))))
    return norm(w, "speech.layer_norm", x)


def speech_frames(w, samples):
    """[n, samples] of whole seconds -> x [n, 10 a second, 384]."""
    h = speech_tower(w, log_mel(samples))
    return h.unflatten(1, (-1, SPEECH_CONNECTOR["mean_frames"])).mean(2)


def conv_1d(w, name, x):
    """[n, t, in] -> [n, t, out], as long as before."""
    k = w[name + ".weight"].shape[-1]
    return F.conv1d(x.transpose(1, 2), w[name + ".weight"], w[name + ".bias"], padding=k // 2).transpose(1, 2)


def trunk(w, p, x, conv=conv_1d):
    h = norm(w, p + "norm1", x)
    h = F.gelu(conv(w, p + "conv1", h))
    h = h + F.gelu(conv(w, p + "conv2", h))
    h = norm(w, p + "norm2", h)
    a = linear(w, p + "attention", h).softmax(1)
    return a.transpose(1, 2) @ h


def speech_head(w, x):
    return l2(linear(w, "speech_connector.a.out", trunk(w, "speech_connector.a.", x - x.mean(1, keepdim=True)).flatten(1)))


def speech_rows(w, x, conv=conv_1d):
    rows = trunk(w, "speech_connector.b.", x, conv)
    return rows @ w["speech_connector.b.rows.weight"].T + w["speech_connector.b.rows.bias"]


def speech_vector(w, backbone, x):
    u, s = backbone.rows(speech_rows(w, x)), speech_head(w, x)
    return u, s, l2(u + s)


class Mini:
    """The exported folder."""

    def __init__(self, folder):
        from tokenizers import Tokenizer
        self.config = json.loads(open(f"{folder}/config.json").read())
        assert self.config == CONFIG, "another shape than this file's"
        self.w = load_file(f"{folder}/model.safetensors")
        self.backbone = Backbone(self.w)
        self.texts = Texts(self.backbone, Tokenizer.from_file(f"{folder}/tokenizer.json"))

    @torch.no_grad()
    def picture_parts(self, canvases, frames=1):
        """g and cells; with frames > 1 the means over each run of frames."""
        g, cells = pool(picture_map(self.w, pixels(canvases)))
        return g.unflatten(0, (-1, frames)).mean(1), cells.unflatten(0, (-1, frames)).mean(1)

    @torch.no_grad()
    def pictures(self, canvases, batch=32):
        out = []
        for s in range(0, len(canvases), batch):
            out.append(picture_vector(self.w, self.backbone, *self.picture_parts(canvases[s:s + batch])))
        return [torch.cat(t) for t in zip(*out)]

    @torch.no_grad()
    def film(self, canvases):
        return picture_vector(self.w, self.backbone, *self.picture_parts(canvases, len(canvases)))

    @torch.no_grad()
    def speech(self, clips, batch=32):
        """Clips at 16 kHz -> u, s, vector; clips of one padded length run together."""
        padded = [pad_samples(c) for c in clips]
        out = [torch.empty(len(clips), 384) for _ in range(3)]
        by_length = {}
        for i, c in enumerate(padded):
            by_length.setdefault(len(c), []).append(i)
        for group in by_length.values():
            for s in range(0, len(group), batch):
                g = group[s:s + batch]
                x = speech_frames(self.w, torch.tensor(np.stack([padded[i] for i in g])))
                for o, v in zip(out, speech_vector(self.w, self.backbone, x)):
                    o[g] = v
        return out

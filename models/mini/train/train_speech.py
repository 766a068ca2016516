"""Speech connector: trunk A with the direct head in two runs, trunk B (a throw-away direct head, then its rows through the backbone). `train_speech.py [seed] [factor] [a | b]`.

Both trunks may run side by side."""
import sys
import numpy as np, torch, torch.nn.functional as F
import mini
from banks import banks
from common import *
from loop import init, train
from mini import Backbone, l2
from parts import parts

seed, factor = int(sys.argv[1]) if len(sys.argv) > 1 else 0, float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
tag = f"s{seed}" + (f"x{factor:g}" if factor != 1 else "")
torch.set_num_threads(1)
backbone = Backbone(parts(), torch.bfloat16)
b, _, _, spoken, _ = banks()
bank, bank_t = b["spoken"], b["spoken"].bfloat16().T.contiguous()
row = {t: n for n, t in enumerate(spoken)}
PASSES = [p for p in ("words-1", "words-2", "core", "phrases") if (CACHE / f"speech-{p}.npz").exists()]
data = {}
for s in (2, 3):
    xs, ts = [], []
    for p in PASSES:
        z = np.load(CACHE / f"speech-{p}.npz")
        t = z[f"t{s}"].tolist()
        assert all(x in row for x in t), "the cache holds clips of texts that are held out: make it anew"
        xs.append(torch.from_numpy(z[f"x{s}"]))
        ts += [row[x] for x in t]
    data[s] = torch.cat(xs), torch.tensor(ts)
share = len(data[3][1]) / (len(data[2][1]) + len(data[3][1]))
print({s: len(t) for s, (_, t) in data.items()}, "clips of", PASSES, flush=True)


def batch(n=256):
    """Clips of one length, moved by -1 to 2 frames of 100 ms (the ends repeat)."""
    x, t = data[3 if torch.rand(()) < share else 2]
    at = torch.randint(len(x), (n,))
    move = torch.randint(-1, 3, (n, 1))
    x = x[at].float()
    frame = (torch.arange(x.shape[1]) - move).clamp(0, x.shape[1] - 1)
    return x.gather(1, frame.unsqueeze(-1).expand_as(x)), t[at]


half = torch.autocast("cpu", torch.bfloat16)  # with the convolution as one product: 0.25 instead of 0.57 s a step


def conv(w, name, x):
    """The same as mini.conv_1d, faster in training."""
    k = w[name + ".weight"]
    u = F.pad(x, (0, 0, k.shape[2] // 2, k.shape[2] // 2)).unfold(1, x.shape[1], 1)  # [n, k, in, t]
    return F.linear(u.permute(0, 3, 1, 2).flatten(2), k.permute(0, 2, 1).flatten(1), w[name + ".bias"])


def loss(v, t):
    return (F.cross_entropy((v.bfloat16() @ bank_t).float() / 0.05, t) + 2 * (1 - (v * bank[t]).sum(1)).mean())


deviation = float(data[2][0][::50].float().std())


def noisy(x, drop, noise):
    n, _, d = x.shape
    keep = (torch.rand(n, 1, d) >= drop).float() / (1 - drop)
    return (x + noise * deviation * torch.randn_like(x)) * keep


def head(w, p, x):
    with half:
        v = mini.linear(w, p + "out", mini.trunk(w, p, x, conv).flatten(1))
    return l2(v.float())


def a_loss(w):
    x, t = batch()
    return loss(head(w, "speech_connector.a.", noisy(x - x.mean(1, keepdim=True), 0.25, 0.3)), t)


def b_head_loss(w):
    x, t = batch()
    return loss(head(w, "speech_connector.b.", noisy(x, 0.1, 0.0)), t)


def b_loss(w):
    x, t = batch()
    with half:
        rows = mini.speech_rows(w, noisy(x, 0.1, 0.0), conv)
    return loss(backbone.rows(rows.float()), t)


def fresh(p, seed):
    return init({p + "norm1": (384,), p + "conv1": (512, 384, 3), p + "conv2": (512, 512, 5), p + "norm2": (512,), p + "attention": (4, 512), p + "out": (384, 2048)}, seed)


A, B = "speech_connector.a.", "speech_connector.b."
only = sys.argv[3] if len(sys.argv) > 3 else None
if only != "b":
    w = train(f"speech-a-{tag}", fresh(A, seed + 21), a_loss, int(763 * factor), 1.5e-3, 0.1, seed + 21)
    train(f"speech-a-2-{tag}", w, a_loss, int(700 * factor), 1e-3, 0.1, seed + 31)
if only != "a":
    first = train(f"speech-b-head-{tag}", fresh(B, seed + 22), b_head_loss, int(448 * factor), 1e-3, 0.05, seed + 22)
    w = {k: v for k, v in first.items() if not k.startswith(B + "out")}
    # One bias a row: the linear map's own bias is folded in. Rows start at the size of word embeddings.
    w[B + "rows.weight"] = init({B + "rows": (384, 512)}, seed + 23)[B + "rows.weight"]
    torch.manual_seed(seed + 24)
    w[B + "rows.bias"] = 0.02 * torch.randn(4, 384)
    w = train(f"speech-b-{tag}", w, b_loss, int(1002 * factor), 1.5e-3, 0.05, seed + 25)
    train(f"speech-b-2-{tag}", w, b_loss, int(500 * factor), 1e-3, 0.05, seed + 35)

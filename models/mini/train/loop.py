"""One training loop for all connectors: AdamW, warm-up, cosine to zero; curve and checkpoint kept, a finished run is not repeated."""
import math, os, time
import torch, torch.nn as nn
from safetensors.torch import load_file, save_file
from common import *


def init(shapes, seed):
    """Fresh parameters by name; PyTorch's own initialisation of Linear, Conv1d and LayerNorm."""
    torch.manual_seed(seed)
    w = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            m = nn.LayerNorm(shape[0])
        else:
            m = nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv1d(shape[1], shape[0], shape[2])
        w[name + ".weight"], w[name + ".bias"] = m.weight.detach().clone(), m.bias.detach().clone()
    return w


def train(name, w, loss_of, steps, lr, decay, seed, warm=30, extra=None):
    """`loss_of(w)` draws its own batch; the generator is seeded anew at each step, so a run goes on exactly where it stopped."""
    done = CACHE / f"{name}.safetensors"
    if done.exists():
        return load_file(done)
    params = {k: nn.Parameter(v.clone()) for k, v in w.items()}
    opt = torch.optim.AdamW(params.values(), lr=lr, betas=(0.9, 0.98), weight_decay=decay)
    check, first, curve, spent = CACHE / f"{name}.check.pt", 0, [], 0.0
    if check.exists():
        c = torch.load(check, weights_only=True)
        for k, v in params.items():
            v.data.copy_(c["w"][k])
        opt.load_state_dict(c["opt"])
        first, curve, spent = c["step"], c["curve"], c["spent"]
    start, total = time.time() - spent, 0.0
    for step in range(first, steps):
        torch.manual_seed(seed * 1_000_003 + step)
        for group in opt.param_groups:
            group["lr"] = lr * min((step + 1) / warm, 1.0) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = loss_of(params)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(params.values(), 1.0)
        opt.step()
        total += loss.item()
        if (step + 1) % 25 == 0:
            curve.append(round(total / 25, 4))
            total = 0.0
            print(name, step + 1, curve[-1], f"{time.time() - start:.0f} s", flush=True)
        if (step + 1) % 100 == 0:
            part = CACHE / f"{name}.check.part"
            torch.save(dict(w={k: v.data for k, v in params.items()}, opt=opt.state_dict(), step=step + 1, curve=curve, spent=time.time() - start), part)
            os.replace(part, check)
    out = {k: v.detach().contiguous() for k, v in params.items()}
    save_json(RESULTS / f"curve-{name}.json", dict(steps=steps, batch_of_steps=25, seconds=round(time.time() - start), loss=curve))
    save_file(out, done)
    check.unlink(missing_ok=True)
    return out

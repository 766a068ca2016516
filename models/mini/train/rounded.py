"""The weights as the int8 record holds them: `rounded.py FOLDER OUT` writes the same folder with every matrix rounded to int8 and back.

Rows are of the first axis; the scale of a row is its largest value over 127, rounded up to f16 (crates of Rust: models/src/record/int8.rs). What
`reference.py` computes from OUT is therefore what the shipped record must give."""
import shutil, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file, save_file

folder, out = map(Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
for name in ("config.json", "tokenizer.json"):
    shutil.copy(folder / name, out / name)


def rounded(w):
    rows = w.reshape(len(w), -1)
    top = np.abs(rows).max(1, keepdims=True) / np.float32(127)
    near = top.astype(np.float16)
    scale = np.where(near.astype(np.float32) < top, np.nextafter(near, np.float16(np.inf)), near).astype(np.float32)
    codes = np.rint(np.divide(rows, scale, out=np.zeros_like(rows), where=scale > 0)).clip(-127, 127)
    return (codes * scale).astype(np.float32).reshape(w.shape)


tensors = load_file(folder / "model.safetensors")
matrix = lambda k, v: v.ndim > 1 and not k.endswith("bias") and ".depthwise." not in k  # of nine or 25 values a row: kept
tables = {k: rounded(v) if matrix(k, v) else v for k, v in tensors.items()}
save_file(tables, out / "model.safetensors", {"format": "pt"})
print(sum(matrix(k, v) for k, v in tensors.items()), "of", len(tensors), "tensors rounded")

"""Copies the checkpoints and references of families that are recognised by `model_type` alone.

  python families.py FIXTURES OUT

FIXTURES is the reference set: `checkpoints/<name>/`, tiny models with seeded random weights in published layouts, and
`refs/<name>.json` and `.safetensors`, what transformers 5.23.0 on torch 2.15.0 computes from them in f32. Its scripts make the
set anew with any seed. Writes OUT/checkpoints/<name>/ and OUT/refs/<name>.*; `tests/families.rs` reads them.
"""
import shutil
import sys
from pathlib import Path

NAMES = [
    "xlm-roberta-tiny",
    "modernbert-tiny",
    "qwen3-embedding-tiny",
    "bge-reranker-tiny",
    "modernbert-reranker-tiny",
    "qwen3-reranker-tiny",
    "bge-m3-tiny",
    "siglip-tiny",
    "clip-tiny",
    "llama-bidirec-tiny",
    "gemma3-text-tiny",
    "nomic-bert-tiny",
    "qwen3-vl-embed-tiny",
    "bidirlm-omni-tiny",
    "qwen3-vl-rerank-tiny",
    "lfm2-tiny",
    "clap-tiny",
    "siglip2-tiny",
    "qwen25-omni-tiny",
    "colqwen2-tiny",
    "colqwen2_5-tiny",
    "qwen3-omni-encoders-tiny",
]


def main(fixtures, out):
    for name in NAMES:
        folder = out / "checkpoints" / name
        shutil.rmtree(folder, ignore_errors=True)
        for path in sorted((fixtures / "checkpoints" / name).rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(fixtures / "checkpoints" / name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        for ending in [".json", ".safetensors"]:
            (out / "refs" / f"{name}{ending}").write_bytes((fixtures / "refs" / f"{name}{ending}").read_bytes())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

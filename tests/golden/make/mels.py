"""Log-mel frames as the feature extractor of transformers computes them.

  python mels.py FIXTURES OUT

reads FIXTURES/refs/preprocess.{json,safetensors} (mels of the reference media, made with the same extractor) and
FIXTURES/published/audio_ref.safetensors (mel of a tone, from the extractor of the published checkpoint, Apache-2.0), runs
WhisperFeatureExtractor(feature_size=128) of transformers 5.23.0 with torch 2.15.0 on clips that a formula gives, and
writes OUT/audio/mels.safetensors:

  NAME/count   number of frames
  NAME/at      which of them are stored
  NAME/mel     [stored, 128] f32, frame-major
  NAME/samples of clips made here: their length

A clip is padded with zeros as the extractor does it, to 30 s; where less than one window of zeros would be left, to that
much more, because the extractor would mirror the sound into its last frame (or cut it off, beyond 30 s).
The clips are made again by the tests: integer noise, f64 sines.
"""
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from transformers import WhisperFeatureExtractor

fixtures, out = Path(sys.argv[1]), Path(sys.argv[2])
extractor = WhisperFeatureExtractor(feature_size=128)
tensors = {}


def noise(n):
    """Uniform in -1..1: the upper half of a 32-bit linear congruential generator."""
    state, values = 1, np.empty(n)
    for i in range(n):
        state = (state * 1664525 + 1013904223) % 2**32
        values[i] = (state >> 16) / 32768 - 1
    return values


def voice(n):
    """Ten harmonics that glide and swell, and a little noise."""
    t = np.arange(n) / 16000
    x = 0.01 * noise(n)
    for k in range(1, 11):
        x += 0.3 / k * np.sin(2 * np.pi * k * (140 * t + 8 * np.sin(2.5 * t))) * (0.55 + 0.45 * np.sin(3.1 * t + k))
    return x.astype(np.float32)


def click(n, at):
    x = np.zeros(n, np.float32)
    x[at] = 1.0
    return x


def store(name, mel, keep=20):
    """[128, frames] -> up to `keep` frames: both ends and some between."""
    frames = mel.shape[1]
    at = np.arange(frames)
    if frames > keep:
        some = np.random.default_rng(1).choice(np.arange(6, frames - 6), keep - 12, replace=False)
        at = np.sort(np.concatenate([at[:6], some, at[-6:]]))
    tensors[f"{name}/count"] = np.array([frames], np.int64)
    tensors[f"{name}/at"] = at.astype(np.int64)
    tensors[f"{name}/mel"] = np.ascontiguousarray(mel[:, at].T.astype(np.float32))


def extract(x, length):
    got = extractor(x, sampling_rate=16000, padding="max_length", max_length=length, truncation=False,
                    return_attention_mask=True, return_tensors="np")
    frames = int(got["attention_mask"][0].sum())
    assert frames == -(-len(x) // 160)
    return got["input_features"][0][:, :frames]


def run(name, x):
    length = max(480000, (len(x) + 400 + 159) // 160 * 160)
    mel = extract(x, length)
    if len(x) <= 480000 < length:
        apart = np.abs(mel - extract(x, 480000)).max(0)
        print(f"{name}: without more zeros {np.count_nonzero(apart > 1e-4)} frames differ, by up to {apart.max():.4f}")
    tensors[f"{name}/samples"] = np.array([len(x)], np.int64)
    store(name, mel)


for n in [246, 428, 480, 481, 799, 4824, 16000, 16006, 23041, 48290, 479999, 480000, 487654]:
    run(f"voice/{n}", voice(n))
run("silence/4000", np.zeros(4000, np.float32))
run("click/first", click(3000, 0))
run("click/middle", click(3000, 1500))
# The window that hears this click best is centred past the last frame: its value is the maximum.
run("click/last", click(3036, 3035))
run("noise/8000", noise(8000).astype(np.float32))
square = np.where(np.arange(5000) // 40 % 2 == 0, 1.0, -1.0).astype(np.float32)
run("square/5000", square)
run("loud/5000", 30 * square)

cases = json.loads((fixtures / "refs/preprocess.json").read_text())["cases"]
reference = load_file(fixtures / "refs/preprocess.safetensors")
for case in cases:
    if case["kind"] == "audio":
        store(f"media/{case['name']}", reference[case["mel"]], keep=60)

store("published/tone", load_file(fixtures / "published/audio_ref.safetensors")["input_features"], keep=120)
(out / "audio").mkdir(parents=True, exist_ok=True)
save_file(tensors, out / "audio/mels.safetensors")

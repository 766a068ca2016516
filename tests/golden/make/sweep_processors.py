"""Compares the preprocessing of many folders of processor files with transformers' Auto classes; run by hand.

  cargo build --release -p omniburn-convert --example settings
  python sweep_processors.py SETTINGS_BINARY COUNT SEED CHECKPOINT

CHECKPOINT is a checkpoint of the omni family with towers; its processor files are replaced by files drawn at random: as
transformers 4 and 5 save them, mixed, with fields absent, null and of other values. Compared are limits, means, deviations,
factors and the sound's numbers; and the grids of images and videos of several sizes. transformers 5.23 or later with torch
and torchvision, without which the library refuses every folder. Four folders of five are whole, one is drawn with parts left
out that the library may refuse. Prints what differs, and how many folders of each combination of classes are equal.
"""
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoVideoProcessor  # noqa: E402

transformers.logging.set_verbosity_error()
# The classes whose arithmetic is computed here, by the names that files give them.
IMAGES = ["Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil"]
VIDEOS = ["Qwen3VLVideoProcessor", "Qwen3VLVideoProcessor", "Qwen2VLVideoProcessor"]
SIDES = [(40, 70), (300, 200), (33, 500), (640, 480)]


def image(r):
    d = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
         "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 255, "resample": 3, "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    small, large = r.choice([(1024, 4096), (4096, 16384), (3136, 100352), (65536, 131072)])
    d["size"] = r.choice([{"shortest_edge": small, "longest_edge": large}] * 60 + [None, {"shortest_edge": small}, {"height": 64, "width": 64}, 64])
    if r.random() < 0.3:
        d["min_pixels"] = r.choice([small, 2048, None])
    if r.random() < 0.3:
        d["max_pixels"] = r.choice([large, 32768, None])
    for name in list(d):
        if name not in ("patch_size", "temporal_patch_size", "merge_size") and r.random() < 0.006:
            d[name] = None
        elif name not in ("patch_size", "temporal_patch_size", "merge_size") and r.random() < 0.06:
            del d[name]
    if r.random() < 0.1:
        d["image_mean"] = r.choice([[0.1, 0.2, 0.3], 0.4])
    if r.random() < 0.05:
        d["rescale_factor"] = 1 / 127.5
    for name, value in [("resample", 2), ("do_rescale", False), ("do_normalize", False), ("do_resize", False), ("patch_size", 14), ("do_pad", True),
                        ("do_center_crop", True), ("crop_size", {"height": 8, "width": 8}), ("something", 1)]:
        if r.random() < 0.008:
            d[name] = value
    return d


def draw(r):
    whole = r.random() < 0.8
    i = image(r)
    if whole or r.random() < 0.8:
        i["image_processor_type"] = r.choice(IMAGES)
    v = image(r)
    if whole or r.random() < 0.8:
        v["video_processor_type"] = r.choice(VIDEOS)
    if r.random() < 0.5:
        v.update({"fps": 2, "min_frames": 4, "max_frames": 768, "do_sample_frames": False})
    if r.random() < 0.05:
        v["cap_pixels_per_frame"] = r.choice([True, False, False])
    s = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128, "sampling_rate": 16000, "hop_length": 160, "n_fft": 400, "chunk_length": 30,
         "n_samples": 480000, "nb_max_frames": 3000, "padding_value": 0.0, "padding_side": "right", "dither": 0.0, "return_attention_mask": True}
    if r.random() < 0.1:
        s[r.choice(["sampling_rate", "hop_length", "n_fft"])] = 320
    files = {}
    way = r.random()
    if way < 0.4:
        nested = {"processor_class": "OmniProcessor"}
        for name, value in [("image_processor", i), ("video_processor", v), ("feature_extractor", s)]:
            if whole or r.random() < 0.7:
                nested[name] = value if whole or r.random() < 0.9 else None
        files["processor_config.json"] = nested
    if way > 0.3:
        other = image(r)
        other["image_processor_type"] = r.choice(IMAGES)
        files["preprocessor_config.json"] = {**(i if way >= 0.4 else other), **s}
        if whole or r.random() < 0.5:
            files["video_preprocessor_config.json"] = v
    return files


def theirs(folder):
    out = {}
    ip = AutoImageProcessor.from_pretrained(folder, backend="torchvision")
    out["image"] = resolved(ip)
    out["image"]["grids"] = [ip([np.zeros((h, w, 3), np.uint8)], return_tensors="pt")["image_grid_thw"][0].tolist() for h, w in SIDES]
    vp = AutoVideoProcessor.from_pretrained(folder)
    out["video"] = resolved(vp)
    out["video"]["grids"] = [vp([torch.zeros((4, 3, h, w), dtype=torch.uint8)], do_sample_frames=False, return_tensors="pt")["video_grid_thw"][0].tolist() for h, w in SIDES]
    fe = AutoFeatureExtractor.from_pretrained(folder)
    out["classes"] = " ".join(type(each).__name__ for each in (ip, vp, fe))
    out["audio"] = {"sample_rate_hz": fe.sampling_rate, "fft_samples": fe.n_fft, "hop_samples": fe.hop_length, "mels": fe.feature_size}
    return out


def resolved(p):
    three = lambda x: list(x) if isinstance(x, (list, tuple)) else [x] * 3  # noqa: E731
    steps = [p.do_resize, p.do_rescale, p.do_normalize, int(p.resample)]
    return {"min_pixels": p.size["shortest_edge"], "max_pixels": p.size["longest_edge"], "mean": three(p.image_mean), "std": three(p.image_std),
            "rescale": p.rescale_factor, "steps": steps}


def grid(p, frames, h, w):
    """What the record says, by the rule of its family; Python's round is half to even."""
    f, low, high = p["patch_px"] * p["merge"], p["min_pixels"], p["max_pixels"]
    if p.get("per_frame"):
        counted, scaled = 1, 1
    else:
        counted, scaled = (round(frames / 2) * 2, frames) if frames > 1 else (1, 1)
    a, b = round(h / f) * f, round(w / f) * f
    if counted * a * b > high:
        beta = math.sqrt(scaled * h * w / high)
        a, b = max(f, math.floor(h / beta / f) * f), max(f, math.floor(w / beta / f) * f)
    elif counted * a * b < low:
        beta = math.sqrt(low / (scaled * h * w))
        a, b = math.ceil(h * beta / f) * f, math.ceil(w * beta / f) * f
    return [max(1, frames // 2), a // p["patch_px"], b // p["patch_px"]]


def main():
    binary, count, seed, checkpoint = sys.argv[1:]
    r = random.Random(int(seed))
    classes = Counter()
    program = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    totals, reasons = Counter(), Counter()
    with tempfile.TemporaryDirectory() as tmp:
        folder = os.path.join(tmp, "folder")
        shutil.copytree(checkpoint, folder)
        os.chmod(folder, 0o755)
        names = ["processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"]
        for n in range(int(count)):
            for name in names:
                Path(folder, name).unlink(missing_ok=True)
            files = draw(r)
            for name, content in files.items():
                Path(folder, name).write_text(json.dumps(content))
            program.stdin.write(json.dumps({"source": folder, "texts": []}) + "\n")
            program.stdin.flush()
            ours = json.loads(program.stdout.readline())
            if n % 20 == 19:
                print(n, dict(totals), flush=True)
            try:
                ref = theirs(folder)
            except Exception as error:  # noqa: BLE001
                ref = f"{type(error).__name__}: {error}"[:110]
            if "error" in ours:
                totals["refused by both" if isinstance(ref, str) else "refused here"] += 1
                if not isinstance(ref, str):
                    reasons[ours["error"].split(": ", 1)[1][:120]] += 1
                continue
            if isinstance(ref, str):
                totals["refused there only"] += 1
                reasons["THERE " + ref] += 1
                continue
            bad = []
            for medium, frames in [("image", 1), ("video", 4)]:
                mine, their = ours["preprocess"][medium], dict(ref[medium])
                grids = their.pop("grids")
                if their.pop("steps") != [True, True, True, 3]:
                    bad.append((medium, "steps"))
                for key, value in their.items():
                    if not np.allclose(mine[key], value, rtol=1e-6):
                        bad.append((medium, key, mine[key], value))
                mine_grids = [grid(mine, frames, h, w) for h, w in SIDES]
                if mine_grids != grids:
                    bad.append((medium, mine_grids, grids))
            bad += [("audio", k, ours["preprocess"]["audio"][k], v) for k, v in ref["audio"].items() if ours["preprocess"]["audio"][k] != v]
            totals["differing" if bad else "equal"] += 1
            if not bad:
                classes[ref["classes"]] += 1
            if bad and totals["differing"] <= 4:
                print(json.dumps({"n": n, "bad": bad, "files": files, "notes": ours["notes"]}))
    print(dict(totals))
    for names, n in classes.most_common():
        print("equal", n, names)
    for reason, n in reasons.most_common(30):
        print(n, reason)


main()

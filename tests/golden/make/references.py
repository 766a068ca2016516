"""Copies the small part of the reference set that the media tests need.

  python references.py REFS PUBLISHED OUT

REFS is the folder that the reference scripts write (preprocess.json, preprocess.safetensors, media/, <model>.json),
PUBLISHED the token ids of the published checkpoints. Writes OUT/references.json, OUT/references.safetensors
and OUT/published_ids.json.
"""
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

LEFT_OUT = {"big", "big-published", "clip4"}  # large; the full set has them
ROWS = {"odd": [0, 23], "clip3": [17, 47]}    # rows of pixel_values that are kept


def main(refs, published, out):
    man = json.loads((refs / "preprocess.json").read_text())
    tensors = load_file(refs / "preprocess.safetensors")
    cases, kept = [], {}
    for case in man["cases"]:
        if case["kind"] == "audio" or case["name"] in LEFT_OUT:
            continue
        row = {k: case[k] for k in ("kind", "name", "min_pixels", "max_pixels", "grid_thw")}
        files = case.get("frames") or [case["file"]]
        row["files"] = files
        row["resized"] = []
        for i, frame in enumerate(tensors[case["resized"]]):
            data = io.BytesIO()
            Image.fromarray(frame).save(data, "PNG", optimize=True)
            key = f"{case['name']}/{i}"
            kept[key] = np.frombuffer(data.getvalue(), np.uint8)
            row["resized"].append(key)
        if "pixel_values" in case:
            row["rows"] = ROWS[case["name"]]
            row["pixel_values"] = f"{case['name']}/pixel_values"
            kept[row["pixel_values"]] = np.ascontiguousarray(tensors[case["pixel_values"]][row["rows"]])
        cases.append(row)
    save_file(kept, out / "references.safetensors")

    texts = {t["name"]: t["text"] for t in json.loads((refs / "media" / "media.json").read_text())["texts"]}
    text_ids = {}
    for family in ("omni-small-tiny", "omni-nano-tiny"):
        model = json.loads((refs / f"{family}.json").read_text())
        text_ids[family] = {
            "suffix_ids": model["suffix_ids"],
            "cases": [[c["name"], c["prefix"], c["input_ids"]] for c in model["cases"]
                      if c["kind"] == "text" and c["name"] != "long"],
        }
    rows = {
        "cases": cases,
        "image_size_table": man["image_size_table"]["rows"],
        "video_size_table": man["video_size_table"]["rows"],
        "texts": {k: v for k, v in texts.items() if k != "long"},
        "text_ids": text_ids,
    }
    (out / "references.json").write_text(json.dumps(rows, ensure_ascii=False, separators=(",", ":")) + "\n")

    ids = {}
    for key, name in (("qwen3", "text_fixtures.json"), ("llama3", "text_fixtures_nano.json")):
        records = json.loads((published / name).read_text())["records"]
        ids[key] = [{"text": r["text"], "query": r["query_token_ids"], "passage": r["passage_token_ids"]} for r in records]
    (out / "published_ids.json").write_text(json.dumps(ids, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))

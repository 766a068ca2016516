#!/usr/bin/env python3
"""Servers of embeddings under load, in turns: serve_load.py OMNIBURN FOLDER [--model CHECKPOINT] [--rounds N] [--connections 1,8,32,128]

One model is served by each arm: omniburn (--other PROGRAM: a second build of it), sentence-transformers behind FastAPI (--st PYTHON with
fastapi, uvicorn and sentence-transformers), infinity-emb (--infinity PYTHON that has it). It is CHECKPOINT, or one of all-MiniLM-L6's
shape with random weights and a real WordPiece tokenizer, made in FOLDER. `wrk` asks for one text a request; of the kind `mixed` every eighth is an image, and the model is CLIP of the shape
of ViT-B/32 with random weights, which transformers serves in place of sentence-transformers, and infinity-emb does not. All servers are started, and
each load goes to one after the other, so that what else the machine does falls on all of them. Prints each round, and for each load the
round with most requests a second: requests a second, p50, p95 and p99 in milliseconds. Ends with 1 where an arm gives another vector.
"""
import argparse
import base64
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
MAKE = """
import json, os, sys, torch
from transformers import BertConfig, BertModel, BertTokenizerFast
torch.manual_seed(0)
out, tokenizer = sys.argv[1:]
names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
tok = BertTokenizerFast(tokenizer_file=tokenizer, model_max_length=256, **names)
config = BertConfig(vocab_size=len(tok), hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
BertModel(config).save_pretrained(out)
tok.save_pretrained(out)
# As all-MiniLM-L6-v2 itself is laid out, which every release of sentence-transformers reads.
def put(name, value):
    os.makedirs(os.path.dirname(os.path.join(out, name)), exist_ok=True)
    with open(os.path.join(out, name), "w") as file:
        json.dump(value, file)
kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
put("modules.json", [{"idx": i, "name": str(i), "path": path, "type": "sentence_transformers.models." + kind} for i, (path, kind) in enumerate(kinds)])
put("sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
put("1_Pooling/config.json", {"word_embedding_dimension": 384, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False})
os.makedirs(os.path.join(out, "2_Normalize"), exist_ok=True)
"""
MAKE_CLIP = """
import json, pathlib, shutil, sys, torch
from transformers import CLIPConfig, CLIPModel
torch.manual_seed(0)
out, tiny = map(pathlib.Path, sys.argv[1:])
config = json.loads((tiny / "config.json").read_text())
# Of the shape of ViT-B/32, with the vocabulary of the stored checkpoint.
config["projection_dim"] = 512
config["text_config"] |= {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 12,
    "max_position_embeddings": 77, "projection_dim": 512}
config["vision_config"] |= {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
    "image_size": 224, "patch_size": 32, "projection_dim": 512}
CLIPModel(CLIPConfig(**{name: config[name] for name in ("projection_dim", "text_config", "vision_config")})).save_pretrained(out)
shutil.copy(tiny / "tokenizer.json", out)
for name, change in [("preprocessor_config.json", {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}),
                     ("tokenizer_config.json", {"model_max_length": 77})]:
    (out / name).write_text(json.dumps(json.loads((tiny / name).read_text()) | change))
"""
WORDS = [word for word in (ROOT / "README.md").read_text().split() if word.isalpha() and word.isascii()]
LUA = """
local bodies, at = {{}}, 0
{bodies}
request = function()
  at = at % #bodies + 1
  return wrk.format("POST", "/v1/embeddings", {{["content-type"] = "application/json"}}, bodies[at])
end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('RESULT {{"requests": %d, "us": %d, "p50": %d, "p95": %d, "p99": %d, "failed": %d}}\\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def texts(words):
    """No two are the same among those that are in work at once: what equal inputs save is not measured."""
    return [" ".join([WORDS[(i * 37 + k) % len(WORDS)] for k in range(words - 1)] + [str(1000 + i)]) for i in range(1024)]


def images(count):
    """Samples as base64, no two the same: each with other bytes behind its end."""
    samples = sorted((ROOT / "models/mini/samples").glob("*.jpg"))
    return [base64.b64encode(samples[i % len(samples)].read_bytes() + f"{i}".encode()).decode() for i in range(count)]


def mixed():
    """Seven short texts, an image, and so on."""
    pictures = images(128)
    return [{"image": pictures[i // 8]} if i % 8 == 7 else text for i, text in enumerate(texts(8))]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, path, text, model):
    body = json.dumps({"input": text, "model": model}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"content-type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=60).read())["data"][0]["embedding"]


class Arm:
    def __init__(self, name, command, model):
        self.name, self.command, self.model, self.path, self.process = name, command, model, "/v1/embeddings", None

    def start(self):
        self.port = free_port()
        command = [part.replace("PORT", str(self.port)) for part in self.command]
        # infinity-emb: BetterTransformer is no more, and the first load warms every arm alike.
        settings = {"INFINITY_BETTERTRANSFORMER": "0", "INFINITY_MODEL_WARMUP": "0", "DO_NOT_TRACK": "1"}
        self.process = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.time() + 180
        while time.time() < until:
            try:
                return ask(self.port, self.path, "a red bicycle", self.model)
            except Exception:
                if self.process.poll() is not None:
                    break
                time.sleep(0.2)
        raise SystemExit(f"{self.name} did not begin: {' '.join(command)}")

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def load(self, folder, connections, kind, seconds):
        command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "60s", "-s", str(folder / f"{kind}-{self.model}.lua"),
                   f"http://127.0.0.1:{self.port}"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        line = next(line for line in out.splitlines() if line.startswith("RESULT "))
        result = json.loads(line[7:])
        if result["failed"]:
            raise SystemExit(f"{self.name}, {kind}, {connections} connections: {result['failed']} requests failed")
        return result


# Seconds of a load of short texts; of long ones twice as long, and at more connections than 32 four times, so that each asks often.
SECONDS = 4


def seconds(kind, connections, unit):
    return unit * (2 if kind == "long" else 1) * (4 if kind == "long" and connections > 32 else 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("omniburn")
    parser.add_argument("folder")
    parser.add_argument("--model", help="checkpoint in place of random weights")
    parser.add_argument("--other", help="a second build of omniburn")
    parser.add_argument("--st", help="Python with sentence-transformers, fastapi and uvicorn")
    parser.add_argument("--infinity", help="Python with infinity-emb")
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", default="1,8,32,128")
    parser.add_argument("--kinds", default="short,long", help="short,long or mixed")
    args = parser.parse_args()
    folder = pathlib.Path(args.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    kinds, connections = args.kinds.split(","), [int(n) for n in args.connections.split(",")]
    clip = kinds == ["mixed"]
    if "mixed" in kinds and not clip:
        raise SystemExit("mixed is of another model: a run of its own")
    model = pathlib.Path(args.model or folder / ("clip" if clip else "model")).resolve()
    record = folder / ("clip-record" if clip else "record")
    if not model.exists():
        make = [MAKE_CLIP, model, ROOT / "tests/golden/checkpoints/clip-tiny"] if clip else [MAKE, model, ROOT / "models/mini/record/tokenizer.json"]
        subprocess.run([args.st, "-c", *map(str, make)], check=True)
    if not record.exists():
        subprocess.run([args.omniburn, "convert", str(model), str(record), "--dtype", "f32"], check=True)
    ours = lambda program: [program, "serve", "--port", "PORT", "--model", f"model={record}"]
    arms = [Arm("omniburn", ours(args.omniburn), "model")]
    if args.other:
        arms.append(Arm("omniburn, other", ours(args.other), "model"))
    if args.st:
        arms.append(Arm("sentence-transformers", [args.st, str(HERE / "st_server.py"), str(model), "PORT"], "model"))
    if args.infinity and not clip:
        arms.append(Arm("infinity-emb", [args.infinity, str(HERE / "infinity_server.py"), "v2", "--model-id", str(model), "--served-model-name", "model",
                        "--engine", "torch", "--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", "PORT", "--url-prefix", "/v1",
                        "--batch-size", "64", "--log-level", "warning"], "model"))
    for kind, inputs in [("short", texts(8)), ("long", texts(110)), ("mixed", mixed())]:
        bodies = "\n".join(f"bodies[{i + 1}] = [==[{json.dumps({'input': [one], 'model': 'model'})}]==]" for i, one in enumerate(inputs))
        (folder / f"{kind}-model.lua").write_text(LUA.format(bodies=bodies))
    found, vectors = {}, {}
    try:
        for arm in arms:
            vectors[arm.name] = arm.start()
            for kind in kinds:
                arm.load(folder, 8, kind, 1)
        for turn in range(args.rounds):
            for kind in kinds:
                for n in connections:
                    # Whoever is first in one round is last in another.
                    for arm in arms[turn % len(arms):] + arms[:turn % len(arms)]:
                        result = arm.load(folder, n, kind, seconds(kind, n, args.seconds))
                        found.setdefault((kind, n, arm.name), []).append(result)
                        print(turn, line(kind, n, arm, result), file=sys.stderr, flush=True)
    finally:
        for arm in arms:
            arm.stop()
    for name, vector in vectors.items():
        cosine = sum(a * b for a, b in zip(vector, vectors["omniburn"]))
        print(f"{name}: cosine with omniburn {cosine:.7f}")
        if cosine < 0.9999:
            raise SystemExit(f"{name} serves another model")
    for kind in kinds:
        for n in connections:
            for arm in arms:
                print(line(kind, n, arm, max(found[kind, n, arm.name], key=rate)))


def rate(result):
    return result["requests"] / result["us"] * 1e6


def line(kind, n, arm, result):
    p50, p95, p99 = (result[name] / 1e3 for name in ("p50", "p95", "p99"))
    return f"{kind:5} {n:4} {arm.name:22} {rate(result):8.1f} requests/s  p50 {p50:7.1f}  p95 {p95:7.1f}  p99 {p99:7.1f} ms"


if __name__ == "__main__":
    main()

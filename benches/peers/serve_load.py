#!/usr/bin/env python3
"""Servers of embeddings under load, in turns: serve_load.py OMNIBURN FOLDER [--seconds S] [--rounds N] [--connections 1,8,32,128]

One model of all-MiniLM-L6's shape with random weights and a real WordPiece tokenizer is made in FOLDER and served by each arm: omniburn,
sentence-transformers behind FastAPI (--st PYTHON with fastapi, uvicorn and sentence-transformers), infinity-emb (--infinity PROGRAM).
`wrk` asks for one text a request. Servers run one at a time, a round after the other, so that what else the machine does falls on
all of them. Says the best round of each: requests a second, p50, p95 and p99 in milliseconds. Ends with 1 where an arm gives another
vector.
"""
import argparse
import json
import os
import pathlib
import shutil
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
        self.name, self.command, self.model, self.path = name, command, model, "/v1/embeddings"

    def start(self):
        self.port = free_port()
        command = [part.replace("PORT", str(self.port)) for part in self.command]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("omniburn")
    parser.add_argument("folder")
    parser.add_argument("--st", help="Python with sentence-transformers, fastapi and uvicorn")
    parser.add_argument("--infinity", help="infinity_emb")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", default="1,8,32,128")
    parser.add_argument("--kinds", default="short,long")
    args = parser.parse_args()
    folder = pathlib.Path(args.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    model, record = folder / "model", folder / "record"
    if not model.exists():
        subprocess.run([args.st, "-c", MAKE, str(model), str(ROOT / "models/mini/record/tokenizer.json")], check=True)
    if not record.exists():
        subprocess.run([args.omniburn, "convert", str(model), str(record), "--dtype", "f32"], check=True)
    arms = [Arm("omniburn", [args.omniburn, "serve", "--port", "PORT", "--model", f"model={record}"], "model")]
    if args.st:
        arms.append(Arm("sentence-transformers", [args.st, str(HERE / "st_server.py"), str(model), "PORT"], "model"))
    if args.infinity:
        arms.append(Arm("infinity-emb", [args.infinity, "v2", "--model-id", str(model), "--served-model-name", "model", "--engine", "torch", "--device",
                        "cpu", "--dtype", "float32", "--port", "PORT", "--url-prefix", "/v1", "--no-bettertransformer", "--batch-size", "64"], "model"))
    for kind, words in [("short", 8), ("long", 150)]:
        bodies = "\n".join(f"bodies[{i + 1}] = [==[{json.dumps({'input': text, 'model': 'model'})}]==]" for i, text in enumerate(texts(words)))
        (folder / f"{kind}-model.lua").write_text(LUA.format(bodies=bodies))
    connections = [int(n) for n in args.connections.split(",")]
    found, vectors = {}, {}
    for turn in range(args.rounds):
        for arm in arms:
            vectors[arm.name] = arm.start()
            try:
                for kind in args.kinds.split(","):
                    arm.load(folder, 8, kind, 1)
                    for n in connections:
                        result = arm.load(folder, n, kind, args.seconds)
                        found.setdefault((kind, n, arm.name), []).append(result)
                        print(turn, arm.name, kind, n, result, file=sys.stderr, flush=True)
            finally:
                arm.stop()
    for name, vector in vectors.items():
        cosine = sum(a * b for a, b in zip(vector, vectors["omniburn"]))
        print(f"{name}: cosine with omniburn {cosine:.7f}")
        if cosine < 0.9999:
            raise SystemExit(f"{name} serves another model")
    for kind in args.kinds.split(","):
        for n in connections:
            for arm in arms:
                best = max(found[kind, n, arm.name], key=lambda r: r["requests"] / r["us"])
                rate = best["requests"] / best["us"] * 1e6
                print(f"{kind:5} {n:4} {arm.name:22} {rate:8.1f} requests/s  p50 {best['p50'] / 1e3:7.1f}  p95 {best['p95'] / 1e3:7.1f}  p99 {best['p99'] / 1e3:7.1f} ms")


if __name__ == "__main__":
    main()

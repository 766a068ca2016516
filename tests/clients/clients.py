#!/usr/bin/env python3
"""Published clients against a running server: clients.py PROGRAM RECORDS

PROGRAM is the built command line, RECORDS a folder for records of the stored checkpoints. Each client is used as its own
documentation shows, with nothing but the address changed; what it gives is compared with what `omniburn embed` and `rerank`
print. Exits with 1 at the first difference.
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import cohere
import numpy as np
from huggingface_hub import InferenceClient
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from openai import BadRequestError, NotFoundError, OpenAI

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["a red bicycle", "something to ride", "ein rotes Fahrrad"]
DOCUMENTS = ["a bear of China", "a city in France", "bamboo"]


def lines(program, *args):
    out = subprocess.run([program, *args], check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def vectors(program, *args):
    return [np.array(line["embedding"], dtype=np.float32) for line in lines(program, "embed", *args)]


def numbers(vector):
    """As f32, from numbers or from base64, which is given as it came where a client was asked for it by name."""
    if isinstance(vector, str):
        return np.frombuffer(base64.b64decode(vector), dtype="<f4")
    return np.array(vector, dtype=np.float32)


def same(what, found, want):
    found = [numbers(one) for one in found]
    assert len(found) == len(want), f"{what}: {len(found)} vectors for {len(want)}"
    for one, other in zip(found, want):
        assert np.array_equal(one, other), f"{what}: differs by {np.abs(one - other).max()}"
    print(f"{what}: {len(found)} vectors equal to the bit")


def served(program, *args):
    server = subprocess.Popen([program, "serve", "--port", "0", *args], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if "http://" in line:
            return server, "http://" + line.split("http://")[1].split(";")[0]
    raise SystemExit(f"the server did not begin: {server.wait()}")


def embedding_clients(program):
    server, url = served(program)
    try:
        want = vectors(program, *TEXTS)
        client = OpenAI(base_url=f"{url}/v1", api_key="any")
        for encoding in ["float", "base64", None]:
            asked = {} if encoding is None else {"encoding_format": encoding}
            answer = client.embeddings.create(model="omniburn-mini", input=TEXTS, **asked)
            same(f"openai, {encoding}", [one.embedding for one in answer.data], want)
        assert [model.id for model in client.models.list()] == ["omniburn-mini"]
        for wrong, kind in [({"model": "another"}, NotFoundError), ({"dimensions": 5}, BadRequestError)]:
            try:
                client.embeddings.create(**{"model": "omniburn-mini", "input": "a", **wrong})
                raise AssertionError(f"{wrong} was taken")
            except kind as error:
                print(f"openai, {wrong}: {error.body['message']}")
        samples = ROOT / "models/mini/samples"
        media = {"image": "cat.jpg", "audio": "speech-where-is-my-hammer.mp3", "video": "boat-sailing.mp4"}
        items = [{kind: base64.b64encode((samples / name).read_bytes()).decode()} for kind, name in media.items()]
        answer = client.embeddings.create(model="omniburn-mini", input=items, encoding_format="float")
        same("openai, media", [one.embedding for one in answer.data],
             vectors(program, *[str(samples / name) for name in media.values()]))
        chain = OpenAIEmbeddings(model="omniburn-mini", base_url=f"{url}/v1", api_key="any", check_embedding_ctx_length=False)
        same("langchain-openai", chain.embed_documents(TEXTS), want)
        same("huggingface_hub", [np.array(InferenceClient(url).feature_extraction(text)).reshape(-1) for text in TEXTS], want)
        index = TextEmbeddingsInference(model_name="omniburn-mini", base_url=url, query_instruction=" ", text_instruction=" ")
        found = index.get_text_embedding_batch(TEXTS)
        assert len(found) == len(TEXTS) and all(len(one) == 384 for one in found)
        print("llama-index: text-embeddings-inference answers")
    finally:
        server.terminate()
        assert server.wait(40) == 0, "the server did not end in order"


def rerank_clients(program, records):
    record = records / "bge-reranker-tiny"
    if not record.exists():
        subprocess.run([program, "convert", str(ROOT / "tests/golden/checkpoints/bge-reranker-tiny"), str(record)], check=True,
                       capture_output=True)
    server, url = served(program, "--model", f"reranker={record}")
    try:
        ranked = lines(program, "rerank", "--model", str(record), "what is a panda?", *DOCUMENTS)
        want = [(line["index"], np.float32(line["score"])) for line in ranked]
        for name, client in [("v1", cohere.Client), ("v2", cohere.ClientV2)]:
            client = client(api_key="any", base_url=url)
            answer = client.rerank(model="reranker", query="what is a panda?", documents=DOCUMENTS)
            found = [(one.index, np.float32(one.relevance_score)) for one in answer.results]
            assert found == want, f"cohere {name}: {found} for {want}"
            print(f"cohere {name}: {len(found)} scores equal to the bit")
    finally:
        server.terminate()
        assert server.wait(40) == 0, "the server did not end in order"


def described(program, records, count):
    server, url = served(program)
    try:
        tool = Path(sys.executable).parent / "schemathesis"
        command = [str(tool), "run", f"{url}/openapi.json", "--url", url, "--checks", "not_a_server_error",
                   "--max-examples", str(count), "--phases", "fuzzing", "--seed", "1"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=records)
        print(done.stdout[-600:])
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        server.terminate()
        assert server.wait(40) == 0, "the server did not end in order"


def main():
    program, records = os.path.abspath(sys.argv[1]), Path(sys.argv[2])
    records.mkdir(parents=True, exist_ok=True)
    # An index of its own, and not the user's.
    os.environ["XDG_DATA_HOME"] = str(records.resolve() / "data")
    subprocess.run([program, "index", str(ROOT / "models/mini/samples")], check=True, capture_output=True)
    embedding_clients(program)
    rerank_clients(program, records)
    described(program, records, int(os.environ.get("OMNIBURN_CASES", "40")))


if __name__ == "__main__":
    main()

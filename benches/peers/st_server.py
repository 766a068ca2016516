"""sentence-transformers behind FastAPI with dynamic batching, as people build it: st_server.py MODEL PORT

Requests that wait are encoded together, at most 64 inputs a pass; a pass begins as soon as the one before has ended. The answer has
OpenAI's shape, with numbers. A checkpoint of CLIP is run by transformers itself, and takes {"image": BASE64} beside texts.
"""
import asyncio
import base64
import io
import json
import pathlib
import sys

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

MOST = 64
CLIP = json.loads((pathlib.Path(sys.argv[1]) / "config.json").read_text())["model_type"] == "clip"
if CLIP:
    from PIL import Image
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    model = CLIPModel.from_pretrained(sys.argv[1]).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(sys.argv[1]), CLIPImageProcessor.from_pretrained(sys.argv[1])
else:
    model = SentenceTransformer(sys.argv[1], device="cpu")
app = FastAPI()
waiting = asyncio.Queue()


class Body(BaseModel):
    input: list[str | dict] | str
    model: str = ""


def encode(texts):
    with torch.inference_mode():
        if CLIP:
            return encode_clip(texts)
        return model.encode(texts, batch_size=MOST, normalize_embeddings=True, show_progress_bar=False)


def encode_clip(inputs):
    """Texts in one pass and images in another, as lists of unit vectors in the order of the inputs."""
    vectors = [None] * len(inputs)
    texts = [i for i, one in enumerate(inputs) if isinstance(one, str)]
    images = [i for i, one in enumerate(inputs) if not isinstance(one, str)]
    if texts:
        features = model.get_text_features(**tokenizer([inputs[i] for i in texts], padding=True, truncation=True, return_tensors="pt"))
        put(vectors, texts, features)
    if images:
        pixels = [Image.open(io.BytesIO(base64.b64decode(inputs[i]["image"]))).convert("RGB") for i in images]
        put(vectors, images, model.get_image_features(**processor(pixels, return_tensors="pt")))
    return vectors


def put(vectors, places, features):
    features = getattr(features, "pooler_output", features)
    for place, vector in zip(places, torch.nn.functional.normalize(features, dim=-1)):
        vectors[place] = vector


async def work():
    while True:
        batch = [await waiting.get()]
        while not waiting.empty() and sum(len(texts) for texts, _ in batch) < MOST:
            batch.append(waiting.get_nowait())
        texts = [text for texts, _ in batch for text in texts]
        # The event loop takes requests meanwhile.
        vectors = await asyncio.to_thread(encode, texts)
        at = 0
        for texts, answer in batch:
            if not answer.cancelled():
                answer.set_result(vectors[at:at + len(texts)])
            at += len(texts)


@app.on_event("startup")
async def start():
    app.state.work = asyncio.create_task(work())


@app.post("/v1/embeddings")
async def embeddings(body: Body):
    texts = [body.input] if isinstance(body.input, str) else body.input
    answer = asyncio.get_running_loop().create_future()
    await waiting.put((texts, answer))
    vectors = await answer
    data = [{"object": "embedding", "index": i, "embedding": v.tolist()} for i, v in enumerate(vectors)]
    return JSONResponse({"object": "list", "data": data, "model": body.model})


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)

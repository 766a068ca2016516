"""sentence-transformers behind FastAPI with dynamic batching, as people build it: st_server.py MODEL PORT

Requests that wait are encoded together, at most 64 texts a pass; a pass begins as soon as the one before has ended. The answer has
OpenAI's shape, with numbers.
"""
import asyncio
import sys

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

MOST = 64
model = SentenceTransformer(sys.argv[1], device="cpu")
app = FastAPI()
waiting = asyncio.Queue()


class Body(BaseModel):
    input: list[str] | str
    model: str = ""


def encode(texts):
    with torch.inference_mode():
        return model.encode(texts, batch_size=MOST, normalize_embeddings=True, show_progress_bar=False)


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

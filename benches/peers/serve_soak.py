#!/usr/bin/env python3
"""The server under strain: serve_soak.py OMNIBURN FOLDER [quick] [overload] [drops] [--images N] [--seconds S] [--requests N]

quick     p95 of /v1/search alone, and while N images are indexed and 32 clients embed in the background class
overload  ten times the calls that are taken at once, for S seconds: how soon the excess is refused, p50 before, and 2 s after it
drops     N requests whose clients go away at any moment: threads, descriptors and memory before and after
All of them where none is named. Only what CPython has is needed. Linux, for the figures of the process.
"""
import argparse
import asyncio
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "models/mini/samples"


class Server:
    def __init__(self, program, folder, *args):
        self.environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data")}
        self.process = subprocess.Popen([program, "serve", "--port", "0", *args], env=self.environment, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "http://" in line:
                self.port = int(line.split("http://")[1].split(";")[0].rsplit(":", 1)[1])
                break
        else:
            raise SystemExit(f"the server did not begin: {self.process.wait()}")
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()

    def figures(self):
        folder = pathlib.Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return {"threads": int(status["Threads"]), "descriptors": len(os.listdir(folder / "fd")),
                "anonymous_mib": int(status["RssAnon"].split()[0]) // 1024, "peak_mib": int(status["VmHWM"].split()[0]) // 1024}

    def stop(self):
        self.process.terminate()
        self.process.wait(40)


def encoded(method, path, body=None, priority=None):
    data = b"" if body is None else json.dumps(body).encode()
    extra = f"x-omniburn-priority: {priority}\r\n" if priority else ""
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{extra}content-length: {len(data)}\r\n\r\n".encode() + data


class Client:
    """One connection that is kept."""

    def __init__(self, port):
        self.port, self.streams = port, None

    async def ask(self, request):
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        return status, await reader.readexactly(length)

    def close(self):
        if self.streams:
            self.streams[1].close()


def quantile(times, share):
    times = sorted(times)
    return 1e3 * times[min(len(times) - 1, int(share * len(times)))] if times else float("nan")


QUERIES = ["a ship under sail", "a red bicycle", "an animal with stripes", "a drink for breakfast", "a musical instrument", "a harbour", "coffee", "music"]


async def searches(port, count, until=None):
    client, times = Client(port), []
    while len(times) < count and (until is None or not until.is_set()):
        query = f"{QUERIES[len(times) % len(QUERIES)]} {len(times)}"
        begun = time.perf_counter()
        status, body = await client.ask(encoded("POST", "/v1/search", {"query": query, "n": 10}))
        assert status == 200, body
        times.append(time.perf_counter() - begun)
        await asyncio.sleep(0.02)
    client.close()
    return times


def press(port, stop, answers):
    """32 clients in a process of their own, so that who searches does not wait for a turn among them."""
    done = {}

    async def all_of_them():
        await asyncio.gather(*[background(port, stop, done) for _ in range(32)])

    asyncio.run(all_of_them())
    answers.put(done)


async def background(port, stop, done):
    client = Client(port)
    while not stop.is_set():
        texts = [f"a text of a dozen words or so that somebody embeds in the background, {random.random()}" for _ in range(4)]
        request = encoded("POST", "/v1/embeddings", {"input": texts}, "background")
        status, _ = await client.ask(request)
        done[status] = done.get(status, 0) + 1
    client.close()


async def quick(server, folder, files, images):
    await searches(server.port, 20)
    idle = await searches(server.port, 200)
    sources = [path for path in SAMPLES.iterdir() if path.suffix in (".jpg", ".png")]
    # Other bytes than any before, behind the end of the image.
    for i in range(images):
        source = sources[i % len(sources)]
        (files / f"new-{i}{source.suffix}").write_bytes(source.read_bytes() + f"{i}".encode())
    context = multiprocessing.get_context("spawn")
    stop, answers = context.Event(), context.Queue()
    clients = context.Process(target=press, args=(server.port, stop, answers))
    clients.start()
    asked, begun = Client(server.port), time.perf_counter()
    busy, left = [], images
    # So many seconds at most: a machine that is slow takes two for an image.
    while left and time.perf_counter() - begun < max(300, 6 * images):
        busy += await searches(server.port, 25)
        status, body = await asked.ask(encoded("GET", "/v1/index"))
        held = json.loads(body)["files"].get("image", 0)
        left = max(0, images + len(sources) - held)
    took = time.perf_counter() - begun
    stop.set()
    done = answers.get(timeout=60)
    clients.join()
    asked.close()
    print(json.dumps({"case": "quick", "idle_p50_ms": round(quantile(idle, 0.5), 2), "idle_p95_ms": round(quantile(idle, 0.95), 2),
                      "busy_p50_ms": round(quantile(busy, 0.5), 2), "busy_p95_ms": round(quantile(busy, 0.95), 2), "busy_searches": len(busy),
                      "images": images, "not_yet_indexed": left, "seconds": round(took, 1), "background_answers": done}), flush=True)


async def overload(server, seconds, taken):
    numbers = iter(range(1 << 40))
    # No two texts are the same: equal ones would be computed once.
    one = lambda: encoded("POST", "/v1/embeddings", {"input": [f"{next(numbers)} " + "word " * 60 for _ in range(8)]})
    small = encoded("POST", "/v1/embeddings", {"input": "a red bicycle"})

    async def p50():
        client, times = Client(server.port), []
        for _ in range(40):
            begun = time.perf_counter()
            status, body = await client.ask(small)
            times.append(time.perf_counter() - begun)
            assert status == 200, body
        client.close()
        return quantile(times, 0.5)

    before = await p50()
    until, counts, refused, accepted = time.perf_counter() + seconds, {}, [], []

    async def press():
        client = Client(server.port)
        while time.perf_counter() < until:
            begun = time.perf_counter()
            status, _ = await client.ask(one())
            counts[status] = counts.get(status, 0) + 1
            (accepted if status == 200 else refused).append(time.perf_counter() - begun)
            # A client that is refused comes back a little later; at once it would only measure itself.
            await asyncio.sleep(0.05 if status == 429 else 0)
        client.close()

    await asyncio.gather(*[press() for _ in range(10 * taken)])
    ended = time.perf_counter()
    after = await p50()
    while after > 1.5 * before and time.perf_counter() - ended < 10:
        after = await p50()
    print(json.dumps({"case": "overload", "seconds": seconds, "taken_at_once": taken, "clients": 10 * taken, "statuses": counts,
                      "refused_p50_ms": round(quantile(refused, 0.5), 2), "refused_p95_ms": round(quantile(refused, 0.95), 2),
                      "accepted_p50_ms": round(quantile(accepted, 0.5), 1), "accepted_p99_ms": round(quantile(accepted, 0.99), 1),
                      "p50_before_ms": round(before, 2), "p50_after_ms": round(after, 2), "after_s": round(time.perf_counter() - ended, 2),
                      **server.figures()}), flush=True)


async def drops(server, count):
    request = encoded("POST", "/v1/embeddings", {"input": ["many words of a long text " * 12] * 2, "truncate": True})

    async def some(count, seed):
        dice = random.Random(seed)
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request[:dice.choice([10, len(request) // 2, len(request), len(request)])])
            try:
                await asyncio.wait_for(reader.read(1), dice.random() * 0.02)
            except (asyncio.TimeoutError, ConnectionError):
                pass
            writer.transport.abort()

    await asyncio.gather(*[some(max(1, count // 320), seed) for seed in range(32)])
    await asyncio.sleep(2)
    before, begun = server.figures(), time.perf_counter()
    await asyncio.gather(*[some(count // 32, seed) for seed in range(32)])
    took = time.perf_counter() - begun
    await asyncio.sleep(12)
    print(json.dumps({"case": "drops", "requests": count // 32 * 32, "seconds": round(took, 1), "before": before, "after": server.figures()}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("omniburn")
    parser.add_argument("folder")
    parser.add_argument("cases", nargs="*", choices=["quick", "overload", "drops"], default=[])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--requests", type=int, default=10000)
    args = parser.parse_args()
    program, folder = os.path.abspath(args.omniburn), pathlib.Path(args.folder).resolve()
    cases = args.cases or ["quick", "overload", "drops"]
    shutil.rmtree(folder, ignore_errors=True)
    files = folder / "files"
    files.mkdir(parents=True)
    for source in SAMPLES.iterdir():
        if source.suffix in (".jpg", ".png", ".txt"):
            shutil.copy(source, files)
    environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data")}
    subprocess.run([program, "index", str(files), "--quiet"], check=True, env=environment, stdout=subprocess.DEVNULL)
    for case in cases:
        server = Server(program, folder, *(["--max-queue", "32"] if case == "overload" else []))
        try:
            if case == "quick":
                asyncio.run(quick(server, folder, files, args.images))
            elif case == "overload":
                asyncio.run(overload(server, args.seconds, 32))
            else:
                asyncio.run(drops(server, args.requests))
        finally:
            server.stop()


if __name__ == "__main__":
    main()

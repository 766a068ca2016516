#!/usr/bin/env python3
"""What qdrant-edge keeps when it is killed: qdrant_kills.py KILLS

A process puts points in batches of 64 into a shard and names each batch once `update` came back; it is killed with SIGKILL at a
random moment, and the next one goes on. After each kill the shard is opened and every named point is read, with its vector.
Also the calls that `nearest.py` makes. Needs qdrant-edge-py 0.9.0 and numpy.
"""
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy
from qdrant_edge import (Distance, EdgeConfig, EdgeOptimizersConfig, EdgeShard, EdgeVectorParams, FieldCondition, Filter,
                         PayloadSchemaType, Point, Query, QueryRequest, RangeFloat, SearchParams,
                         UpdateOperation)

DIM, BATCH = 384, 64


def begun(path, dim):
    path.mkdir(parents=True)
    # No graph: the search is exact, and none is built.
    optimizers = EdgeOptimizersConfig(indexing_threshold=1 << 40)
    shard = EdgeShard.create(str(path), EdgeConfig(vectors=EdgeVectorParams(dim, Distance.Dot), optimizers=optimizers))
    shard.update(UpdateOperation.create_field_index("pick", PayloadSchemaType.Integer))
    return shard


def opened(path):
    return EdgeShard.load(str(path))


def put(shard, rows):
    shard.update(UpdateOperation.upsert_points([Point(id, vector, {"pick": pick}) for id, vector, pick in rows]))


def best(shard, query, limit, below):
    allowed = Filter(must=[FieldCondition("pick", range=RangeFloat(lt=below))]) if below is not None else None
    request = QueryRequest(limit, query=Query.Nearest(query), filter=allowed, params=SearchParams(exact=True))
    return [point.id for point in shard.query(request)]


def vector(id):
    return numpy.random.default_rng(id).standard_normal(DIM, dtype=numpy.float32)


def write(path, first):
    shard = opened(path) if path.exists() else begun(path, DIM)
    print("open", flush=True)
    at = first
    while True:
        put(shard, [(id, vector(id).tolist(), id % 100) for id in range(at, at + BATCH)])
        at += BATCH
        print(at, flush=True)


def kills(count):
    folder = pathlib.Path(tempfile.mkdtemp())
    path, named, failed = folder / "shard", 0, []
    rng = random.Random(5)
    for kill in range(count):
        child = subprocess.Popen([sys.executable, __file__, "write", path, str(named)], stdout=subprocess.PIPE, text=True)
        if child.stdout.readline() != "open\n":
            failed.append((kill, "does not open"))
            break
        time.sleep(0.6 * rng.random())
        child.send_signal(signal.SIGKILL)
        lines = child.stdout.read().splitlines()
        child.wait()
        named = int(lines[-1]) if lines else named
        shard = opened(path)
        # The newest batches and some of the others.
        ids = sorted({*range(max(0, named - 4 * BATCH), named), *(rng.randrange(named) for _ in range(64 if named else 0))})
        there = {point.id: point.vector for point in shard.retrieve(ids, False, True)}
        lost = [id for id in ids if id not in there or not numpy.array_equal(numpy.float32(there[id]), vector(id))]
        if lost:
            failed.append((kill, f"{len(lost)} of {len(ids)} points lost or changed, from {lost[0]}"))
            named = lost[0]
        shard.close()
    print(f"{count} kills, {named} points, {len(failed)} failed: {failed[:5]}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(pathlib.Path(sys.argv[2]), int(sys.argv[3]))
    else:
        kills(int(sys.argv[1]))

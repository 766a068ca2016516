"""What an arm says and hears: one JSON object a line.

    hears  {"case": "text:16x128", "runs": 3, "warm_up": 1}     says  {"ms": [1.0, 1.1, 0.9]}  or  {"error": "why"}
    hears  the same with "vectors": true                        says  the vectors of the last run beside the times, where it
                                                                      gives them away; ours also "texts", those of the case
    hears  that with "texts": ["a b c", ...]                          an arm that takes texts takes these
    hears  {"peak": true}                                       says  {"matmul_f32_gflops": ..., ...}
The first line it says, once everything is loaded: {"ready": "torch 2.15.0"}. It ends with its standard input.
"""
import json
import os
import sys
import time


def parse(case):
    """A kind of input and its numbers: text count x tokens, image width x height, images count x side, audio seconds, video
    frames x width x height."""
    kind, size = case.split(":")
    if kind == "audio":
        return kind, (float(size.removesuffix("s")),)
    numbers = tuple(int(n) for n in size.split("x"))
    if kind == "image" and len(numbers) == 1:
        numbers *= 2
    if kind == "video" and len(numbers) == 2:
        numbers = (numbers[0], numbers[1], numbers[1])
    return kind, numbers


def serve(name, make, peak=lambda: {"error": "this arm measures no peak"}):
    """`make(kind, numbers, texts)` gives what runs a case once, from its input to its vectors, which it may give away."""
    # What libraries print, those in C++ too, must not stand between our lines.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cases = {}

    def say(**line):
        print(json.dumps(line), file=out, flush=True)

    say(ready=name)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked.get("peak"):
                say(**peak())
                continue
            case = asked["case"]
            if case not in cases:
                cases[case] = make(*parse(case), asked.get("texts"))
            run, ms, found = cases[case], [], None
            for n in range(asked.get("warm_up", 0) + asked["runs"]):
                started = time.perf_counter()
                found = run()
                if n >= asked.get("warm_up", 0):
                    ms.append((time.perf_counter() - started) * 1e3)
            more = {"vectors": found.tolist()} if asked.get("vectors") and found is not None else {}
            say(ms=ms, **more)
        except Exception as e:  # the other cases go on
            say(error=f"{type(e).__name__}: {e}".splitlines()[0][:300])

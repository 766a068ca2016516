"""Several hundred small H.264 files of every kind of clock and cut, each frame against FFmpeg's. Not run by tests.

  python sweep_videos.py FOLDER video_sweep [SEED] [COUNT]

writes files below FOLDER (settings of x264 by muxers by offsets and cuts, chosen by the seed), asks FFmpeg for each frame
and its time, and `video_sweep` (cargo build --release -p omniburn-media --example video_sweep) for the frame at each of
those times and for 8 and 5 evenly spaced ones. A frame is equal when every byte of its RGB is the one that videos.py's
formula makes of FFmpeg's planes. Where FFmpeg finds packets without a time, as in Matroska whose times lie before zero, its
own times are guesses, and the file counts apart. Needs ffmpeg, ffprobe and mkvmerge on the path. Prints a line for each file that differs
or is refused, and the counts.
"""
import collections
import json
import random
import subprocess
import sys
import types
import zlib
from pathlib import Path

import numpy as np

OUT = Path(sys.argv[1])
PROGRAM = sys.argv[2]
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 1
COUNT = int(sys.argv[4]) if len(sys.argv) > 4 else 400
W, H = 96, 64

sys.modules.setdefault("imageio_ffmpeg", types.SimpleNamespace(get_ffmpeg_exe=lambda: "ffmpeg"))
import videos  # noqa: E402

SETTINGS = {
    "plain": "keyint=12:min-keyint=12:bframes=3:b-pyramid=2:ref=4:scenecut=0",
    "open": "keyint=12:min-keyint=6:open-gop=1:bframes=3:b-pyramid=2:ref=4:scenecut=0",
    "open_strict": "keyint=8:min-keyint=4:open-gop=1:bframes=2:b-pyramid=1:ref=2:scenecut=0",
    "open5": "keyint=15:min-keyint=8:open-gop=1:bframes=5:b-adapt=0:b-pyramid=2:ref=6:weightp=2",
    "nob": "keyint=10:bframes=0:ref=1",
    "refresh": "keyint=10:intra-refresh=1:bframes=0:ref=1",
    "refresh_b": "keyint=12:intra-refresh=1:bframes=2:ref=3",
    "long": "keyint=infinite:bframes=3:ref=3:scenecut=40",
    "scenecut": "keyint=20:min-keyint=10:scenecut=80:bframes=2:ref=3",
    "intra": "keyint=1",
    "slices": "keyint=12:open-gop=1:bframes=2:slices=3:ref=2",
    "interlaced": "keyint=12:bframes=2:tff=1:open-gop=1",
}
MUXERS = {
    "mp4": ("mp4", []),
    "mp4_fast": ("mp4", ["-movflags", "+faststart"]),
    "mp4_negative": ("mp4", ["-movflags", "+negative_cts_offsets"]),
    "mp4_noedit": ("mp4", ["-use_editlist", "0"]),
    "mp4_scale": ("mp4", ["-video_track_timescale", "90000"]),
    "mp4_scale1001": ("mp4", ["-video_track_timescale", "30000"]),
    "frag": ("mp4", ["-movflags", "+frag_keyframe"]),
    "frag_empty": ("mp4", ["-movflags", "+frag_keyframe+empty_moov"]),
    "frag_base": ("mp4", ["-movflags", "+frag_keyframe+empty_moov+default_base_moof"]),
    "frag_omit": ("mp4", ["-movflags", "+frag_keyframe+empty_moov+omit_tfhd_offset"]),
    "frag_every": ("mp4", ["-movflags", "+frag_every_frame+empty_moov"]),
    "frag_delay": ("mp4", ["-movflags", "+frag_keyframe+delay_moov"]),
    "frag_negative": ("mp4", ["-movflags", "+frag_keyframe+empty_moov+negative_cts_offsets"]),
    "frag_separate": ("mp4", ["-movflags", "+frag_keyframe+empty_moov+separate_moof"]),
    "cmaf": ("mp4", ["-movflags", "+cmaf+frag_keyframe"]),
    "dash": ("mp4", ["-movflags", "+dash+frag_keyframe"]),
    "sidx": ("mp4", ["-movflags", "+frag_keyframe+empty_moov+global_sidx+default_base_moof"]),
    "hybrid": ("mp4", ["-movflags", "+frag_keyframe+delay_moov+skip_sidx"]),
    "mov": ("mov", []),
    "mov_fast": ("mov", ["-movflags", "+faststart"]),
    "mkv": ("matroska", []),
    "mkv_live": ("matroska", ["-live", "1"]),
    "mkv_clusters": ("matroska", ["-cluster_time_limit", "200"]),
    "mkv_reserve": ("matroska", ["-reserve_index_space", "2000", "-cues_to_front", "1"]),
    "ismv": ("ismv", []),
    "mkvmerge": ("mkvmerge", []),
    "mkvmerge_scale": ("mkvmerge", ["--timestamp-scale", "100000"]),
    "mkvmerge_scale2": ("mkvmerge", ["--timestamp-scale", "333333"]),
    "mkvmerge_late": ("mkvmerge", ["--sync", "0:100000"]),
    "mkvmerge_split": ("mkvmerge", ["--cluster-length", "3", "--cues", "0:none"]),
    "mkvmerge_durations": ("mkvmerge", ["--default-duration", "0:24p"]),
}


def offsets(rng, length):
    cut = f"{rng.uniform(0.05, length * 0.7):.3f}"
    kind = rng.choice(["none", "none", "output", "its", "cut", "cut", "cut_after", "cut_copyts", "negative", "zero", "to"])
    return {
        "none": ([], []),
        "output": ([], ["-output_ts_offset", rng.choice(["1000", "100", "0.5", "3.337", "-0.2"])]),
        "its": (["-itsoffset", rng.choice(["1000", "7.25", "0.1"])], []),
        "cut": (["-ss", cut], []),
        "cut_after": ([], ["-ss", cut]),
        "cut_copyts": (["-ss", cut], ["-copyts"]),
        "negative": (["-ss", cut], ["-avoid_negative_ts", "disabled"]),
        "zero": (["-ss", cut], ["-avoid_negative_ts", "make_zero"]),
        "to": (["-ss", cut], ["-t", "0.9"]),
    }[kind], kind + "_" + cut


def run(*args):
    return subprocess.run(list(map(str, args)), capture_output=True)


def make():
    rng = random.Random(SEED)
    bases = []
    frames = videos.scene(W, H, 60, seed=SEED).copy()
    # A cut in the scene.
    frames[33:] = 255 - frames[33:]
    for name, params in SETTINGS.items():
        for rate, vfr in (("25", False), ("30000/1001", False), ("25", True)):
            if vfr and name not in ("plain", "open", "nob"):
                continue
            path = OUT / f"base_{name}_{rate.replace('/', '-')}{'_vfr' if vfr else ''}.mkv"
            command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{W}x{H}", "-r", rate, "-i", "-"]
            if vfr:
                command += ["-vf", "select='not(between(n,5,9)+between(n,20,21)+eq(n,30))'", "-vsync", "vfr"]
            command += ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-x264-params", "threads=1:crf=30:" + params]
            if "tff" in params:
                command += ["-flags", "+ildct+ilme"]
            done = subprocess.run([*command, path], input=frames.tobytes(), capture_output=True)
            assert done.returncode == 0, done.stderr
            bases.append((path, 60 / (25 if rate == "25" else 29.97)))
    made = []
    for n in range(COUNT):
        base, length = bases[n % len(bases)] if n < len(bases) else rng.choice(bases)
        muxer = list(MUXERS)[n % len(MUXERS)]
        form, extra = MUXERS[muxer]
        (before, after), name = offsets(rng, length)
        ending = {"mp4": "mp4", "ismv": "mp4", "mov": "mov"}.get(form, "mkv")
        path = OUT / f"{n:04}_{base.stem[5:]}_{muxer}_{name}.{ending}"
        strip = rng.random() < 0.06
        filters = ["-bsf:v", "filter_units=remove_types=6"] if strip else []
        if strip:
            path = path.with_name("nosei_" + path.name)
        if form == "mkvmerge":
            part = OUT / "part.mkv"
            done = run("ffmpeg", "-v", "error", "-y", *before, "-i", base, "-c", "copy", *filters, *after, "-f", "matroska", part)
            if done.returncode == 0:
                run("mkvmerge", "-q", *extra, "-o", path, part)
        else:
            run("ffmpeg", "-v", "error", "-y", *before, "-i", base, "-c", "copy", *filters, *after, *extra, "-f", form, path)
        if path.exists() and path.stat().st_size > 600:
            made.append(path)
        else:
            path.unlink(missing_ok=True)
    return made


def reference(path):
    raw = OUT / "reference.yuv"
    done = run("ffmpeg", "-v", "error", "-y", "-copyts", "-noautorotate", "-i", path, "-map", "0:v:0", "-vsync", "passthrough",
               "-enc_time_base", "-1", "-f", "framecrc", "-", "-map", "0:v:0", "-vsync", "passthrough", "-pix_fmt", "yuv420p",
               "-f", "rawvideo", raw)
    times, base, last = [], 0, 0
    for line in done.stdout.decode().splitlines():
        if line.startswith("#tb 0:"):
            num, den = map(int, line.split()[2].split("/"))
            base = num / den
        elif not line.startswith("#"):
            times.append(int(line.split(",")[2]) * base)
            last = int(line.split(",")[3]) * base
    size = W * H * 3 // 2
    data = np.fromfile(raw, np.uint8) if raw.exists() else np.zeros(0, np.uint8)
    data = data[:len(data) // size * size].reshape(-1, size)
    sums = []
    for flat in data:
        y, u, v = flat[:W * H].reshape(H, W), flat[W * H:W * H * 5 // 4].reshape(H // 2, W // 2), flat[W * H * 5 // 4:].reshape(H // 2, W // 2)
        sums.append(zlib.crc32(np.ascontiguousarray(videos.rgb(y, u, v, W, H)).tobytes()))
    return times, last, sums


def untimed(path):
    done = run("ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "packet=pts", "-of", "csv=p=0", path)
    return b"N/A" in done.stdout


def check(path, found, times, last, sums):
    """Words for what differs; none where nothing does."""
    if len(times) != len(sums):
        return f"reference: {len(times)} times, {len(sums)} frames"
    length, at, eight, five = float(found[1]), *([int(s) for s in part.split(",") if s] for part in found[2:5])
    order = sorted(range(len(times)), key=lambda i: times[i])
    start = times[order[0]]
    wanted = [sums[i] for i in order]
    begins = [times[i] - start for i in order]
    if at != wanted:
        bad = [i for i, (a, b) in enumerate(zip(at, wanted)) if a != b]
        return f"{len(bad)} of {len(wanted)} frames differ, first at {begins[bad[0]]:.3f}"
    end = begins[-1] + last
    if abs(end - length) > 0.0021 + (0.05 if last == 0 else 0):
        return f"length {length:.4f}, expected {end:.4f}"
    for n, got in ((8, eight), (5, five)):
        for i, crc in enumerate(got):
            near = [length * (i + 0.5) / n + d for d in (-0.0021, 0, 0.0021)]
            allowed = {wanted[max(0, sum(b <= t for b in begins) - 1)] for t in near}
            if crc not in allowed:
                return f"frame {i} of {n} is another one"
    return None


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    made = make()
    print(len(made), "files", flush=True)
    references = {}
    asked = []
    for path in made:
        times, last, sums = reference(path)
        references[str(path)] = (times, last, sums)
        ordered = sorted(times)
        asked.append(str(path) + "\t" + ",".join(f"{t - ordered[0] + 1e-6:.7f}" for t in ordered))
    done = subprocess.run([PROGRAM], input="\n".join(asked).encode(), capture_output=True)
    counts = collections.Counter()
    for line in done.stdout.decode().splitlines():
        found = line.split("\t")
        times, last, sums = references[found[0]]
        form = found[0].rsplit(".", 1)[1]
        name = Path(found[0]).name
        if found[1] == "error":
            verdict = "nothing to show in either" if not sums else "refused"
            if sums:
                print(f"REFUSED {name}: {found[2]}: {found[3]} (FFmpeg shows {len(sums)} frames)")
        elif not sums:
            verdict = "differs"
            print(f"DIFFERS {name}: FFmpeg shows nothing")
        else:
            words = check(found[0], found, times, last, sums)
            verdict = "equal" if not words else "without times in FFmpeg" if untimed(found[0]) else "differs"
            if verdict == "differs":
                print(f"DIFFERS {name}: {words}")
        counts[form, verdict] += 1
    print(dict(counts), done.stderr.decode()[-300:])


main()

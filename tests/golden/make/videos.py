"""Small H.264 films in the containers and kinds that are read, and what FFmpeg makes of every picture.

  python videos.py [OUT]

writes below OUT (tests/golden/media/videos): the films, `videos.json` with the expected pictures, and `scaled.json`. Films
are made by the FFmpeg 9.0.2 of imageio-ffmpeg with libx264 from frames that are computed here.

For each film `videos.json` has the sides, and for each picture in the order of showing its start as [ticks, ticks a second]
and the CRC-32 of its packed RGB. Pictures are FFmpeg's planes (`-noautorotate`, raw video). RGB is computed here from them
in whole numbers by the formula in crates/media/src/video/yuv.rs, so it is exact; turned films are turned here with numpy,
and the luma of the turn is compared with FFmpeg's own autorotation.

`scaled.png` is the first picture of `high.mp4` as FFmpeg's scaler converts it by itself (8 fractional bits in its filters), for a
comparison within two levels. `listed-N.png` are the pictures of `high.mp4` shown in the middle of each quarter, converted as
FFmpeg does by default.
"""
import json
import subprocess
import sys
import zlib
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/media/videos")
EXACT = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", "-map_metadata", "-1"]


def run(*args, data=None):
    done = subprocess.run([FFMPEG, "-v", "error", "-nostdin", "-y", *map(str, args)], input=data, capture_output=True)
    if data is not None and done.returncode:
        raise SystemExit(done.stderr.decode())
    if done.returncode:
        raise SystemExit(f"{args}\n{done.stderr.decode()}")
    return done.stdout


def scene(w, h, n, seed=1):
    """Colour gradients that move, a square that moves faster, and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    frames = []
    for t in range(n):
        rgb = np.stack([127.5 + 110 * np.sin(x * a + y * b + t * c) for a, b, c in
                        [(0.05, 0.02, 0.21), (-0.03, 0.06, 0.13), (0.02, -0.045, 0.17)]], -1)
        left, top = (t * 5) % (w - 24), (t * 3) % (h - 24)
        rgb[top:top + 24, left:left + 24] = [[230, 40, 60], [30, 200, 80], [240, 220, 20]][t // 7 % 3]
        rgb += rng.normal(0, 3, rgb.shape)
        frames.append(np.clip(np.rint(rgb), 0, 255).astype(np.uint8))
    return np.stack(frames)


def encode(name, w=176, h=144, n=40, rate=25, params="", extra=(), vf=None, pix="yuv420p", sound=False, seed=1, mux=()):
    base = "threads=1:keyint=12:min-keyint=12:scenecut=0:bframes=3:b-pyramid=2:ref=4:crf=30"
    inputs = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{w}x{h}", "-r", rate, "-i", "-"]
    if sound:
        inputs += ["-f", "lavfi", "-i", f"sine=440:duration={n / rate}"]
    args = [*inputs, "-c:v", "libx264", "-pix_fmt", pix, "-x264-params", base + (":" + params if params else "")]
    if vf:
        args += ["-vf", vf]
    args += ["-c:a", "aac", "-b:a", "32k"] if sound else []
    run_input(args + [*extra, *EXACT, *mux, OUT / name], scene(w, h, n, seed).tobytes())


def run_input(args, data):
    command = [FFMPEG, "-v", "error", "-y", *map(str, args)]
    done = subprocess.run(command, input=data, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stderr.decode()}")


def copy(name, source, before=(), after=()):
    run(*before, "-i", OUT / source, "-c", "copy", *after, *EXACT, OUT / name)


def boxes(data, start, end):
    while start < end:
        size = int.from_bytes(data[start:start + 4], "big")
        yield data[start + 4:start + 8], start + 8, start + size
        start += size


def box(kind, *parts):
    body = b"".join(parts)
    return (len(body) + 8).to_bytes(4, "big") + kind + body


def numbers(*values):
    return b"".join(int(value).to_bytes(4, "big") for value in values)


def again(name, source, times):
    """The film of `source` shown over and over in a file hardly larger: each round points at the same coded pictures."""
    data = (OUT / source).read_bytes()

    def rebuilt(start, end):
        parts = []
        for kind, at, to in boxes(data, start, end):
            body = data[at:to]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                body = rebuilt(at, to)
            elif kind == b"edts":
                # Its one entry: the length in the film's ticks, then the first time shown.
                continue
            elif kind in (b"mvhd", b"tkhd", b"mdhd"):
                where = {b"mvhd": 16, b"tkhd": 20, b"mdhd": 16}[kind]
                length = int.from_bytes(body[where:where + 4], "big") * times
                body = body[:where] + numbers(length) + body[where + 4:]
            elif kind == b"stsz":
                count = int.from_bytes(body[8:12], "big")
                body = body[:8] + numbers(count * times) + body[12:] * times
            elif kind == b"stts":
                count, rest = int.from_bytes(body[4:8], "big"), body[8:]
                assert count == 1
                body = body[:4] + numbers(1, int.from_bytes(rest[:4], "big") * times) + rest[4:]
            elif kind == b"ctts":
                count = int.from_bytes(body[4:8], "big")
                body = body[:4] + numbers(count * times) + body[8:] * times
            elif kind == b"stss":
                assert int.from_bytes(body[4:8], "big") == 1
                body = body[:4] + numbers(times, *(1 + round * pictures for round in range(times)))
            elif kind == b"stco":
                assert int.from_bytes(body[4:8], "big") == 1
                body = body[:4] + numbers(times) + body[8:] * times
            elif kind == b"stsc":
                assert int.from_bytes(body[4:8], "big") == 1
            parts.append(box(kind, body))
        return b"".join(parts)

    pictures = data[data.index(b"stsz") + 12:][:4]
    pictures = int.from_bytes(pictures, "big")
    out = []
    for kind, at, to in boxes(data, 0, len(data)):
        out.append(rebuilt(at - 8, to) if kind == b"moov" else data[at - 8:to])
    (OUT / name).write_bytes(b"".join(out))


def up(plane, across, down, w, h, sub_x, sub_y):
    """16 times the chroma at each luma sample; sites are 0, 1, 2 halves of a luma sample past the first."""
    def direction(plane, site, length, axis, sub):
        plane = np.moveaxis(plane.astype(np.int64), axis, 0)
        if not sub:
            return np.moveaxis(plane * 4, 0, axis)
        quarters = 2 * np.arange(length) - site          # in quarters of a chroma sample
        low, weight = quarters // 4, quarters % 4
        last = len(plane) - 1
        a, b = plane[np.clip(low, 0, last)], plane[np.clip(low + 1, 0, last)]
        weight = weight.reshape(-1, *[1] * (plane.ndim - 1))
        return np.moveaxis(a * (4 - weight) + b * weight, 0, axis)
    return direction(direction(plane, down, h, 0, sub_y), across, w, 1, sub_x)


def rgb(y, u, v, w, h, depth=8, matrix=(2990, 1140), full=False, sites=(0, 1), sub=(1, 1)):
    levels = 1 << depth
    scale = levels >> 8
    r, b = matrix
    g = 10000 - r - b
    black, y_span, c_span = (0, levels - 1, levels - 1) if full else (16 * scale, 219 * scale, 224 * scale)
    u = up(u, *sites, w, h, *sub) - 8 * levels
    v = up(v, *sites, w, h, *sub) - 8 * levels
    y = (y.astype(np.int64) - black) * 255
    def rounded(numerators, g):
        # y / y_span + c / (16 c_span 10^4 g), halves up, without a fraction.
        below = 16 * c_span * 10000 * g
        return np.clip((2 * (y * below + 255 * numerators * y_span) + y_span * below) // (2 * y_span * below), 0, 255)
    red = rounded(2 * (10000 - r) * v, 1)
    blue = rounded(2 * (10000 - b) * u, 1)
    green = rounded(-2 * b * (10000 - b) * u - 2 * r * (10000 - r) * v, g)
    return np.stack([red, green, blue], -1).astype(np.uint8)


def pictures(name, w, h, pix="yuv420p", turn=None, matrix=(2990, 1140), full=False, sites=(0, 1)):
    path = OUT / name
    common = ["-copyts", "-noautorotate", "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough"]
    times = run(*common, "-enc_time_base", "demux", "-c:v", "rawvideo", "-f", "framecrc", "-").decode().splitlines()
    base = next(line.split()[2] for line in times if line.startswith("#tb 0:"))
    num, den = map(int, base.split("/"))
    starts = [int(line.split(",")[2]) * num for line in times if not line.startswith("#")]
    raw = run(*common, "-pix_fmt", pix, "-f", "rawvideo", "-")
    depth = 10 if "10" in pix else 8
    sub = (1, 0) if "422" in pix else (1, 1)
    cw, ch = (w + 1) // 2, ((h + 1) // 2 if sub[1] else h)
    raw = np.frombuffer(raw, np.uint16 if depth == 10 else np.uint8).reshape(len(starts), w * h + 2 * cw * ch)
    found = []
    lumas = []
    for start, flat in zip(starts, raw):
        y = flat[:w * h].reshape(h, w)
        u = flat[w * h:w * h + cw * ch].reshape(ch, cw)
        v = flat[w * h + cw * ch:].reshape(ch, cw)
        picture = rgb(y, u, v, w, h, depth, matrix, full, sites, sub)
        if turn:
            picture, y = turn(picture), turn(y)
        lumas.append(y)
        found.append([[start, den], zlib.crc32(np.ascontiguousarray(picture).tobytes())])
    if turn:
        hh, ww = lumas[0].shape
        own = run("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-")
        own = np.frombuffer(own, np.uint8).reshape(len(starts), -1)[:, :ww * hh].reshape(-1, hh, ww)
        assert (own == np.stack(lumas)).all(), f"{name}: the turn is not FFmpeg's"
        w, h = ww, hh
    return {"width": w, "height": h, "pictures": found}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    BT709, BT2020 = (2126, 722), (2627, 593)
    films = {}

    def add(name, w=176, h=144, **kinds):
        films[name] = pictures(name, w, h, **kinds)

    encode("high.mp4")
    add("high.mp4")
    encode("main.mp4", extra=["-profile:v", "main"], params="cabac=0", mux=["-movflags", "+faststart"], seed=2)
    add("main.mp4")
    encode("baseline.mp4", extra=["-profile:v", "baseline"], seed=3)
    add("baseline.mp4")
    encode("slices.mp4", params="slices=4:weightp=2:ref=6", seed=4)
    add("slices.mp4")
    encode("mbaff.mp4", w=176, h=128, params="tff=1", extra=["-flags", "+ildct+ilme"], seed=5)
    add("mbaff.mp4", 176, 128)
    encode("cropped.mp4", w=162, h=122, seed=6, n=26)
    add("cropped.mp4", 162, 122)
    # -display_rotation counts against the clock; np.rot90 too.
    for degrees in (90, 180, 270):
        copy(f"turned{degrees}.mp4", "cropped.mp4", before=["-display_rotation", degrees])
        add(f"turned{degrees}.mp4", 162, 122, turn=lambda a, k=degrees // 90: np.rot90(a, k))
    copy("mirrored.mp4", "cropped.mp4", before=["-display_hflip"])
    add("mirrored.mp4", 162, 122, turn=lambda a: a[:, ::-1])
    copy("mirrored90.mov", "cropped.mp4", before=["-display_rotation", 90, "-display_hflip"])
    for turn in (lambda a: np.rot90(a, 1)[:, ::-1], lambda a: np.rot90(a[:, ::-1], 1)):
        try:
            add("mirrored90.mov", 162, 122, turn=turn)
            break
        except AssertionError as wrong:
            print(wrong)
    encode("variable.mp4", vf="select='not(between(n,5,9)+between(n,20,21)+eq(n,30))'", extra=["-fps_mode", "vfr"], seed=7)
    add("variable.mp4")
    encode("open.mp4", params="open-gop=1", seed=8, n=60)
    add("open.mp4")
    encode("open_strict.mp4", params="open-gop=1:b-pyramid=1:ref=2:keyint=8:min-keyint=8", seed=9)
    add("open_strict.mp4")
    encode("refresh.mp4", params="intra-refresh=1:keyint=10:bframes=0", seed=10)
    add("refresh.mp4")
    encode("fragments.mp4", sound=True, mux=["-movflags", "+frag_keyframe+empty_moov"], seed=11)
    add("fragments.mp4")
    encode("fragments_base.mp4", sound=True, mux=["-movflags", "+frag_keyframe+empty_moov+default_base_moof"], seed=12, n=26)
    add("fragments_base.mp4")
    copy("cut.mp4", "high.mp4", before=["-ss", "0.72"])
    add("cut.mp4")
    copy("late.mp4", "high.mp4", before=["-itsoffset", "1.25"])
    add("late.mp4")
    encode("sound.mp4", sound=True, seed=13, n=26)
    add("sound.mp4")
    copy("sound.mov", "sound.mp4")
    add("sound.mov")
    copy("sound.mkv", "sound.mp4")
    add("sound.mkv")
    copy("open.mkv", "open.mp4")
    add("open.mkv")
    copy("turned90.mkv", "cropped.mp4", before=["-display_rotation", 90])
    add("turned90.mkv", 162, 122, turn=np.rot90)
    # Written to a pipe, sizes are left unknown.
    (OUT / "piped.mkv").write_bytes(run("-i", OUT / "sound.mp4", "-c", "copy", *EXACT, "-f", "matroska", "-live", 1, "-"))
    add("piped.mkv")
    colours = ["-color_range", "pc", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    encode("full709.mp4", vf="scale=out_range=pc:out_color_matrix=bt709", extra=colours, pix="yuvj420p", seed=14, n=8)
    add("full709.mp4", pix="yuvj420p", matrix=BT709, full=True)
    encode("bt709.mp4", params="colormatrix=bt709:chromaloc=2", seed=15, n=8)
    add("bt709.mp4", matrix=BT709, sites=(0, 0))
    encode("bt601.mp4", params="colormatrix=smpte170m:chromaloc=1", seed=16, n=8)
    add("bt601.mp4", sites=(1, 1))
    encode("bt2020_10.mp4", pix="yuv420p10le", params="colormatrix=bt2020nc", seed=17, n=8)
    add("bt2020_10.mp4", pix="yuv420p10le", matrix=BT2020)
    encode("yuv422.mp4", pix="yuv422p", seed=18, n=8)
    add("yuv422.mp4", pix="yuv422p")
    encode("yuv422_10.mkv", pix="yuv422p10le", seed=19, n=8)
    add("yuv422_10.mkv", pix="yuv422p10le")
    encode("one.mp4", n=1, seed=20)
    add("one.mp4")
    # Refused films.
    encode("yuv444.mp4", pix="yuv444p", n=2, seed=21)
    run("-f", "lavfi", "-i", "sine=440:duration=0.2", "-c:a", "aac", *EXACT, OUT / "sound_only.m4a")
    run("-f", "lavfi", "-i", "sine=440:duration=0.2", "-c:a", "aac", *EXACT, OUT / "sound_only.mkv")
    two = b""
    for size, seed in ((96, 22), (112, 23)):
        encode("part.h264", w=size, h=64, n=6, seed=seed)
        two += (OUT / "part.h264").read_bytes()
    (OUT / "part.h264").write_bytes(two)
    run("-r", 25, "-i", OUT / "part.h264", "-c", "copy", *EXACT, OUT / "two_sizes.mp4")
    (OUT / "part.h264").unlink()

    (OUT / "videos.json").write_text(json.dumps(films, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    own = run("-i", OUT / "high.mp4", "-frames:v", 1, "-vf",
              "scale=flags=accurate_rnd+full_chroma_int+full_chroma_inp+bitexact+bilinear:in_chroma_loc=left", "-pix_fmt", "rgb24",
              "-f", "rawvideo", "-")
    Image.fromarray(np.frombuffer(own, np.uint8).reshape(144, 176, 3)).save(OUT / "scaled.png", optimize=True)
    # Ten minutes at 1080p, a key frame each ten seconds as libx264 sets them by itself.
    rounds = 60
    y, x = np.mgrid[0:1080, 0:1920]
    still = np.stack([x * 255 // 1919, y * 255 // 1079, (x + y) * 255 // 2998], -1).astype(np.uint8)
    frames = np.repeat(still[None], 250, 0)
    for n, frame in enumerate(frames):
        frame[400:528, n * 7:n * 7 + 128] = [230, 40, 60]
    args = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "1920x1080", "-r", 25, "-i", "-",
            "-c:v", "libx264", "-pix_fmt", "yuv420p", "-x264-params", "threads=1:scenecut=0:bframes=0:crf=40"]
    run_input([*args, *EXACT, OUT / "round.mp4"], frames.tobytes())
    again("ten_minutes.mp4", "round.mp4", rounds)
    (OUT / "round.mp4").unlink()
    # As a person lists a film's frames: no flag on the conversion. The pictures shown at the middle of each quarter.
    for place, number in enumerate([5, 15, 25, 35]):
        own = run("-i", OUT / "high.mp4", "-vf", f"select=eq(n\\,{number})", "-frames:v", 1, "-pix_fmt", "rgb24",
                  "-f", "rawvideo", "-")
        Image.fromarray(np.frombuffer(own, np.uint8).reshape(144, 176, 3)).save(OUT / f"listed-{place}.png", optimize=True)
    print(sum(path.stat().st_size for path in OUT.iterdir()), "bytes")


if __name__ == "__main__":
    main()

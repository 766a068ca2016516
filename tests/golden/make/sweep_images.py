"""Hundreds of generated image files, decoded here and by Pillow: not run by the tests.

  cargo build --release -p omniburn-media --example pixels
  python sweep_images.py PIXELS [FOLDER]

PIXELS is the built example, FOLDER keeps the files that differ. JPEG: every sampling factor times every order of scans and
coding that `cjpeg` and `jpegtran` of libjpeg-turbo 2.1.5 write (they must be on the path), the options with which Pillow
saves, and what `_jpeg.py` writes. Then PNG, WebP, GIF and BMP in every form that Pillow reads and that Pillow, cwebp,
ImageMagick or this script write. Equal means to the bit, but for JPEG that the fast decoder reads: at most 5 levels apart and
0.6 on average, the bounds of `images.rs`. The reference is Pillow, except for PNG whose tRNS names one grey or one colour at
2, 4 or 16 bits: the PNG specification (11.3.2.1) compares the stored sample with it, Pillow 13 a sample that it has scaled or
cut already, so these are compared with what the script drew, and counted apart where Pillow differs. Needs the packages of
requirements.txt, libjpeg-turbo-progs, webp, imagemagick.
"""
import io
import itertools
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent))
import _jpeg as J  # noqa: E402

rng = np.random.default_rng(3)


def scene(w, h):
    y, x = np.mgrid[0:h, 0:w]
    rgb = np.stack([128 + 100 * np.sin(x / 5 + y / 9), 128 + 90 * np.cos(x / 7 - y / 4), (x * 5 + y * 3) % 256], -1)
    rgb[h // 4:h // 2, w // 2:w - w // 6] = [250, 20, 40]
    return rgb.clip(0, 255).astype(np.uint8)


def flatten(im):
    im = ImageOps.exif_transpose(im)
    if "A" in im.getbands() or im.info.get("transparency") is not None:
        im = im.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", im.size, (255, 255, 255, 255)), im).convert("RGB")
    return im.convert("RGB")


class Sweep:
    def __init__(self, folder):
        self.folder, self.files, self.drawn = folder, [], {}

    def put(self, name, data, drawn=None):
        path = self.folder / f"{len(self.files):05}-{name.replace('/', '_').replace(' ', '_')}"
        path.write_bytes(data)
        self.files.append(path)
        if drawn is not None:
            self.drawn[path] = drawn

    def run(self, name, *command, data=None):
        done = subprocess.run([str(c) for c in command], input=data, capture_output=True)
        if done.returncode == 0 and done.stdout:
            self.put(name, done.stdout)

    def save(self, name, im, fmt, **options):
        out = io.BytesIO()
        try:
            im.save(out, fmt, **options)
        except Exception:
            return
        self.put(name, out.getvalue())


SCRIPTS = {
    "apart": "0;1;2;", "cb-first": "1;0;2;", "two-then-one": "1 2;0;", "one-then-two": "0;1 2;", "pair-then-cr": "0 1;2;",
    "steps": "0,1,2: 0-0, 0, 1 ; 0: 1-5, 0, 2 ; 2: 1-63, 0, 1 ; 1: 1-63, 0, 1 ; 0: 6-63, 0, 2 ; 0: 1-63, 2, 1 ; 0,1,2: 0-0, 1, 0 ; 2: 1-63, 1, 0 ; 1: 1-63, 1, 0 ; 0: 1-63, 1, 0 ;",
    "bands": "2: 0-0, 0, 0 ; 1: 0-0, 0, 0 ; 0: 0-0, 0, 0 ; 2: 1-63, 0, 0 ; 1: 1-63, 0, 0 ; 0: 1-63, 0, 0 ;",
    "pairs": "1,2: 0-0, 0, 0 ; 0: 0-0, 0, 0 ; 0: 1-9, 0, 0; 1: 1-63, 0, 0 ; 2: 1-63, 0, 0 ; 0: 10-63, 0, 0 ;",
    "in-part": "0,1,2: 0-0, 0, 0 ; 0: 1-5, 0, 2 ;", "tail-left-out": "0,1,2: 0-0, 0, 0 ; 0: 1-20, 0, 0 ; 1: 1-20, 0, 0 ; 2: 1-20, 0, 0 ;",
}
SAMPLINGS = ["1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "2x4", "4x4", "3x1", "1x3", "3x2", "2x3", "3x3", "1x1,2x2,1x1", "1x1,1x1,2x2",
             "1x1,2x1,1x2", "2x2,2x1,1x2", "2x2,1x2,2x1", "2x2,1x1,2x2", "1x1,1x2,1x1", "2x1,2x1,2x1", "2x2,2x2,1x1", "4x1,2x1,1x1",
             "1x2,1x2,1x1", "1x1,4x1,1x4", "2x1,1x1,2x1", "3x1,1x1,3x1", "2x2,2x2,2x2", "1x2,2x1,1x1", "3x1,2x1,1x1", "4x1,3x1,1x1"]


def jpegs(sweep):
    tmp = sweep.folder / "tmp"
    tmp.mkdir()
    for name, script in SCRIPTS.items():
        (tmp / name).write_text(script.replace(";", ";\n"))
    ppm = tmp / "a.ppm"
    Image.fromarray(scene(61, 43)).save(ppm)
    codings = [[], ["-progressive"], ["-optimize"], ["-arithmetic"], ["-arithmetic", "-progressive"], ["-restart", "1B"], ["-restart", "1"],
               ["-restart", "2B", "-progressive"], ["-restart", "3B", "-arithmetic"], *[["-scans", tmp / name] for name in SCRIPTS],
               ["-scans", tmp / "apart", "-restart", "2B"], ["-scans", tmp / "cb-first", "-arithmetic"], ["-scans", tmp / "steps", "-arithmetic", "-restart", "5B"],
               ["-scans", tmp / "two-then-one", "-optimize", "-restart", "1"]]
    for sampling, coding in itertools.product(SAMPLINGS, codings):
        words = "".join(Path(str(c)).name for c in coding)
        sweep.run(f"{sampling}{words}.jpg", "cjpeg", "-quality", 85, "-sample", sampling, *coding, ppm)
    for quality, dct, more in itertools.product((1, 5, 25, 50, 75, 95, 100), ("int", "fast", "float"), ([], ["-baseline"], ["-progressive"], ["-grayscale"], ["-rgb"])):
        sweep.run(f"q{quality}{dct}{''.join(more)}.jpg", "cjpeg", "-quality", quality, "-dct", dct, *more, ppm)
    for sampling in ("1x1", "2x2", "1x2", "4x4", "3x2"):
        for coding in ([], ["-progressive"], ["-arithmetic"], ["-restart", "1B"]):
            sweep.run(f"grey-{sampling}{''.join(coding)}.jpg", "cjpeg", "-grayscale", "-sample", sampling, *coding, ppm)
            sweep.run(f"rgb-{sampling}{''.join(coding)}.jpg", "cjpeg", "-rgb", "-sample", sampling, *coding, ppm)
    # Sides that are not whole blocks.
    for w, h in [(1, 1), (2, 2), (3, 5), (7, 8), (8, 8), (9, 7), (15, 17), (16, 16), (17, 33), (31, 2), (1, 40), (40, 1)]:
        Image.fromarray(scene(max(w, 12), max(h, 12))[:h, :w]).save(ppm)
        for sampling, coding in itertools.product(("1x1", "2x1", "1x2", "2x2", "4x1", "1x1,2x2,1x1", "2x2,2x1,1x2"), ([], ["-progressive"], ["-scans", tmp / "apart"], ["-arithmetic"])):
            sweep.run(f"{w}x{h}-{sampling}{''.join(Path(str(c)).name for c in coding)}.jpg", "cjpeg", "-quality", 90, "-sample", sampling, *coding, ppm)
    # jpegtran over some of them.
    Image.fromarray(scene(61, 43)).save(ppm)
    for sampling in ("1x1", "2x1", "1x2", "2x2", "4x1", "1x1,2x2,1x1"):
        data = subprocess.run(["cjpeg", "-sample", sampling, str(ppm)], capture_output=True, check=True).stdout
        for words in (["-rotate", "90"], ["-flip", "horizontal"], ["-transpose"], ["-transverse", "-trim"], ["-crop", "30x20+8+8"], ["-grayscale"],
                      ["-crop", "30x20+8+8", "-progressive"], ["-crop", "46x30+0+0"], ["-crop", "46x30+0+0", "-progressive"], ["-crop", "20x38+16+0", "-restart", "1"],
                      ["-progressive"], ["-arithmetic"], ["-restart", "1"], ["-optimize"], ["-copy", "none"], ["-scans", tmp / "steps"], ["-wipe", "16x16+0+0"]):
            sweep.run(f"tran-{sampling}{''.join(Path(str(c)).name for c in words)}.jpg", "jpegtran", *words, data=data)
    # Cut inside a scan, and closed by an end marker.
    for sampling, coding in itertools.product(("1x1", "2x1", "1x2", "2x2", "4x1", "1x1,2x2,1x1"), ([], ["-restart", "1B"], ["-optimize"], ["-progressive"], ["-scans", tmp / "apart"], ["-grayscale"])):
        data = subprocess.run(["cjpeg", "-sample", sampling, *map(str, coding), str(ppm)], capture_output=True, check=True).stdout
        begin = data.rindex(b"\xff\xda") + 2
        begin += int.from_bytes(data[begin:begin + 2], "big")
        for part in (0.01, 0.3, 0.6, 0.9, 0.99):
            cut = begin + int((len(data) - 2 - begin) * part)
            while data[cut - 1] == 0xFF or 0xD0 <= data[cut - 1] <= 0xD7 and data[cut - 2] == 0xFF:
                cut += 1
            sweep.put(f"cut-{sampling}{''.join(Path(str(c)).name for c in coding)}-{part}.jpg", data[:cut] + b"\xff\xd9")
    # Pillow's options.
    rgb = Image.fromarray(scene(61, 43))
    for mode in ("RGB", "L", "CMYK", "YCbCr", "1"):
        im = rgb.convert(mode)
        for subsampling, quality, progressive, optimize in itertools.product((0, 1, 2), (10, 75, 100), (False, True), (False, True)):
            sweep.save(f"pillow-{mode}-{subsampling}-{quality}-{progressive}-{optimize}.jpg", im, "JPEG", subsampling=subsampling, quality=quality, progressive=progressive, optimize=optimize)
        sweep.save(f"pillow-{mode}-keep-rgb.jpg", im, "JPEG", keep_rgb=True)
        for blocks in (1, 3):
            sweep.save(f"pillow-{mode}-restart-{blocks}.jpg", im, "JPEG", restart_marker_blocks=blocks)
            sweep.save(f"pillow-{mode}-restart-rows-{blocks}.jpg", im, "JPEG", restart_marker_rows=blocks)
    # Written here: random factors of three and four components, random orders of scans.
    for index in range(400):
        count = int(rng.choice([1, 3, 3, 3, 4]))
        factors = [(int(rng.choice([1, 1, 2, 2, 3, 4])), int(rng.choice([1, 1, 2, 2, 3, 4]))) for _ in range(count)]
        most = max(f[0] for f in factors), max(f[1] for f in factors)
        w, h = int(rng.integers(1, 50)), int(rng.integers(1, 50))
        big = scene(64, 64)
        planes = []
        for c, (fx, fy) in enumerate(factors):
            mx, my = most if count > 1 else (fx, fy)
            planes.append(np.asarray(Image.fromarray(big[:h, :w, c % 3]).resize((-(-w * fx // mx), -(-h * fy // my)), Image.BOX)))
        progressive, arithmetic = bool(rng.random() < 0.5), bool(rng.random() < 0.4)
        order = [int(c) for c in rng.permutation(count)]
        cuts = sorted(set([0, count] + [int(c) for c in rng.integers(0, count + 1, 2)]))
        groups = [sorted(order[a:b]) for a, b in zip(cuts, cuts[1:])]
        if sum(fx * fy for fx, fy in factors) > 10:
            groups = [[c] for c in order]
        if not progressive:
            scans = [J.scan(group) for group in groups]
        else:
            low = int(rng.integers(0, 3))
            scans = [J.scan(group, 0, 0, 0, low) for group in groups]
            split = int(rng.integers(1, 63))
            first = [J.scan([c], a, b, 0, low) for c in order for a, b in ((1, split), (split + 1, 63))]
            rng.shuffle(first)
            scans += [tuple([tuple([int(v) for v in s[0]]), *[int(v) for v in s[1:]]]) for s in first]
            for bit in range(low, 0, -1):
                scans += [J.scan(group, 0, 0, bit, bit - 1) for group in groups] + [J.scan([c], 1, 63, bit, bit - 1) for c in order]
        before = [b"", J.segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"), *[J.segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([t])) for t in (0, 1, 2)]][rng.integers(0, 5)]
        ids = [(1, 2, 3, 4), (0, 1, 2, 3), (82, 71, 66, 65)][rng.integers(0, 3)]
        data = J.write(planes, (w, h), factors, scans, progressive=progressive, arithmetic=arithmetic, restart=int(rng.choice([0, 0, 1, 2, 7])),
                       quantiser=float(rng.choice([0, 2, 8])), before=before, ids=ids, wide_tables=bool(rng.random() < 0.2), tables=str(rng.choice(["flat", "standard"])) if not progressive and rng.random() < 0 else "flat",
                       fill=b"\xff" * int(rng.integers(0, 3)))
        sweep.put(f"random-{index}.jpg", data)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pngs(sweep):
    magic = b"\x89PNG\r\n\x1a\n"
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    depths = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

    def packed(values, depth):
        if depth == 16:
            return values.astype(">u2").reshape(values.shape[0], -1).tobytes(), values.shape[1] * values.shape[2] * 2
        bits = ((values.reshape(values.shape[0], -1, 1) >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(values.shape[0], -1)
        rows = np.packbits(bits, axis=1)
        return rows.tobytes(), rows.shape[1]

    for color, options in depths.items():
        for depth, interlaced, (w, h) in itertools.product(options, (0, 1), ((1, 1), (5, 3), (19, 13))):
            values = rng.integers(0, 1 << depth, (h, w, samples[color]))
            raw = b""
            for y0, x0, dy, dx in passes if interlaced else ((0, 0, 1, 1),):
                part = values[y0::dy, x0::dx]
                if part.size:
                    data, stride = packed(part, depth)
                    raw += b"".join(b"\0" + data[i:i + stride] for i in range(0, len(data), stride))
            head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, interlaced))
            palette = chunk(b"PLTE", rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes()) if color == 3 else b""
            idat = zlib.compress(raw)
            extras = {"plain": b"", "gamma": chunk(b"gAMA", struct.pack(">I", 100000)), "srgb": chunk(b"sRGB", b"\0"),
                      "background": chunk(b"bKGD", {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: b"\0", 4: b"\0\1", 6: b"\0\1\0\2\0\3"}[color])}
            if color == 0:
                extras["transparent"] = chunk(b"tRNS", struct.pack(">H", int(values[0, 0, 0])))
            if color == 2:
                extras["transparent"] = chunk(b"tRNS", struct.pack(">HHH", *[int(v) for v in values[0, 0]]))
            if color == 3:
                extras["transparent-one"] = chunk(b"tRNS", b"\xff\0")
                extras["transparent-some"] = chunk(b"tRNS", rng.integers(0, 256, 1 << depth, dtype=np.uint8).tobytes())
                extras["transparent-few"] = chunk(b"tRNS", b"\x80")
            for name, extra in extras.items():
                order = (extra + palette) if name in ("gamma", "srgb") else (palette + extra)
                drawn = None
                if name == "transparent":
                    shown = values >> 8 if depth == 16 else values * 255 // ((1 << depth) - 1)
                    drawn = np.where((values == values[0, 0]).all(-1, keepdims=True), 255, shown).astype(np.uint8)
                    drawn = np.broadcast_to(drawn, (h, w, 3))
                sweep.put(f"c{color}-d{depth}-i{interlaced}-{w}x{h}-{name}.png", magic + head + order + chunk(b"IDAT", idat) + chunk(b"IEND", b""), drawn)
            if w == 19:
                split = b"".join(chunk(b"IDAT", idat[i:i + 7]) for i in range(0, len(idat), 7))
                base = magic + head + palette
                sweep.put(f"c{color}-d{depth}-i{interlaced}-split.png", base + split + chunk(b"IEND", b""))
                sweep.put(f"c{color}-d{depth}-i{interlaced}-empty-idat.png", base + chunk(b"IDAT", b"") + chunk(b"IDAT", idat) + chunk(b"IEND", b""))
                sweep.put(f"c{color}-d{depth}-i{interlaced}-no-iend.png", base + chunk(b"IDAT", idat))
                sweep.put(f"c{color}-d{depth}-i{interlaced}-cut.png", base + chunk(b"IDAT", idat)[:-len(idat) // 2])
                bad = bytearray(chunk(b"IDAT", idat))
                bad[-1] ^= 1
                sweep.put(f"c{color}-d{depth}-i{interlaced}-idat-crc.png", base + bytes(bad) + chunk(b"IEND", b""))
                bad = bytearray(chunk(b"tEXt", b"a\0b"))
                bad[-1] ^= 1
                sweep.put(f"c{color}-d{depth}-i{interlaced}-text-crc.png", base + bytes(bad) + chunk(b"IDAT", idat) + chunk(b"IEND", b""))
                sweep.put(f"c{color}-d{depth}-i{interlaced}-unknown.png", base + chunk(b"vpAg", b"12345678") + chunk(b"IDAT", idat) + chunk(b"IEND", b""))
    frames = [Image.fromarray(scene(24, 16)), Image.fromarray(255 - scene(24, 16)), Image.fromarray(scene(24, 16)[::-1])]
    for default, blend, disposal in itertools.product((False, True), (0, 1), (0, 1, 2)):
        sweep.save(f"apng-{default}-{blend}-{disposal}.png", frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=default, blend=blend, disposal=disposal)
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I"):
        im = frames[0].convert(mode) if mode not in ("I;16",) else Image.fromarray(rng.integers(0, 65536, (9, 7)).astype(np.uint16))
        for level, icc in itertools.product((0, 9), (None, b"not a profile")):
            sweep.save(f"pillow-{mode}-{level}-{icc is not None}.png", im, "PNG", compress_level=level, icc_profile=icc)


def webps(sweep):
    tmp = sweep.folder / "tmp"
    rgb = Image.fromarray(scene(61, 43))
    alpha = np.clip(np.add.outer(np.arange(43) * 5, np.arange(61) * 4) % 300, 0, 255).astype(np.uint8)
    rgba = Image.fromarray(np.dstack([scene(61, 43), alpha]))
    for mode, im in (("RGB", rgb), ("RGBA", rgba), ("L", rgb.convert("L")), ("P", rgb.quantize(16))):
        for lossless, quality, method, exact in itertools.product((False, True), (5, 50, 100), (0, 4, 6), (False, True)):
            sweep.save(f"{mode}-{lossless}-{quality}-{method}-{exact}.webp", im, "WEBP", lossless=lossless, quality=quality, method=method, exact=exact)
        for quality in (0, 50, 100):
            sweep.save(f"{mode}-alpha-{quality}.webp", im, "WEBP", alpha_quality=quality)
        for lossless, mixed, minimize in itertools.product((False, True), (False, True), (False, True)):
            sweep.save(f"{mode}-animated-{lossless}-{mixed}-{minimize}.webp", im, "WEBP", save_all=True, append_images=[im.rotate(90), im.rotate(180)], lossless=lossless, allow_mixed=mixed, minimize_size=minimize)
        sweep.save(f"{mode}-meta.webp", im, "WEBP", lossless=True, xmp=b"<x/>", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", icc_profile=b"profile")
        im.save(tmp / "a.png")
        for words in (["-lossless"], ["-near_lossless", "40"], ["-q", "30", "-segments", "1"], ["-q", "80", "-sns", "100", "-f", "100"], ["-q", "60", "-partition_limit", "90"], ["-q", "60", "-pre", "4"],
                      ["-q", "60", "-strong"], ["-q", "60", "-nostrong", "-sharpness", "7"], ["-q", "60", "-noalpha"], ["-q", "60", "-alpha_method", "0"], ["-q", "60", "-alpha_filter", "best"], ["-q", "60", "-jpeg_like"],
                      ["-q", "60", "-sharp_yuv"], ["-q", "60", "-blend_alpha", "0xff8800"], ["-crop", "3", "5", "21", "17"], ["-lossless", "-crop", "3", "5", "1", "1"], ["-hint", "graph", "-lossless"], ["-preset", "text"]):
            sweep.run(f"cwebp-{mode}-{'-'.join(words)}.webp", "cwebp", "-quiet", *words, tmp / "a.png", "-o", "-")


def gifs(sweep):
    rgb = Image.fromarray(scene(31, 23))
    palette = rgb.quantize(32)
    for mode, im in (("P", palette), ("L", rgb.convert("L")), ("1", rgb.convert("1")), ("RGB", rgb), ("P2", rgb.quantize(2)), ("P256", rgb.quantize(256))):
        for interlace, transparency, optimize in itertools.product((0, 1), (None, 0, 3), (False, True)):
            more = {} if transparency is None else {"transparency": transparency}
            sweep.save(f"{mode}-{interlace}-{transparency}-{optimize}.gif", im, "GIF", interlace=interlace, optimize=optimize, **more)
        for disposal, transparency in itertools.product((0, 1, 2, 3), (None, 1)):
            more = {} if transparency is None else {"transparency": transparency}
            sweep.save(f"{mode}-animated-{disposal}-{transparency}.gif", im, "GIF", save_all=True, append_images=[im.rotate(90), im.rotate(180)], disposal=disposal, **more)
    for interlace, transparency in itertools.product((0, 1), (None, 3)):
        out = io.BytesIO()
        palette.save(out, "GIF", interlace=interlace, **({} if transparency is None else {"transparency": transparency}))
        data = bytearray(out.getvalue())
        at = data.index(b"\x2c\0\0\0\0" + struct.pack("<HH", 31, 23))
        for screen, place in (((40, 30), (4, 2)), ((31, 23), (0, 0)), ((60, 23), (29, 0)), ((20, 15), (0, 0)), ((20, 15), (3, 4)), ((35, 25), (10, 10)), ((0, 0), (0, 0))):
            for background in (0, 5, 200):
                new = bytearray(data)
                new[6:10] = struct.pack("<HH", *screen)
                new[11] = background
                new[at + 1:at + 5] = struct.pack("<HH", *place)
                sweep.put(f"screen-{screen}-{place}-{background}-{interlace}-{transparency}.gif", bytes(new))
    plain = io.BytesIO()
    palette.save(plain, "GIF")
    plain = plain.getvalue()
    sweep.put("no-trailer.gif", plain[:-1])
    sweep.put("behind.gif", plain + b"more bytes")
    sweep.put("cut.gif", plain[:len(plain) // 2])
    sweep.put("gif87a.gif", b"GIF87a" + plain[6:])


def bmps(sweep):
    w, h = 13, 7
    rgb = scene(16, 12)[:h, :w]

    def file(head, palette, rows, offset=None, extra=b""):
        at = 14 + len(head) + len(extra) + len(palette)
        return b"BM" + struct.pack("<IHHI", at + len(rows), 0, 0, at if offset is None else offset) + head + extra + palette + rows

    def info(bits, compression=0, colours=0, height=h, size=40, image=0, masks=(0, 0, 0, 0)):
        head = struct.pack("<IiiHHIIiiII", size, w, height, 1, bits, compression, image, 2835, 2835, colours, 0)
        if size >= 52:
            head += struct.pack("<III", *masks[:3])
        if size >= 56:
            head += struct.pack("<I", masks[3])
        return head + bytes(size - len(head))

    def rows(lines):
        return b"".join(line + bytes(-len(line) % 4) for line in lines)

    def bits_of(index, bits):
        flat = ((index[..., None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).reshape(h, -1)
        return [row.tobytes() for row in np.packbits(flat, axis=1)]

    up = rgb[::-1]
    bgr = [row[:, ::-1].tobytes() for row in up]
    sweep.put("24.bmp", file(info(24), b"", rows(bgr)))
    sweep.put("24-top-down.bmp", file(info(24, height=-h), b"", rows(bgr[::-1])))
    sweep.put("24-os2.bmp", file(struct.pack("<IHHHH", 12, w, h, 1, 24), b"", rows(bgr)))
    sweep.put("24-palette.bmp", file(info(24, colours=4), bytes(16), rows(bgr)))
    for size in (52, 56, 64, 108, 124):
        sweep.put(f"24-header-{size}.bmp", file(info(24, size=size), b"", rows(bgr)))
    for bits in (1, 2, 4, 8):
        count = 1 << bits
        index = rng.integers(0, count, (h, w))
        colours = rng.integers(0, 256, (count, 4), dtype=np.uint8)
        colours[:, 3] = 0
        sweep.put(f"{bits}.bmp", file(info(bits), colours.tobytes(), rows(bits_of(index, bits))))
        sweep.put(f"{bits}-top-down.bmp", file(info(bits, height=-h), colours.tobytes(), rows(bits_of(index, bits))))
        sweep.put(f"{bits}-os2.bmp", file(struct.pack("<IHHHH", 12, w, h, 1, bits), colours[:, :3].tobytes(), rows(bits_of(index, bits))))
        sweep.put(f"{bits}-os2-v2.bmp", file(info(bits, size=64), colours.tobytes(), rows(bits_of(index, bits))))
        few = max(2, count // 2)
        sweep.put(f"{bits}-few.bmp", file(info(bits, colours=few), colours[:few].tobytes(), rows(bits_of(index % few, bits))))
        sweep.put(f"{bits}-index-behind.bmp", file(info(bits, colours=few), colours[:few].tobytes(), rows(bits_of(index, bits))))
        grey = np.repeat(np.linspace(0, 255, count).astype(np.uint8)[:, None], 4, 1)
        grey[:, 3] = 0
        sweep.put(f"{bits}-grey.bmp", file(info(bits), grey.tobytes(), rows(bits_of(index, bits))))
        sweep.put(f"{bits}-gap.bmp", file(info(bits), colours.tobytes(), bytes(8) + rows(bits_of(index, bits)), offset=14 + 40 + 4 * count + 8))
    alpha = rng.integers(0, 256, (h, w, 1), dtype=np.uint8)
    for name, a in (("zero", alpha * 0), ("full", alpha * 0 + 255), ("some", alpha)):
        bgra = rows([row.tobytes() for row in np.concatenate([up[..., ::-1], a], -1)])
        sweep.put(f"32-{name}.bmp", file(info(32), b"", bgra))
        sweep.put(f"32-{name}-top-down.bmp", file(info(32, height=-h), b"", bgra))
        for size in (40, 52, 56, 108, 124):
            for order, masks in (("bgra", (0xFF0000, 0xFF00, 0xFF, 0xFF000000)), ("bgrx", (0xFF0000, 0xFF00, 0xFF, 0)), ("rgba", (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
                                 ("abgr", (0xFF000000, 0xFF0000, 0xFF00, 0xFF)), ("argb", (0xFF00, 0xFF0000, 0xFF000000, 0xFF)), ("xrgb", (0xFF00, 0xFF0000, 0xFF000000, 0)), ("xbgr", (0xFF000000, 0xFF0000, 0xFF00, 0)),
                                 ("ten", (0x3FF00000, 0xFFC00, 0x3FF, 0)), ("rgba-odd", (0xFF0000, 0xFF, 0xFF00, 0xFF000000)), ("none", (0, 0, 0, 0))):
                extra = struct.pack("<III", *masks[:3]) if size == 40 else b""
                sweep.put(f"32-{name}-{size}-{order}.bmp", file(info(32, 3, size=size, masks=masks), b"", bgra, extra=extra))
        extra = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        sweep.put(f"32-{name}-alpha-fields.bmp", file(info(32, 6), b"", bgra, extra=extra))
    words = rng.integers(0, 65536, (h, w)).astype("<u2")
    lines = rows([row.tobytes() for row in words])
    sweep.put("16.bmp", file(info(16), b"", lines))
    sweep.put("16-top-down.bmp", file(info(16, height=-h), b"", lines))
    for size in (40, 52, 56, 108, 124):
        for name, masks in (("565", (0xF800, 0x7E0, 0x1F, 0)), ("555", (0x7C00, 0x3E0, 0x1F, 0)), ("1555", (0x7C00, 0x3E0, 0x1F, 0x8000)), ("444", (0xF00, 0xF0, 0xF, 0)), ("4444", (0xF00, 0xF0, 0xF, 0xF000)), ("bgr565", (0x1F, 0x7E0, 0xF800, 0))):
            extra = struct.pack("<III", *masks[:3]) if size == 40 else b""
            sweep.put(f"16-{size}-{name}.bmp", file(info(16, 3, size=size, masks=masks), b"", lines, extra=extra))
    # Run lengths.
    colours = rng.integers(0, 256, (256, 4), dtype=np.uint8)
    colours[:, 3] = 0
    index = np.repeat(rng.integers(0, 16, (h, (w + 2) // 3)), 3, 1)[:, :w]

    def runs(row, four, absolute):
        out, x = b"", 0
        while x < w:
            n = 1
            while x + n < w and row[x + n] == row[x]:
                n += 1
            if absolute and w - x >= 5 and n < 3:
                take = row[x:x + 5]
                if four:
                    data = bytes([take[i] << 4 | (take[i + 1] if i + 1 < 5 else 0) for i in range(0, 5, 2)])
                else:
                    data = bytes(take.tolist())
                out += bytes([0, 5]) + data + bytes(len(data) & 1)
                x += 5
                continue
            out += bytes([n, row[x] << 4 | row[x] if four else row[x]])
            x += n
        return out

    for four in (False, True):
        bits, compression, count = (4, 2, 16) if four else (8, 1, 256)
        for name, ending in (("", b"\0\0"), ("no-line-ends-last", None)):
            for absolute in (False, True):
                data = b"".join(runs(row, four, absolute) + b"\0\0" for row in index.astype(int))
                data = data + b"\0\1" if ending else data[:-2] + b"\0\1"
                sweep.put(f"rle{bits}-{absolute}{name}.bmp", file(info(bits, compression, image=len(data)), colours[:count].tobytes(), data))
        data = b"".join(runs(row, four, False) + b"\0\0" for row in index.astype(int)[:3]) + b"\0\2\3\1" + bytes([4, 0x22]) + b"\0\1"
        sweep.put(f"rle{bits}-jump.bmp", file(info(bits, compression, image=len(data)), colours[:count].tobytes(), data))
        data = b"".join(runs(row, four, False) + b"\0\0" for row in index.astype(int)[:3]) + b"\0\1"
        sweep.put(f"rle{bits}-ends-early.bmp", file(info(bits, compression, image=len(data)), colours[:count].tobytes(), data))
    jpeg = io.BytesIO()
    Image.fromarray(rgb).save(jpeg, "JPEG")
    sweep.put("jpeg-inside.bmp", file(info(0, 4, image=len(jpeg.getvalue())), b"", jpeg.getvalue()))
    sweep.put("png-inside.bmp", file(info(0, 5), b"", b"\x89PNG"))
    sweep.put("cut.bmp", file(info(24), b"", rows(bgr))[:-60])
    for mode in ("RGB", "RGBA", "L", "P", "1"):
        sweep.save(f"pillow-{mode}.bmp", Image.fromarray(scene(31, 23)).convert(mode), "BMP")
    Image.fromarray(rgb).save(sweep.folder / "tmp/a.png")
    for version in ("BMP:", "BMP2:", "BMP3:"):
        for words in ([], ["-type", "Palette"], ["-monochrome"], ["-depth", "8", "-type", "Grayscale"], ["-compress", "RLE", "-type", "Palette"], ["-define", "bmp:subtype=RGB565"], ["-define", "bmp:subtype=RGB555"], ["-define", "bmp:subtype=ARGB4444"], ["-alpha", "on"]):
            sweep.run(f"im-{version[:-1]}-{'-'.join(words).replace(':', '')}.bmp", "convert", sweep.folder / "tmp/a.png", *words, f"{version}-")


def main():
    pixels = sys.argv[1]
    with tempfile.TemporaryDirectory() as tmp:
        sweep = Sweep(Path(tmp))
        jpegs(sweep)
        pngs(sweep)
        webps(sweep)
        gifs(sweep)
        bmps(sweep)
        raw = Path(tmp) / "raw"
        done = subprocess.run([pixels, str(raw)], input="\n".join(map(str, sweep.files)) + "\n", capture_output=True, text=True, check=True)
        lines, data, at = done.stdout.splitlines(), raw.read_bytes(), 0
        assert len(lines) == len(sweep.files)
        counts, bad, refusals = Counter(), [], Counter()
        keep = Path(sys.argv[2]) if len(sys.argv) > 2 else None
        for path, line in zip(sweep.files, lines):
            fmt = path.suffix[1:]
            got = None
            if line.startswith("ok "):
                w, h = map(int, line.split()[1:])
                got = np.frombuffer(data, np.uint8, w * h * 3, at).reshape(h, w, 3)
                at += w * h * 3
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    image = Image.open(path)
                    image.load()
                    deep = image.mode.startswith("I")
                    want = np.asarray(flatten(image))
                    if deep:
                        # Pillow cuts values above 255 off; the high byte is what is shown.
                        want = np.repeat((np.asarray(image).astype(int) >> 8).astype(np.uint8)[..., None], 3, 2)
            except Exception as error:
                want = error
            failed = isinstance(want, Exception)
            misread = False
            if path in sweep.drawn:
                misread = failed or want.shape != sweep.drawn[path].shape or (want != sweep.drawn[path]).any()
                want, failed = sweep.drawn[path], False
            if got is None and failed:
                verdict = "both refuse"
            elif got is None:
                verdict = "refused by name" if line.startswith(("unsupported_codec", "empty", "too_large")) else "refused as damaged"
                refusals[fmt, line.split(": ", 1)[-1]] += 1
            elif failed:
                verdict = "read, and Pillow refuses"
                refusals[fmt, f"{verdict}: {str(want)[:60]}"] += 1
            elif want.shape != got.shape:
                verdict = "differing"
                bad.append((path.name, f"sides {got.shape[:2]} for {want.shape[:2]}"))
            else:
                apart = np.abs(want.astype(int) - got)
                if apart.max() == 0:
                    verdict = "as specified, and Pillow misreads" if misread else "equal"
                elif fmt == "jpg" and apart.max() <= 5 and apart.mean() <= 0.6:
                    verdict = "within the bounds of the fast decoder"
                else:
                    verdict = "differing"
                    bad.append((path.name, f"max {apart.max()} mean {apart.mean():.2f}"))
            counts[fmt, verdict] += 1
            if keep and verdict not in ("equal", "both refuse", "within the bounds of the fast decoder", "as specified, and Pillow misreads"):
                keep.mkdir(exist_ok=True)
                (keep / path.name).write_bytes(path.read_bytes())
        for (fmt, verdict), count in sorted(counts.items()):
            print(f"{fmt:5} {verdict:40} {count}")
        for (fmt, words), count in sorted(refusals.items()):
            print(f"      {fmt}: {count} x {words}")
        for name, words in bad:
            print("differs:", name, words)


if __name__ == "__main__":
    main()

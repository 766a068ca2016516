"""Small animations in every way a frame can be stored, and what Pillow and FFmpeg make of them.

  python animations.py OUT

writes OUT/animations/* (inputs) and OUT/animations.json: for each input the sides, the start of each frame and the end in
seconds, and for each frame the SHA-256 of its RGB bytes. Frames are Pillow 13's, sought one by one, as RGBA over white;
those of animated PNG with transparency are put together here with numpy as the PNG specification says, because Pillow
leaves opaque pixels half transparent. Starts come from FFmpeg (the program of imageio-ffmpeg, `showinfo`), so that the
rules for delays of zero are measured and not assumed; the end is the last start and the delay of the last frame by the
same rule. Lossy WebP frames are stored as bytes in OUT/animations.safetensors (a PNG each), because they are compared
within a bound. Drawn from a fixed seed.
"""
import hashlib
import io
import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

W, H = 40, 30
RNG = np.random.default_rng(20261121)


def lzw(indices, bits):
    """GIF's compression with a dictionary, so that codes grow as they do in real files."""
    clear, end = 1 << bits, (1 << bits) + 1
    table = {bytes([i]): i for i in range(clear)}
    width, codes, word = bits + 1, [], b""
    out, held, count = bytearray(), 0, 0

    def put(code):
        nonlocal held, count
        held |= code << count
        count += width
        while count >= 8:
            out.append(held & 255)
            held >>= 8
            count -= 8

    put(clear)
    for i in indices:
        longer = word + bytes([i])
        if longer in table:
            word = longer
            continue
        put(table[word])
        if len(table) + 2 < 4096:
            table[longer] = len(table) + 2
            if len(table) + 1 >= 1 << width and width < 12:
                width += 1
        else:
            put(clear)
            table = {bytes([i]): i for i in range(clear)}
            width = bits + 1
        word = bytes([i])
    put(table[word])
    put(end)
    if count:
        out.append(held & 255)
    blocks = b"".join(bytes([len(out[i:i + 255])]) + bytes(out[i:i + 255]) for i in range(0, len(out), 255))
    return bytes([bits]) + blocks + b"\0"


def palette(colours):
    return RNG.integers(0, 256, (colours, 3), dtype=np.uint8)


def gif(frames, colours=16, background=3, global_palette=True, screen=(W, H), comment=False):
    """Frames: dicts with x y w h, delay (None: no graphic control), disposal, transparent, local, interlaced, pixels."""
    bits = colours.bit_length() - 1
    flags = (0x80 if global_palette else 0) | 0x70 | (bits - 1)
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, flags, background, 0)
    if global_palette:
        out += palette(colours).tobytes()
    out += b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    for f in frames:
        if comment:
            out += b"\x21\xfe\x05hello\x03you\0"
        if f.get("delay", 5) is not None:
            t = f.get("transparent")
            out += b"\x21\xf9\x04" + struct.pack(
                "<BHB", f.get("disposal", 0) << 2 | (t is not None), f.get("delay", 5), t or 0) + b"\0"
        w, h = f.get("w", W), f.get("h", H)
        local = f.get("local")
        flags = (0x80 | (local.bit_length() - 2) if local else 0) | (0x40 if f.get("interlaced") else 0)
        out += b"\x2c" + struct.pack("<HHHHB", f.get("x", 0), f.get("y", 0), w, h, flags)
        if local:
            out += palette(local).tobytes()
        top = local or colours
        pixels = RNG.integers(0, top, (h, w), dtype=np.uint8)
        pixels[: h // 2] = np.arange(h // 2)[:, None] // 3 % top
        if f.get("interlaced"):
            order = [*range(0, h, 8), *range(4, h, 8), *range(2, h, 4), *range(1, h, 2)]
            pixels = pixels[order]
        out += lzw(pixels.ravel().tolist(), max(2, top.bit_length() - 1))
    return out + b";"


def scene(i, alpha=None):
    y, x = np.mgrid[0:H, 0:W]
    rgb = np.stack([x * 6, y * 8, (x + y + 12 * i) * 3], -1).astype(np.uint8)
    rgb[5 + 2 * i:15 + 2 * i, 4 + 5 * i:14 + 5 * i] = [250, 20 * i, 40]
    if alpha is None:
        return Image.fromarray(rgb)
    a = {"binary": ((x + 3 * i) // 8 % 2 * 255), "soft": ((x * 6 + 40 * i) % 256)}[alpha].astype(np.uint8)
    return Image.fromarray(np.dstack([rgb, a]))


def webp(frames, canvas=(W, H), alpha=True, delays=None):
    """Frames: (picture, x, y, blend, clear, lossless, delay)."""
    body = b"VP8X" + struct.pack("<IB3x", 10, 2 | (16 if alpha else 0))
    body += (canvas[0] - 1).to_bytes(3, "little") + (canvas[1] - 1).to_bytes(3, "little")
    body += b"ANIM" + struct.pack("<IIH", 6, 0x80402010, 0)
    for im, x, y, blend, clear, lossless, delay in frames:
        data = io.BytesIO()
        im.save(data, "WEBP", lossless=lossless, quality=80, method=4, exact=True)
        data = data.getvalue()
        chunks, at = b"", 12
        while at < len(data):
            size = struct.unpack("<I", data[at + 4:at + 8])[0]
            if data[at:at + 4] in (b"ALPH", b"VP8 ", b"VP8L"):
                chunks += data[at:at + 8 + size + size % 2]
            at += 8 + size + size % 2
        head = b"".join(v.to_bytes(3, "little") for v in (x // 2, y // 2, im.width - 1, im.height - 1, delay))
        frame = head + bytes([(0 if blend else 2) | clear]) + chunks
        body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def apng(frames, color=6, default=None):
    """Frames: (array, x, y, dispose, blend, num, den)."""
    pack = lambda a: zlib.compress(b"".join(b"\0" + row.tobytes() for row in a), 9)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 8, color, 0, 0, 0))
    out += chunk(b"acTL", struct.pack(">II", len(frames), 0))
    order = 0
    if default is not None:
        out += chunk(b"IDAT", pack(default))
    for i, (a, x, y, dispose, blend, num, den) in enumerate(frames):
        out += chunk(b"fcTL", struct.pack(">IIIIIHHBB", order, a.shape[1], a.shape[0], x, y, num, den, dispose, blend))
        order += 1
        if i == 0 and default is None:
            out += chunk(b"IDAT", pack(a))
        else:
            out += chunk(b"fdAT", struct.pack(">I", order) + pack(a))
            order += 1
    return out + chunk(b"IEND", b"")


def png_frames(frames):
    """What the PNG specification makes of them, over white."""
    canvas, out = np.zeros((H, W, 4)), []
    for a, x, y, dispose, blend, *_ in frames:
        a = np.dstack([a, np.full(a.shape[:2], 255)]) if a.shape[2] == 3 else a
        box = np.s_[y:y + a.shape[0], x:x + a.shape[1]]
        before, below = canvas[box].copy(), canvas[box]
        if blend:
            # Exact rationals as in integers: rounded to the nearest, halves up.
            front, back = a[..., 3:].astype(np.int64) * 255, below[..., 3:].astype(np.int64) * (255 - a[..., 3:].astype(np.int64))
            total = front + back
            rgb = (a[..., :3] * front + below[..., :3].astype(np.int64) * back + total // 2) // np.maximum(total, 1)
            canvas[box] = np.where(front == 0, below, np.dstack([rgb, (total + 127) // 255]))
        else:
            canvas[box] = a
        out.append(over_white(Image.fromarray(canvas.astype(np.uint8))))
        if dispose == 1 or (dispose == 2 and len(out) == 1):
            canvas[box] = 0
        elif dispose == 2:
            canvas[box] = before
    return out


def over_white(im):
    im = im.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", im.size, (255,) * 4), im).convert("RGB"))


def pillow_frames(path):
    im, out = Image.open(path), []
    for i in range(getattr(im, "n_frames", 1)):
        im.seek(i)
        out.append(over_white(im))
    return out


def starts(path):
    log = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "info", "-i", str(path), "-vf", "showinfo",
                          "-fps_mode", "passthrough", "-f", "null", "-"], capture_output=True, text=True).stderr
    times = [float(t) for t in re.findall(r"pts_time:(\S+)", log)]
    ends = [float(t) for t in re.findall(r" duration_time:(\S+)", log)]
    return times, times[-1] + ends[-1]


def main():
    out = Path(sys.argv[1])
    folder = out / "animations"
    folder.mkdir(exist_ok=True)
    films, png_expected = {}, {}
    part = dict(x=6, y=4, w=21, h=17)
    films["plain.gif"] = gif([{} for _ in range(4)])
    films["parts.gif"] = gif([{}, part, dict(part, x=15, y=11), dict(x=39, y=29, w=1, h=1)], comment=True)
    films["first-part.gif"] = gif([part, dict(part, x=1, y=1), {}])
    films["transparent.gif"] = gif([dict(transparent=2), dict(part, transparent=5), dict(transparent=1), {}])
    films["transparent-later.gif"] = gif([{}, dict(part, transparent=5), dict(transparent=1)])
    for disposal in range(8):
        films[f"disposal-{disposal}.gif"] = gif(
            [dict(transparent=2, disposal=1), dict(part, transparent=5, disposal=disposal), dict(x=20, y=10, w=15, h=15, transparent=1),
             dict(part, x=3, disposal=disposal), dict(x=0, y=0, w=4, h=4)])
        films[f"disposal-{disposal}-opaque.gif"] = gif(
            [dict(disposal=disposal), dict(part, disposal=disposal), dict(part, transparent=5, disposal=disposal, x=9),
             dict(x=0, y=0, w=4, h=4, local=8)])
    films["first-disposed.gif"] = gif([dict(part, transparent=2, disposal=2), part, dict(part, disposal=3, transparent=1), dict(x=1, y=1, w=3, h=3)])
    films["first-put-back.gif"] = gif([dict(part, transparent=2, disposal=3), dict(x=1, y=1, w=3, h=3), {}])
    films["local-palettes.gif"] = gif([dict(local=8), dict(part, local=32, disposal=2), dict(part, local=4, transparent=3), dict(x=1, y=1, w=3, h=3)])
    films["no-global-palette.gif"] = gif([dict(local=16), dict(part, local=2, disposal=2), dict(x=1, y=1, w=3, h=3, local=4)], global_palette=False)
    films["interlaced.gif"] = gif([dict(interlaced=True), dict(part, interlaced=True), dict(part, h=3, interlaced=True)])
    films["many-colours.gif"] = gif([{} for _ in range(3)], colours=256)
    films["delays.gif"] = gif([dict(part, delay=d) for d in [None, 0, 1, 2, 3, None, 5, 10, 250, 0]])
    films["one-frame.gif"] = gif([dict(delay=7)])
    pic = [scene(i) for i in range(5)]
    soft, hard = [scene(i, "soft") for i in range(5)], [scene(i, "binary") for i in range(5)]
    cut = lambda im: im.crop((6, 4, 27, 21))
    films["plain.webp"] = webp([(p, 0, 0, False, 0, True, d) for p, d in zip(pic, [0, 5, 10, 11, 40])], alpha=False)
    films["opaque-parts.webp"] = webp([(cut(p), 2 * i, 2 * i, True, i % 2, True, 50) for i, p in enumerate(pic)], alpha=False)
    for name, frames in (("soft", soft), ("binary", hard)):
        films[f"{name}-over.webp"] = webp([(p, 0, 0, True, 0, True, 50) for p in frames])
        films[f"{name}-put.webp"] = webp([(cut(p), 2 * i, 4, False, 0, True, 50) for i, p in enumerate(frames)])
        films[f"{name}-cleared.webp"] = webp([(cut(p), 4 * i, 2 * i, True, 1, True, 50) for i, p in enumerate(frames)])
        films[f"{name}-mixed.webp"] = webp(
            [(pic[0], 0, 0, True, 0, True, 50), (cut(frames[1]), 6, 4, True, 1, True, 50), (cut(frames[2]), 14, 8, True, 0, True, 50),
             (cut(frames[3]), 10, 2, False, 1, True, 50), (frames[4], 0, 0, True, 0, True, 50), (cut(pic[1]), 0, 0, True, 0, True, 50)])
    films["lossy.webp"] = webp([(p, 0, 0, True, 0, False, 50) for p in pic[:3]], alpha=False)
    films["lossy-soft.webp"] = webp([(pic[0], 0, 0, True, 0, False, 50), (cut(soft[1]), 6, 4, True, 0, False, 50), (cut(hard[2]), 10, 8, True, 1, False, 50)])
    arrays = {k: [np.asarray(p) for p in v] for k, v in (("rgb", pic), ("soft", soft), ("binary", hard))}
    small = lambda a: np.ascontiguousarray(a[4:21, 6:27])
    pngs = {
        "plain.png": (2, [(a, 0, 0, 0, 0, n, d) for a, (n, d) in zip(arrays["rgb"], [(0, 0), (3, 0), (1, 1000), (1, 25), (40, 1000)])]),
        "parts.png": (2, [(arrays["rgb"][0], 0, 0, 0, 0, 1, 20)] + [(small(a), 3 * i, i, i % 3, 0, 1, 20) for i, a in enumerate(arrays["rgb"][1:])]),
        "soft.png": (6, [(arrays["soft"][0], 0, 0, 0, 0, 1, 20)] + [(small(a), 3 * i, i, i % 3, 1, 1, 20) for i, a in enumerate(arrays["soft"][1:])]),
        "first-disposed.png": (6, [(arrays["binary"][0], 0, 0, 2, 1, 1, 20), (small(arrays["soft"][1]), 5, 5, 1, 1, 1, 20), (small(arrays["binary"][2]), 1, 2, 0, 1, 1, 20)]),
    }
    for name, (color, frames) in pngs.items():
        films[name], png_expected[name] = apng(frames, color), png_frames(frames)
    films["default-apart.png"] = apng(pngs["soft.png"][1], 6, default=arrays["binary"][4])
    png_expected["default-apart.png"] = png_expected["soft.png"]

    listing, lossy = {}, {}
    for name, data in sorted(films.items(), key=lambda item: (item[0] == "default-apart.png", item[0])):
        path = folder / name
        path.write_bytes(data)
        frames = png_expected.get(name) or pillow_frames(path)
        times, end = starts(path)
        # FFmpeg counts the picture that is no frame.
        assert len(times) == len(frames) or name == "default-apart.png", (name, len(times), len(frames))
        if name == "default-apart.png":
            times, end = listing["soft.png"]["starts_s"], listing["soft.png"]["end_s"]
        if name == "plain.webp":
            end = times[-1] + 0.04  # its delay, 40 ms
        listing[name] = dict(width=W, height=H, starts_s=times, end_s=round(end, 6),
                             sha256=[hashlib.sha256(f.tobytes()).hexdigest() for f in frames])
        if name.startswith("lossy"):
            for i, f in enumerate(frames):
                data = io.BytesIO()
                Image.fromarray(f).save(data, "PNG", optimize=True)
                lossy[f"{name}/{i}"] = np.frombuffer(data.getvalue(), np.uint8)
    (out / "animations.json").write_text(json.dumps(listing, indent=1, sort_keys=True) + "\n")
    save_file(lossy, out / "animations.safetensors")


main()

"""Small pictures in every format that is read, and what Pillow makes of them.

  python images.py OUT

writes OUT/images/* (inputs) and OUT/images.safetensors: under the name of each input the expected picture, as the
bytes of a plain PNG (a third of the size of raw values). Expected means: turned as the metadata says, transparency over
white, RGB, as Pillow 13 does it.
Samples of 16 bits are expected as their high byte, computed here with numpy, because Pillow clips grey ones at 255.
Resized pictures are expected under `resize/HEIGHTxWIDTH`, from the input `noise.png`.
"""
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

W, H = 24, 16


def scene(w, h, seed):
    """Smooth colours with two hard edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    rgb = np.stack([127.5 + 120 * np.sin(x * a / w * 6 + y * b / h * 5 + p) for a, b, p in rng.uniform(0.3, 1.5, (3, 3))], -1)
    rgb[h // 4:h // 2, w // 3:w // 2] = rng.uniform(0, 255, 3)
    rgb[:, w - w // 6] = 255
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def flatten(im):
    """As the reference opens a picture: turned, transparency over white, RGB."""
    im = ImageOps.exif_transpose(im)
    if "A" in im.getbands() or im.info.get("transparency") is not None:
        im = im.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", im.size, (255, 255, 255, 255)), im).convert("RGB")
    return im.convert("RGB")


def over_white(rgb, alpha):
    """High bytes and their alpha over white, by Pillow."""
    rgba = Image.fromarray(np.dstack([rgb, alpha]))
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, (255,) * 4), rgba).convert("RGB"))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(w, h, depth, color, rows, extra=b""):
    """A PNG of any bit depth, from rows of packed bytes; Pillow does not write all of them."""
    raw = b"".join(b"\0" + bytes(row) for row in rows)
    head = struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def pack_bits(values, depth):
    """[h, w] of small integers into rows of packed bits."""
    bits = ((values[..., None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(values.shape[0], -1)
    return np.packbits(bits, axis=1)


def adam7(rgb):
    """An interlaced PNG, which Pillow reads but does not write."""
    h, w, _ = rgb.shape
    raw = b""
    for y0, x0, dy, dx in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        raw += b"".join(b"\0" + row.tobytes() for row in rgb[y0::dy, x0::dx])
    head = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


class Out:
    def __init__(self, root):
        self.root, self.expected = root, {}
        (root / "images").mkdir(parents=True, exist_ok=True)

    def put(self, name, data, expected=None):
        """One input; what is expected is Pillow's reading of it, unless given."""
        (self.root / "images" / name).write_bytes(data)
        if expected is None:
            expected = np.asarray(flatten(Image.open(io.BytesIO(data))))
        self.expected[name] = np.ascontiguousarray(expected)

    def write(self):
        packed = {}
        for name, pixels in self.expected.items():
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, "PNG", optimize=True)
            packed[name] = np.frombuffer(data.getvalue(), np.uint8)
        save_file(packed, self.root / "images.safetensors")

    def save(self, name, im, fmt, expected=None, **options):
        data = io.BytesIO()
        im.save(data, fmt, **options)
        self.put(name, data.getvalue(), expected)


def main(root):
    out = Out(root)
    rng = np.random.default_rng(5)
    rgb = scene(W, H, 1)
    picture = Image.fromarray(rgb)
    grey = picture.convert("L")
    alpha = np.clip(np.add.outer(np.arange(H) * 12, np.arange(W) * 7) % 300, 0, 255).astype(np.uint8)
    rgba = Image.fromarray(np.dstack([rgb, alpha]))
    grey_alpha = Image.merge("LA", [grey, Image.fromarray(alpha)])

    # Resize: noise, because it shows every rounding.
    noise = rng.integers(0, 256, (23, 37, 3)).astype(np.uint8)
    out.save("noise.png", Image.fromarray(noise), "PNG")
    sizes = [(12, 20), (12, 60), (40, 20), (40, 60), (23, 20), (23, 60), (12, 37), (40, 37), (23, 37), (5, 31), (2, 30),
             (10, 30), (1, 1), (1, 37), (23, 1), (64, 1), (1, 50), (7, 29), (7, 28), (8, 29)]
    for h, w in sizes:
        out.expected[f"resize/{h}x{w}"] = np.asarray(Image.fromarray(noise).resize((w, h), Image.BICUBIC))
    for name, (h, w) in (("column.png", (19, 1)), ("row.png", (1, 17))):
        line = Image.fromarray(rng.integers(0, 256, (h, w, 3)).astype(np.uint8))
        out.save(name, line, "PNG")
        for th, tw in ((1, 1), (32, 32), (5, 9)):
            out.expected[f"resize-{name}/{th}x{tw}"] = np.asarray(line.resize((tw, th), Image.BICUBIC))

    # Transparency: every sample with every alpha, then the forms it comes in.
    value, a = np.meshgrid(np.arange(256), np.arange(256))
    every = np.stack([value, 255 - value, (value * 7) % 256, a], -1).astype(np.uint8)
    all_pairs = np.asarray(flatten(Image.fromarray(every)))
    out.save("alpha-all-pairs.png", Image.fromarray(every), "PNG", all_pairs, optimize=True)
    out.save("rgba.png", rgba, "PNG")
    out.save("la.png", grey_alpha, "PNG")
    out.save("rgb-trns.png", picture, "PNG", transparency=tuple(int(v) for v in rgb[0, 0]))
    out.save("grey-trns.png", grey, "PNG", transparency=int(np.asarray(grey)[0, 0]))
    palette = picture.quantize(16)
    out.save("palette.png", palette, "PNG")
    out.save("palette-trns-one.png", palette, "PNG", transparency=3)
    out.save("palette-trns-many.png", palette, "PNG", transparency=bytes(range(0, 256, 16)))
    out.save("palette-4-bit.png", picture.quantize(11), "PNG", bits=4)
    out.save("palette-2-bit.png", picture.quantize(4), "PNG", bits=2)
    out.save("palette-1-bit.png", picture.quantize(2), "PNG", bits=1)
    out.save("grey.png", grey, "PNG")
    out.save("one-bit.png", grey.convert("1"), "PNG")
    small = np.asarray(grey) >> 4
    out.put("grey-4-bit.png", png(W, H, 4, 0, pack_bits(small, 4)))
    out.put("grey-2-bit.png", png(W, H, 2, 0, pack_bits(small >> 2, 2)))
    # Pillow compares the stored sample of a 4-bit grey with the scaled one, so the expected bytes are made here.
    shown = (small * 17).astype(np.uint8)
    shown = np.where(small == 9, 255, shown).astype(np.uint8)
    out.put("grey-4-bit-trns.png", png(W, H, 4, 0, pack_bits(small, 4), chunk(b"tRNS", struct.pack(">H", 9))),
            np.repeat(shown[..., None], 3, 2))
    out.put("interlaced.png", adam7(rgb))

    # 16 bits: the high byte.
    deep = rng.integers(0, 65536, (H, W, 4)).astype(np.uint16)
    high = (deep >> 8).astype(np.uint8)
    be = lambda x: x.astype(">u2").tobytes()
    rows = lambda x: [be(row) for row in x]
    out.put("grey-16.png", png(W, H, 16, 0, rows(deep[..., :1])), np.repeat(high[..., :1], 3, 2))
    out.put("rgb-16.png", png(W, H, 16, 2, rows(deep[..., :3])), high[..., :3])
    out.put("rgba-16.png", png(W, H, 16, 6, rows(deep)), over_white(high[..., :3], high[..., 3]))
    out.put("la-16.png", png(W, H, 16, 4, rows(deep[..., [0, 3]])), over_white(np.repeat(high[..., :1], 3, 2), high[..., 3]))
    out.save("grey-16.tif", Image.fromarray(deep[..., 0]), "TIFF", np.repeat(high[..., :1], 3, 2))

    # Held in all eight ways, in each format that can say so.
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        out.save(f"exif-{turn}.jpg", picture, "JPEG", quality=95, subsampling=0, exif=exif)
        out.save(f"exif-{turn}.png", picture, "PNG", exif=exif)
        out.save(f"exif-{turn}.webp", picture, "WEBP", lossless=True, exif=exif)
        out.save(f"exif-{turn}.tif", picture, "TIFF", tiffinfo={0x0112: turn})
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    out.save("xmp-6.jpg", picture, "JPEG", quality=95, subsampling=0, xmp=packet)

    # The other formats.
    out.save("palette.gif", palette, "GIF")
    out.save("transparent.gif", palette, "GIF", transparency=3)
    out.save("two-frames.gif", palette, "GIF", save_all=True, append_images=[Image.fromarray(255 - rgb).quantize(16)])
    # A first frame that leaves some of the screen free: without and with a transparent colour.
    for name, extra in (("part-of-screen.gif", {}), ("part-of-screen-transparent.gif", {"transparency": 3})):
        data = io.BytesIO()
        palette.save(data, "GIF", interlace=1, **extra)
        data = bytearray(data.getvalue())
        data[6:10] = struct.pack("<HH", W + 6, H + 5)
        at = data.index(b"\x2c\0\0\0\0" + struct.pack("<HH", W, H))
        data[at + 1:at + 5] = struct.pack("<HH", 4, 2)
        out.put(name, bytes(data))
    out.save("lossless.webp", picture, "WEBP", lossless=True)
    out.save("lossless-alpha.webp", rgba, "WEBP", lossless=True, exact=True)
    out.save("rgb.bmp", picture, "BMP")
    out.save("palette.bmp", palette, "BMP")
    out.save("grey.bmp", grey, "BMP")
    out.save("one-bit.bmp", grey.convert("1"), "BMP")
    out.save("rgba.bmp", rgba, "BMP")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        out.save(f"rgb-{compression}.tif", picture, "TIFF", compression=compression)
    out.save("grey.tif", grey, "TIFF")
    out.save("one-bit.tif", grey.convert("1"), "TIFF")
    out.save("rgba.tif", rgba, "TIFF")

    # Lossy: compared within bounds that the tests state.
    photo = Image.fromarray(scene(56, 40, 2))
    out.save("lossy.webp", photo, "WEBP", quality=80)
    for name, options in (("444-q90", dict(quality=90, subsampling=0)), ("420-q90", dict(quality=90, subsampling=2)),
                          ("422-q75", dict(quality=75, subsampling=1)), ("420-progressive-q75", dict(quality=75, progressive=True))):
        out.save(f"{name}.jpg", photo, "JPEG", **options)
    out.save("grey-q90.jpg", photo.convert("L"), "JPEG", quality=90)
    out.save("cmyk-q90.jpg", photo.convert("CMYK"), "JPEG", quality=90)

    # Refused by name, so without expected bytes.
    out.save("float.tif", Image.fromarray(np.asarray(grey).astype(np.float32)), "TIFF")
    out.save("palette.tif", palette, "TIFF")
    for name in ("float.tif", "palette.tif"):
        del out.expected[name]
    out.write()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

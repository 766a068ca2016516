"""Small TIFF files in every layout and packing that is read, and what Pillow makes of them.

  python tiffs.py OUT

writes OUT/tiffs/*.tif and OUT/tiffs.safetensors: under the name of each file the expected image, as the bytes of a plain PNG.
Expected is Pillow 13's reading as `images.py` has it: turned, transparency over white, RGB. Where Pillow has none or
misreads, the expected pixels are computed here with numpy from the samples that were stored, and the case says why.
Files are laid out by `tiff` below, byte by byte; strips are packed by Pillow's libtiff, imagecodecs, zlib and lzma. Coded
rows in two dimensions come from libtiff's own `tiffcp`, which must be installed.
"""
import io
import lzma
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from images import flatten, over_white, pack_bits, scene

W, H = 37, 21
BYTE, SHORT, LONG, SLONG, LONG8 = 1, 3, 4, 9, 16
SIZE = {1: 1, 3: 2, 4: 4, 5: 8, 9: 4, 16: 8}
CODE = {1: "B", 3: "H", 4: "I", 9: "i", 16: "Q"}


def tiff(tags, chunks, order="<", big=False, counts=True, tiled=False, more=b""):
    """A file of one image. `tags` maps numbers to values, or to (type, values); `more` follows the directory."""
    at = 16 if big else 8
    offsets, blob = [], b""
    for chunk in chunks:
        offsets.append(at + len(blob))
        blob += chunk + b"\0" * (len(chunk) % 2)
    where, sizes = (324, 325) if tiled else (273, 279)
    tags = dict(tags)
    tags.setdefault(where, (LONG, offsets))
    if counts:
        tags.setdefault(sizes, (LONG, [len(c) for c in chunks]))
    at += len(blob)
    inline = 8 if big else 4
    entry = 12 + (8 if big else 0)
    extra_at = at + (8 if big else 2) + entry * len(tags) + inline
    table, extra = b"", b""
    for tag, value in sorted(tags.items()):
        kind, values = value if isinstance(value, tuple) else (SHORT, value)
        values = values if isinstance(values, (list, tuple, bytes, np.ndarray)) else [values]
        if kind == 5:
            data = b"".join(struct.pack(order + "II", int(v), 1) for v in values)
        elif kind == 7:
            data = bytes(values)
        else:
            data = struct.pack(order + str(len(values)) + CODE[kind], *[int(v) for v in values])
        table += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(values))
        if len(data) <= inline:
            table += data.ljust(inline, b"\0")
        else:
            table += struct.pack(order + ("Q" if big else "I"), extra_at + len(extra))
            extra += data + b"\0" * (len(data) % 2)
    table = struct.pack(order + ("Q" if big else "H"), len(tags)) + table + b"\0" * inline
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, at) if big else (42, at)))
    return head + blob + table + extra + more


def tags(w=W, h=H, bits=8, samples=1, photometric=1, packing=1, **more):
    found = {256: w, 257: h, 258: [bits] * samples, 259: packing, 262: photometric, 277: samples}
    names = dict(fill=266, rows=278, planar=284, predictor=317, extra=338, format=339, tw=322, tl=323, subsampling=530)
    found.update({names.get(name, name): value for name, value in more.items() if name in names})
    found.update(more.get("raw", {}))
    return found


def reverse(data):
    return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8).reshape(-1, 1), axis=1)[:, ::-1], axis=1).tobytes()


def difference(values):
    """Predictor 2 of [h, w, samples]."""
    values = values.copy()
    values[:, 1:] -= values[:, :-1].copy()
    return values


def tiles(values, tw, tl):
    h, w = values.shape[:2]
    padded = np.pad(values, [(0, -h % tl), (0, -w % tw)] + [(0, 0)] * (values.ndim - 2), mode="edge")
    return [padded[y:y + tl, x:x + tw] for y in range(0, h, tl) for x in range(0, w, tw)]


def old_lzw(data):
    """Codes of nine bits from the low end, the table cleared before they grow."""
    codes = []
    for at in range(0, len(data), 200):
        codes += [256, *data[at:at + 200]]
    codes.append(257)
    total = sum(code << (9 * i) for i, code in enumerate(codes))
    return total.to_bytes((9 * len(codes) + 7) // 8, "little")


def strip_of(image, compression):
    """The one strip that Pillow's libtiff packs, and the tags of its options."""
    data = io.BytesIO()
    image.save(data, "TIFF", compression=compression, strip_size=1 << 20)
    with Image.open(data) as im:
        at, size = im.tag_v2[273][0], im.tag_v2[279][0]
        return data.getvalue()[at:at + size], im.tag_v2.get(262)


class Out:
    def __init__(self, root):
        self.root, self.expected = root, {}
        (root / "tiffs").mkdir(parents=True, exist_ok=True)

    def put(self, name, data, expected=None):
        (self.root / "tiffs" / f"{name}.tif").write_bytes(data)
        if expected is None:
            with Image.open(io.BytesIO(data)) as im:
                im.load()
                expected = np.asarray(flatten(im.convert("LA") if im.mode == "La" else im))
        self.expected[f"{name}.tif"] = np.ascontiguousarray(np.broadcast_to(expected, expected.shape[:2] + (3,)))

    def write(self):
        packed = {}
        for name, pixels in self.expected.items():
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, "PNG", optimize=True)
            packed[name] = np.frombuffer(data.getvalue(), np.uint8)
        save_file(packed, self.root / "tiffs.safetensors")


def main(root):
    out = Out(root)
    rng = np.random.default_rng(13)
    rgb = scene(W, H, 21)
    image = Image.fromarray(rgb)
    grey = np.asarray(image.convert("L"))
    alpha = np.clip(np.add.outer(np.arange(H) * 9, np.arange(W) * 5) % 300, 0, 255).astype(np.uint8)
    rgba = np.dstack([rgb, alpha])
    high = lambda values: (values >> 8).astype(np.uint8)
    of_grey = lambda values: np.repeat(values[..., None], 3, 2)

    # Palettes and grey of few bits, in both orders of bits.
    for bits in (1, 2, 4, 8):
        indices = rng.integers(0, 1 << bits, (H, W)).astype(np.uint8)
        colours = rng.integers(0, 65536, 3 << bits)
        rows = pack_bits(indices, bits).tobytes()
        for fill in (1, 2):
            stored = reverse(rows) if fill == 2 else rows
            # Pillow has no reader for some of those with bits from the low end, which are the same.
            checkpoint = out.expected.get(f"palette-{bits}-fill-1.tif")
            out.put(f"palette-{bits}-fill-{fill}", tiff(tags(bits=bits, photometric=3, fill=fill, raw={320: colours}), [stored]), checkpoint)
            for photometric in (0, 1):
                name = f"grey-{bits}-{'white' if photometric == 0 else 'black'}-fill-"
                checkpoint = out.expected.get(f"{name}1.tif")
                out.put(f"{name}{fill}", tiff(tags(bits=bits, photometric=photometric, fill=fill), [stored], order="<>"[fill - 1]), checkpoint)
    # Pillow shifts all values of a palette, which makes one of eight bits black; libtiff sees it by its largest value.
    narrow = rng.integers(0, 256, 768)
    out.put("palette-of-8-bits", tiff(tags(photometric=3, raw={320: narrow}), [grey.tobytes()]), narrow.reshape(3, 256).T[grey].astype(np.uint8))
    out.put("palette-and-alpha", tiff(tags(samples=2, photometric=3, extra=2, raw={320: rng.integers(0, 65536, 768)}), [np.dstack([grey, alpha]).tobytes()]))
    out.put("palette-lzw-tiles", tiff(tags(photometric=3, packing=5, tw=16, tl=16, raw={320: rng.integers(0, 65536, 768)}),
                                      [imagecodecs.lzw_encode(t.tobytes()) for t in tiles(grey, 16, 16)], tiled=True))

    # More bits than eight: the high ones. Pillow clips grey at 255, so the expected bytes are made here.
    deep = rng.integers(0, 65536, (H, W, 4)).astype(np.uint16)
    twelve = (deep[..., 0] >> 4).astype(np.uint16)
    out.put("grey-12", tiff(tags(bits=12), [pack_bits(twelve, 12).tobytes()]), of_grey((twelve >> 4).astype(np.uint8)))
    for order in "<>":
        raw = deep.astype(order + "u2")
        name = "little" if order == "<" else "big"
        out.put(f"grey-16-white-{name}", tiff(tags(bits=16, photometric=0), [raw[..., 0].tobytes()], order), of_grey(255 - high(deep[..., 0])))
        out.put(f"rgba-16-{name}", tiff(tags(bits=16, samples=4, photometric=2, extra=2), [raw.tobytes()], order))
        out.put(f"rgba-16-associated-{name}", tiff(tags(bits=16, samples=4, photometric=2, extra=1), [raw.tobytes()], order))
        out.put(f"rgb-16-lzw-differences-{name}", tiff(tags(bits=16, samples=3, photometric=2, packing=5, predictor=2),
                                                       [imagecodecs.lzw_encode(difference(deep[..., :3]).astype(order + "u2").tobytes())], order))
    out.put("grey-16-fill-2", tiff(tags(bits=16, fill=2), [reverse(deep[..., 0].astype("<u2").tobytes())]), of_grey(high(deep[..., 0])))
    # Pillow reads planes of 16 bits as if they had eight.
    out.put("rgb-16-planes", tiff(tags(bits=16, samples=3, photometric=2, planar=2, rows=8),
                                  [deep[y:y + 8, :, c].astype("<u2").tobytes() for c in range(3) for y in range(0, H, 8)]), high(deep[..., :3]))
    la16 = deep[..., [0, 3]].astype(">u2")
    out.put("la-16", tiff(tags(bits=16, samples=2, extra=2), [la16.tobytes()], ">"), over_white(of_grey(high(deep[..., 0])), high(deep[..., 3])))

    # Alpha in all kinds, and samples that are none.
    for name, extra, data in (("associated", [1], rgba), ("straight", [2], rgba), ("unspecified", [0], rgba), ("associated-and-more", [1, 0], np.dstack([rgba, grey])),
                              ("straight-and-more", [2, 0, 0], np.dstack([rgba, grey, grey])), ("two-unspecified", [0, 0], np.dstack([rgba, grey])), ("corel", [999], rgba)):
        out.put(f"rgb-{name}", tiff(tags(samples=data.shape[2], photometric=2, extra=extra), [data.tobytes()]))
    out.put("rgb-four-without-word", tiff(tags(samples=4, photometric=2), [rgba.tobytes()]))
    value, opacity = np.meshgrid(np.arange(256), np.arange(0, 256, 5))
    pairs = np.stack([value, 255 - value, value * 7 % 256, opacity], -1).astype(np.uint8)
    out.put("associated-pairs", tiff(tags(w=256, h=pairs.shape[0], samples=4, photometric=2, extra=1, packing=8), [zlib.compress(pairs.tobytes(), 9)]))
    for name, extra in (("straight", 2), ("associated", 1), ("unspecified", 0)):
        out.put(f"la-{name}", tiff(tags(samples=2, extra=extra), [np.dstack([grey, alpha]).tobytes()]))

    # Planes and tiles.
    out.put("planes-strips", tiff(tags(samples=3, photometric=2, planar=2, rows=5), [rgb[y:y + 5, :, c].tobytes() for c in range(3) for y in range(0, H, 5)]))
    out.put("planes-alpha-strips", tiff(tags(samples=4, photometric=2, planar=2, extra=2, packing=8), [zlib.compress(rgba[..., c].tobytes()) for c in range(4)]))
    out.put("planes-tiles", tiff(tags(samples=3, photometric=2, planar=2, tw=16, tl=16, packing=32773),
                                 [imagecodecs.packbits_encode(t.tobytes()) for c in range(3) for t in tiles(rgb[..., c], 16, 16)], tiled=True))
    out.put("planes-associated-tiles", tiff(tags(samples=4, photometric=2, planar=2, extra=1, tw=32, tl=16, packing=5),
                                            [imagecodecs.lzw_encode(t.tobytes()) for c in range(4) for t in tiles(rgba[..., c], 32, 16)], tiled=True))
    out.put("tiles", tiff(tags(samples=3, photometric=2, tw=16, tl=32), [t.tobytes() for t in tiles(rgb, 16, 32)], tiled=True))
    out.put("tiles-larger-than-image", tiff(tags(samples=3, photometric=2, tw=64, tl=64, packing=8), [zlib.compress(t.tobytes()) for t in tiles(rgb, 64, 64)], tiled=True))
    bits = (grey > 120).astype(np.uint8)
    out.put("tiles-1-bit", tiff(tags(bits=1, tw=16, tl=16, packing=8), [zlib.compress(pack_bits(t, 1).tobytes()) for t in tiles(bits, 16, 16)], tiled=True))
    # The planes of grey with alpha, which Pillow puts into the wrong places.
    out.put("la-planes", tiff(tags(samples=2, planar=2, extra=2, packing=8), [zlib.compress(grey.tobytes()), zlib.compress(alpha.tobytes())]), over_white(of_grey(grey), alpha))

    # Packings, with differences, in both orders of bits.
    delta = lambda predictor: difference(rgb) if predictor == 2 else rgb
    packers = {"lzw": (5, imagecodecs.lzw_encode), "deflate": (8, zlib.compress), "old-deflate": (32946, zlib.compress),
               "zstd": (50000, lambda data: imagecodecs.zstd_encode(data, level=9)), "zstd-22": (50000, lambda data: imagecodecs.zstd_encode(data, level=22)),
               "lzma": (34925, lambda data: lzma.compress(data, check=lzma.CHECK_NONE, filters=[{"id": lzma.FILTER_DELTA, "dist": 1}, {"id": lzma.FILTER_LZMA2, "preset": 6}])),
               "packbits": (32773, imagecodecs.packbits_encode), "old-lzw": (5, old_lzw)}
    for name, (number, pack) in packers.items():
        for predictor, fill in ((1, 1), (2, 1), (1, 2)):
            if (predictor == 2 and name == "packbits") or (fill == 2 and name in ("old-lzw", "zstd-22")):
                continue
            strips = [pack(delta(predictor)[y:y + 8].tobytes()) for y in range(0, H, 8)]
            strips = [reverse(strip) for strip in strips] if fill == 2 else strips
            words = f"{'-differences' if predictor == 2 else ''}{'-fill-2' if fill == 2 else ''}"
            out.put(f"rgb-{name}{words}", tiff(tags(samples=3, photometric=2, packing=number, predictor=predictor, fill=fill, rows=8), strips))
    # A tag of differences says nothing of samples that are not packed.
    out.put("rgb-raw-differences", tiff(tags(samples=3, photometric=2, predictor=2), [rgb.tobytes()]))
    data = io.BytesIO()
    image.save(data, "WEBP", lossless=True)
    # The libtiff of Pillow is built without WebP.
    out.put("rgb-webp", tiff(tags(samples=3, photometric=2, packing=50001), [data.getvalue()]), rgb)

    # Rows of CCITT.
    line = Image.fromarray(bits * 255).convert("1")
    for name, number, option in (("tiff_ccitt", 2, {}), ("group3", 3, {292: (LONG, 0)}), ("group4", 4, {293: (LONG, 0)})):
        strip, photometric = strip_of(line, name)
        for fill in (1, 2):
            out.put(f"{name}-fill-{fill}", tiff(tags(bits=1, photometric=photometric, packing=number, fill=fill, raw=option), [reverse(strip) if fill == 2 else strip]))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        wide = Image.fromarray((scene(131, 40, 5)[..., 0] > 128).astype(np.uint8) * 255).convert("1")
        wide.save(folder / "in.tif")
        for name, options in (("g3-2d", ["-c", "g3:2d"]), ("g3-2d-ends", ["-c", "g3:2d:fill", "-r", "7"]), ("g3-1d-ends", ["-c", "g3:1d:fill"]),
                              ("g4-tiles", ["-c", "g4", "-t", "-w", "48", "-l", "16"]), ("g3-2d-fill-2", ["-c", "g3:2d", "-f", "lsb2msb"])):
            subprocess.run(["tiffcp", *options, folder / "in.tif", folder / "out.tif"], check=True)
            out.put(name, (folder / "out.tif").read_bytes())

    # Other colours.
    cmyk = np.asarray(image.convert("CMYK")).copy()
    cmyk[..., 3] = grey // 3
    out.put("cmyk", tiff(tags(samples=4, photometric=5), [cmyk.tobytes()]))
    out.put("cmyk-16", tiff(tags(samples=4, bits=16, photometric=5), [(cmyk.astype(">u2") * 257).astype(">u2").tobytes()], ">"))
    out.put("cmyk-and-more", tiff(tags(samples=5, photometric=5, extra=0), [np.dstack([cmyk, grey]).tobytes()]))
    ycc = np.asarray(image.convert("YCbCr"))
    out.put("ycbcr", tiff(tags(samples=3, photometric=6, subsampling=[1, 1]), [ycc.tobytes()]))
    out.put("ycbcr-lzw", tiff(tags(samples=3, photometric=6, packing=5, subsampling=[1, 1]), [imagecodecs.lzw_encode(ycc.tobytes())]))
    for across, down in ((2, 2), (2, 1), (4, 2), (4, 1)):
        for levels in ({}, {532: (5, [15, 235, 128, 240, 128, 240])}):
            wide = np.pad(ycc, [(0, -H % down), (0, -W % across), (0, 0)], mode="edge")
            luma = wide[..., 0].reshape(wide.shape[0] // down, down, wide.shape[1] // across, across).transpose(0, 2, 1, 3).reshape(wide.shape[0] // down, wide.shape[1] // across, -1)
            units = np.concatenate([luma, wide[::down, ::across, 1:]], 2)
            out.put(f"ycbcr-{across}x{down}{'-levels' if levels else ''}",
                    tiff(tags(samples=3, photometric=6, packing=8, subsampling=[across, down], raw=levels), [zlib.compress(units.astype(np.uint8).tobytes())]))
    out.put("lab", tiff(tags(samples=3, photometric=8), [scene(W, H, 9).tobytes()]))

    # Directories: wide ones, other types of numbers, numbers that are not there.
    for order in "<>":
        name = "little" if order == "<" else "big"
        # Pillow does not know a BigTIFF from the high end of bytes.
        out.put(f"bigtiff-{name}", tiff(tags(samples=3, photometric=2, rows=6), [rgb[y:y + 6].tobytes() for y in range(0, H, 6)], order, big=True),
                rgb if order == ">" else None)
        out.put(f"small-{name}", tiff(tags(samples=3, photometric=2, rows=6), [rgb[y:y + 6].tobytes() for y in range(0, H, 6)], order))
    out.put("no-byte-counts", tiff(tags(samples=3, photometric=2, rows=7), [rgb[y:y + 7].tobytes() for y in range(0, H, 7)], counts=False))
    out.put("no-byte-counts-lzw", tiff(tags(samples=3, photometric=2, packing=5), [imagecodecs.lzw_encode(rgb.tobytes())], counts=False))
    out.put("rows-beyond-the-end", tiff(tags(samples=3, photometric=2, raw={278: (LONG, 0xffffffff)}), [rgb.tobytes()]))
    out.put("types", tiff({256: (LONG, W), 257: (SHORT, H), 258: (LONG, [8, 8, 8]), 259: (LONG, 1), 262: (LONG, 2), 277: (LONG, 3), 278: (LONG, 50), 339: [1, 1, 1]}, [rgb.tobytes()]))
    out.put("one-size-for-all-samples", tiff({**tags(samples=3, photometric=2), 258: 8}, [rgb.tobytes()]))
    out.put("geotiff", tiff(tags(samples=3, photometric=2, raw={34735: [1, 1, 0, 1, 1024, 0, 1, 1], 42113: (7, b"0\0")}), [rgb.tobytes()]))
    data = io.BytesIO()
    image.save(data, "TIFF", save_all=True, append_images=[Image.fromarray(255 - rgb)], compression="tiff_lzw")
    out.put("two-pages", data.getvalue())

    # JPEG inside, within bounds that the test states.
    photo = Image.fromarray(scene(61, 47, 2))
    for name, im, options in (("jpeg-ycbcr", photo.convert("YCbCr"), {}), ("jpeg-rgb", photo, {}), ("jpeg-grey", photo.convert("L"), {}), ("jpeg-cmyk", photo.convert("CMYK"), {})):
        data = io.BytesIO()
        im.save(data, "TIFF", compression="jpeg", quality=90, **options)
        out.put(name, data.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        photo.save(folder / "in.tif")
        for name, options in (("jpeg-tiles", ["-t", "-w", "32", "-l", "32"]), ("jpeg-strips", ["-r", "16"])):
            subprocess.run(["tiffcp", "-c", "jpeg:90", *options, folder / "in.tif", folder / "out.tif"], check=True)
            out.put(name, (folder / "out.tif").read_bytes())
    planes = []
    for plane in photo.split():
        data = io.BytesIO()
        plane.save(data, "JPEG", quality=90)
        planes.append(data.getvalue())
    out.put("jpeg-planes", tiff(tags(w=61, h=47, samples=3, photometric=2, planar=2, packing=7), planes))
    out.write()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

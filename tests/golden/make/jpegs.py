"""JPEG files in the forms that libraries read and seldom write, and what Pillow makes of them.

  python jpegs.py OUT

writes OUT/jpegs.safetensors and OUT/jpegs.json. The tensors are the bytes of files under `file/NAME`, made by `_jpeg.py`, and
under `want/NAME` the expected image as the bytes of a plain PNG: Pillow 13 (libjpeg-turbo 3.2), converted to RGB. The list in
the JSON says of each file whether it is read or, for those that Pillow reads as well but this crate does not, or that neither
reads, the word that the refusal names it by.
"""
import io
import json
import struct
import sys
from pathlib import Path

import numpy as np
from _jpeg import scan, segment, write
from PIL import Image
from safetensors.numpy import save_file

W, H = 37, 29
JFIF = segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")


def adobe(transform):
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def scene():
    y, x = np.mgrid[0:H, 0:W]
    rgb = np.stack([128 + 100 * np.sin(x / 5 + y / 9), 128 + 90 * np.cos(x / 7 - y / 4), (x * 5 + y * 3) % 256], -1)
    rgb[5:12, 20:30] = [250, 20, 40]
    return rgb.clip(0, 255).astype(np.uint8)


def planes(bands, factors):
    mx, my = max(f[0] for f in factors), max(f[1] for f in factors)
    sides = [(-(-W * fx // mx), -(-H * fy // my)) for fx, fy in factors]
    return [np.asarray(Image.fromarray(band).resize(side, Image.BOX)) for band, side in zip(bands, sides)]


FULL = [scan([0, 1, 2])]
APART = [scan([0]), scan([1]), scan([2])]
CHROMA_FIRST = [scan([1]), scan([2]), scan([0])]
TWO_THEN_ONE = [scan([1, 2]), scan([0])]
LUMA_THEN_TWO = [scan([0]), scan([1, 2])]
STEPS = [scan([0, 1, 2], 0, 0, 0, 1), scan([0], 1, 5, 0, 2), scan([2], 1, 63, 0, 1), scan([1], 1, 63, 0, 1), scan([0], 6, 63, 0, 2),
         scan([0], 1, 63, 2, 1), scan([0, 1, 2], 0, 0, 1, 0), scan([2], 1, 63, 1, 0), scan([1], 1, 63, 1, 0), scan([0], 1, 63, 1, 0)]
BANDS = [scan([2], 0, 0), scan([1], 0, 0), scan([0], 0, 0), scan([2], 1, 63), scan([1], 1, 63), scan([0], 1, 63)]
# Scans that leave out the low bits of luma.
PART = [scan([0, 1, 2], 0, 0), scan([0], 1, 63, 0, 1), scan([1], 1, 63), scan([2], 1, 63)]
F420 = [(2, 2), (1, 1), (1, 1)]
F444 = [(1, 1)] * 3


def main(root):
    rgb = Image.fromarray(scene())
    ycc = [np.asarray(band) for band in rgb.convert("YCbCr").split()]
    bands = [np.asarray(band) for band in rgb.split()]
    cmyk = [255 - np.asarray(band) for band in rgb.convert("CMYK").split()]
    # Some black, which Pillow's conversion does not make.
    cmyk[3] = np.clip(255 - np.add.outer(np.arange(H) * 3, np.arange(W) * 2), 0, 255).astype(np.uint8)
    ycck = [np.asarray(band) for band in Image.fromarray(255 - np.dstack(cmyk[:3])).convert("YCbCr").split()] + cmyk[3:]
    files, words = {}, {}

    def put(name, source, factors, scans, refused=None, **options):
        data = write(planes(source, factors), (W, H), factors, scans, **options)
        files[name], words[name] = data, refused

    # Sampling factors of the three components, in one scan, in three, and progressively.
    samplings = ["11 11 11", "21 11 11", "12 11 11", "22 11 11", "41 11 11", "14 11 11", "42 11 11", "24 11 11", "31 11 11",
                 "13 11 11", "11 22 11", "11 11 22", "11 21 12", "22 21 12", "22 12 21", "22 11 22", "11 12 11", "21 21 21",
                 "22 22 11", "41 21 11", "12 12 11", "11 41 14"]
    for index, sampling in enumerate(samplings):
        factors = [(int(pair[0]), int(pair[1])) for pair in sampling.split()]
        name = sampling.replace(" ", "-")
        put(f"{name}-one-scan", ycc, factors, FULL)
        put(f"{name}-{'three-scans' if index % 2 else 'chroma-first'}", ycc, factors, APART if index % 2 else CHROMA_FIRST)
        put(f"{name}-progressive", ycc, factors, STEPS if index % 2 else BANDS, progressive=True)
    # More than ten blocks in a unit stand in scans of their own.
    put("44-11-11-three-scans", ycc, [(4, 4), (1, 1), (1, 1)], APART)
    put("44-22-11-progressive", ycc, [(4, 4), (2, 2), (1, 1)], BANDS, progressive=True)
    # Orders of scans.
    for name, scans in (("two-then-one", TWO_THEN_ONE), ("luma-then-two", LUMA_THEN_TWO)):
        put(f"420-{name}", ycc, F420, scans)
        put(f"420-{name}-restarts", ycc, F420, scans, restart=3)
    put("420-restarts", ycc, F420, FULL, restart=1)
    put("420-three-scans-restarts", ycc, F420, APART, restart=2)
    put("420-steps-restarts", ycc, F420, STEPS, progressive=True, restart=2)
    # Arithmetic coding, which Pillow reads, is refused by name.
    put("420-arithmetic", ycc, F420, FULL, "arithmetic", arithmetic=True)
    put("420-arithmetic-restarts", ycc, F420, FULL, "arithmetic", arithmetic=True, restart=2)
    put("420-arithmetic-conditioned", ycc, F420, CHROMA_FIRST, "arithmetic", arithmetic=True, conditioning=(1, 3, 9), quantiser=1)
    put("420-arithmetic-steps", ycc, F420, STEPS, "arithmetic", arithmetic=True, progressive=True, restart=4)
    put("grey-arithmetic", ycc[:1], [(2, 2)], [scan([0])], "arithmetic", arithmetic=True, quantiser=0)
    # Tables.
    put("444-tables-left-out", ycc, F444, FULL, tables="left out")
    put("420-tables-of-16-bits", ycc, F420, FULL, wide_tables=True)
    put("444-standard-tables-fine", ycc, F444, FULL, tables="standard", quantiser=0)
    # Tables that change between scans: of quantisation for components that come later, and restart intervals.
    other = segment(0xDB, bytes([0] + [9] * 64))
    put("420-tables-after-the-first-scan", ycc, F420, APART, between=other)
    put("420-interval-after-the-first-scan", ycc, F420, APART, between=segment(0xDD, b"\0\0"))
    # Grey, alone with any factors.
    for fx, fy in ((1, 1), (2, 2), (1, 2), (4, 3)):
        put(f"grey-{fx}{fy}", ycc[:1], [(fx, fy)], [scan([0])])
        put(f"grey-{fx}{fy}-progressive", ycc[:1], [(fx, fy)], [scan([0], 0, 0), scan([0], 1, 63)], progressive=True)
    # What the components are.
    put("rgb-by-names", bands, F444, FULL, ids=b"RGB")
    put("rgb-by-names-with-jfif", ycc, F444, FULL, ids=b"RGB", before=JFIF)
    put("rgb-by-adobe", bands, F444, FULL, before=adobe(0))
    put("rgb-by-adobe-chroma-coarse", bands, F420, FULL, before=adobe(0))
    put("ycc-by-adobe", ycc, F420, FULL, before=adobe(1))
    put("ycc-by-unknown-adobe", ycc, F420, FULL, before=adobe(2))
    put("jfif-over-adobe", ycc, F420, FULL, before=JFIF + adobe(0))
    put("names-0-1-2", ycc, F420, FULL, ids=(0, 1, 2))
    put("names-all-equal", ycc, F444, FULL, ids=(1, 1, 1))
    for name, source, extra in (("cmyk", cmyk, b""), ("cmyk-adobe", cmyk, adobe(0)), ("ycck-adobe", ycck, adobe(2)),
                                ("ycck-unknown-adobe", ycck, adobe(1)), ("cmyk-jfif", cmyk, JFIF)):
        put(name, source, [(1, 1)] * 4, [scan([0, 1, 2, 3])], before=extra)
    put("ycck-adobe-coarse", ycck, [(2, 2), (1, 1), (1, 1), (2, 2)], [scan([0, 1, 2, 3])], before=adobe(2))
    put("ycck-adobe-scans", ycck, [(2, 1), (1, 1), (1, 1), (2, 1)], [scan([3]), scan([1, 2]), scan([0])], before=adobe(2))
    put("cmyk-progressive", cmyk, [(1, 1)] * 4, [scan([0, 1, 2, 3], 0, 0)] + [scan([c], 1, 63) for c in (3, 2, 1, 0)], progressive=True)
    # Between segments, behind the end, and inside of them.
    put("fill-bytes", ycc, F420, FULL, fill=b"\xff\xff\xff")
    put("bytes-between-segments", ycc, F420, FULL, before=JFIF + b"junk")
    whole = write(planes(ycc, F420), (W, H), F420, FULL, before=JFIF)
    thumbnail = io.BytesIO()
    rgb.resize((9, 7)).save(thumbnail, "JPEG", quality=50)
    words["thumbnail-inside"] = None
    files["thumbnail-inside"] = whole[:2] + segment(0xE1, b"Exif\0\0" + thumbnail.getvalue()) + whole[2:]
    words["bytes-behind-the-end"] = None
    files["bytes-behind-the-end"] = whole + b"\xff\xd8\xff\xe0 not an image \xff\xd9"
    second = write(planes(ycc[::-1], F444), (W, H), F444, FULL)
    words["second-image-behind"] = None
    files["second-image-behind"] = whole + second
    # Needles.
    for w, h in ((1, 1), (2, 3), (3, 2), (4, 17), (5, 1)):
        for name, factors in (("22", F420), ("21", [(2, 1), (1, 1), (1, 1)]), ("12", [(1, 2), (1, 1), (1, 1)]), ("fine", [(1, 1), (2, 2), (1, 1)])):
            mx, my = max(f[0] for f in factors), max(f[1] for f in factors)
            small = [np.asarray(Image.fromarray(b[:h, :w]).resize((-(-w * fx // mx), -(-h * fy // my)), Image.BOX)) for b, (fx, fy) in zip(ycc, factors)]
            files[f"needle-{w}x{h}-{name}"] = write(small, (w, h), factors, APART, quantiser=1)
            words[f"needle-{w}x{h}-{name}"] = None

    # Refused by name. Pillow reads the first one, with the missing bits guessed from the neighbours; it refuses the others.
    put("progressive-in-part", ycc, F420, PART, "progressive", progressive=True)
    put("height-behind", ycc, F444, FULL, "DNL", height=0)
    put("two-components", ycc[:2], F444[:2], [scan([0, 1])], "2 components")
    put("five-components", ycc + ycc[:2], [(1, 1)] * 5, [scan([0, 1, 2, 3])], "5 components", ids=(1, 2, 3, 4, 5))
    put("sampling-3-to-2", ycc, [(3, 1), (2, 1), (1, 1)], FULL, "sampling factors")
    at = whole.index(b"\xff\xc1")
    for name, marker, word in (("lossless", 0xC3, "lossless"), ("hierarchical", 0xC5, "hierarchical"), ("lossless-arithmetic", 0xCB, "lossless")):
        files[name], words[name] = whole[:at + 1] + bytes([marker]) + whole[at + 2:], word
    files["hierarchy"], words["hierarchy"] = whole[:2] + segment(0xDE, whole[at + 4:at + 4 + 15]) + whole[2:], "hierarchical"
    files["twelve-bits"], words["twelve-bits"] = whole[:at + 4] + b"\x0c" + whole[at + 5:], "12 bits"
    # Damaged, and said so.
    files["two-starts"], words["two-starts"] = whole[:2] + whole, "damaged"
    files["no-end"], words["no-end"] = whole[:-2], "end"
    files["no-scan"], words["no-scan"] = whole[:whole.index(b"\xff\xda")] + b"\xff\xd9", "scan"
    put("two-scans-of-luma", ycc, F420, [scan([0]), scan([0]), scan([1, 2])], "two scans")
    put("a-component-without-scan", ycc, F420, APART[:2], "no scan")
    # Cut inside a scan, and closed by an end marker: libjpeg fills the unit up with zero bits, and the others with grey.
    end = b"\xff\xd9"
    forms = {"scan-cut": (ycc, F420, APART, {}), "one-scan-cut": (ycc, F420, FULL, {}), "fine-cut": (ycc, F444, FULL, {}),
             "wide-cut": (ycc, [(2, 1), (1, 1), (1, 1)], FULL, {}), "restarts-cut": (ycc, F420, FULL, {"restart": 1}),
             "grey-cut": (ycc[:1], [(1, 1)], [scan([0])], {}), "cmyk-cut": (cmyk, [(1, 1)] * 4, [scan([0, 1, 2, 3])], {}),
             "tables-cut": (ycc, F420, FULL, {"wide_tables": True}), "bands-cut": (ycc, F420, BANDS, {"progressive": True})}
    for name, (source, factors, scans, options) in forms.items():
        data = write(planes(source, factors), (W, H), factors, scans, **options)
        # Behind the header of the last scan, whose length its first two bytes say.
        begin = data.rindex(b"\xff\xda") + 2
        begin += int.from_bytes(data[begin:begin + 2], "big")
        for part in (0.02, 0.4, 0.7, 0.95):
            cut = begin + int((len(data) - 2 - begin) * part)
            while data[cut - 1] == 0xFF or 0xD0 <= data[cut - 1] <= 0xD7 and data[cut - 2] == 0xFF:
                cut += 1
            files[f"{name}-{round(part * 100)}"], words[f"{name}-{round(part * 100)}"] = data[:cut] + end, None
    # Padding that does not repeat the edge, as in files that were cropped without decoding.
    for name, factors in (("22", F420), ("21", [(2, 1), (1, 1), (1, 1)]), ("12", [(1, 2), (1, 1), (1, 1)])):
        large = np.asarray(rgb.resize((48, 32))).copy()
        large[:, 46:], large[30:] = [255, 0, 30], [0, 40, 255]
        bands = [np.asarray(band) for band in Image.fromarray(large).convert("YCbCr").split()]
        mx, my = factors[0]
        chroma = [np.asarray(Image.fromarray(band).resize((48 // mx, 32 // my), Image.BOX)) for band in bands[1:]]
        data = write([bands[0], *chroma], (48, 32), factors, FULL)
        at = data.index(struct.pack(">HH", 32, 48))
        files[f"cropped-{name}"], words[f"cropped-{name}"] = data[:at] + struct.pack(">HH", 30, 46) + data[at + 4:], None

    tensors = {}
    for name, data in files.items():
        tensors[f"file/{name}"] = np.frombuffer(data, np.uint8)
        if words[name] is None:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            out = io.BytesIO()
            image.save(out, "PNG", optimize=True)
            tensors[f"want/{name}"] = np.frombuffer(out.getvalue(), np.uint8)
    save_file(tensors, root / "jpegs.safetensors")
    (root / "jpegs.json").write_text(json.dumps(words, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

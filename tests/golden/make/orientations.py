"""Small images whose metadata say in many ways how they are held, and which way Pillow turns them.

  python orientations.py OUT

writes OUT/orientations.safetensors, the bytes of a file under each name, and OUT/orientations.json: by name the orientation,
1 to 8, that Pillow 13's `ImageOps.exif_transpose` goes by, found by comparing its result with all eight. Zero stands where
Pillow raises an error over the metadata: only the pixels are expected then. BigTIFF in big-endian order is left out: Pillow 13
reads its own tag as one of a small TIFF there and turns nothing.
"""
import io
import itertools
import json
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

W, H = 5, 3
ORIENTATION = 0x0112
TYPES = {"byte": (1, "B"), "ascii": (2, "B"), "short": (3, "H"), "long": (4, "I"), "rational": (5, "II"), "sbyte": (6, "b"),
         "undefined": (7, "B"), "sshort": (8, "h"), "slong": (9, "i"), "srational": (10, "ii"), "float": (11, "f"),
         "double": (12, "d"), "ifd": (13, "I"), "long8": (16, "Q"), "unknown": (99, "H")}
TURNS = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
         Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90]


def entry(end, tag, kind, values, at=None, count=None):
    """Twelve bytes, and those that lie elsewhere at `at`."""
    number, letter = TYPES[kind]
    flat = list(itertools.chain(*[v if isinstance(v, tuple) else (v,) for v in values]))
    data = struct.pack(end + letter * len(values), *flat)
    head = struct.pack(end + "HHI", tag, number, len(values) if count is None else count)
    if len(data) <= 4:
        return head + data.ljust(4, b"\0"), b""
    return head + struct.pack(end + "I", at), data


def exif(values, kind="short", end="<", magic=None, before=(), second=None, count=None, gap=0, tag=ORIENTATION, again=()):
    """A TIFF structure: a first directory with the tag among others, perhaps a second one with another value."""
    items = [*before, (tag, kind, values, count), *[(tag, kind, [v], None) for v in again]]
    first = 8 + gap
    at = first + 2 + 12 * len(items) + 4
    table, outside = struct.pack(end + "H", len(items)), b""
    for tag_, kind_, values_, count_ in items:
        head, data = entry(end, tag_, kind_, values_, at + len(outside), count_)
        table, outside = table + head, outside + data
    next_at = at + len(outside) if second is not None else 0
    tail = b""
    if second is not None:
        tail = struct.pack(end + "H", 1) + entry(end, ORIENTATION, "short", [second])[0] + b"\0\0\0\0"
    magic = magic or (b"II*\0" if end == "<" else b"MM\0*")
    return magic + struct.pack(end + "I", first) + bytes(gap) + table + struct.pack(end + "I", next_at) + outside + tail


def xmp(value, form="attribute"):
    inner = {"attribute": f'<rdf:Description tiff:Orientation="{value}"/>', "element": f"<tiff:Orientation>{value}</tiff:Orientation>",
             "single": f"<rdf:Description tiff:Orientation='{value}'/>", "spaced": f'<rdf:Description tiff:Orientation = "{value}"/>'}[form]
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{inner}</x:xmpmeta>'.encode()


def segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def profile(data, name=b"exif", wrap=36):
    """As ImageMagick writes it."""
    digits = data.hex().encode()
    lines = b"\n".join(digits[i:i + 2 * wrap] for i in range(0, len(digits), 2 * wrap))
    return b"\n" + name + b"\n" + b"%8d" % len(data) + b"\n" + lines + b"\n"


def tagged():
    """Exif structures by name."""
    out = {}
    for value in range(0, 11):
        out[f"value-{value}"] = exif([value])
    out["value-300"] = exif([0x0600], end="<")
    for kind in TYPES:
        for end, word in (("<", "little"), (">", "big")):
            value = {"rational": (12, 2), "srational": (-18, -3), "ascii": ord("6")}.get(kind, 6)
            out[f"{kind}-{word}"] = exif([value], kind, end)
    out["rational-by-zero"] = exif([(6, 0)], "rational")
    out["float-between"] = exif([6.5], "float")
    out["slong-negative"] = exif([-6], "slong")
    for kind in ("short", "long", "byte"):
        for end, word in (("<", "little"), (">", "big")):
            out[f"{kind}-two-values-{word}"] = exif([6, 3], kind, end)
            out[f"{kind}-nine-values-{word}"] = exif([8, *[3] * 8], kind, end)
    out["no-values"] = exif([6], count=0)
    out["count-too-large"] = exif([6], count=5000)
    out["only-in-the-second"] = exif([1], tag=0x0100, second=6)
    out["another-in-the-second"] = exif([3], second=6)
    out["none-in-the-first"] = exif([6], tag=0x0113, second=3)
    out["twice"] = exif([6], again=[3])
    out["unknown-type-then-short"] = exif([6], before=[(ORIENTATION, "unknown", [3], None)])
    out["after-text"] = exif([6], before=[(0x010F, "ascii", list(b"Maker of cameras\0"), None), (0x0110, "ascii", list(b"A1\0"), None)])
    out["after-text-behind-the-end"] = exif([6], before=[(0x010F, "ascii", list(b"Maker of cameras\0"), 90)])
    out["after-text-far-too-long"] = exif([6], before=[(0x010F, "ascii", list(b"Maker of cameras\0"), 70000)])
    out["gap"] = exif([6], gap=10)
    out["magic-swapped-little"] = exif([6], magic=b"II\0*")
    out["magic-swapped-big"] = exif([6], end=">", magic=b"MM*\0")
    out["magic-wrong"] = exif([6], magic=b"II+*")
    out["header-once"] = b"Exif\0\0" + exif([6])
    out["header-twice"] = b"Exif\0\0" * 2 + exif([6])
    out["cut-in-the-entry"] = exif([6])[:20]
    out["cut-before-the-next"] = exif([6])[:22]
    out["first-behind-the-end"] = b"II*\0\xff\0\0\0"
    out["nothing"] = b""
    out["three-bytes"] = b"II*"
    return out


def main(root):
    rng = np.random.default_rng(7)
    image = Image.fromarray(rng.integers(0, 256, (H, W, 3)).astype(np.uint8))
    files, turns = {}, {}

    def put(name, data):
        files[name] = data

    stored = {}
    for fmt, options in (("JPEG", dict(quality=95, subsampling=0)), ("PNG", {}), ("WEBP", dict(lossless=True)), ("GIF", {}), ("BMP", {})):
        out = io.BytesIO()
        image.save(out, fmt, **options)
        stored[fmt] = out.getvalue()
        put(f"{fmt.lower()}/none", out.getvalue())
    structures = tagged()

    # JPEG.
    jpeg = stored["JPEG"]
    head, rest = jpeg[:20], jpeg[20:]  # The start marker and JFIF.
    app1 = lambda body: segment(0xE1, body)
    packet = lambda body: app1(b"http://ns.adobe.com/xap/1.0/\0" + body)
    with_exif = lambda body: app1(b"Exif\0\0" + body)
    for name, body in structures.items():
        put(f"jpeg/{name}", head + with_exif(body) + rest)
    six, three, one = exif([6]), exif([3], end=">"), exif([1])
    put("jpeg/exif-before-jfif", jpeg[:2] + with_exif(six) + jpeg[2:])
    put("jpeg/first-of-two", head + with_exif(six) + with_exif(one) + rest)
    put("jpeg/first-of-two-other-order", head + with_exif(one) + with_exif(six) + rest)
    put("jpeg/first-of-three-big", head + with_exif(three) + with_exif(six) + with_exif(one) + rest)
    put("jpeg/first-without-the-tag", head + with_exif(structures["none-in-the-first"]) + with_exif(six) + rest)
    put("jpeg/first-is-nothing", head + with_exif(b"") + with_exif(six) + rest)
    put("jpeg/split-in-two", head + with_exif(six[:13]) + with_exif(six[13:]) + rest)
    put("jpeg/one-zero", head + app1(b"Exif\0" + six) + rest)
    put("jpeg/no-zero", head + app1(b"Exif" + six) + rest)
    put("jpeg/zero-and-ff", head + app1(b"Exif\0\xff" + six) + rest)
    put("jpeg/lower-case", head + app1(b"exif\0\0" + six) + rest)
    put("jpeg/in-app2", head + segment(0xE2, b"Exif\0\0" + six) + rest)
    at = rest.index(b"\xff\xc0")
    behind = at + 2 + int.from_bytes(rest[at + 2:at + 4], "big")
    put("jpeg/behind-the-frame", head + rest[:behind] + with_exif(six) + rest[behind:])
    at = rest.index(b"\xff\xda")
    put("jpeg/just-before-the-scan", head + rest[:at] + with_exif(six) + rest[at:])
    put("jpeg/behind-the-scan", head + rest[:-2] + with_exif(six) + rest[-2:])
    put("jpeg/behind-the-end", jpeg + with_exif(six))
    put("jpeg/fill-bytes-before", head + b"\xff\xff" + with_exif(six) + rest)
    for form in ("attribute", "element", "single", "spaced"):
        put(f"jpeg/xmp-{form}", head + packet(xmp(6, form)) + rest)
    for value in (0, 1, 8, 9, 16):
        put(f"jpeg/xmp-value-{value}", head + packet(xmp(value)) + rest)
    put("jpeg/xmp-and-exif", head + packet(xmp(6)) + with_exif(three) + rest)
    put("jpeg/exif-and-xmp", head + with_exif(three) + packet(xmp(6)) + rest)
    put("jpeg/xmp-and-exif-of-1", head + packet(xmp(6)) + with_exif(one) + rest)
    put("jpeg/xmp-and-exif-of-0", head + packet(xmp(6)) + with_exif(exif([0])) + rest)
    put("jpeg/xmp-and-exif-of-9", head + packet(xmp(6)) + with_exif(exif([9])) + rest)
    put("jpeg/xmp-and-exif-of-byte", head + packet(xmp(6)) + with_exif(exif([3], "byte")) + rest)
    put("jpeg/xmp-and-exif-without", head + packet(xmp(6)) + with_exif(structures["none-in-the-first"]) + rest)
    put("jpeg/xmp-and-exif-of-no-values", head + packet(xmp(6)) + with_exif(structures["no-values"]) + rest)
    put("jpeg/last-of-two-xmp", head + packet(xmp(3)) + packet(xmp(6)) + rest)
    put("jpeg/last-of-two-xmp-without", head + packet(xmp(3)) + packet(b"<x/>") + rest)
    put("jpeg/xmp-two-in-one", head + packet(xmp(0, "single") + xmp(6) + xmp(3)) + rest)
    put("jpeg/xmp-extended", head + app1(b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 99, 0) + xmp(6)) + rest)
    put("jpeg/xmp-utf-16", head + packet(xmp(6).decode().encode("utf-16")) + rest)

    # PNG.
    png = stored["PNG"]
    start, middle, end = png[:33], png[33:-12], png[-12:]
    for name, body in structures.items():
        put(f"png/{name}", start + chunk(b"eXIf", body) + middle + end)
    ex = lambda body: chunk(b"eXIf", body)
    ztxt = lambda key, body: chunk(b"zTXt", key + b"\0\0" + zlib.compress(body))
    text = lambda key, body: chunk(b"tEXt", key + b"\0" + body)
    itxt = lambda key, body, packed=0: chunk(b"iTXt", key + b"\0" + bytes([packed, 0]) + b"en\0key\0" + (zlib.compress(body) if packed else body))
    raw = b"Raw profile type exif"
    com = b"XML:com.adobe.xmp"
    behind_and_before = lambda name, data: (put(f"png/{name}", start + data + middle + end), put(f"png/{name}-behind", start + middle + data + end))
    behind_and_before("exif", ex(six))
    behind_and_before("exif-two", ex(six) + ex(three))
    put("png/exif-before-and-behind", start + ex(six) + middle + ex(three) + end)
    put("png/exif-behind-the-end", png + ex(six))
    for prefix, word in ((b"", "plain"), (b"Exif\0\0", "headed")):
        for wrap in (36, 1, 4000):
            behind_and_before(f"profile-text-{word}-{wrap}", text(raw, profile(prefix + six, wrap=wrap)))
        behind_and_before(f"profile-packed-{word}", ztxt(raw, profile(prefix + six)))
        behind_and_before(f"profile-international-{word}", itxt(raw, profile(prefix + six)))
        behind_and_before(f"profile-international-packed-{word}", itxt(raw, profile(prefix + six), 1))
    put("png/profile-upper-case-digits", start + text(raw, profile(b"Exif\0\0" + six).upper().replace(b"EXIF", b"exif", 1)) + middle + end)
    put("png/profile-no-digits", start + text(raw, b"\nexif\n      12\nthese are not digits\n") + middle + end)
    put("png/profile-odd-digits", start + text(raw, profile(six)[:-2] + b"\n") + middle + end)
    put("png/profile-of-two-lines", start + text(raw, b"\nexif\n") + middle + end)
    put("png/profile-two", start + ztxt(raw, profile(six)) + ztxt(raw, profile(three)) + middle + end)
    put("png/profile-and-exif", start + ztxt(raw, profile(six)) + ex(three) + middle + end)
    put("png/profile-and-exif-behind", start + ztxt(raw, profile(six)) + middle + ex(three) + end)
    put("png/profile-and-exif-without", start + ztxt(raw, profile(six)) + ex(structures["none-in-the-first"]) + middle + end)
    put("png/profile-app1", start + ztxt(b"Raw profile type APP1", profile(b"Exif\0\0" + six, b"APP1")) + middle + end)
    put("png/profile-xmp", start + ztxt(b"Raw profile type xmp", profile(xmp(6), b"xmp")) + middle + end)
    put("png/profile-iptc", start + ztxt(b"Raw profile type iptc", profile(six, b"iptc")) + middle + end)
    put("png/text-exif", start + text(b"exif", b"Exif\0\0" + six) + middle + end)
    put("png/text-orientation", start + text(b"Orientation", b"6") + middle + end)
    put("png/text-exif-orientation", start + text(b"exif:Orientation", b"6") + middle + end)
    put("png/packed-badly", start + chunk(b"zTXt", raw + b"\0\0" + b"not packed") + middle + end)
    for form in ("attribute", "element", "single"):
        for packed in (0, 1):
            behind_and_before(f"xmp-{form}-{packed}", itxt(com, xmp(6, form), packed))
    put("png/xmp-text", start + text(com, xmp(6)) + middle + end)
    put("png/xmp-packed-text", start + ztxt(com, xmp(6)) + middle + end)
    put("png/xmp-not-utf-8", start + itxt(com, b"\xff" + xmp(6)) + middle + end)
    put("png/xmp-two", start + itxt(com, xmp(3)) + itxt(com, xmp(6)) + middle + end)
    put("png/xmp-and-exif", start + itxt(com, xmp(6)) + ex(three) + middle + end)
    put("png/xmp-and-exif-of-1", start + itxt(com, xmp(6)) + ex(one) + middle + end)
    put("png/xmp-and-exif-of-0", start + itxt(com, xmp(6)) + ex(exif([0])) + middle + end)
    put("png/xmp-and-profile", start + itxt(com, xmp(6)) + ztxt(raw, profile(three)) + middle + end)
    put("png/xmp-and-profile-without", start + itxt(com, xmp(6)) + ztxt(raw, profile(structures["none-in-the-first"])) + middle + end)
    control = struct.pack(">IIIIIHHBB", 0, W, H, 0, 0, 1, 10, 0, 0)
    second = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, W, H, 0, 0, 1, 10, 0, 0)) + chunk(b"fdAT", struct.pack(">I", 2) + middle[8:-4])
    for frames in (1, 2):
        actl = chunk(b"acTL", struct.pack(">II", frames, 0)) + chunk(b"fcTL", control)
        put(f"png/animated-{frames}-exif", start + actl + ex(six) + middle + second + end)
        put(f"png/animated-{frames}-exif-between", start + actl + middle + ex(six) + second + end)
        put(f"png/animated-{frames}-exif-behind", start + actl + middle + second + ex(six) + end)

    # WebP.
    webp = stored["WEBP"]
    pixels = webp[12:]
    def riff(flags, before=b"", after=b"", extended=True):
        body = struct.pack("<4sIII", b"VP8X", 10, flags, W - 1 | (H - 1 & 255) << 24) + struct.pack("<H", H - 1 >> 8) if extended else b""
        body += before + pixels + after
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    part = lambda kind, data: kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)
    EXIF, XMP = 8, 4
    for name, body in structures.items():
        put(f"webp/{name}", riff(EXIF, after=part(b"EXIF", body)))
    put("webp/before-the-pixels", riff(EXIF, before=part(b"EXIF", six)))
    put("webp/exif-two", riff(EXIF, after=part(b"EXIF", six) + part(b"EXIF", three)))
    put("webp/exif-without-flag", riff(0, after=part(b"EXIF", six)))
    put("webp/exif-wrong-flag", riff(XMP, after=part(b"EXIF", six)))
    put("webp/exif-not-extended", riff(0, after=part(b"EXIF", six), extended=False))
    put("webp/exif-lower-case", riff(EXIF, after=part(b"exif", six)))
    put("webp/xmp", riff(XMP, after=part(b"XMP ", xmp(6))))
    put("webp/xmp-element", riff(XMP, after=part(b"XMP ", xmp(6, "element"))))
    put("webp/xmp-two", riff(XMP, after=part(b"XMP ", xmp(6)) + part(b"XMP ", xmp(3))))
    put("webp/xmp-without-flag", riff(0, after=part(b"XMP ", xmp(6))))
    put("webp/xmp-and-exif", riff(XMP | EXIF, after=part(b"XMP ", xmp(6)) + part(b"EXIF", three)))
    put("webp/xmp-and-exif-of-1", riff(XMP | EXIF, after=part(b"EXIF", one) + part(b"XMP ", xmp(6))))
    put("webp/xmp-and-exif-unflagged", riff(XMP, after=part(b"XMP ", xmp(6)) + part(b"EXIF", three)))
    put("webp/exif-and-xmp-unflagged", riff(EXIF, after=part(b"XMP ", xmp(6)) + part(b"EXIF", exif([6], tag=0x0113))))

    # TIFF: the tag among those of the file itself.
    array = np.asarray(image)
    def tiff(end, extra, wide=False):
        data = array.tobytes()
        magic = ((b"II+\0" if end == "<" else b"MM\0+") if wide else (b"II*\0" if end == "<" else b"MM\0*"))
        base = 16 if wide else 8
        tags = [(256, "short", [W]), (257, "short", [H]), (258, "short", [8, 8, 8]), (259, "short", [1]), (262, "short", [2]),
                (273, "long", [base]), (277, "short", [3]), (278, "short", [H]), (279, "long", [len(data)]), *extra]
        tags.sort(key=lambda t: t[0])
        first = base + len(data) + (len(data) & 1)
        at = first + (8 + 20 * len(tags) + 8 if wide else 2 + 12 * len(tags) + 4)
        table, outside = struct.pack(end + ("Q" if wide else "H"), len(tags)), b""
        for tag, kind, values in tags:
            number, letter = TYPES[kind]
            flat = list(itertools.chain(*[v if isinstance(v, tuple) else (v,) for v in values]))
            packed = struct.pack(end + letter * len(values), *flat)
            room = 8 if wide else 4
            table += struct.pack(end + ("HHQ" if wide else "HHI"), tag, number, len(values))
            table += packed.ljust(room, b"\0") if len(packed) <= room else struct.pack(end + ("Q" if wide else "I"), at + len(outside))
            outside += b"" if len(packed) <= room else packed
        header = magic + (struct.pack(end + "HHQ", 8, 0, first) if wide else struct.pack(end + "I", first))
        return header + data + b"\0" * (len(data) & 1) + table + bytes(8 if wide else 4) + outside
    for end, word in (("<", "little"), (">", "big")):
        for kind in TYPES:
            value = {"rational": (12, 2), "srational": (-18, -3), "ascii": ord("6")}.get(kind, 6)
            put(f"tiff/{kind}-{word}", tiff(end, [(ORIENTATION, kind, [value])]))
        for value in range(0, 11):
            put(f"tiff/value-{value}-{word}", tiff(end, [(ORIENTATION, "short", [value])]))
        for kind in ("short", "long"):
            put(f"tiff/{kind}-two-values-{word}", tiff(end, [(ORIENTATION, kind, [6, 3])]))
            if end == "<":
                put(f"tiff/{kind}-wide-{word}", tiff(end, [(ORIENTATION, kind, [6])], wide=True))
        put(f"tiff/none-{word}", tiff(end, []))
        put(f"tiff/xmp-{word}", tiff(end, [(700, "byte", list(xmp(6)))]))
        put(f"tiff/xmp-undefined-{word}", tiff(end, [(700, "undefined", list(xmp(6, "element")))]))
        put(f"tiff/xmp-and-tag-{word}", tiff(end, [(700, "byte", list(xmp(6))), (ORIENTATION, "short", [3])]))
        put(f"tiff/xmp-and-tag-of-1-{word}", tiff(end, [(700, "byte", list(xmp(6))), (ORIENTATION, "short", [1])]))

    # GIF: an XMP application block.
    gif = stored["GIF"]
    at = 13 + 3 * (2 << (gif[10] & 7))
    block = b"\x21\xff\x0bXMP DataXMP" + xmp(6) + bytes([1]) + bytes(range(255, -1, -1)) + b"\0"
    put("gif/xmp", gif[:at] + block + gif[at:])

    raised = 0
    for name, data in files.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = files[name.split("/")[0] + "/none"] if name.split("/")[0] != "tiff" else tiff("<", [])
            as_stored = Image.open(io.BytesIO(plain)).convert("RGB")
            try:
                got = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
            except Exception:
                # Metadata that cannot be read; the pixels can.
                raised += 1
                turns[name] = 0
                continue
        fits = [n + 1 for n, turn in enumerate(TURNS)
                if np.array_equal(got, np.asarray(as_stored if turn is None else as_stored.transpose(turn)))]
        assert len(fits) == 1, (name, fits)
        turns[name] = fits[0]
    print(len(files), "files, of which Pillow raises over", raised)
    save_file({name: np.frombuffer(data, np.uint8) for name, data in files.items()}, root / "orientations.safetensors")
    (root / "orientations.json").write_text(json.dumps(turns, indent=0) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

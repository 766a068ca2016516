"""Compares what the program decodes of hundreds of generated TIFF files with Pillow. Not run by the tests.

  cargo build --release -p omniburn-media --example pixels
  python sweep_tiffs.py PIXELS FOLDER [FILE...]

PIXELS is the program `pixels` (crates/media/examples), FOLDER takes the generated files. With FILEs, only those are compared.
The writers are libtiff's `tiffcp`, ImageMagick's `convert`, tifffile with imagecodecs, and Pillow; each that is not
installed is left out. A line is printed for each file that differs, and one for each kind of refusal.

What counts as equal: Pillow's pixels over white as `images.py` makes them, samples of 16 bits by their high byte; for JPEG
and WebP within the bounds that LOSSY states, because the decoders round differently.
"""
import collections
import io
import itertools
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

warnings.simplefilter("ignore")
Image.MAX_IMAGE_PIXELS = None
# Largest and mean difference of a sample where packing is lossy.
LOSSY = (40, 2.0)


def scene(w, h, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    rgb = np.stack([127.5 + 120 * np.sin(x * a / w * 6 + y * b / h * 5 + p) for a, b, p in rng.uniform(0.3, 1.5, (3, 3))], -1)
    rgb[h // 4:h // 2, w // 3:w // 2] = rng.uniform(0, 255, 3)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def over_white(rgba):
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, (255,) * 4), rgba).convert("RGB"))


def high_bytes(path):
    """Grey of 9 to 16 bits, which Pillow clips at 255: its own values, shifted to eight bits."""
    with Image.open(path) as im:
        bits = im.tag_v2.get(258, (1,))[0]
        white_is_zero = im.tag_v2.get(262, 0) == 0
        values = np.asarray(im).astype(np.uint32) >> (bits - 8)
        values = 255 - values if white_is_zero else values
        return np.repeat(values.astype(np.uint8)[..., None], 3, 2)


def reference(path):
    """Pillow's pixels, or what it said. None stands for pixels that Pillow has no fixed white for."""
    try:
        with Image.open(path) as im:
            im.load()
            if im.mode.startswith("I;16"):
                return high_bytes(path)
            if im.mode in ("I", "F"):
                return "no fixed white"
            im = ImageOps.exif_transpose(im)
            if im.mode == "La":
                im = im.convert("LA")
            if "A" in im.getbands():
                return over_white(im.convert("RGBA"))
            return np.asarray(im.convert("RGB"))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def checkpoint(path):
    """Pillow's pixels of the file with the same samples in its plainest layout; None if there is none."""
    parts = path.stem.split("-")
    stems = {"cp": ["-".join(parts[1:-2]).replace("-lerc", "-le")], "tf": [f"{'-'.join(parts[:end])}-le" for end in range(len(parts) - 1, 1, -1)]}.get(parts[0], [])
    for stem in stems:
        if (path.parent / f"{stem}.tif").exists():
            found = reference(path.parent / f"{stem}.tif")
            return None if isinstance(found, str) else found
    return None


def run(*args):
    return subprocess.run([str(a) for a in args], capture_output=True).returncode == 0


def bases(folder):
    """Uncompressed files in every mode, by Pillow and tifffile."""
    rgb = scene(61, 47, 1)
    im = Image.fromarray(rgb)
    grey, alpha = im.convert("L"), Image.fromarray(scene(61, 47, 2)[..., 0])
    modes = {"1": im.convert("1"), "L": grey, "P": im.quantize(200), "RGB": im, "CMYK": im.convert("CMYK"),
             "LA": Image.merge("LA", [grey, alpha]), "RGBA": Image.merge("RGBA", [*im.split(), alpha]),
             "YCbCr": im.convert("YCbCr"), "LAB": None, "PA": None,
             "I;16": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257 - 3), "F": Image.fromarray(np.asarray(grey).astype(np.float32)),
             "I": Image.fromarray(np.asarray(grey).astype(np.int32))}
    modes["LAB"] = Image.frombytes("LAB", im.size, scene(61, 47, 3).tobytes())
    made = []
    for mode, image in modes.items():
        if image is None:
            continue
        path = folder / f"base-{mode.replace(';', '')}.tif"
        image.save(path)
        made.append(path)
    try:
        import tifffile
    except ImportError:
        return made
    wide = np.dstack([rgb, np.asarray(alpha)]).astype(np.uint16) * 256 + 17
    arrays = {
        "rgb16": (wide[..., :3], dict(photometric="rgb")),
        "rgba16": (wide, dict(photometric="rgb", extrasamples=["unassalpha"])),
        "rgba16-assoc": (wide, dict(photometric="rgb", extrasamples=["assocalpha"])),
        "rgbx16": (wide, dict(photometric="rgb", extrasamples=["unspecified"])),
        "grey16": (wide[..., 0], dict(photometric="minisblack")),
        "grey16-white": (wide[..., 0], dict(photometric="miniswhite")),
        "grey8-white": (rgb[..., 0], dict(photometric="miniswhite")),
        "bits": (np.asarray(im.convert("1")), dict(photometric="minisblack")),
        "bits-white": (np.asarray(im.convert("1")), dict(photometric="miniswhite")),
        "rgb8": (rgb, dict(photometric="rgb")),
        "rgba8": (np.dstack([rgb, np.asarray(alpha)]), dict(photometric="rgb", extrasamples=["unassalpha"])),
        "rgba8-assoc": (np.dstack([rgb, np.asarray(alpha)]), dict(photometric="rgb", extrasamples=["assocalpha"])),
        "rgbx8": (np.dstack([rgb, np.asarray(alpha)]), dict(photometric="rgb", extrasamples=["unspecified"])),
        "rgbax8": (np.dstack([rgb, np.asarray(alpha), np.asarray(grey)]), dict(photometric="rgb", extrasamples=["unassalpha", "unspecified"])),
        "rgbxx8": (np.dstack([rgb, np.asarray(alpha), np.asarray(grey)]), dict(photometric="rgb", extrasamples=["unspecified"] * 2)),
        "la8": (np.dstack([np.asarray(grey), np.asarray(alpha)]), dict(photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig")),
        "la8-assoc": (np.dstack([np.asarray(grey), np.asarray(alpha)]), dict(photometric="minisblack", extrasamples=["assocalpha"], planarconfig="contig")),
        "lx8": (np.dstack([np.asarray(grey), np.asarray(alpha)]), dict(photometric="minisblack", extrasamples=["unspecified"], planarconfig="contig")),
        "cmyk8": (np.asarray(im.convert("CMYK")), dict(photometric="separated")),
        "cmyk16": (np.asarray(im.convert("CMYK")).astype(np.uint16) * 257, dict(photometric="separated")),
        "cmykx8": (np.dstack([np.asarray(im.convert("CMYK")), np.asarray(alpha)]), dict(photometric="separated", extrasamples=["unspecified"])),
        "palette8": (np.asarray(im.quantize(256)), dict(photometric="palette", colormap=np.random.default_rng(3).integers(0, 65536, (3, 256)).astype(np.uint16))),
        "int8": (rgb[..., 0].astype(np.int8), dict(photometric="minisblack")),
        "int16": (wide[..., 0].astype(np.int16), dict(photometric="minisblack")),
        "uint32": (wide[..., 0].astype(np.uint32), dict(photometric="minisblack")),
        "float16": (rgb[..., 0].astype(np.float16), dict(photometric="minisblack")),
        "float32": (rgb[..., 0].astype(np.float32), dict(photometric="minisblack")),
        "float64": (rgb[..., 0].astype(np.float64), dict(photometric="minisblack")),
        "rgb-float32": (rgb.astype(np.float32) / 255, dict(photometric="rgb")),
        "complex": (rgb[..., 0].astype(np.complex64), dict(photometric="minisblack")),
        "lab8": (scene(61, 47, 5), dict(photometric="cielab")),
    }
    for name, (data, options) in arrays.items():
        for order, big, planar in itertools.product("<>", (False, True), (None, "contig", "separate")):
            if big and planar:
                continue
            if planar and (data.ndim == 2 or "planarconfig" in options):
                continue
            path = folder / f"tf-{name}-{'le' if order == '<' else 'be'}{'-big' if big else ''}{'-' + planar if planar else ''}.tif"
            values = np.moveaxis(data, -1, 0) if planar == "separate" else data
            keep = {**options, **({"planarconfig": planar} if planar else {})}
            try:
                tifffile.imwrite(path, values, byteorder=order, bigtiff=big, **keep)
                made.append(path)
            except Exception:
                pass
    packings = ["lzw", "zlib", "adobe_deflate", "packbits", "zstd", "lzma", "webp", "jpeg", "jpeg2000", "lerc", "png", "deflate"]
    for name, (data, options) in arrays.items():
        for packing, predictor, tile, rows in itertools.product(packings, (False, True), (None, (16, 32), (64, 64)), (None, 7)):
            if tile and rows or (predictor and packing not in ("lzw", "zlib", "adobe_deflate", "zstd", "lzma")):
                continue
            path = folder / f"tf-{name}-{packing}{'-p' if predictor else ''}{f'-t{tile[0]}' if tile else ''}{f'-r{rows}' if rows else ''}.tif"
            try:
                tifffile.imwrite(path, data, compression=packing, predictor=predictor or None, tile=tile, rowsperstrip=rows,
                                 byteorder=">" if len(path.name) % 2 else "<", **options)
                made.append(path)
            except Exception:
                path.unlink(missing_ok=True)
    # Bits that tifffile alone packs.
    for bits in (2, 3, 4, 5, 6, 7, 10, 12, 14):
        for channels in (1, 3):
            data = (wide[..., :channels].squeeze() >> (16 - bits)).astype(np.uint8 if bits < 8 else np.uint16)
            path = folder / f"tf-bits{bits}-{channels}.tif"
            try:
                tifffile.imwrite(path, data, photometric="rgb" if channels == 3 else "minisblack", bitspersample=bits,
                                 planarconfig="contig" if channels == 3 else None, compression=None)
                made.append(path)
            except Exception:
                path.unlink(missing_ok=True)
    return made


def copies(folder, made):
    """tiffcp with every option."""
    if not shutil.which("tiffcp"):
        return []
    out = []
    sources = [p for p in made if p.name.startswith("base-") or (p.name.count("-") <= 2 and "-le" in p.name)]
    packings = ["none", "packbits", "lzw", "lzw:2", "zip", "zip:2", "zip:3", "zstd", "zstd:2", "lzma", "lzma:2", "webp", "jpeg:90", "jpeg:r:90",
                "g3:1d", "g3:2d", "g3:1d:fill", "g3:2d:fill", "g4"]
    layouts = [[], ["-p", "contig"], ["-p", "separate"], ["-t", "-w", "16", "-l", "16"], ["-t", "-w", "48", "-l", "32", "-p", "separate"],
               ["-r", "1"], ["-r", "5"], ["-r", "1000"], ["-f", "lsb2msb"], ["-f", "msb2lsb"], ["-B"], ["-L"], ["-8"],
               ["-8", "-B", "-t", "-w", "32", "-l", "16"], ["-f", "lsb2msb", "-r", "3"], ["-B", "-r", "9", "-p", "separate"]]
    for source in sources:
        for packing in packings:
            bilevel = packing.startswith("g")
            if bilevel != (source.stem in ("base-1", "tf-bits-le", "tf-bits-white-le")) and packing not in ("none", "packbits", "lzw", "zip", "zstd"):
                continue
            for number, layout in enumerate(layouts):
                path = folder / f"cp-{source.stem}-{packing.replace(':', '')}-{number}.tif"
                if run("tiffcp", "-c", packing, *layout, source, path):
                    out.append(path)
                else:
                    path.unlink(missing_ok=True)
    return out


def magick(folder, made):
    program = shutil.which("convert")
    if not program:
        return []
    out = []
    sources = [p for p in made if p.name in ("base-RGB.tif", "base-RGBA.tif", "base-L.tif", "base-1.tif", "base-P.tif", "base-CMYK.tif", "base-LA.tif")]
    options = [["-depth", d] for d in ("1", "2", "4", "8", "16", "32")]
    options += [["-endian", e] for e in ("LSB", "MSB")]
    options += [["-define", f"tiff:fill-order={f}"] for f in ("lsb", "msb")]
    options += [["-define", f"tiff:alpha={a}"] for a in ("associated", "unassociated", "unspecified")]
    options += [["-define", f"tiff:rows-per-strip={r}"] for r in (1, 5, 9999)]
    options += [["-define", "tiff:tile-geometry=32x16"], ["-define", "quantum:polarity=min-is-white"], ["-define", "quantum:polarity=min-is-black"],
                ["-define", "quantum:format=floating-point"], ["-define", "quantum:format=signed"], ["-type", "Palette"], ["-type", "Bilevel"],
                ["-type", "Grayscale"], ["-type", "GrayscaleAlpha"], ["-type", "TrueColorAlpha"], ["-type", "PaletteAlpha"], ["-interlace", "plane"],
                ["-colorspace", "Lab"], ["-colorspace", "YCbCr"], ["-sampling-factor", "2x2"], ["-orient", "RightTop"], ["-orient", "BottomLeft"],
                ["-colors", "16", "-type", "Palette"], ["-colors", "4", "-type", "Palette"], ["-colors", "2", "-type", "Palette"]]
    for source in sources:
        for packing in ("None", "LZW", "Zip", "RLE", "Fax", "Group4", "JPEG", "Zstd", "LZMA", "WebP"):
            for number, option in enumerate(options):
                if packing in ("Fax", "Group4") and number > 10:
                    continue
                path = folder / f"im-{source.stem[5:]}-{packing}-{number}.tif"
                if run(program, source, *option, "-compress", packing, f"tiff:{path}") and path.exists():
                    out.append(path)
    return out


def compare(program, files, folder):
    listing = "\n".join(str(path) for path in files)
    answer = subprocess.run([program, str(folder / "pixels.bin")], input=listing, capture_output=True, text=True, check=True).stdout
    blob = (folder / "pixels.bin").read_bytes()
    at, counts, refusals, worse = 0, collections.Counter(), collections.Counter(), []
    for path, line in zip(files, answer.splitlines(), strict=True):
        expected = reference(path)
        if not line.startswith("ok "):
            known = not isinstance(expected, str)
            what = line.replace(str(path), "FILE")
            refusals[("Pillow reads it: " if known else f"Pillow: {expected[:60]}: ") + what[:150]] += 1
            counts["refused, Pillow reads it" if known else "both refuse"] += 1
            continue
        w, h = map(int, line.split()[1:])
        got = np.frombuffer(blob, np.uint8, w * h * 3, at).reshape(h, w, 3)
        at += w * h * 3
        by = ""
        if isinstance(expected, str) or expected.shape != got.shape or np.abs(got.astype(int) - expected).max() > 1:
            # What Pillow does not read, or misreads (planes of 16 bits, of LA and of LAB), by the same samples elsewhere.
            other = checkpoint(path)
            if other is not None and other.shape == got.shape:
                apart = np.abs(got.astype(int) - other)
                lossy = any(word in path.name for word in ("jpeg", "webp"))
                if apart.max() <= (LOSSY[0] if lossy else 0) or "lab" in path.name.lower() and apart.max() <= 1:
                    by = "unread" if isinstance(expected, str) else "misread"
        if by:
            counts[f"{by} by Pillow, equal to the same samples in a plainer file"] += 1
            continue
        if isinstance(expected, str):
            counts["read here only"] += 1
            refusals["read here, Pillow: " + expected[:30] + " (" + "-".join(path.stem.split("-")[:2]) + ")"] += 1
            continue
        if got.shape != expected.shape:
            worse.append((path.name, f"{got.shape} {expected.shape}"))
            counts["differing"] += 1
            continue
        apart = np.abs(got.astype(int) - expected)
        if apart.max() == 0:
            counts["equal"] += 1
            continue
        with Image.open(path) as im:
            lossy, lab = im.tag_v2.get(259) in (6, 7, 50001), im.mode == "LAB"
        if lossy and apart.max() <= LOSSY[0] and apart.mean() <= LOSSY[1]:
            counts["within the bounds of lossy packing"] += 1
        elif lab and apart.max() <= 1:
            counts["L*a*b*, one level apart"] += 1
        else:
            counts["differing"] += 1
            worse.append((path.name, f"max {apart.max()} mean {apart.mean():.3f}"))
    for name, what in worse:
        print("DIFFERS", name, what)
    for what, count in refusals.most_common():
        print(f"{count:5} {what}")
    print(dict(counts), "of", len(files))


def main(program, folder, *files):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [Path(f) for f in files]
    if not files:
        made = bases(folder)
        files = made + copies(folder, made) + magick(folder, made)
    compare(program, files, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])

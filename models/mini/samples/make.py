#!/usr/bin/env python3
"""Makes every file of this folder again, from packages by name.

    python3 make.py            write the samples beside this script, then SHA256SUMS
    python3 make.py --check    make them in a scratch folder and compare with SHA256SUMS

Needs Python 3.11 or newer with the packages in PYTHON, Debian 12's `apt-get` and `dpkg-deb`, and flite's
own dependency libasound2. Packages are fetched by the ordinary clients; each archive must have its digest.
Who made what, and under which licence: LICENCES.md.
"""

import hashlib
import importlib.metadata
import io
import math
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

PYTHON = {"pillow": "12.0.0", "resvg-py": "0.5.0", "imageio-ffmpeg": "0.8.1"}

DEBIAN = {
    "gcompris-qt-data": ("3.1-2", "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f"),
    "palapeli-data": ("4:22.12.3-1", "69a15dce2ac25ed8708ac518cd0cee5f4eb0c70ed15da2fdb8899a19ac0ee058"),
    "libsixel-examples": ("1.10.3-3", "0829a733103696aeaedd2aeb5b3971b58beba943b59b47d5ce8f9618decefefc"),
    "lomiri-wallpapers-16.04": ("20.04.0-2", "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab"),
    "flite": ("2.2-5", "f4ce03470bf9974c2cb9cacd981e6be29339ef4c97cf994dd6fa3f90e6544db9"),
    "libflite1": ("2.2-5", "bfa8c591f1b47730b30b372ec38e02918a1c9795eada67684e1746390ad2f061"),
}

SKIMAGE = ("scikit-image==0.17.2", "178210582cc62a5b25c633966658f1f2598615f9c3f27f36cf45055d2a74b401")

GC = "src/activities/"
LOMIRI = "usr/share/backgrounds/"
SIXEL = "usr/share/doc/libsixel-examples/examples/images/"
PALAPELI = "usr/share/palapeli/collection/"

# name: (package, member, longest side, window to cut out as shares of width and height: left, top, right, bottom)
PHOTOS = {
    "cat.jpg": ("scikit-image", "skimage/data/chelsea.png", 480, None),
    "kitten.webp": ("gcompris/explore_farm_animals", GC + "explore_farm_animals/resource/animals/cat.webp", 480, (0.18, 0.05, 0.8, 0.75)),
    "dog.jpg": ("gcompris/explore_farm_animals", GC + "explore_farm_animals/resource/animals/dog.webp", 480, None),
    "hens.jpg": ("gcompris/explore_farm_animals", GC + "explore_farm_animals/resource/animals/chicken.webp", 480, None),
    "sheep.jpg": ("gcompris/explore_farm_animals", GC + "explore_farm_animals/resource/animals/sheep.webp", 480, None),
    "koala.jpg": ("gcompris/explore_world_animals", GC + "explore_world_animals/resource/animals/koala.webp", 480, None),
    "bison.jpg": ("gcompris/explore_world_animals", GC + "explore_world_animals/resource/animals/bison.webp", 480, None),
    "macaw.jpg": ("gcompris/explore_world_animals", GC + "explore_world_animals/resource/animals/scarlet_macaw.webp", 480, None),
    "red-panda.jpg": ("gcompris/erase", GC + "erase/resource/red_panda.webp", 480, None),
    "crab.jpg": ("gcompris/erase", GC + "erase/resource/crab.webp", 480, None),
    "clownfish.jpg": ("gcompris/categorization", GC + "categorization/resource/images/fishes/fish9.webp", 480, None),
    "snake.jpg": ("libsixel-examples", SIXEL + "snake.jpg", 480, None),
    "egret.jpg": ("libsixel-examples", SIXEL + "egret.jpg", 480, None),
    "bee.jpg": ("palapeli-data", PALAPELI + "european-honey-bee.jpg", 480, None),
    "coffee.jpg": ("scikit-image", "skimage/data/coffee.png", 480, None),
    "citrus.jpg": ("palapeli-data", PALAPELI + "citrus-fruits.jpg", 480, None),
    "fig.jpg": ("lomiri-wallpapers-16.04", LOMIRI + "Picture_0B_by_freespace.jpg", 480, (0.4, 0.3, 0.8, 0.75)),
    "castle.webp": ("gcompris/explore_monuments", GC + "explore_monuments/resource/germany/neuschwansteinCastle.webp", 480, None),
    "taj-mahal.jpg": ("gcompris/categorization", GC + "categorization/resource/images/monuments/tajMahal.webp", 480, None),
    "bridge.jpg": ("palapeli-data", PALAPELI + "cincinnati-bridge.jpg", 480, None),
    "mountains.jpg": ("lomiri-wallpapers-16.04", LOMIRI + "picosdeeuropa_by_Aitzol_Berasategi.jpg", 480, None),
    "drums.jpg": ("gcompris/explore_world_music", GC + "explore_world_music/resource/music/america.webp", 480, (0.0, 0.05, 0.66, 0.95)),
    "electric-guitar.jpg": ("gcompris/explore_world_music", GC + "explore_world_music/resource/music/america.webp", 480, (0.6, 0.05, 1.0, 1.0)),
    "hammer.jpg": ("gcompris/categorization", GC + "categorization/resource/images/tools/hammer1.webp", 480, None),
    "screwdriver.png": ("gcompris/categorization", GC + "categorization/resource/images/tools/screwDriver1.webp", 240, None),
    "frying-pan.jpg": ("gcompris/categorization", GC + "categorization/resource/images/others/pan.webp", 480, None),
    "paintbrushes.jpg": ("lomiri-wallpapers-16.04", LOMIRI + "Picture_1A_by_freespace.jpg", 480, None),
    "rocket.jpg": ("scikit-image", "skimage/data/rocket.jpg", 480, (0.3, 0.1, 0.7, 1.0)),
}

# Films that move slowly over a photograph: name: (package, member, first box, last box)
PANS = {
    "parrot-close.mp4": ("gcompris/explore_world_animals", GC + "explore_world_animals/resource/animals/scarlet_macaw.webp",
                         (0.04, 0.0, 0.96), (0.16, 0.04, 0.70)),
    "aqueduct-pan.mp4": ("gcompris/explore_monuments", GC + "explore_monuments/resource/france/pontduGard.webp",
                         (0.0, 0.06, 0.82), (0.18, 0.06, 0.82)),
}

# name: (voice, what is said)
SPEECH = {
    "speech-where-is-the-guitar.wav": ("slt", "Where is the guitar?"),
    "speech-show-me-a-castle.wav": ("rms", "Show me a castle on a hill."),
    "speech-a-cup-of-hot-coffee.flac": ("awb", "A cup of hot coffee."),
    "speech-a-bee-on-a-flower.flac": ("slt", "A bee on a purple flower."),
    "speech-the-cat-has-green-eyes.mp3": ("slt", "The cat has green eyes."),
    "speech-where-is-my-hammer.mp3": ("rms", "Where is my hammer?"),
    "speech-brown-hens-in-the-grass.ogg": ("rms", "Brown hens in the green grass."),
    "speech-slices-of-orange-and-lemon.ogg": ("awb", "Slices of orange and lemon."),
    "speech-which-bird-is-red-and-blue.opus": ("slt", "Which bird is red and blue?"),
    "speech-the-bridge-at-night.opus": ("rms", "The bridge over the river at night."),
    "speech-a-boat-on-the-sea.m4a": ("awb", "A small boat on the sea."),
    "speech-can-you-see-the-rocket.m4a": ("slt", "Can you see the rocket?"),
}

TEXTS = {
    "pancakes.txt": "Whisk two eggs with a cup of milk and a cup of flour. Fry thin pancakes in a hot pan with a little butter and serve them with honey.",
    "bicycle-repair.txt": "The back tyre of the blue bicycle is flat again. Find the hole, glue a patch on the tube and pump it up before Saturday.",
    "weather.txt": "Rain and strong wind in the morning, so take an umbrella. The sun comes back in the late afternoon.",
    "poem.txt": "The moon climbs softly over the sleeping sea,\nand one small boat is carrying its light to me.",
    "concert.txt": "The band plays on Friday at eight in the old town hall: two guitars, a drummer and a trumpet. Tickets at the door.",
    "cat-sitter.txt": "Please feed the cat twice a day while we are away. She likes to sleep on the sofa and purrs when you scratch her ears.",
    "hike.txt": "We start at the lake, climb to the pass between the two peaks and sleep in the stone hut. Bring boots, water and a warm jacket.",
    "launch.txt": "At the third try the engines lit and the launch went well. Nine minutes later the satellite was in orbit around the Earth.",
}

# Our own drawings, on a field of 128 x 128. Most are PNG with a transparent background.
DRAWINGS = {
"apple": '''<path d="M64 40c-10-10-44-10-44 26 0 30 22 54 36 54 4 0 6-2 8-2s4 2 8 2c14 0 36-24 36-54 0-36-34-36-44-26z" fill="#e0342f"/>
<path d="M34 58c2-10 9-14 16-14" fill="none" stroke="#ff8f86" stroke-width="7" stroke-linecap="round"/>
<path d="M63 42c0-12 3-20 10-28" fill="none" stroke="#6b4226" stroke-width="6" stroke-linecap="round"/>
<path d="M70 28c6-14 22-18 34-14-4 14-20 20-34 14z" fill="#58a83a"/>''',
"house": '''<rect x="84" y="20" width="14" height="30" fill="#8a4b38"/><rect x="24" y="58" width="80" height="60" fill="#f6e3b8"/>
<path d="M64 12 10 62h108z" fill="#c8452f"/><rect x="55" y="82" width="20" height="36" fill="#7a4a2b"/><circle cx="71" cy="101" r="2" fill="#ffd54a"/>
<g fill="#8fd0f0" stroke="#ffffff" stroke-width="3"><rect x="32" y="74" width="17" height="17"/><rect x="81" y="74" width="17" height="17"/><circle cx="64" cy="48" r="8"/></g>''',
"star": '''<path d="M64 8l17 37 40 5-30 28 8 40-35-20-35 20 8-40L7 50l40-5z" fill="#ffc928" stroke="#f2a100" stroke-width="4" stroke-linejoin="round"/>
<path d="M64 26l10 24-10 8-10-8z" fill="#ffe588"/>''',
"fish": '''<path d="M92 64l30-26c-4 17-4 35 0 52z" fill="#f08a1d"/><path d="M44 40c8-18 28-20 36-16l4 18z" fill="#f08a1d"/><path d="M54 90c6 12 18 14 24 12l2-14z" fill="#f08a1d"/>
<ellipse cx="54" cy="64" rx="46" ry="30" fill="#ffab3d"/><path d="M40 36.500c10 18 10 37 0 55-6-1-11-4-15-7 8-14 8-28 0-41 4-3 9-6 15-7z" fill="#ffffff"/>
<path d="M72 38c8 17 8 35 0 52l12-6c7-13 7-27 0-40z" fill="#ffffff"/><circle cx="22" cy="56" r="5.5" fill="#20242c"/><circle cx="20.5" cy="54" r="1.8" fill="#fff"/>
<path d="M8 70q8 4 12-1" stroke="#a3540c" stroke-width="3" fill="none" stroke-linecap="round"/>''',
"umbrella": '''<path d="M64 58v46c0 16-22 16-22 0" fill="none" stroke="#6b4a35" stroke-width="6" stroke-linecap="round"/>
<path d="M8 66a56 54 0 0 1 112 0c-6-9-20-9-28 0-7-9-21-9-28 0-7-9-21-9-28 0-8-9-22-9-28 0z" fill="#7b3fc4"/>
<path d="M36 66c2-26 12-44 28-54 16 10 26 28 28 54-7-9-21-9-28 0-7-9-21-9-28 0z" fill="#a874e6"/><path d="M64 4v10" stroke="#6b4a35" stroke-width="5" stroke-linecap="round"/>''',
"sailboat": '''<path d="M66 8v84" stroke="#7a5230" stroke-width="5"/><path d="M62 14v70H18C34 66 52 42 62 14z" fill="#ffffff" stroke="#c9d3dc" stroke-width="2"/>
<path d="M70 22c4 26 18 46 38 62H70z" fill="#e8483b"/><path d="M10 90h108c-4 16-14 24-26 24H36C22 114 14 106 10 90z" fill="#2f6fb5"/><path d="M11.5 96h105l2-6H10z" fill="#f3f6f8"/>
<path d="M2 116q10-8 20 0t20 0 20 0 20 0 20 0 22 0v10H2z" fill="#58b7e8"/>''',
"tree": '''<path d="M54 76h20l6 46H48z" fill="#8a5a33"/><path d="M64 96l14-16M62 90L50 78" stroke="#734824" stroke-width="5"/>
<g fill="#4c9a35"><circle cx="36" cy="58" r="26"/><circle cx="92" cy="58" r="26"/><circle cx="64" cy="36" r="30"/><circle cx="64" cy="64" r="28"/></g>
<g fill="#6bbd4e"><circle cx="52" cy="32" r="12"/><circle cx="34" cy="52" r="9"/><circle cx="84" cy="50" r="10"/></g>''',
"sun": '''<g stroke="#ff9f1c" stroke-width="9" stroke-linecap="round"><path d="M64 8v14M64 106v14M8 64h14M106 64h14M24.4 24.400l10 10M93.6 93.600l10 10M24.4 103.600l10-10M93.6 34.400l10-10"/></g>
<circle cx="64" cy="64" r="33" fill="#ffca28"/><path d="M42 54a26 26 0 0 1 18-14" fill="none" stroke="#fff1b0" stroke-width="6" stroke-linecap="round"/>''',
"car": '''<path d="M32 60c6-20 12-28 24-28h18c12 0 20 10 28 28z" fill="#d62f2f"/><path d="M40 58c4-12 8-18 16-18h6v18zM68 40h6c8 0 13 8 18 18H68z" fill="#bfe6f7"/>
<path d="M6 84c0-16 8-26 24-26h72c14 0 22 8 22 22v10c0 4-2 6-6 6H12c-4 0-6-2-6-6z" fill="#e94040"/><path d="M6 80h12v8H6z" fill="#ffd54a"/><path d="M114 74h10v10h-10z" fill="#a61616"/>
<path d="M70 70h10" stroke="#a61616" stroke-width="4" stroke-linecap="round"/>
<g><circle cx="34" cy="96" r="16" fill="#2b2f36"/><circle cx="34" cy="96" r="7" fill="#cfd6dc"/><circle cx="96" cy="96" r="16" fill="#2b2f36"/><circle cx="96" cy="96" r="7" fill="#cfd6dc"/></g>''',
"key": '''<g transform="rotate(-45 64 64)"><circle cx="28" cy="64" r="22" fill="none" stroke="#e0a81c" stroke-width="12"/><path d="M50 58h74v12H50z" fill="#e0a81c"/>
<path d="M98 68h8v18h-8zM112 68h10v24h-10z" fill="#e0a81c"/><path d="M52 60h70" stroke="#ffdc73" stroke-width="3"/></g>''',
"heart": '''<path d="M64 116C30 92 8 70 8 44 8 24 22 12 38 12c12 0 21 7 26 17 5-10 14-17 26-17 16 0 30 12 30 32 0 26-22 48-56 72z" fill="#e8263c"/>
<path d="M22 44c0-10 6-17 15-18" fill="none" stroke="#ff8d99" stroke-width="7" stroke-linecap="round"/>''',
"mushroom": '''<path d="M46 66h36c-2 16 2 30 8 44 2 6-2 10-8 10H46c-6 0-10-4-8-10 6-14 10-28 8-44z" fill="#f4e6cf"/><path d="M42 74c14 6 30 6 44 0l-2-10H44z" fill="#dcc7a3"/>
<path d="M8 62C8 32 34 10 64 10s56 22 56 52c0 8-6 12-14 12H22C14 74 8 70 8 62z" fill="#d92b2b"/>
<g fill="#ffffff"><circle cx="64" cy="28" r="9"/><circle cx="36" cy="46" r="10"/><circle cx="92" cy="46" r="10"/><circle cx="64" cy="60" r="8"/><circle cx="20" cy="64" r="5"/><circle cx="108" cy="64" r="5"/></g>''',
"balloon": '''<path d="M64 92c-4 10 6 14 0 32" fill="none" stroke="#8a8f98" stroke-width="3" stroke-linecap="round"/><path d="M58 96l6-10 6 10z" fill="#b81f4a"/>
<ellipse cx="64" cy="48" rx="36" ry="43" fill="#ef3e6d"/><path d="M42 46c0-14 6-22 16-26" fill="none" stroke="#ffb3c8" stroke-width="7" stroke-linecap="round"/>''',
"bicycle": '''<g fill="none" stroke="#2e333b" stroke-width="6"><circle cx="28" cy="86" r="22"/><circle cx="100" cy="86" r="22"/></g>
<g fill="none" stroke="#1f8bd1" stroke-width="6" stroke-linejoin="round" stroke-linecap="round"><path d="M28 86l20-38h40l-28 38zM60 86L46 40M100 86L86 36"/></g>
<path d="M36 38h20" stroke="#2e333b" stroke-width="7" stroke-linecap="round"/><path d="M86 36l-3-8h16" fill="none" stroke="#2e333b" stroke-width="6" stroke-linecap="round" stroke-linejoin="round"/>
<circle cx="60" cy="86" r="7" fill="#9aa3ad"/><path d="M60 86l7 14" stroke="#2e333b" stroke-width="5" stroke-linecap="round"/><circle cx="28" cy="86" r="4" fill="#9aa3ad"/><circle cx="100" cy="86" r="4" fill="#9aa3ad"/>''',
"guitar": '''<g transform="translate(3 -1) rotate(38 64 64) translate(7.7 5.8) scale(.9)"><path d="M58 4h12v64H58z" fill="#5a3420"/><path d="M55-8h18v16H55z" fill="#3c2213"/><g fill="#e7e2d6"><circle cx="53" cy="-4" r="2.5"/><circle cx="53" cy="3" r="2.5"/><circle cx="75" cy="-4" r="2.5"/><circle cx="75" cy="3" r="2.5"/></g>
<path d="M64 54c-14-4-26 4-24 18 1 6 3 9 0 14-10 6-14 16-10 28 4 14 18 20 34 20s30-6 34-20c4-12 0-22-10-28-3-5-1-8 0-14 2-14-10-22-24-18z" fill="#d98a3d" stroke="#9c5a1f" stroke-width="4"/>
<circle cx="64" cy="86" r="11" fill="#3c2213"/><path d="M52 112h24v6H52z" fill="#3c2213"/><g stroke="#f5ead2" stroke-width="1.3"><path d="M60 2v112M64 2v112M68 2v112"/></g></g>''',
}


DRAWING_FILES = {
    name: {"star": "star.gif", "key": "key.bmp"}.get(name, name + ".png") for name in DRAWINGS
}
WHITE = {"house", "heart", "mushroom"}  # PNG without transparency


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Packages:
    """Archives and their members, fetched on first use into a scratch folder."""

    def __init__(self, scratch):
        self.scratch = Path(scratch)
        self.found = {}

    def debian(self, name):
        if name not in self.found:
            version, digest = DEBIAN[name]
            home = self.scratch / name
            home.mkdir()
            subprocess.run(["apt-get", "download", "-q", f"{name}={version}"], cwd=home, check=True, stdout=subprocess.DEVNULL)
            (archive,) = home.glob("*.deb")
            if sha256(archive.read_bytes()) != digest:
                raise SystemExit(f"{name}: not the archive this was made from")
            subprocess.run(["dpkg-deb", "-x", archive, home], check=True)
            self.found[name] = home
        return self.found[name]

    def member(self, package, path):
        if package == "scikit-image":
            if package not in self.found:
                requirement, digest = SKIMAGE
                subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "--python-version", "3.8",
                                "--platform", "manylinux1_x86_64", "-d", self.scratch / "pip", requirement], check=True)
                (wheel,) = (self.scratch / "pip").glob("*.whl")
                if sha256(wheel.read_bytes()) != digest:
                    raise SystemExit(f"{requirement}: not the archive this was made from")
                self.found[package] = zipfile.ZipFile(wheel)
            return self.found[package].read(path)
        if package.startswith("gcompris/"):
            if package not in self.found:
                name = package.split("/")[1]
                file = self.debian("gcompris-qt-data") / "usr/share/gcompris-qt/rcc" / (name + ".rcc")
                self.found[package] = qt_resources(file.read_bytes())
            return self.found[package]["gcompris/" + path]
        return (self.debian(package) / path).read_bytes()


def qt_resources(data):
    """Files of a Qt resource archive (rcc), by path."""
    version, tree, blobs, names = struct.unpack(">IIII", data[4:20])
    size = 22 if version >= 2 else 14
    out = {}

    def walk(node, path):
        at = tree + node * size
        name, flags = struct.unpack(">IH", data[at:at + 6])
        if node:
            length = struct.unpack(">H", data[names + name:names + name + 2])[0]
            part = data[names + name + 6:names + name + 6 + 2 * length].decode("utf-16-be")
            path = f"{path}/{part}" if path else part
        if flags & 2:
            count, first = struct.unpack(">II", data[at + 6:at + 14])
            for child in range(first, first + count):
                walk(child, path)
        else:
            start = blobs + struct.unpack(">I", data[at + 10:at + 14])[0]
            length = struct.unpack(">I", data[start:start + 4])[0]
            blob = data[start + 4:start + 4 + length]
            out[path] = zlib.decompress(blob[4:]) if flags & 1 else blob

    walk(0, "")
    return out


def photo(data):
    """Upright sRGB picture without metadata, transparency on white."""
    from PIL import Image, ImageCms, ImageOps

    image = Image.open(io.BytesIO(data))
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "P"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    if profile:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        image = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    bare = Image.new("RGB", image.size)
    bare.paste(image)
    return bare


def save_photo(image, path, longest, window):
    from PIL import Image

    if window:
        width, height = image.size
        image = image.crop(tuple(round(share * side) for share, side in zip(window, (width, height, width, height))))
    width, height = image.size
    scale = min(1.0, longest / max(width, height))
    if scale < 1.0:
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    if path.suffix == ".jpg":
        image.save(path, quality=85, optimize=True, progressive=True)
    elif path.suffix == ".webp":
        image.save(path, quality=84, method=6)
    else:
        image.save(path, optimize=True)


def drawing(name, size):
    import resvg_py
    from PIL import Image

    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128" width="{size}" height="{size}">{DRAWINGS[name]}</svg>'
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def save_drawing(name, path):
    from PIL import Image

    margin, size = 8, 240
    picture = Image.new("RGBA", (size, size), (255, 255, 255, 0))
    picture.paste(drawing(name, size - 2 * margin), (margin, margin))
    if path.suffix == ".png" and name not in WHITE:
        picture.save(path, optimize=True)
        return
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    if path.suffix == ".bmp":  # 8 bits a pixel keep it small
        flat = flat.resize((160, 160), Image.Resampling.LANCZOS).quantize(64, dither=Image.Dither.NONE)
    elif path.suffix == ".gif":
        flat = flat.quantize(64, dither=Image.Dither.NONE)
    flat.save(path)


def speak(packages, ffmpeg, name, path):
    voice, said = SPEECH[name]
    flite = packages.debian("flite") / "usr/bin/flite"
    libraries = sorted(packages.debian("libflite1").glob("usr/lib/*/libflite.so.1"))[0].parent
    wav = packages.scratch / "speech.wav"
    subprocess.run([flite, "-voice", voice, "-t", said, "-o", wav], check=True, env=dict(os.environ, LD_LIBRARY_PATH=str(libraries)))
    codec = {
        ".wav": ["-c:a", "pcm_s16le", "-ar", "16000"],
        ".flac": ["-c:a", "flac", "-ar", "16000"],
        ".mp3": ["-c:a", "libmp3lame", "-b:a", "48k", "-ar", "22050"],
        ".ogg": ["-c:a", "libvorbis", "-q:a", "3", "-ar", "22050"],
        ".opus": ["-c:a", "libopus", "-b:a", "32k", "-ar", "48000", "-serial_offset", "1"],
        ".m4a": ["-c:a", "aac", "-b:a", "48k", "-ar", "22050"],
    }[path.suffix]
    subprocess.run([ffmpeg, "-v", "error", "-y", "-i", wav, "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact",
                    "-ac", "1", *codec, path], check=True)


def save_film(ffmpeg, frames, path, rate):
    """Frames as H.264, animated GIF or animated WebP, by the name's ending."""
    if path.suffix in (".gif", ".webp"):
        if path.suffix == ".gif":
            from PIL import Image

            frames = [frame.quantize(48, dither=Image.Dither.NONE) for frame in frames]
            options = {"optimize": True, "disposal": 1}
        else:
            options = {"quality": 60, "method": 6}
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / rate), loop=0, **options)
        return
    width, height = frames[0].size
    raw = b"".join(frame.tobytes() for frame in frames)
    subprocess.run([ffmpeg, "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "-",
                    "-c:v", "libx264", "-preset", "slow", "-crf", "27", "-pix_fmt", "yuv420p", "-threads", "1", "-map_metadata", "-1",
                    "-fflags", "+bitexact", "-flags:v", "+bitexact", *(["-movflags", "+faststart"] if path.suffix == ".mp4" else []), path],
                   input=raw, check=True)


def ground(size, top, bottom):
    from PIL import Image

    width, height = size
    column = Image.new("RGB", (1, height))
    for y in range(height):
        column.putpixel((0, y), tuple(round(a + (b - a) * y / (height - 1)) for a, b in zip(top, bottom)))
    return column.resize(size)


def pan(image, first, last, count, size):
    """Moves the window (left, top, width as shares of the picture) from `first` to `last`."""
    from PIL import Image

    out = []
    width, height = image.size
    for index in range(count):
        t = (1 - math.cos(math.pi * index / (count - 1))) / 2
        left, top, share = (a + (b - a) * t for a, b in zip(first, last))
        wide = share * width
        tall = min(wide * size[1] / size[0], height * (1 - top))
        box = (left * width, top * height, left * width + tall * size[0] / size[1], top * height + tall)
        out.append(image.resize(size, Image.Resampling.BICUBIC, box=box))
    return out


def boat_sailing(count, size):
    from PIL import ImageDraw

    boat, out = drawing("sailboat", 170), []
    for index in range(count):
        t = index / (count - 1)
        frame = ground(size, (150, 208, 245), (226, 243, 252))
        swing = boat.rotate(4 * math.sin(9 * t), resample=3)
        frame.paste(swing, (round(8 + 134 * t), round(38 + 5 * math.sin(12 * t))), swing)
        ImageDraw.Draw(frame).rectangle((0, 190, size[0], size[1]), fill=(70, 150, 205))
        out.append(frame)
    return out


def car_driving(count, size):
    from PIL import ImageDraw

    car, out = drawing("car", 150).transpose(0), []  # mirrored: it drives to the right
    for index in range(count):
        t = index / (count - 1)
        frame = ground(size, (190, 225, 245), (240, 246, 248))
        pen = ImageDraw.Draw(frame)
        pen.rectangle((0, 150, size[0], size[1]), fill=(112, 168, 84))
        pen.rectangle((0, 172, size[0], 222), fill=(92, 96, 102))
        for dash in range(-1, 7):
            left = dash * 64 - round(t * 100) % 64
            pen.rectangle((left, 195, left + 30, 199), fill=(240, 240, 240))
        frame.paste(car, (round(-10 + 180 * t), 74 + index % 2), car)
        out.append(frame)
    return out


def balloon_rising(count, size):
    balloon, out = drawing("balloon", 120), []
    for index in range(count):
        t = index / (count - 1)
        frame = ground(size, (168, 216, 246), (168, 216, 246))
        frame.paste(balloon, (round(40 + 10 * math.sin(6 * t)), round(78 - 76 * t)), balloon)
        out.append(frame)
    return out


def fish_swimming(count, size):
    fish, out = drawing("fish", 140), []
    for index in range(count):
        t = index / (count - 1)
        frame = ground(size, (96, 190, 226), (20, 96, 160))
        turned = fish.rotate(5 * math.sin(10 * t), resample=3)
        frame.paste(turned, (round(96 - 90 * t), round(30 + 12 * math.sin(7 * t))), turned)
        out.append(frame)
    return out


def make(folder, scratch):
    import imageio_ffmpeg

    for name, version in PYTHON.items():
        if importlib.metadata.version(name) != version:
            raise SystemExit(f"needs {name}=={version}")
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    packages = Packages(scratch)
    made = []

    def path(name):
        made.append(name)
        return folder / name

    for name, (package, member, longest, window) in PHOTOS.items():
        save_photo(photo(packages.member(package, member)), path(name), longest, window)
    for name, file in DRAWING_FILES.items():
        save_drawing(name, path(file))
    for name in SPEECH:
        speak(packages, ffmpeg, name, path(name))
    for name, (package, member, first, last) in PANS.items():
        frames = pan(photo(packages.member(package, member)), first, last, 30, (256, 192))
        save_film(ffmpeg, frames, path(name), 10)
    save_film(ffmpeg, boat_sailing(36, (320, 240)), path("boat-sailing.mp4"), 12)
    save_film(ffmpeg, car_driving(36, (320, 240)), path("car-driving.mkv"), 12)
    save_film(ffmpeg, balloon_rising(20, (200, 200)), path("balloon-rising.gif"), 10)
    save_film(ffmpeg, fish_swimming(24, (240, 200)), path("fish-swimming.webp"), 10)
    for name, text in TEXTS.items():
        path(name).write_text(text + "\n", encoding="utf-8")
    return "".join(f"{sha256((folder / name).read_bytes())}  {name}\n" for name in sorted(made))


def main():
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory() as scratch:
        if sys.argv[1:] == ["--check"]:
            out = Path(scratch) / "out"
            out.mkdir()
            sums = make(out, scratch)
            kept = (here / "SHA256SUMS").read_text()
            wrong = sorted(set(sums.splitlines()) ^ set(kept.splitlines()))
            wrong += [name for line in kept.splitlines() for digest, name in [line.split("  ")] if sha256((here / name).read_bytes()) != digest]
            print("\n".join(wrong) or "as recorded")
            raise SystemExit(bool(wrong))
        if sys.argv[1:]:
            raise SystemExit(__doc__)
        (here / "SHA256SUMS").write_text(make(here, scratch))


if __name__ == "__main__":
    main()

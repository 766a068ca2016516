"""Small films in codecs that are decoded by an FFmpeg program or by the feature `av1`.

  python codecs.py OUT

writes OUT/codecs/* (inputs) and OUT/codecs.json: for each the codec, the sides as shown, the start of each frame in
seconds and whether it is a key frame (FFmpeg's `showinfo`), the pixel format, and the SHA-256 of each decoded frame's planes in that format (FFmpeg, packed
planes, little endian above 8 bits). Encoders and decoder are those of imageio-ffmpeg's program; one thread, so that the
bytes repeat.
"""
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np

W, H, FRAMES = 72, 50, 18
FF = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-v", "error"]
EXACT = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1", "-threads", "1"]
AOM = ["-c:v", "libaom-av1", "-cpu-used", "4", "-crf", "30", "-g", "8", "-row-mt", "0"]


def scene():
    """A moving gradient with a box: every frame differs from every other."""
    y, x = np.mgrid[0:H, 0:W]
    out = []
    for i in range(FRAMES):
        rgb = np.stack([x * 3 + 5 * i, y * 4 + 128 * (i % 2 == 0), (x + y) * 2 - 7 * i], -1)
        rgb[5 + i:20 + i, 3 + 2 * i:20 + 2 * i] = [250, 10 * i, 40]
        out.append((rgb % 256 if i % 6 == 0 else np.clip(rgb, 0, 255)).astype(np.uint8))
    return np.stack(out).tobytes()


def encode(path, *options, pixel="yuv420p", rate="25", filters=()):
    command = [*FF, "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{W}x{H}", "-r", rate, "-i", "pipe:0",
               *filters, *options, "-pix_fmt", pixel, *EXACT, str(path)]
    subprocess.run(command, input=scene(), check=True)


def probe(path, native):
    log = subprocess.run([*FF[:-2], "-v", "info", "-i", str(path), "-vf", "showinfo", "-fps_mode", "passthrough", "-f", "null", "-"],
                         capture_output=True, text=True).stderr
    starts = [float(t) for t in re.findall(r"pts_time:(\S+)", log)]
    keys = [key == "1" for key in re.findall(r" iskey:(\d)", log)]
    width, height = map(int, re.findall(r" s:(\d+)x(\d+)", log)[0])
    raw = subprocess.run([*FF, "-noautorotate", "-i", str(path), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", native, "pipe:1"],
                         capture_output=True, check=True).stdout
    size = len(raw) // len(starts)
    assert size * len(starts) == len(raw)
    return dict(width=width, height=height, starts_s=starts, keys=keys, pixels=native,
                sha256=[hashlib.sha256(raw[i * size:(i + 1) * size]).hexdigest() for i in range(len(starts))])


def main():
    out = Path(sys.argv[1])
    folder = out / "codecs"
    folder.mkdir(exist_ok=True)
    x265 = "log-level=none:pools=none:frame-threads=1:info=0:keyint=8:min-keyint=4:bframes=3:open-gop=1"
    films = {}

    def film(name, codec, *options, pixel="yuv420p", **more):
        encode(folder / name, *options, pixel=pixel, **more)
        films[name] = dict(codec=codec, **probe(folder / name, pixel))

    film("hevc.mp4", "HEVC", "-c:v", "libx265", "-tag:v", "hvc1", "-x265-params", x265)
    film("hevc.mkv", "HEVC", "-c:v", "libx265", "-x265-params", x265)
    film("vp9.webm", "VP9", "-c:v", "libvpx-vp9", "-g", "8", "-auto-alt-ref", "1", "-lag-in-frames", "8", "-crf", "30", "-b:v", "0")
    film("vp8.webm", "VP8", "-c:v", "libvpx", "-g", "8", "-auto-alt-ref", "1", "-lag-in-frames", "8", "-b:v", "200k")
    film("mpeg4.mp4", "MPEG-4 Part 2", "-c:v", "mpeg4", "-g", "8", "-bf", "2", "-q:v", "5")
    film("av1.mp4", "AV1", *AOM, "-movflags", "+faststart")
    film("av1-10-bits.mkv", "AV1", "-c:v", "libsvtav1", "-preset", "8", "-crf", "35", "-g", "8",
         "-svtav1-params", "lp=1", pixel="yuv420p10le", filters=("-vf", "scale=out_color_matrix=bt709"))
    film("av1.webm", "AV1", *AOM, "-lag-in-frames", "12", rate="30")
    film("av1-444.mp4", "AV1", *AOM, pixel="yuv444p")
    film("av1-grey.mp4", "AV1", *AOM, pixel="gray")
    film("av1-grain.mp4", "AV1", *AOM, "-aom-params", "film-grain-test=3")
    turned = folder / "hevc-turned.mp4"
    subprocess.run([*FF, "-display_rotation", "90", "-i", str(folder / "hevc.mp4"), "-c", "copy", *EXACT[:4], "-map_metadata", "-1", str(turned)], check=True)
    films["hevc-turned.mp4"] = dict(codec="HEVC", **probe(turned, "yuv420p"))
    (out / "codecs.json").write_text(json.dumps(films, indent=1, sort_keys=True) + "\n")


main()

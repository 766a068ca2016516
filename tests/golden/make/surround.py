"""A Vorbis file of six channels, whose couplings share a channel, and its samples.

  python surround.py OUT

writes OUT/audio/surround.ogg, a tenth of a second by FFmpeg 5.1 (libvorbis), and OUT/audio/surround.safetensors: the mean of
the channels as oggdec of vorbis-tools 1.4.2 decodes them, in 16 bits.
"""
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

out = Path(sys.argv[1]) / "audio"
t = np.arange(4800) / 48000
wave = np.stack([0.3 * np.sin(2 * np.pi * 180 * (c + 2) / 2 * t + c) + 0.1 * np.sin(2 * np.pi * 558 * t * (1 + t)) for c in range(6)], -1)
path = out / "surround.ogg"
subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "f64le", "-ar", "48000", "-ac", "6", "-i", "-", "-c:a", "libvorbis", "-q:a", "2",
                "-map_metadata", "-1", "-fflags", "+bitexact", path], input=wave.astype("<f8").tobytes(), check=True)
raw = subprocess.run(["oggdec", "--quiet", "--raw", "--bits", "16", "--output", "-", path], capture_output=True, check=True).stdout
mean = np.frombuffer(raw, "<i2").reshape(-1, 6).astype(float).mean(1)
save_file({"surround": np.rint(mean).astype(np.int16)}, out / "surround.safetensors")

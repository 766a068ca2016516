"""One short sound in every format that is read, and FFmpeg's samples of each.

  python audio.py OUT

writes OUT/audio/files/* (inputs), OUT/audio/files.safetensors (under the name of each lossy file FFmpeg's decoded samples,
mixed to mono by the mean, as 16-bit integers; lossless files decode to `mono` or `stereo`) and OUT/audio/files.json (the
length of each). The sound is 0.36 s of harmonics with noise at 44.1 kHz, made by a formula. Files are encoded and
decoded by FFmpeg 9.0.2 of imageio-ffmpeg 0.8.1, except the WAV, AIFF and CAF variants that
FFmpeg does not write, which are packed here by struct.
"""
import json
import struct
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from safetensors.numpy import save_file

out = Path(sys.argv[1]) / "audio"
files = out / "files"
files.mkdir(parents=True, exist_ok=True)
FF = imageio_ffmpeg.get_ffmpeg_exe()
BITEXACT = ["-map_metadata", "-1", "-flags", "+bitexact", "-fflags", "+bitexact"]
RATE = 44100
N = 16000


def noise(n, seed):
    state, values = seed, np.empty(n)
    for i in range(n):
        state = (state * 1664525 + 1013904223) % 2**32
        values[i] = (state >> 16) / 32768 - 1
    return values


def channel(seed, base):
    t = np.arange(N) / RATE
    x = 0.004 * noise(N, seed)
    for k in range(1, 9):
        x += 0.25 / k * np.sin(2 * np.pi * k * (base * t + 5 * np.sin(4 * t))) * (0.6 + 0.4 * np.sin(7 * t + k))
    return np.rint(np.clip(x, -0.99, 0.99) * 32767).astype(np.int16)


stereo = np.stack([channel(1, 150), channel(2, 180)], -1)
mono = channel(3, 150)


def run(*words, data=None):
    done = subprocess.run([FF, "-hide_banner", "-loglevel", "error", "-y", *words], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def chunk(name, body, big=False):
    return name + struct.pack(">I" if big else "<I", len(body)) + body + b"\0" * (len(body) & 1)


def fmt(tag, channels, rate, bits, extra=b"", big=False):
    block = channels * bits // 8
    return struct.pack((">" if big else "<") + "HHIIHH", tag, channels, rate, rate * block, block, bits) + extra


def riff(*chunks, magic=b"RIFF", big=False, size=None):
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack(">I" if big else "<I", len(body) if size is None else size) + body


SHORT = 2500
plain = stereo[:SHORT]
i32 = plain.astype(np.int64) << 16
packed24 = np.ascontiguousarray(plain.astype("<i4") << 8).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
rest = bytes.fromhex("000000001000800000aa00389b71")
pcm16 = chunk(b"fmt ", fmt(1, 2, RATE, 16))
data16 = chunk(b"data", plain.astype("<i2").tobytes())

# Lossless variants of `plain`, packed by hand.
packed = {
    "u8.wav": riff(chunk(b"fmt ", fmt(1, 2, RATE, 8)), chunk(b"data", ((plain >> 8) + 128).astype(np.uint8).tobytes())),
    "s16.wav": riff(pcm16, data16),
    "s24.wav": riff(chunk(b"fmt ", fmt(1, 2, RATE, 24)), chunk(b"data", packed24)),
    "s32.wav": riff(chunk(b"fmt ", fmt(1, 2, RATE, 32)), chunk(b"data", i32.astype("<i4").tobytes())),
    "s64.wav": riff(chunk(b"fmt ", fmt(1, 2, RATE, 64)), chunk(b"data", (plain.astype("<i8") << 48).tobytes())),
    "f32.wav": riff(chunk(b"fmt ", fmt(3, 2, RATE, 32)), chunk(b"data", (plain / 32768).astype("<f4").tobytes())),
    "f64.wav": riff(chunk(b"fmt ", fmt(3, 2, RATE, 64)), chunk(b"data", (plain / 32768).astype("<f8").tobytes())),
    "extensible.wav": riff(chunk(b"fmt ", fmt(0xFFFE, 2, RATE, 24, struct.pack("<HHIH", 22, 20, 3, 1) + rest)),
                           chunk(b"data", packed24)),
    "s24in32.wav": riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, RATE, RATE * 8, 8, 24)),
                        chunk(b"data", i32.astype("<i4").tobytes())),
    "rifx.wav": riff(chunk(b"fmt ", fmt(1, 2, RATE, 16, big=True), True), chunk(b"data", plain.astype(">i2").tobytes(), True),
                     magic=b"RIFX", big=True),
    "rf64.wav": riff(chunk(b"ds64", struct.pack("<QQQI", 100 + plain.size * 2, plain.size * 2, SHORT, 0)), pcm16,
                     b"data" + b"\xff" * 4 + plain.astype("<i2").tobytes(), magic=b"RF64", size=0xFFFFFFFF),
    "data-first.wav": riff(chunk(b"LIST", b"INFOodd"), data16, chunk(b"junk", b"abc"), pcm16),
    "streamed.wav": riff(pcm16, b"data" + b"\xff" * 4 + plain.astype("<i2").tobytes(), size=0xFFFFFFFF),
    "streamed-zero.wav": riff(pcm16, b"data" + b"\0" * 4 + plain.astype("<i2").tobytes(), size=0),
    "trailing.wav": riff(pcm16, data16, chunk(b"LIST", b"INFOISFT\x05\0\0\0hello\0")),
}
expected = {}
for name, data in packed.items():
    (files / name).write_bytes(data)
    expected[name] = "u8" if name == "u8.wav" else "plain"

wav_stereo = riff(pcm16, chunk(b"data", stereo.astype("<i2").tobytes()))
wav_mono = riff(chunk(b"fmt ", fmt(1, 1, RATE, 16)), chunk(b"data", mono.astype("<i2").tobytes()))
wav_plain = riff(pcm16, data16)

jobs = [
    # name, source, encoder words, expectation
    ("alaw.wav", wav_plain, ["-c:a", "pcm_alaw"], "coded"),
    ("mulaw.wav", wav_plain, ["-c:a", "pcm_mulaw"], "coded"),
    ("ima.wav", wav_stereo, ["-c:a", "adpcm_ima_wav"], "coded"),
    ("ms.wav", wav_stereo, ["-c:a", "adpcm_ms"], "coded"),
    ("s16.aiff", wav_plain, ["-c:a", "pcm_s16be"], "plain"),
    ("s24.aiff", wav_plain, ["-c:a", "pcm_s24be"], "plain"),
    ("sowt.aif", wav_plain, ["-c:a", "pcm_s16le", "-f", "aiff"], "plain"),
    ("f32.aifc", wav_plain, ["-c:a", "pcm_f32be", "-f", "aiff"], "plain"),
    ("alaw.aifc", wav_plain, ["-c:a", "pcm_alaw", "-f", "aiff"], "coded"),
    ("s16.caf", wav_plain, ["-c:a", "pcm_s16be"], "plain"),
    ("s24le.caf", wav_plain, ["-c:a", "pcm_s24le"], "plain"),
    ("f32.caf", wav_plain, ["-c:a", "pcm_f32le"], "plain"),
    ("alac.caf", wav_plain, ["-c:a", "alac"], "plain"),
    ("alac.m4a", wav_plain, ["-c:a", "alac"], "plain"),
    ("mono.flac", wav_mono, ["-c:a", "flac"], "mono"),
    ("stereo.flac", wav_stereo, ["-c:a", "flac"], "stereo"),
    ("flac.ogg", wav_plain, ["-c:a", "flac", "-f", "ogg"], "plain"),
    ("flac.mkv", wav_plain, ["-c:a", "flac"], "plain"),
    ("flac.mp4", wav_plain, ["-c:a", "flac", "-strict", "-2"], "plain"),
    ("pcm.mkv", wav_plain, ["-c:a", "pcm_s16le"], "plain"),
    ("pcm.mov", wav_plain, ["-c:a", "pcm_s16le"], "plain"),
    ("stereo.mp3", wav_stereo, ["-c:a", "libmp3lame", "-q:a", "5"], "coded"),
    ("mono-cbr.mp3", wav_mono, ["-c:a", "libmp3lame", "-b:a", "64k", "-write_xing", "0", "-id3v2_version", "0"], "coded"),
    ("low.mp3", wav_mono, ["-c:a", "libmp3lame", "-ar", "22050", "-b:a", "32k"], "coded"),
    ("layer2.mp2", wav_mono, ["-c:a", "mp2", "-b:a", "96k"], "coded"),
    ("stereo.ogg", wav_stereo, ["-c:a", "libvorbis", "-q:a", "3"], "coded"),
    ("mono.opus", wav_mono, ["-c:a", "libopus", "-b:a", "32k"], "coded"),
    ("stereo.opus", wav_stereo, ["-c:a", "libopus", "-b:a", "64k"], "coded"),
    ("voip.opus", wav_mono, ["-c:a", "libopus", "-b:a", "14k", "-application", "voip"], "coded"),
    ("opus.webm", wav_stereo, ["-c:a", "libopus", "-b:a", "64k"], "coded"),
    ("opus.mp4", wav_stereo, ["-c:a", "libopus", "-b:a", "64k", "-strict", "-2"], "coded"),
    ("vorbis.webm", wav_stereo, ["-c:a", "libvorbis", "-q:a", "3"], "coded"),
    ("stereo.m4a", wav_stereo, ["-c:a", "aac", "-b:a", "96k"], "coded"),
    ("fragmented.mp4", wav_mono, ["-c:a", "aac", "-b:a", "64k", "-movflags", "frag_keyframe+empty_moov"], "coded"),
    ("mono.aac", wav_mono, ["-c:a", "aac", "-b:a", "64k"], "coded"),
    ("aac.mkv", wav_mono, ["-c:a", "aac", "-b:a", "64k"], "coded"),
    ("mp3.mkv", wav_mono, ["-c:a", "libmp3lame", "-b:a", "64k"], "coded"),
]
for name, source, words, kind in jobs:
    (files / "source.tmp").write_bytes(source)
    run("-i", str(files / "source.tmp"), *words, *BITEXACT, str(files / name))
    expected[name] = kind

# Films: a picture track first, then sound.
FILM = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=0.4", "-i", str(files / "source.tmp"), "-map", "0:v", "-map", "1:a"]
(files / "source.tmp").write_bytes(wav_mono)
for name, words in [
    ("film.mp4", ["-c:v", "libx264", "-preset", "fast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "64k"]),
    ("film.mov", ["-c:v", "mjpeg", "-q:v", "20", "-c:a", "alac"]),
    ("film.mkv", ["-c:v", "mjpeg", "-q:v", "20", "-c:a", "libvorbis", "-q:a", "1"]),
    ("film.webm", ["-c:v", "libvpx", "-b:v", "30k", "-c:a", "libopus", "-b:a", "32k"]),
]:
    run(*FILM, "-threads", "1", *words, *BITEXACT, str(files / name))
    expected[name] = "mono" if name == "film.mov" else "coded"

# What is refused by name.
for name, words in [
    ("ac3.mkv", ["-c:a", "ac3", "-b:a", "64k"]),
    ("eac3.mp4", ["-c:a", "eac3", "-b:a", "64k"]),
    ("ac3.mp4", ["-c:a", "ac3", "-b:a", "64k"]),
    ("dts.mkv", ["-c:a", "dca", "-strict", "-2", "-b:a", "256k"]),
    ("wma.wma", ["-c:a", "wmav2", "-b:a", "48k"]),
    ("raw.ac3", ["-c:a", "ac3", "-b:a", "64k"]),
    ("raw.dts", ["-c:a", "dca", "-strict", "-2", "-b:a", "256k"]),
    ("wavpack.wv", ["-c:a", "wavpack"]),
    ("true.tta", ["-c:a", "tta"]),
]:
    run("-i", str(files / "source.tmp"), "-t", "0.1", *words, *BITEXACT, str(files / name))
    expected[name] = "refused"
run("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=0.3", "-c:v", "mjpeg", "-q:v", "20", *BITEXACT, str(files / "silent.mp4"))
run("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=0.3", "-c:v", "mjpeg", "-q:v", "20", *BITEXACT, str(files / "silent.mkv"))
(files / "source.tmp").unlink()

tensors, lengths = {}, {}
for name, kind in sorted(expected.items()):
    if kind == "refused":
        continue
    path = str(files / name)
    # The reference decoder of Opus, not FFmpeg's own.
    decoder = ["-c:a", "libopus"] if "opus" in name or name == "film.webm" else []
    raw = np.frombuffer(run(*decoder, "-i", path, "-map", "0:a:0", "-f", "f32le", "-c:a", "pcm_f32le", "-"), "<f4")
    probe = subprocess.run([FF, "-hide_banner", "-i", path], capture_output=True).stderr.decode()
    line = next(line for line in probe.splitlines() if "Audio:" in line)
    channels = 1 if " mono" in line else 2
    rate = int(line.split(" Hz")[0].split()[-1])
    mixed = raw.reshape(-1, channels).astype(np.float64).mean(1)
    lengths[name] = {"frames": len(mixed), "rate_hz": rate, "kind": kind}
    want = {"plain": plain.mean(1) / 32768, "mono": mono / 32768, "stereo": stereo.mean(1) / 32768}.get(kind)
    if want is not None:
        # FFmpeg does not read all of what is packed by hand.
        if len(mixed) != len(want) or np.abs(mixed - want).max() > 1e-9:
            print(f"{name}: FFmpeg gives {len(mixed)} frames for {len(want)}")
            lengths[name]["frames"] = len(want)
    elif kind == "u8":
        pass
    else:
        tensors[name] = np.rint(mixed * 32768).clip(-32768, 32767).astype(np.int16)
for name, kind in expected.items():
    if kind == "refused":
        lengths[name] = {"kind": kind}
tensors["plain"] = plain.astype(np.int16)
tensors["mono"], tensors["stereo"] = mono, stereo
tensors = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
save_file(tensors, out / "files.safetensors")
(out / "files.json").write_text(json.dumps(lengths, indent=1, sort_keys=True) + "\n")

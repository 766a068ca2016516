"""Sound whose stream changes or was joined, every form of plain samples, and surround Opus, with what the reference gives.

  python streams.py OUT

writes OUT/audio/streams/* (inputs), OUT/audio/streams.safetensors (`plain`, and under the names of the other files their
samples, mixed to mono by the mean, as 16-bit integers or, where parts of other rates were resampled, as 32-bit floats) and
OUT/audio/streams.json (for each file its rate, and whether it holds `plain`, its own samples, or is refused and by which
word). Files are written and decoded by FFmpeg of imageio-ffmpeg 0.8.1, surround Opus by opusenc and opusdec of opus-tools
0.2 (Debian 12), files of Sun by sox 14.4.2; those, oggdec of vorbis-tools 1.4.2 and lame 3.100 must be on PATH. Joined files are made here: what is
expected of them is what the reference gives of each part; parts of other rates are resampled by FFmpeg's soxr at the
precision of HQ. Values of `plain` have eight bits, so that every format of plain samples holds them without loss.
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
files = out / "streams"
files.mkdir(parents=True, exist_ok=True)
FF = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
BITEXACT = ["-map_metadata", "-1", "-flags", "+bitexact", "-fflags", "+bitexact"]
listed, tensors = {}, {}


def run(words, data=None):
    done = subprocess.run([str(word) for word in words], input=data, capture_output=True)
    assert done.returncode == 0, (words, done.stderr.decode())
    return done.stdout


def wav(samples, rate):
    """Samples of 16 bits as a WAV."""
    data = samples.astype("<i2").tobytes()
    fmt = struct.pack("<HHIIHH", 1, samples.shape[1], rate, rate * 2 * samples.shape[1], 2 * samples.shape[1], 16)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt \x10\0\0\0" + fmt + b"data" + struct.pack("<I", len(data)) + data


def tone(rate, channels, frames, base):
    t = np.arange(frames) / rate
    wave = [0.3 * np.sin(2 * np.pi * base * (c + 2) / 2 * t + c) + 0.15 * np.sin(2 * np.pi * 3.1 * base * t * (1 + t)) for c in range(channels)]
    return np.rint(np.stack(wave, -1) * 32767).astype(np.int16)


def decoded(path, rate, channels, words=()):
    raw = run([*FF, *words, "-i", path, "-map", "0:a:0", "-c:a", "pcm_f64le", "-f", "f64le", "-"])
    assert len(raw) % (8 * channels) == 0
    return np.frombuffer(raw, "<f8").reshape(-1, channels).mean(1)


def keep(name, rate, want):
    listed[name] = {"kind": "samples", "rate_hz": rate}
    tensors[name] = np.rint(want * 32768).clip(-32768, 32767).astype(np.int16)


def refuse(name, data, word):
    (files / name).write_bytes(data)
    listed[name] = {"kind": "refused", "word": word}


# Plain samples in every container.
plain = (tone(8000, 2, 500, 180) >> 8 << 8).astype(np.int16)
tensors["plain"] = plain
source = files / "source.tmp"
source.write_bytes(wav(plain, 8000))
mixed = plain.astype(float).mean(1) / 32768
for container, encoders in {
    "mov": "s8 u8 s16be s16le s24be s24le s32be s32le f32be f32le f64be f64le",
    "mkv": "u8 s16be s16le s24be s24le s32be s32le f32le f64le",
    "mp4": "s16be s16le s24be s24le s32be s32le f32be f32le f64be f64le",
    "caf": "s8 s16be s16le s24be s24le s32be s32le f32be f32le f64be f64le",
    "aiff": "s8 s16be s16le s24be s32be f32be f64be",
}.items():
    for encoder in encoders.split():
        name = f"{encoder}.{container}"
        run([*FF, "-i", source, "-c:a", f"pcm_{encoder}", *BITEXACT, files / name])
        want = decoded(files / name, 8000, 2)
        assert len(want) == 500 and np.abs(want - mixed).max() == 0, name
        listed[name] = {"kind": "plain", "rate_hz": 8000}
# A description of the second version, with flags, and fragments with runs instead of tables.
source.write_bytes(wav(plain, 96000))
for encoder in ["s16le", "s24be", "f32be"]:
    name = f"lpcm-{encoder}.mov"
    run([*FF, "-i", source, "-c:a", f"pcm_{encoder}", *BITEXACT, files / name])
    listed[name] = {"kind": "plain", "rate_hz": 96000}
source.write_bytes(wav(plain, 8000))
for name, words in [("fragments.mov", ["-c:a", "pcm_s24be"]), ("fragments.mp4", ["-c:a", "pcm_s16le"])]:
    run([*FF, "-i", source, *words, "-movflags", "empty_moov+default_base_moof", "-frag_duration", "20000", *BITEXACT, files / name])
    assert np.abs(decoded(files / name, 8000, 2) - mixed).max() == 0
    listed[name] = {"kind": "plain", "rate_hz": 8000}
for name, words in [
    ("s8.au", ["-e", "signed", "-b", "8"]), ("s16.au", ["-e", "signed", "-b", "16"]), ("s16-le.au", ["-e", "signed", "-b", "16", "-L"]),
    ("s24.au", ["-e", "signed", "-b", "24"]), ("f32.au", ["-e", "float", "-b", "32"]), ("f64.au", ["-e", "float", "-b", "64"]),
]:
    run(["sox", "-D", source, *words, files / name])
    listed[name] = {"kind": "plain", "rate_hz": 8000}
for name, words in [("alaw.mov", ["-c:a", "pcm_alaw"]), ("mulaw.mov", ["-c:a", "pcm_mulaw"]), ("alaw.mkv", ["-c:a", "pcm_alaw"]),
                    ("mulaw.au", ["-c:a", "pcm_mulaw"]), ("ms.mkv", ["-c:a", "adpcm_ms"])]:
    run([*FF, "-i", source, *words, *BITEXACT, files / name])
    keep(name, 8000, decoded(files / name, 8000, 2))
# Old forms that FFmpeg reads and does not write: another name, and an order of bytes that a box tells.
u8 = (files / "u8.mov").read_bytes()
for name, content in [("none-u8.mov", u8.replace(b"raw ", b"NONE"))]:
    (files / name).write_bytes(content)
    assert np.abs(decoded(files / name, 8000, 2) - mixed).max() == 0
    listed[name] = {"kind": "plain", "rate_hz": 8000}

# Surround, by the reference encoder and decoder.
for channels in range(3, 9):
    name = f"surround-{channels}.opus"
    source.write_bytes(wav(tone(48000, channels, 4800, 150), 48000))
    run(["opusenc", "--quiet", "--bitrate", 16 * channels, "--serial", "7", "--discard-comments", source, files / name])
    raw = run(["opusdec", "--quiet", "--float", "--no-dither", files / name, "-"])
    # To a pipe, opusdec gives bare samples.
    keep(name, 48000, np.frombuffer(raw, "<f4").reshape(-1, channels).astype(float).mean(1))
for ending, words in [("mkv", []), ("mp4", ["-strict", "-2"])]:
    name = f"surround-6.{ending}"
    run([*FF, "-i", files / "surround-6.opus", "-c", "copy", *words, *BITEXACT, files / name])
    listed[name] = {"kind": "samples", "rate_hz": 48000, "of": "surround-6.opus"}

# Files that were joined.
TAGS = {
    "": b"",
    "id3v1": b"TAG" + b"title".ljust(125, b"\0"),
    "enhanced": b"TAG+" + b"t".ljust(223, b"\0") + b"TAG" + b"title".ljust(125, b"\0"),
    "id3v2": b"ID3\x04\0\0\0\0\0\x14TIT2\0\0\0\x06\0\0\x03title\0\0\0\0",
    "footer": b"ID3\x04\0\x10\0\0\0\x14TIT2\0\0\0\x06\0\0\x03title\0\0\0\0" + b"3DI\x04\0\x10\0\0\0\x14",
    "apev2": b"APETAGEX" + struct.pack("<IIII", 2000, 52, 1, 0xA0000000) + b"\0" * 8 + struct.pack("<II", 6, 0) + b"Title\0Hello!"
    + b"APETAGEX" + struct.pack("<IIII", 2000, 52, 1, 0x80000000) + b"\0" * 8,
    "apev1": struct.pack("<II", 6, 0) + b"Title\0Hello!" + b"APETAGEX" + struct.pack("<IIII", 1000, 52, 1, 0) + b"\0" * 8,
    "lyrics": b"LYRICSBEGININD0000200LYR00005hello000034LYRICS200" + b"TAG" + b"title".ljust(125, b"\0"),
    "zeros": b"\0" * 700,
}
MP3 = ["-c:a", "libmp3lame", "-b:a", "32k", "-write_xing", "0", "-id3v2_version", "0"]
FORMATS = {
    "mp3": (MP3, "mp3"), "mp2": (["-c:a", "mp2", "-b:a", "64k", "-f", "mp2"], "mp3"), "aac": (["-c:a", "aac", "-b:a", "32k", "-aac_pns", "0"], "aac"),
    "vorbis": (["-c:a", "libvorbis", "-q:a", "2"], "ogg"), "oggflac": (["-c:a", "flac", "-f", "ogg"], "ogg"),
    "opus": (["-c:a", "libopus", "-b:a", "24k"], "ogg"), "flac": (["-c:a", "flac"], "flac"),
    "piped": (["-c:a", "flac"], "flac"), "wav": (["-c:a", "pcm_s16le"], "wav"), "u8": (["-c:a", "pcm_u8"], "wav"),
    "aiff": (["-c:a", "pcm_s16be"], "aiff"), "caf": (["-c:a", "pcm_s16be"], "caf"), "au": (["-c:a", "pcm_s16be"], "au"),
}
parts = {}


def part(kind, rate, channels, base):
    """The bytes of a part, and what the reference makes of it."""
    key = kind, rate, channels, base
    if key not in parts:
        words, ending = FORMATS[kind]
        source.write_bytes(wav(tone(rate, channels, rate // 5, base), rate))
        path = files / f"part.{ending}"
        if kind == "piped":
            path.write_bytes(run([*FF, "-i", source, *words, *BITEXACT, "-f", "flac", "-"]))
        else:
            run([*FF, "-i", source, *words, *BITEXACT, path])
        if kind == "vorbis":
            # FFmpeg gives 128 samples fewer than the last page counts.
            raw = run(["oggdec", "--quiet", "--raw", "--bits", "16", "--output", "-", path])
            want = np.frombuffer(raw, "<i2").reshape(-1, channels).astype(float).mean(1) / 32768
        else:
            want = decoded(path, rate, channels, ["-c:a", "libopus"] if kind == "opus" else [])
        parts[key] = path.read_bytes(), want
        path.unlink()
    return parts[key]


def resampled(want, rate, to):
    filter = f"aresample={to}:resampler=soxr:precision=20"
    raw = run([*FF, "-f", "f64le", "-ar", rate, "-ac", "1", "-i", "-", "-af", filter, "-c:a", "pcm_f64le", "-f", "f64le", "-"],
              np.ascontiguousarray(want).tobytes())
    return np.frombuffer(raw, "<f8")[: round(len(want) * to / rate)]


def ogg_checksum(data):
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


def renumbered(data, serial):
    """The stream with another number, as joined streams must have."""
    new, at = bytearray(data), 0
    while at < len(new):
        size = 27 + new[at + 26] + sum(new[at + 27:at + 27 + new[at + 26]])
        new[at + 14:at + 18], new[at + 22:at + 26] = struct.pack("<I", serial), b"\0" * 4
        new[at + 22:at + 26] = struct.pack("<I", ogg_checksum(new[at:at + size]))
        at += size
    return bytes(new)


def join(name, first, second, tag=""):
    ending = FORMATS[first[0]][1]
    (a, x), (b, y) = part(*first, 180), part(*second, 250)
    if ending == "ogg":
        b = renumbered(b, 77)
    name = f"{name}{'-' if tag else ''}{tag}.{ending}"
    (files / name).write_bytes(a + TAGS[tag] + b)
    if first == second and first[0] == "mp3":
        # The state of the decoder goes on, as in the reference. Not all tags are known to it, so it decodes without them.
        source.write_bytes(a + b)
        want = decoded(source, first[1], first[2], ["-f", ending])
        assert len(want) == len(x) + len(y)
        return keep(name, first[1], want)
    if first[1] == second[1]:
        return keep(name, first[1], np.concatenate([x, y]))
    rate = min(first[1], second[1])
    listed[name] = {"kind": "samples", "rate_hz": rate}
    tensors[name] = np.concatenate([part_x if r == rate else resampled(part_x, r, rate) for part_x, r in ((x, first[1]), (y, second[1]))]).astype(np.float32)


for tag in TAGS:
    join("joined", ("mp3", 16000, 1), ("mp3", 16000, 1), tag)
join("mono-stereo", ("mp3", 16000, 1), ("mp3", 16000, 2))
join("stereo-mono", ("mp3", 16000, 2), ("mp3", 16000, 1))
join("rates", ("mp3", 44100, 2), ("mp3", 22050, 1))
join("rates-up", ("mp3", 8000, 1), ("mp3", 32000, 1))
join("layers", ("mp3", 16000, 1), ("mp2", 24000, 1))
join("joined", ("aac", 16000, 1), ("aac", 16000, 1))
join("joined", ("aac", 16000, 1), ("aac", 16000, 1), "id3v2")
join("channels", ("aac", 16000, 1), ("aac", 16000, 2))
join("rates", ("aac", 16000, 1), ("aac", 8000, 1))
join("codecs", ("vorbis", 48000, 1), ("opus", 48000, 2))
join("rates", ("oggflac", 8000, 2), ("opus", 48000, 1))
join("gap", ("opus", 48000, 1), ("opus", 48000, 1), "zeros")
for tag in ["", "id3v1", "id3v2", "apev2", "zeros"]:
    join("joined", ("flac", 8000, 1), ("flac", 8000, 1), tag)
join("piped", ("piped", 8000, 1), ("piped", 8000, 1))
join("rates", ("flac", 16000, 1), ("flac", 8000, 2))
for kind in ["wav", "aiff", "caf", "au"]:
    join("joined", (kind, 8000, 1), (kind, 8000, 2))
    join("rates", (kind, 16000, 1), (kind, 8000, 2))
join("bits", ("wav", 8000, 1), ("u8", 8000, 1))
for tag in ["id3v1", "zeros"]:
    join("joined", ("wav", 8000, 1), ("wav", 8000, 1), tag)
a, x = part("flac", 8000, 1, 180)
for tag in ["id3v1", "apev2", "lyrics"]:
    (files / f"behind-{tag}.flac").write_bytes(a + TAGS[tag])
    keep(f"behind-{tag}.flac", 8000, x)

# Sizes that writers to pipes leave in headers, and other headers that people have.
data, fmt = plain.astype("<i2").tobytes(), b"fmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 2, 8000, 32000, 4, 16)
whole = b"data" + struct.pack("<I", len(data)) + data
half = b"data" + struct.pack("<I", 800) + data[:800], b"data" + struct.pack("<I", len(data) - 800) + data[800:]
ds64 = b"ds64" + struct.pack("<IQQQI", 28, len(data) + 72, len(data), 500, 0)
for name, body in {
    "size-zero": fmt + b"data\0\0\0\0" + data, "size-ffffffff": fmt + b"data\xff\xff\xff\xff" + data,
    "size-7fffffff": fmt + b"data\xff\xff\xff\x7f" + data, "size-80000000": fmt + b"data\0\0\0\x80" + data,
    "size-7ffff000": fmt + b"data\0\xf0\xff\x7f" + data, "size-ffffffdb": fmt + b"data\xdb\xff\xff\xff" + data,
    "unpadded": b"LIST\5\0\0\0INFOx" + fmt + whole, "padded": b"LIST\5\0\0\0INFOx\0" + fmt + whole, "behind": whole + fmt,
    "two-pieces": fmt + half[0] + half[1], "two-apart": fmt + half[0] + b"LIST\5\0\0\0INFOx\0" + half[1],
    "bw64": ds64 + fmt + b"data\xff\xff\xff\xff" + data, "odd": fmt + b"data" + struct.pack("<I", len(data) + 1) + data + b"\7",
}.items():
    (files / f"{name}.wav").write_bytes((b"BW64" if name == "bw64" else b"RIFF") + struct.pack("<I", len(body) + 4) + b"WAVE" + body)
    listed[f"{name}.wav"] = {"kind": "plain", "rate_hz": 8000}
big, rate80 = plain.astype(">i2").tobytes(), b"\x40\x0b\xfa\0\0\0\0\0\0\0"
for name, frames, size in [("zero", 0, 0), ("sox", 0x1FC00000, 0x7F000008), ("uncounted", 0, len(big) + 8)]:
    body = b"COMM" + struct.pack(">IHIH", 18, 2, frames, 16) + rate80 + b"SSND" + struct.pack(">III", size, 0, 0) + big
    (files / f"size-{name}.aiff").write_bytes(b"FORM" + struct.pack(">I", len(body) + 4) + b"AIFF" + body)
    listed[f"size-{name}.aiff"] = {"kind": "plain", "rate_hz": 8000}

# What is refused by name, or as damage.
a, _ = part("mp3", 16000, 1, 180)
refuse("garbage.mp3", a + b"GARBAGE" * 30 + a, "210 bytes between frames are no frame")
source.write_bytes(wav(tone(16000, 1, 8000, 180), 16000))
refuse("free.mp3", run(["lame", "--quiet", "--freeformat", "-b", "40", "-t", source, "-"]), "free bit rate")
ima = (files / "s16be.mov").read_bytes().replace(b"twos", b"ima4")
refuse("ima4.mov", ima, "IMA ADPCM")
movie = (files / "s16le.mov").read_bytes()
refuse("twice.mov", movie + movie, "joined")
film = (files / "s16le.mkv").read_bytes()
refuse("twice.mkv", film + film, "joined")
head = bytearray((files / "surround-4.opus").read_bytes())
head[28 + 18] = 2
size = 28 + head[27]
head[22:26] = b"\0" * 4
head[22:26] = struct.pack("<I", ogg_checksum(head[:size]))
refuse("ambisonics.opus", bytes(head), "ambisonics")
refuse("empty.wav", b"RIFF" + struct.pack("<I", 4 + len(fmt) + 8 + 14) + b"WAVE" + fmt + b"data\0\0\0\0" + b"LIST\5\0\0\0INFOx\0", "found nothing")
source.unlink()

save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, out / "streams.safetensors")
(out / "streams.json").write_text(json.dumps(listed, indent=1, sort_keys=True) + "\n")
print(len(listed), "files,", sum(path.stat().st_size for path in files.iterdir()), "bytes")

"""Hundreds of sound files by FFmpeg, sox and opusenc, and what differs from the reference in any of them.

  cargo build --release -p omniburn-media --example audio_samples
  python sweep_streams.py TARGET/release/examples/audio_samples FOLDER [GROUP...]

Not run by the tests. Needs ffmpeg, sox, opus-tools and oggdec on PATH, and numpy. Groups: `pcm` (every pcm_* encoder of
FFmpeg in every container that takes it, at several rates and channels), `sox` (every encoding, size and byte order of WAV,
AIFF, AU and CAF, to files and to pipes), `opus` (opusenc with 1 to 8 channels, in Ogg, Matroska, WebM and MP4),
`joined` (files end to end, with tags between, of equal and of other rates, channels and codecs), `lengths` (headers of
WAV and AIFF whose sizes are wrong). The reference decodes each file, or each part of a joined one; channels are mixed by
their mean; parts of other rates are resampled by soxr. Prints what differs and counts: equal, refused by name, differing.
"""
import itertools
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

PROGRAM, FOLDER = sys.argv[1], Path(sys.argv[2])
GROUPS = sys.argv[3:] or ["pcm", "sox", "opus", "joined", "lengths"]
FOLDER.mkdir(parents=True, exist_ok=True)
FF = ["ffmpeg", "-hide_banner", "-v", "error", "-nostdin", "-y"]
jobs = []  # group, path, rate, expected samples, bound of the difference, samples that the length may differ by


def run(words, data=None):
    done = subprocess.run([str(word) for word in words], input=data, capture_output=True)
    return done.stdout if done.returncode == 0 else None


def tone(rate, channels, seconds=0.25, base=180.0):
    t = np.arange(int(rate * seconds)) / rate
    wave = [0.3 * np.sin(2 * np.pi * base * (c + 2) / 2 * t + c) + 0.1 * np.sin(2 * np.pi * 3.1 * base * t * (1 + t)) for c in range(channels)]
    return np.stack(wave, -1)


def source(rate, channels, seconds=0.25, base=180.0):
    path = FOLDER / f"source-{rate}-{channels}-{seconds}-{base}.wav"
    if not path.exists():
        data = np.rint(tone(rate, channels, seconds, base) * 2**31).astype("<i4").tobytes()
        fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * 4 * channels, 4 * channels, 32)
        path.write_bytes(b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt \x10\0\0\0" + fmt + b"data" + struct.pack("<I", len(data)) + data)
    return path


def channels_of(path, decoder=()):
    text = run(["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", "stream=channels,sample_rate", "-of", "csv=p=0", *decoder, path])
    rate, channels = text.decode().split("\n")[0].strip().split(",")[:2]
    return int(rate), int(channels)


def decoded(path, words=()):
    """FFmpeg's samples, mixed, and their rate."""
    rate, channels = channels_of(path)
    raw = run([*FF, *words, "-i", path, "-map", "0:a:0", "-c:a", "pcm_f64le", "-f", "f64le", "-"])
    return np.frombuffer(raw, "<f8").reshape(-1, channels).mean(1), rate


def add(group, path, rate, want, bound=1e-6, slack=0):
    jobs.append((group, path, rate, want, bound, slack))


def add_decoded(group, path, bound=1e-6, slack=0):
    want, rate = decoded(path)
    add(group, path, rate, want, bound, slack)


def pcm():
    encoders = [line.split()[1] for line in run(["ffmpeg", "-v", "error", "-encoders"]).decode().splitlines() if " pcm_" in line]
    for encoder, ending, (rate, channels) in itertools.product(
        encoders, ["mov", "mp4", "mkv", "caf", "aiff", "wav", "rf64", "w64", "au", "fmp4"], [(8000, 1), (44100, 2), (96000, 6)]
    ):
        words = {"rf64": ["-rf64", "always"], "mp4": ["-strict", "-2"], "fmp4": ["-strict", "-2", "-movflags", "frag_keyframe+empty_moov+default_base_moof"]}
        name = {"rf64": "wav", "fmp4": "mov"}.get(ending, ending)
        path = FOLDER / f"{encoder}-{ending}-{rate}-{channels}.{name}"
        if run([*FF, "-i", source(rate, channels), "-c:a", encoder, *words.get(ending, []), path]) is None:
            continue
        add_decoded(f"pcm {ending}", path)


def source_frames(rate, seconds=0.25):
    return range(int(rate * seconds))


def sox():
    encodings = [("signed-integer", b) for b in (8, 12, 16, 20, 24, 32)] + [("unsigned-integer", b) for b in (8, 16, 24, 32)]
    encodings += [("floating-point", 32), ("floating-point", 64), ("a-law", 8), ("mu-law", 8), ("ima-adpcm", 4), ("ms-adpcm", 4), ("gsm-full-rate", 16)]
    for ending, (encoding, bits), order, (rate, channels) in itertools.product(
        ["wav", "aiff", "au", "caf"], encodings, ["-L", "-B"], [(8000, 1), (44100, 2)]
    ):
        # sox turns all of the headers of AIFF round, which nobody else reads, and scales floats in CAF by chance.
        if ending == "aiff" and order == "-L" or ending == "caf" and encoding == "floating-point":
            continue
        words = ["-e", encoding, "-b", str(bits), order]
        for pipe in (False, True):
            path = FOLDER / f"sox-{encoding}-{bits}{order}-{rate}-{channels}{'-pipe' if pipe else ''}.{ending}"
            if pipe:
                data = run(["sox", "-V1", "-D", source(rate, channels), *words, "-t", ending, "-"])
                if not data:
                    continue
                path.write_bytes(data)
            elif run(["sox", "-V1", "-D", source(rate, channels), *words, path]) is None:
                continue
            raw = run(["sox", "-V1", "-D", path, "-t", "raw", "-e", "floating-point", "-b", "64", "-L", "-"])
            if raw is None:
                raw = run(["sox", "-V1", "-D", "--ignore-length", path, "-t", "raw", "-e", "floating-point", "-b", "64", "-L", "-"])
            want = np.frombuffer(raw or b"", "<f8").reshape(-1, channels).mean(1)
            if "adpcm" in encoding:
                # sox decodes the last block whole, and MS ADPCM in another way than FFmpeg and Windows.
                if run(["ffprobe", "-v", "error", path]) is None:
                    continue
                want = decoded(path)[0][: len(source_frames(rate))]
            add(f"sox {ending}", path, rate, want, 6e-3 if "ima" in encoding else 2e-6, 0)


def opus():
    for channels, (words, index) in itertools.product(
        range(1, 9),
        [(w, i) for i, w in enumerate([["--bitrate", "48"], ["--bitrate", "160", "--framesize", "10"], ["--bitrate", "24", "--framesize", "60"],
                                       ["--hard-cbr", "--bitrate", "96", "--framesize", "2.5"], ["--bitrate", "300", "--framesize", "40"]])],
    ):
        path = FOLDER / f"opus-{channels}-{index}.opus"
        wave = FOLDER / f"float-{channels}.wav"
        run(["sox", "-D", source(48000, channels, 0.5), "-e", "float", "-b", "32", wave])
        if run(["opusenc", "--quiet", *words, wave, path]) is None:
            continue
        wave = FOLDER / "decoded.wav"
        run(["opusdec", "--quiet", "--float", "--no-dither", path, wave])
        raw = wave.read_bytes()
        found = struct.unpack("<H", raw[22:24])[0]
        want = np.frombuffer(raw[raw.index(b"data") + 8:], "<f4").reshape(-1, found).astype(float).mean(1)
        add("opus ogg", path, 48000, want, 1e-4)
        for ending, strict in [("mkv", []), ("webm", []), ("mp4", ["-strict", "-2"])]:
            other = path.with_suffix("." + ending)
            if run([*FF, "-i", path, "-c", "copy", *strict, other]) is not None:
                add(f"opus {ending}", other, 48000, want, 1e-4, 2880)
        raw = bytearray(path.read_bytes())
        # A gain of -6 dB in the header, with the checksum of the page.
        if channels in (2, 6):
            raw[28 + 16:28 + 18] = struct.pack("<h", -6 * 256)
            size = 27 + raw[26] + sum(raw[27:27 + raw[26]])
            raw[22:26] = b"\0" * 4
            raw[22:26] = struct.pack("<I", ogg_checksum(raw[:size]))
            other = FOLDER / f"opus-gain-{channels}-{index}.opus"
            other.write_bytes(raw)
            add("opus gain", other, 48000, want * 10 ** (-6 / 20), 1e-4)


def ogg_checksum(data):
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
        table.append(crc)
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
    return crc


def resampled(want, rate, to):
    if rate == to:
        return want
    raw = run([*FF, "-f", "f64le", "-ar", rate, "-ac", "1", "-i", "-", "-af", f"aresample={to}:resampler=soxr:precision=20", "-c:a", "pcm_f64le", "-f", "f64le", "-"],
              np.ascontiguousarray(want).tobytes())
    out = np.frombuffer(raw, "<f8")
    # FFmpeg gives the tail of the filter too.
    return out[: round(len(want) * to / rate)]


TAGS = {
    "nothing": b"",
    "id3v1": b"TAG" + b"title".ljust(125, b"\0"),
    "enhanced": b"TAG+" + b"t".ljust(223, b"\0") + b"TAG" + b"title".ljust(125, b"\0"),
    "id3v2": b"ID3\x04\0\0\0\0\0\x14TIT2\0\0\0\x06\0\0\x03title\0\0\0\0",
    "id3v2 with a footer": b"ID3\x04\0\x10\0\0\0\x14TIT2\0\0\0\x06\0\0\x03title\0\0\0\0" + b"3DI\x04\0\x10\0\0\0\x14",
    "apev2": b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 20, 1, 0xA0000000) + b"\0" * 8 + struct.pack("<II", 5, 0) + b"Title\0Hello" [:12].ljust(12, b"x")
    + b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 20, 1, 0x80000000) + b"\0" * 8,
    "apev1": struct.pack("<II", 5, 0) + b"Title\0Hello!" + b"APETAGEX" + struct.pack("<IIII", 1000, 32 + 20, 1, 0) + b"\0" * 8,
    "lyrics3": b"LYRICSBEGININD00002" + b"00" + b"LYR00005hello" + b"000034LYRICS200" + b"TAG" + b"title".ljust(125, b"\0"),
    "lyrics3 v1": b"LYRICSBEGIN[00:01]hello\r\nLYRICSEND" + b"TAG" + b"title".ljust(125, b"\0"),
    "zeros": b"\0" * 700,
}


def joined():
    # Parts: how to write them, with what they decode to.
    def part(name, rate, channels, words, ending, base):
        path = FOLDER / f"part-{name}-{rate}-{channels}-{base}.{ending}"
        made = run([*FF, "-i", source(rate, channels, 0.5, base), "-map_metadata", "-1", "-fflags", "+bitexact", *words, path])
        return path if made is not None else None

    kinds = {
        "mp3": (["-c:a", "libmp3lame", "-b:a", "64k", "-write_xing", "0", "-id3v2_version", "0"], "mp3",
                [(44100, 2), (44100, 1), (48000, 2), (32000, 1), (22050, 1), (24000, 2), (16000, 1), (11025, 1), (8000, 1), (12000, 2)]),
        "mp2": (["-c:a", "mp2", "-b:a", "64k"], "mp2", [(44100, 2), (44100, 1), (48000, 1), (22050, 1), (24000, 2)]),
        "adts": (["-c:a", "aac", "-b:a", "64k", "-aac_pns", "0"], "aac", [(44100, 2), (44100, 1), (22050, 1), (48000, 2), (16000, 1), (8000, 1)]),
        "vorbis": (["-c:a", "libvorbis", "-q:a", "4"], "ogg", [(44100, 2), (44100, 1), (22050, 1), (48000, 6)]),
        "oggflac": (["-c:a", "flac", "-f", "ogg"], "ogg", [(44100, 2), (44100, 1), (8000, 1)]),
        "opus": (["-c:a", "libopus", "-b:a", "48k"], "ogg", [(48000, 2), (48000, 1), (48000, 6)]),
        "flac": (["-c:a", "flac"], "flac", [(44100, 2), (44100, 1), (22050, 1), (8000, 4)]),
        "wav": (["-c:a", "pcm_s16le"], "wav", [(44100, 2), (44100, 1), (8000, 1)]),
        "wav24": (["-c:a", "pcm_s24le"], "wav", [(44100, 2), (22050, 1)]),
        "aiff": (["-c:a", "pcm_s16be"], "aiff", [(44100, 2), (44100, 1), (8000, 1)]),
        "caf": (["-c:a", "pcm_s16be"], "caf", [(44100, 2), (44100, 1), (8000, 1)]),
        "au": (["-c:a", "pcm_s16be"], "au", [(44100, 2), (44100, 1), (8000, 1)]),
    }
    made = {}
    for name, (words, ending, forms) in kinds.items():
        for rate, channels in forms:
            for base in (180.0, 250.0):
                path = part(name, rate, channels, words, ending, base)
                if path is not None:
                    made[name, rate, channels, base] = (path, *decoded(path, ["-c:a", "libopus"] if name == "opus" else []))
                    if name == "vorbis":
                        # FFmpeg gives 128 samples fewer than the last page counts.
                        raw = run(["oggdec", "--quiet", "--raw", "--bits", "16", "--output", "-", path])
                        made[name, rate, channels, base] = (path, np.frombuffer(raw, "<i2").reshape(-1, channels).astype(float).mean(1) / 32768, rate)
    # Each part at the rates that it is compared at, once.
    at = {(key, rate): resampled(x, r, rate) for key, (_, x, r) in made.items() for rate in {r, 16000}}
    numbered = {key: renumbered(path.read_bytes(), 77) for key, (path, _, _) in made.items() if key[3] == 250.0 and path.suffix == ".ogg"}
    families = [["mp3", "mp2"], ["adts"], ["vorbis", "oggflac", "opus"], ["flac"], ["wav", "wav24"], ["aiff"], ["caf"], ["au"]]
    for family in families:
        firsts = [key for key in made if key[0] in family and key[3] == 180.0]
        seconds = [key for key in made if key[0] in family and key[3] == 250.0]
        for number, (first, second) in enumerate(itertools.product(firsts, seconds)):
            (a, x, ra), (b, y, rb) = made[first], made[second]
            tags = list(TAGS) if first[:1] == second[:1] and number % 7 == 0 else ["nothing"]
            if family[0] in ("wav", "aiff", "caf", "au"):
                tags = [tag for tag in tags if tag in ("nothing", "id3v1", "zeros")]
            for tag in tags:
                ending = a.suffix
                path = FOLDER / f"joined-{'-'.join(map(str, first[:3]))}-{'-'.join(map(str, second[:3]))}-{tag.replace(' ', '-')}{ending}"
                data = b.read_bytes()
                if family[0] == "vorbis":
                    # FFmpeg gives all streams the same number; joined streams must have their own.
                    data = numbered[second]
                path.write_bytes(a.read_bytes() + TAGS[tag] + data)
                rate = ra if ra == rb else 16000
                want = np.concatenate([at[first, rate], at[second, rate]])
                lossy = family[0] in ("mp3", "adts", "vorbis")
                if first[:3] == second[:3] and family[0] in ("mp3", "adts"):
                    # The state of the decoder goes on over the join, and the reference began anew.
                    join = len(at[first, rate])
                    want[join - 1024:join + 2048] = np.nan
                # soxr is off by up to 0.7 % in the first samples of a part.
                add(f"joined {family[0]}", path, rate, want, 7e-3 if ra != rb else 5e-5 if lossy else 1e-6, 4 if ra != rb else 0)


def renumbered(data, serial):
    out, at = bytearray(data), 0
    while at < len(out):
        size = 27 + out[at + 26] + sum(out[at + 27:at + 27 + out[at + 26]])
        out[at + 14:at + 18] = struct.pack("<I", serial)
        out[at + 22:at + 26] = b"\0" * 4
        out[at + 22:at + 26] = struct.pack("<I", ogg_checksum(out[at:at + size]))
        at += size
    return bytes(out)


def lengths():
    plain = np.rint(tone(8000, 2, 0.25) * 32767).astype("<i2")
    data = plain.tobytes()
    want = plain.astype(float).mean(1) / 32768
    fmt = b"fmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 2, 8000, 32000, 4, 16)
    listed = b"LIST\x05\0\0\0INFOx"

    def riff(body, size=None, magic=b"RIFF"):
        return magic + struct.pack("<I", len(body) + 4 if size is None else size) + b"WAVE" + body

    def put(name, content, expected=want):
        path = FOLDER / f"length-{name}.wav"
        path.write_bytes(content)
        add("lengths wav", path, 8000, expected, 1e-9)

    for size in [0, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFDB, 0x7FFFFFFF, 0x80000000, 0x7FFFF000, 0x7FFFFFDB, 0x7FFF0000, 0xFFFFF000]:
        for riff_size in [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF024, None]:
            put(f"data-{size:x}-riff-{riff_size}", riff(fmt + b"data" + struct.pack("<I", size) + data, riff_size))
    for riff_size in [0, 4, 36, len(data), 0xFFFFFFFF, 1 << 30]:
        put(f"riff-{riff_size}", riff(fmt + b"data" + struct.pack("<I", len(data)) + data, riff_size))
    whole = b"data" + struct.pack("<I", len(data)) + data
    put("list-padded", riff(listed + b"\0" + fmt + whole))
    put("list-unpadded", riff(listed + fmt + whole))
    put("list-unpadded-between", riff(fmt + listed + whole))
    put("data-first", riff(whole + listed + b"\0" + fmt))
    half = len(data) // 8 * 4
    pieces = b"data" + struct.pack("<I", half) + data[:half]
    rest = b"data" + struct.pack("<I", len(data) - half) + data[half:]
    put("two-data", riff(fmt + pieces + rest))
    put("two-data-list", riff(fmt + pieces + listed + b"\0" + rest))
    put("trailing-odd", riff(fmt + whole + listed))
    put("odd-bytes", riff(fmt + b"data" + struct.pack("<I", len(data) + 1) + data + b"\7"))
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, len(data) + 72, len(data), len(want), 0)
    for magic in (b"RF64", b"BW64"):
        put(f"{magic.decode()}", riff(ds64 + fmt + b"data\xff\xff\xff\xff" + data, 0xFFFFFFFF, magic))
        put(f"{magic.decode()}-unfilled", riff(b"JUNK" + ds64[4:] + fmt + whole, None, magic))
    put("larger", riff(fmt + b"data" + struct.pack("<I", len(data) + 1000) + data), None)
    put("empty-and-list", riff(fmt + b"data\0\0\0\0" + listed + b"\0"), None)
    for valid, bits in [(12, 16), (20, 24), (24, 32), (8, 8), (16, 16)]:
        for mask in (0, 3):
            wide = plain.astype("<i4") << 16
            stored = {8: ((plain >> 8) + 128).astype(np.uint8).tobytes(), 16: data, 32: wide.tobytes(),
                      24: wide.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()}[bits]
            rest = bytes.fromhex("000000001000800000aa00389b71")
            ext = struct.pack("<HHIIHH", 0xFFFE, 2, 8000, 8000 * bits // 4, bits // 4, bits) + struct.pack("<HHIH", 22, valid, mask, 1) + rest
            body = b"fmt " + struct.pack("<I", len(ext)) + ext + b"data" + struct.pack("<I", len(stored)) + stored
            put(f"extensible-{valid}-{bits}-{mask}", riff(body), (plain >> 8).astype(float).mean(1) / 128 if bits == 8 else want)
    big = plain.astype(">i2").tobytes()
    rate80 = b"\x40\x0b\xfa\0\0\0\0\0\0\0"
    for frames, size in [(len(want), None), (0, 0), (0, None), (0, 0xFFFFFFFF), (0x1FC00000, 0x7F000008), (0x3FFFFFFF, 0xFFFFFFFF), (5, None)]:
        ssnd = b"SSND" + struct.pack(">III", len(big) + 8 if size is None else size, 0, 0) + big
        comm = b"COMM" + struct.pack(">IHIH", 18, 2, frames, 16) + rate80
        path = FOLDER / f"length-{frames}-{size}.aiff"
        path.write_bytes(b"FORM" + struct.pack(">I", len(ssnd) + len(comm) + 4) + b"AIFF" + comm + ssnd)
        add("lengths aiff", path, 8000, want, 1e-9)


for group in GROUPS:
    globals()[group]()
    print(f"# {group}: {len(jobs)} files so far", flush=True)
lines = "".join(f"{path}\t{rate}\t{FOLDER}/out-{number}.f32\n" for number, (_, path, rate, *_rest) in enumerate(jobs))
said = subprocess.run([PROGRAM], input=lines, capture_output=True, text=True).stdout.splitlines()
counts = {}
for number, ((group, path, rate, want, bound, slack), line) in enumerate(zip(jobs, said)):
    count = counts.setdefault(group, {"equal": 0, "refused": 0, "differing": 0})
    if line != "ok":
        count["refused"] += 1
        print(f"refused    {path.name}: {line.replace(str(path), '')}")
        continue
    out = FOLDER / f"out-{number}.f32"
    got = np.fromfile(out, "<f4")
    out.unlink()
    if want is None:
        count["differing"] += 1
        print(f"DIFFERING  {path.name}: decoded, an error was expected")
        continue
    length = min(len(got), len(want))
    differences = np.nan_to_num(np.abs(got[:length] - want[:length]))
    apart, where = (differences.max(), int(differences.argmax())) if length else (0.0, 0)
    if abs(len(got) - len(want)) <= slack and apart <= bound and length > 0:
        count["equal"] += 1
    else:
        count["differing"] += 1
        print(f"DIFFERING  {path.name}: {len(got)} samples for {len(want)}, {apart:.2e} apart at {where}")
for group, count in counts.items():
    print(group, *(f"{what} {number}" for what, number in count.items()))
print("all", *(f"{what} {sum(count[what] for count in counts.values())}" for what in ("equal", "refused", "differing")), len(jobs) - len(said), "without a word")

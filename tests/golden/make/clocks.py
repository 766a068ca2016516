"""Films whose clock does not begin at zero, that were cut, or that hold several tracks, and what FFmpeg makes of them.

  python clocks.py [OUT]

writes below OUT (tests/golden/media/clocks) films and `clocks.json`, which has for each the pictures as videos.json has
them (see videos.py, whose formula is used), and `tracks.json` with the audio and video track that FFmpeg takes by itself.
The films are the goldens of videos.py copied without encoding them again (`-c copy`), by the FFmpeg 9.0.2 of imageio-ffmpeg;
edit lists are written here.
"""
import json
import sys
from pathlib import Path

import videos
from videos import EXACT, box, boxes, numbers, run

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/media/clocks")
SOURCE = Path("tests/golden/media/videos")


def edited(name, source, entries):
    """The file with another edit list: (length in ticks of the movie, first tick shown or -1)."""
    data = source.read_bytes()

    def rebuilt(start, end):
        parts = []
        for kind, at, to in boxes(data, start, end):
            body = data[at:to]
            if kind in (b"moov", b"trak"):
                body = rebuilt(at, to)
            elif kind == b"edts":
                rows = b"".join(numbers(length, time % 2**32, 0x10000) for length, time in entries)
                body = box(b"elst", numbers(0, len(entries)) + rows)
            parts.append(box(kind, body))
        return b"".join(parts)

    out = [rebuilt(at - 8, to) if kind == b"moov" else data[at - 8:to] for kind, at, to in boxes(data, 0, len(data))]
    # Tables of places stay right: the movie header is behind the data.
    assert data.index(b"moov") > data.index(b"mdat")
    (OUT / name).write_bytes(b"".join(out))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    videos.OUT = OUT
    found = {}

    def copy(name, source, before=(), after=(), w=176, h=144):
        run(*before, "-i", SOURCE / source, "-c", "copy", *after, *EXACT, OUT / name)
        found[name] = videos.pictures(name, w, h)

    # Clocks that begin late.
    late = ["-output_ts_offset", 1000]
    copy("late.mkv", "high.mp4", after=late)
    copy("late.mp4", "main.mp4", after=[*late, "-an"])
    copy("late.mov", "baseline.mp4", after=[*late])
    copy("late_fragments.mp4", "slices.mp4", after=["-copyts", *late, "-movflags", "+frag_keyframe+empty_moov+default_base_moof"])
    (OUT / "late_live.mkv").write_bytes(
        run("-i", SOURCE / "variable.mp4", "-c", "copy", *EXACT, "-output_ts_offset", 100, "-f", "matroska", "-live", 1, "-"))
    found["late_live.mkv"] = videos.pictures("late_live.mkv", 176, 144)
    # Open groups cut at an intra image: what leads it is left out.
    copy("leading.mkv", "open.mp4", before=["-ss", 1.0])
    copy("leading.mp4", "open.mp4", before=["-ss", 1.0], after=["-use_editlist", 0])
    copy("leading_strict.mkv", "open_strict.mp4", before=["-ss", 0.7], after=["-copyts"])
    # Cut inside intra refresh: shown from where it has gone over the whole image.
    copy("refresh.mkv", "refresh.mp4", before=["-ss", 0.9])
    copy("refresh.mp4", "refresh.mp4", before=["-ss", 0.9], after=["-use_editlist", 0])
    # Lists of several edits; groups of twelve pictures, 512 ticks each, the first one at tick 1024.
    for name, entries in {
        "edits_skip.mp4": [(480, 1024), (480, 1024 + 24 * 512)],
        "edits_again.mp4": [(480, 1024), (480, 1024)],
        "edits_back.mp4": [(480, 1024 + 12 * 512), (480, 1024)],
        "edits_empty.mp4": [(2000, -1), (800, 1024)],
        "edits_middle.mp4": [(600, 1024 + 7 * 512)],
    }.items():
        edited(name, SOURCE / "high.mp4", entries)
        found[name] = videos.pictures(name, 176, 144)
    (OUT / "clocks.json").write_text(json.dumps(found, separators=(",", ":")).replace('},"', '},\n"') + "\n")

    # Tracks.
    tones = [arg for tone in (440, 880, 1760) for arg in ("-f", "lavfi", "-i", f"sine={tone}:duration=0.25:sample_rate=16000")]
    chosen = {}

    def tracks(name, *args, maps=("0:a", "1:a", "2:a"), codec="flac", videos=()):
        arguments = [*tones]
        for video in videos:
            arguments += ["-i", SOURCE / video]
        arguments += [arg for one in maps for arg in ("-map", one)]
        codecs = ["-c:a", codec] if isinstance(codec, str) else codec
        run(*arguments, *codecs, "-c:v", "copy", *args, *EXACT, OUT / name)
        entry = {}
        for kind, form in (("a", "s16le"), ("v", "rawvideo")):
            if not any(f":{kind}" in one for one in maps):
                continue
            own = run("-i", OUT / name, "-map", f"0:{kind}:0", "-f", form, "-")
            count = sum(f":{kind}" in one for one in maps)
            alone = [run("-i", OUT / name, "-map", f"0:{kind}:{n}", "-f", form, "-") for n in range(count)]
            by_itself = run("-i", OUT / name, "-an" if kind == "v" else "-vn", "-f", form, "-")
            assert own == alone[0] and len(set(alone)) == count
            entry["audio" if kind == "a" else "video"] = alone.index(by_itself)
        chosen[name] = entry

    none = ["-disposition:a:0", 0, "-disposition:a:1", 0, "-disposition:a:2", 0]
    tracks("second.mkv", *none, "-disposition:a:1", "default", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu")
    tracks("third.mkv", *none, "-disposition:a:2", "default")
    tracks("first.mkv", *none)
    tracks("second.mp4", *none, "-disposition:a:1", "default", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu",
           codec="alac")
    tracks("third.mov", *none, "-disposition:a:2", "default", codec="pcm_s16le")
    videos = ["-disposition:v:0", 0, "-disposition:v:1", "default"]
    tracks("video.mkv", *videos, maps=("0:a", "3:v", "4:v"), videos=["one.mp4", "bt709.mp4"])
    tracks("video.mp4", *videos, maps=("0:a", "3:v", "4:v"), codec="alac", videos=["one.mp4", "bt709.mp4"])
    (OUT / "tracks.json").write_text(json.dumps(chosen, indent=1) + "\n")
    # The default track is of a codec that is not read here.
    for name in ("unread.mkv", "unread.mp4"):
        run(*tones[:8], "-map", "0:a", "-map", "1:a", "-c:a:0", "ac3", "-c:a:1", "alac", *EXACT, OUT / name)
    # Audio of which a part is played. Only lengths are compared: FFmpeg 5.1 and 9.0 give different samples.
    chirp = "aevalsrc=0.01*sin(800*t*t+200*t):s=16000:d=2"
    run("-f", "lavfi", "-i", chirp, "-c:a", "alac", *EXACT, OUT / "whole.m4a")
    for name, entries in {
        "part.m4a": [(11200, 8000)],
        "part_late.m4a": [(16000, -1), (11200, 8000)],
    }.items():
        edited(name, OUT / "whole.m4a", entries)
    # Refused: FFmpeg 5.1 and 9.0 differ.
    edited("parts.m4a", OUT / "whole.m4a", [(4800, 1600), (6400, 16000)])
    # Two parts that are one.
    edited("part_twice.m4a", OUT / "whole.m4a", [(4000, 8000), (7200, 12000)])
    (OUT / "whole.m4a").unlink()
    print(sum(path.stat().st_size for path in OUT.iterdir()), "bytes")


main()

"""Tower features of the held-out sets, f32, kept in the cache. Nothing here is ever read by a training step."""
import io, json, os, subprocess, tempfile, wave
import numpy as np, torch
from PIL import Image
import mini
from common import *
from safetensors.torch import load_file, save_file

DEB = DATA / "deb"
STAMPS = DEB / "usr/share/tuxpaint/stamps"
FLITE_VOICES = ["kal16", "awb", "rms", "slt"]


def caption(stamp):
    return open((STAMPS / stamp).with_suffix(".txt"), encoding="utf-8", errors="replace").readline().strip()


def stamp_image(stamp):
    path = STAMPS / stamp
    if path.suffix == ".svg":
        import resvg_py
        im = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=str(path)))))
        return im
    return Image.open(path)


def film(n, k=8, size=224):
    """Frames of drawing n (RGBA, 192 px) moving over white: it crosses the picture, grows and turns a little."""
    drawings = np.load(CACHE / "drawings-openmoji.npy", mmap_mode="r")
    rng = np.random.default_rng(n)
    im = Image.fromarray(np.asarray(drawings[n]), "RGBA")
    start, end = rng.uniform(-0.05, 1.05, 2), rng.uniform(-0.05, 1.05, 2)
    s0, s1, turn = rng.uniform(0.4, 0.7), rng.uniform(0.5, 0.8), rng.uniform(-20, 20)
    frames = []
    for f in np.linspace(0, 1, k):
        side = int(size * (s0 + (s1 - s0) * f))
        d = im.resize((side, side), Image.BICUBIC).rotate(turn * f, Image.BICUBIC)
        page = Image.new("RGB", (size, size), (255, 255, 255))
        x, y = ((start + (end - start) * f) * (size - side)).astype(int)
        page.paste(d, (int(x), int(y)), d.getchannel("A"))
        frames.append(np.asarray(page))
    return frames


def flite(text, voice):
    lib = str(DEB / "usr/lib/x86_64-linux-gnu")
    with tempfile.NamedTemporaryFile(suffix=".wav") as f:
        subprocess.run([str(DEB / "usr/bin/flite"), "-voice", voice, "-t", text, "-o", f.name], check=True, env={**os.environ, "LD_LIBRARY_PATH": lib})
        with wave.open(f.name) as r:
            assert r.getframerate() == 16000 and r.getnchannels() == 1
            return np.frombuffer(r.readframes(r.getnframes()), np.int16).astype(np.float32) / 32768


def resampled(x, hz, to=16000):
    """By the spectrum of the whole clip."""
    if hz == to:
        return x.astype(np.float32)
    n = int(round(len(x) * to / hz))
    f = np.fft.rfft(x)
    f = f[:n // 2 + 1] if n < len(x) else np.pad(f, (0, n // 2 + 1 - len(f)))
    return (np.fft.irfft(f, n) * (n / len(x))).astype(np.float32)


def human(clip):
    import soundfile
    x, hz = soundfile.read(STAMPS / clip, dtype="float32", always_2d=True)
    return resampled(x.mean(1), hz)


@torch.no_grad()
def picture_features(w, canvases):
    g, c = mini.pool(mini.picture_map(w, mini.pixels(np.stack(canvases))))
    return torch.cat([c, g.unsqueeze(1)], 1)


def in_batches(items, fn, n=16):
    return torch.cat([fn([*items[s:s + n]]) for s in range(0, len(items), n)])


def kept(name, make):
    path = CACHE / f"heldout-{name}.safetensors"
    if not path.exists():
        save_file({k: v.contiguous() for k, v in make().items()}, f"{path}.part")
        os.replace(f"{path}.part", path)
        print(name, "kept", flush=True)
    return load_file(path)


def drawings(w, name):
    px = np.load(CACHE / f"{name}.npy", mmap_mode="r")
    return lambda ns: picture_features(w, [mini.picture_canvas(Image.fromarray(np.asarray(px[n]), "RGBA")) for n in ns])


def clip_features(w, clips):
    """Frames of each clip, one after the other, and their counts."""
    xs = []
    with torch.no_grad():
        for c in clips:
            xs.append(mini.speech_frames(w, torch.from_numpy(mini.pad_samples(c)).unsqueeze(0))[0])
    return {"x": torch.cat(xs), "n": torch.tensor([len(x) for x in xs])}


def concept_clip(i):
    # "woman running: facing right" is spoken without its colon
    return flite(norm(CONCEPTS[i]["label"]), FLITE_VOICES[i % 4])


def held_out(w):
    openmoji = json.loads((CACHE / "drawings-openmoji.json").read_text())
    at = {i: n for n, (_, i) in enumerate(openmoji)}
    stamps = read("stamps")["loadable"]
    f = {}
    f["openmoji"] = kept("openmoji", lambda: {"x": in_batches(range(len(openmoji)), drawings(w, "drawings-openmoji"))})["x"]
    f["stamps"] = kept("stamps", lambda: {"x": in_batches(stamps, lambda b: picture_features(w, [mini.picture_canvas(stamp_image(s)) for s in b]))})["x"]
    f["films"] = kept("films", lambda: {"x": in_batches([at[i] for i in LISTS["video"]], lambda b: picture_features(w, sum([film(n) for n in b], [])), 2)})["x"]
    f["human"] = kept("human", lambda: clip_features(w, map(human, LISTS["human_speech"])))
    f["flite"] = kept("flite", lambda: clip_features(w, (flite(t, v) for _, t, v in read("flite_clips"))))
    f["mixed"] = kept("mixed", lambda: clip_features(w, map(concept_clip, LISTS["mixed"])))
    f["unseen-noto"] = kept("unseen-noto", lambda: {"x": in_batches([Icons("noto").svg(v) for v in unseen_noto().values()], lambda b: picture_features(w, [svg_canvas(s) for s in b]))})["x"]
    return f, openmoji


def unseen_noto():
    icons = Icons("noto")
    return {i: icon for i in sorted(UNSEEN) if (icon := icons.icon(CONCEPTS[i]))}


def svg_canvas(svg):
    import resvg_py
    return mini.picture_canvas(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=192)))).convert("RGBA"))


if __name__ == "__main__":
    from parts import parts
    torch.set_num_threads(1)
    f, _ = held_out(parts())
    print({k: tuple(v.shape) if torch.is_tensor(v) else len(v["n"]) for k, v in f.items()})

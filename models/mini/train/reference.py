"""Reference outputs of an exported folder for parity tests: `reference.py FOLDER OUT [TEXTS603]` writes OUT.safetensors and OUT.json.

f32, eager attention, one thread. Media are the repository's own, named relative to tests/golden."""
import hashlib, json, sys
import numpy as np, torch, wave
from PIL import Image
from safetensors.torch import save_file
import mini
from common import *

GOLDEN = HERE.parents[2] / "tests/golden"
PICTURES = ["media/images/alpha-all-pairs.png", "media/images/exif-6.png", "media/images/column.png", "media/images/noise.png",
            "refs/media/images/big.png", "refs/media/images/wide.png"]
SOUNDS = ["refs/media/audio/click.wav", "refs/media/audio/short.wav", "refs/media/audio/mixed.wav", "refs/media/audio/three.wav"]
FILM = [f"refs/media/video/clip{k}.png" for k in ("3_0", "3_1", "3_2", "4_0", "4_1", "4_2", "4_3", "1_0")]
WORDS = ("a photograph of the old harbour at night while two small boats come home and seven gulls follow them over quiet water "
         "past the lighthouse whose lamp turns slowly above dark rocks, then fog").split()


def texts():
    t = ["", "a", "dog", "red car", "Grüße aus Köln", "日本語 text", "naïve café", "ON! arrow", "What?!", "two  spaces\tand a tab", "🙂", "it's a dog's life", "COVID-19", "3.14159",
         "antidisestablishmentarianism", "[MASK] and [SEP]", "x" * 120, "grinning face", "a black cat on a mat", "heat pump", "e=mc²"]
    n = 2
    while len(t) < 40:
        t.append(" ".join(WORDS[k % len(WORDS)] for k in range(n)))
        n = int(n * 1.3) + 1
    return t


def sound(name):
    with wave.open(str(GOLDEN / name)) as r:
        assert r.getframerate() == 16000 and r.getnchannels() == 1 and r.getsampwidth() == 2
        return np.frombuffer(r.readframes(r.getnframes()), np.int16).astype(np.float32) / 32768


def sha(a):
    return hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()


def main(folder, out, all_texts=None):
    torch.set_num_threads(1)
    m, t, info = mini.Mini(folder), {}, {}
    w = m.w
    asked = texts()
    t["text.vector"] = torch.cat([m.texts([x]) for x in asked])
    info["texts"] = [dict(text=x, pieces=len(m.texts.tokenizer.encode(x).ids)) for x in asked]

    def picture(name, canvases):
        g, cells = m.picture_parts(np.stack(canvases), len(canvases))
        logits = mini.logits_of(w, g)
        p = (logits / mini.PICTURE_CONNECTOR["temperature"]).softmax(-1)
        q = mini.quadrants(cells)
        u, s, c, v = mini.picture_vector(w, m.backbone, g, cells)
        extra = dict(quadrants=q) if name in ("picture.0", "film.3") else {}  # large: two are enough
        for k, x in dict(g=g, **extra, logits=logits, rows=mini.picture_rows(w, p, g, q), u=u, s=s, c=c, vector=v).items():
            t[f"{name}.{k}"] = x[0]

    with torch.no_grad():
        info["pictures"] = []
        for n, f in enumerate(PICTURES):
            canvas = mini.picture_canvas(Image.open(GOLDEN / f))
            picture(f"picture.{n}", [canvas])
            info["pictures"].append(dict(file=f, canvas="u8 [224, 224, 3]", sha256=sha(canvas)))
        frames = [mini.picture_canvas(Image.open(GOLDEN / f)) for f in FILM]
        picture("film.3", frames[:3])
        picture("film.8", frames)
        info["films"] = [dict(name="film.3", frames=FILM[:3]), dict(name="film.8", frames=FILM)]
        info["sounds"] = []
        for n, f in enumerate(SOUNDS):
            x = mini.pad_samples(sound(f))
            mel = mini.log_mel(torch.from_numpy(x).unsqueeze(0))
            h = mini.speech_tower(w, mel)
            frames = h.unflatten(1, (-1, 5)).mean(2)
            u, s, v = mini.speech_vector(w, m.backbone, frames)
            for k, y in dict(x=frames, rows=mini.speech_rows(w, frames), u=u, s=s, vector=v).items():
                t[f"sound.{n}.{k}"] = y[0]
            if n == 2:
                t[f"sound.{n}.mel"] = mel[0, :, :60]
            info["sounds"].append(dict(file=f, samples=len(x), sha256_of_padded_f32=sha(x), mel_sum=float(mel.sum())))
        # The importer's check: word embeddings as rows give the text vector.
        ids = m.texts.tokenizer.encode("red car").ids[1:-1]
        t["rows.red-car"] = m.backbone.rows(m.backbone.words[torch.tensor([ids])])[0]
    info["model_sha256"] = hashlib.sha256(open(f"{folder}/model.safetensors", "rb").read()).hexdigest()
    info["tolerance"] = "f32 on one CPU: vectors agree with another correct f32 implementation to about 1e-5"
    save_file({k: v.float().contiguous() for k, v in t.items()}, f"{out}.safetensors")
    save_json(f"{out}.json", info)
    print(Path(f"{out}.safetensors").stat().st_size, "bytes;", max(x["pieces"] for x in info["texts"]), "pieces at most;", [x["sha256"][:8] for x in info["pictures"]])
    if all_texts:
        v = m.texts(LISTS["texts"])
        save_file({"vectors": v}, all_texts)
        print(tuple(v.shape), all_texts)


if __name__ == "__main__":
    main(*sys.argv[1:4])

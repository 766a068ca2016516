"""Tower features of drawings and collages, pass by pass: g and the 3x3 cells, f16 [n, 10, 1280] (cells first, g last).

Pass 0 is the plain drawing, passes 1 to 3 are augmented; collages (no labels) come after pass 1. Each finished pass is kept."""
import json, os, sys, time
import numpy as np, torch
from PIL import Image, ImageEnhance, ImageFilter
import mini
from common import *
from parts import parts

torch.set_num_threads(1)
rows = json.loads((CACHE / "drawings.json").read_text())
drawings = np.load(CACHE / "drawings.npy", mmap_mode="r")
w = {k: v.bfloat16() for k, v in parts().items() if k.startswith("picture.")}
w = {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in w.items()}
SIZE, COLLAGES = 224, 4032


def rgba(n):
    return Image.fromarray(np.asarray(drawings[n]), "RGBA")


def random_drawing(rng):
    return rgba(int(rng.integers(len(rows))))


def outlined(im, rng, line_only):
    """Flat colours with a dark outline, or the lines alone: how drawings of other makers look."""
    a = np.asarray(im)
    alpha = a[..., 3] > 110
    page = Image.new("RGB", im.size, (255, 255, 255))
    page.paste(im, mask=im.getchannel("A"))
    soft = page.filter(ImageFilter.MedianFilter(5))
    q = soft.quantize(int(rng.integers(3, 9)), Image.MEDIANCUT)
    label = np.asarray(q).astype(np.int16) + 1
    label[~alpha] = 0
    edge = np.zeros(label.shape, bool)
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    edge[1:] |= label[1:] != label[:-1]
    thick = int(rng.choice([3, 3, 5]))
    edge = np.asarray(Image.fromarray(edge.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(thick)).filter(ImageFilter.GaussianBlur(0.8)))[..., None] / 255.0
    colours = np.full((*label.shape, 3), 255.0) if line_only else np.asarray(q.convert("RGB")).astype(float)
    ink = rng.integers(0, 50, 3)
    out = colours * (1 - edge) + ink * edge
    cover = np.maximum(alpha[..., None] * 255.0, edge * 255.0)
    return Image.fromarray(np.concatenate([out, cover], -1).clip(0, 255).astype(np.uint8), "RGBA")


def recoloured(im, rng):
    a = im.getchannel("A")
    rgb = im.convert("RGB")
    if rng.random() < 0.08:
        rgb = rgb.convert("L").convert("RGB")
    elif rng.random() < 0.6:
        rgb = ImageEnhance.Color(rgb).enhance(rng.uniform(0.4, 1.5))
        if rng.random() < 0.3:
            h, s, v = rgb.convert("HSV").split()
            turn = int(rng.integers(-14, 15))
            rgb = Image.merge("HSV", (h.point(lambda x: (x + turn) % 256), s, v)).convert("RGB")
    if rng.random() < 0.6:
        rgb = ImageEnhance.Brightness(rgb).enhance(rng.uniform(0.75, 1.25))
        rgb = ImageEnhance.Contrast(rgb).enhance(rng.uniform(0.7, 1.3))
    rgb.putalpha(a)
    return rgb


def noise_field(rng, cells):
    small = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((SIZE, SIZE), Image.BICUBIC)


def background(rng):
    r = rng.random()
    if r < 0.35:
        return Image.new("RGB", (SIZE, SIZE), (255, 255, 255))
    if r < 0.5:
        return Image.new("RGB", (SIZE, SIZE), tuple(int(v) for v in rng.integers(205, 256, 3)))
    if r < 0.63:
        return Image.new("RGB", (SIZE, SIZE), tuple(int(v) for v in rng.integers(0, 256, 3)))
    if r < 0.76:  # gradient
        return Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)).resize((SIZE, SIZE), Image.BILINEAR)
    if r < 0.88:
        field = noise_field(rng, int(rng.integers(4, 40)))
        return Image.blend(field, Image.new("RGB", (SIZE, SIZE), tuple(int(v) for v in rng.integers(0, 256, 3))), rng.uniform(0.2, 0.8))
    page = Image.new("RGBA", (SIZE, SIZE), tuple(int(v) for v in rng.integers(0, 256, 3)) + (255,))
    other = random_drawing(rng).resize((int(SIZE * 1.6),) * 2)
    page.alpha_composite(other.crop((60, 60, 60 + SIZE, 60 + SIZE)))
    return page.convert("RGB").filter(ImageFilter.GaussianBlur(rng.uniform(8, 22)))


def placed(im, page, rng, low, high, turn=18, mirror=False):
    scale, aspect = rng.uniform(low, high), np.exp(rng.uniform(-0.16, 0.16))
    wd, ht = int(SIZE * scale * min(1.0, aspect)), int(SIZE * scale * min(1.0, 1 / aspect))
    im = im.resize((wd, ht), Image.BICUBIC)
    if mirror:
        im = im.transpose(Image.FLIP_LEFT_RIGHT)
    if rng.random() < 0.6:
        im = im.rotate(rng.uniform(-turn, turn), Image.BICUBIC, expand=scale < 0.85)
    free_x, free_y = SIZE - im.width, SIZE - im.height
    at = [int(rng.integers(min(f, 0), max(f, 0) + 1)) for f in (free_x, free_y)]
    page.paste(im, tuple(at), im.getchannel("A"))
    return page


def augmented(n, rng):
    c = CONCEPTS[rows[n][1]]
    im, r = rgba(n), rng.random()
    if r < 0.28:
        im = outlined(im, rng, line_only=r < 0.06)
    im = recoloured(im, rng)
    # Faces, people, animals and food mean the same in a mirror; signs and pointing hands do not.
    mirror = c["group"] in (0, 1, 3, 4) and not re.search("left|right", c["label"]) and rng.random() < 0.5
    page = placed(im, background(rng), rng, 0.5, 1.05, mirror=mirror)
    if rng.random() < 0.15:
        page = page.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.6)))
    return np.asarray(page)


def collage(rng):
    page = noise_field(rng, int(rng.integers(2, 60)))
    if rng.random() < 0.6:
        page = Image.blend(page, noise_field(rng, int(rng.integers(2, 12))), rng.uniform(0.3, 0.7))
    page = ImageEnhance.Color(page).enhance(rng.uniform(0.2, 1.0))
    for _ in range(int(rng.integers(1, 6))):
        placed(recoloured(random_drawing(rng), rng), page, rng, 0.25, 0.85, turn=40, mirror=rng.random() < 0.5)
    return np.asarray(page)


def features(canvases):
    x = mini.pixels(canvases).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        g, cells = mini.pool(mini.picture_map(w, x).float())
    return torch.cat([cells, g.unsqueeze(1)], 1).half().numpy()


def write(name, count, canvas, seed, batch=16):
    path = CACHE / f"picture-{name}.npy"
    if path.exists():
        return
    rng, start, part = np.random.default_rng(seed), time.time(), CACHE / f"picture-{name}.part.npy"
    out = np.lib.format.open_memmap(part, "w+", np.float16, (count, 10, 1280))
    for s in range(0, count, batch):
        out[s:s + batch] = features(np.stack([canvas(n, rng) for n in range(s, min(s + batch, count))]))
        if s % (batch * 100) == 0:
            print(name, s, f"{time.time() - start:.0f} s", flush=True)
    out.flush()
    os.replace(part, path)
    print(name, count, f"{time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["look"]:  # a contact sheet for the eye
        rng = np.random.default_rng(1)
        sheet = Image.new("RGB", (8 * 112, 6 * 112))
        for k in range(48):
            a = augmented(int(rng.integers(len(rows))), rng) if k < 36 else collage(rng)
            sheet.paste(Image.fromarray(a).resize((112, 112)), (k % 8 * 112, k // 8 * 112))
        sheet.save(CACHE / "look.png")
        sys.exit()
    if sys.argv[1:] == ["bench"]:
        for n in (16, 64):
            cs = np.stack([mini.picture_canvas(rgba(k)) for k in range(n)])
            features(cs)
            t = time.time(); features(cs); print(n, "bf16", (time.time() - t) / n)
            w = {k: v.float() for k, v in w.items()}
            with torch.no_grad():
                x = mini.pixels(cs).contiguous(memory_format=torch.channels_last)
                mini.picture_map(w, x); t = time.time(); mini.picture_map(w, x); print(n, "f32", (time.time() - t) / n)
            w = {k: v.bfloat16() for k, v in w.items()}
        rng = np.random.default_rng(1); t = time.time(); [augmented(k, rng) for k in range(100)]; print("augment", (time.time() - t) / 100)
        sys.exit()
    passes = {"plain": lambda n, rng: mini.picture_canvas(rgba(n)), "augmented-1": augmented, "collages": lambda n, rng: collage(rng), "augmented-2": augmented, "augmented-3": augmented}
    seeds = {"plain": 0, "augmented-1": 1, "collages": 4, "augmented-2": 2, "augmented-3": 3}
    for name in sys.argv[1:] or passes:  # named passes may run in processes of their own
        write(name, COLLAGES if name == "collages" else len(rows), passes[name], seeds[name])

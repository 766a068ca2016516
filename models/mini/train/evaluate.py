"""The table of held-out figures for an exported folder: `evaluate.py [folder] [out.json]`."""
import json, sys
import torch
import mini
from common import *
from heldout import caption, held_out, kept, drawings, in_batches, unseen_noto
from mini import l2

folder = sys.argv[1] if len(sys.argv) > 1 else str(CACHE / "hf")
out = sys.argv[2] if len(sys.argv) > 2 else str(RESULTS / "table.json")
torch.set_num_threads(1)
m = mini.Mini(folder)
w = m.w
f, openmoji = held_out(w)
table = []


@torch.no_grad()
def pictures(x):
    parts = [mini.picture_vector(w, m.backbone, b[:, 9].float(), b[:, :9].float()) for b in x.split(64)]
    return dict(zip(("u", "s", "c", "all"), (torch.cat(t) for t in zip(*parts))))


@torch.no_grad()
def clips(d):
    out = torch.empty(len(d["n"]), 3, 384)
    x = d["x"].split(d["n"].tolist())
    by_length = {}
    for i, n in enumerate(d["n"].tolist()):
        by_length.setdefault(n, []).append(i)
    for group in by_length.values():
        for s in range(0, len(group), 64):
            g = group[s:s + 64]
            out[g] = torch.stack(mini.speech_vector(w, m.backbone, torch.stack([x[i] for i in g])), 1)
    return dict(zip(("u", "s", "all"), out.unbind(1)))


def row(name, queries, gallery, gold, floor=None):
    """gold: for each query the right rows of the gallery."""
    score = queries @ gallery.T
    best = score.argsort(1, descending=True)
    hits = torch.zeros(len(queries), len(gallery), dtype=torch.bool)
    for q, g in enumerate(gold):
        hits[q, g] = True
    first = hits.gather(1, best).float().argmax(1)
    r = {f"R@{k}": round(100 * float((first < k).float().mean()), 1) for k in (1, 5, 10)}
    table.append(dict(name=name, n=len(queries), gallery=len(gallery), **r, median_rank=int(first.median()) + 1, **({"floor": floor} if floor else {})))
    print(f"{name:70s} n {len(queries):5d} of {len(gallery):5d}  " + "  ".join(f"{k} {v:5.1f}" for k, v in r.items()), floor or "", flush=True)


same = lambda keys, gallery: [[j for j, g in enumerate(gallery) if g == k] for k in keys]
one = lambda n: [[i] for i in range(n)]

# Photographs
loadable, photographs = read("stamps")["loadable"], read("stamps")["photographs"]
captions = {s: caption(s) for s in loadable}
at = {s: n for n, s in enumerate(loadable)}
stamps = pictures(f["stamps"])
photo = [at[s] for s in photographs]
photo_captions = [captions[s] for s in photographs]
asked = list(dict.fromkeys(photo_captions))
t = m.texts(asked)
for part, label in (("all", "text -> photo"), ("c", "  c alone"), ("u", "  u alone"), ("s", "  s alone")):
    row(label, t, stamps[part][photo], same(asked, photo_captions), [24, 51] if part == "all" else None)
everything = [captions[s] for s in loadable]
distinct = list({norm(c): c for c in reversed(everything)}.values())  # two captions that differ in case or punctuation are one
row("text -> any stamp", m.texts(distinct), stamps["all"], [[j for j, g in enumerate(everything) if norm(g) == norm(k)] for k in distinct])

# Drawings
labels = [c["label"] for c in CONCEPTS]
names = m.texts(labels)
plain = lambda i: not labels[i].startswith("flag of")
om = pictures(f["openmoji"])
om_at = [n for n, (_, i) in enumerate(openmoji) if plain(i)]
om_concepts = [openmoji[n][1] for n in om_at]
seen = json.loads((CACHE / "drawings.json").read_text())
noto_n = [n for n, (s, i) in enumerate(seen) if s == "noto" and plain(i)]
noto_x = kept("noto-seen", lambda: {"x": in_batches(noto_n, drawings(w, "drawings"))})["x"]
noto_concepts = [seen[n][1] for n in noto_n] + list(unseen_noto())
noto = pictures(torch.cat([noto_x, f["unseen-noto"]]))
row("name -> drawing, training style (Noto)", names[noto_concepts], noto["all"], one(len(noto_concepts)), [None, 89])
for part, label in (("all", "name -> drawing, unseen style (OpenMoji)"), ("c", "  c alone"), ("u", "  u alone"), ("s", "  s alone")):
    row(label, names[om_concepts], om[part][om_at], one(len(om_at)), [25, 54] if part == "all" else None)
row("drawing (OpenMoji) -> name", om["all"][om_at], names[om_concepts], one(len(om_at)))
both = [n for n, i in enumerate(om_concepts) if i in set(noto_concepts)]
row("drawing -> drawing, OpenMoji -> Noto", om["all"][om_at][both], noto["all"], [[noto_concepts.index(om_concepts[n])] for n in both], [None, 56])
q = [n for n, i in enumerate(om_concepts) if i in UNSEEN]
row("100 unseen concepts: name -> drawing, OpenMoji, all", names[[om_concepts[n] for n in q]], om["all"][om_at], [[n] for n in q])
row("  among the unseen alone, OpenMoji", names[[om_concepts[n] for n in q]], om["all"][om_at][q], one(len(q)))
q2 = [n for n, i in enumerate(noto_concepts) if i in UNSEEN]
row("100 unseen concepts: name -> drawing, Noto, all", names[[noto_concepts[n] for n in q2]], noto["all"], [[n] for n in q2])
row("  drawing -> name, OpenMoji, all", om["all"][om_at][q], names[om_concepts], [[n] for n in q])

# Speech
flite_list = read("flite_clips")
sp = clips(f["flite"])
heard_floor = {"heard": [56, 74], "phrase": [None, 87], "never": None}
words, core, phrases = training_speech()
trained = set(words) | set(phrases)
for kind, label in (("heard", "speech -> text, heard"), ("never", "speech -> text, never heard"), ("phrase", "speech -> text, new phrases")):
    k = [n for n, c in enumerate(flite_list) if c[0] == kind]
    texts = list(dict.fromkeys(flite_list[n][1] for n in k))
    asked = [flite_list[n][1] for n in k]
    tv = m.texts(texts)
    row(label, sp["all"][k], tv, same(asked, texts), heard_floor[kind])
    row("  u alone", sp["u"][k], tv, same(asked, texts))
    row("  s alone", sp["s"][k], tv, same(asked, texts))
    if kind == "heard":
        core_all = read("speech_texts")["core"]
        row("  against all core texts", sp["all"][k], m.texts(core_all), [[core_all.index(a)] for a in asked])
        for still in (True, False):
            part = [n for n, a in zip(k, asked) if (a in trained) == still]
            row("  texts really spoken in training" if still else "  texts kept out with the unseen concepts", sp["all"][part], tv, same([flite_list[n][1] for n in part], texts))
human_captions = [captions[h.replace("_desc.ogg", ".png")] for h in LISTS["human_speech"]]
hs = clips(f["human"])
row("human speech -> caption", hs["all"], m.texts(human_captions), same(human_captions, human_captions), [None, 74])
row("  against all captions", hs["all"], m.texts(distinct), [[j for j, g in enumerate(distinct) if norm(g) == norm(k)] for k in human_captions])
hp = [at[h.replace("_desc.ogg", ".png")] for h in LISTS["human_speech"]]
row("human speech -> picture of the stamp", hs["all"], stamps["all"][hp], same(human_captions, human_captions))
row("  the same as text", m.texts(human_captions), stamps["all"][hp], same(human_captions, human_captions))
lower = {}
for i in om_concepts:
    lower.setdefault(labels[i].lower(), i)
k = [n for n, c in enumerate(flite_list) if c[0] == "heard" and c[1] in lower]
for label, gallery, who in (("speech -> drawing, Noto", noto["all"], noto_concepts), ("speech -> drawing, OpenMoji", om["all"][om_at], om_concepts)):
    kk = [n for n in k if lower[flite_list[n][1]] in set(who)]
    gold = [[who.index(lower[flite_list[n][1]])] for n in kk]
    row(label, sp["all"][kk], gallery, gold)
    row("  the same as text", m.texts([flite_list[n][1] for n in kk]), gallery, gold)

# Films
frames = f["films"].unflatten(0, (-1, 8))
v = pictures(frames.mean(1))["all"]
film_names = names[LISTS["video"]]
row("film of 8 frames", film_names, v, one(len(v)), [None, 63])
row("  first frame alone", film_names, pictures(frames[:, 0])["all"], one(len(v)))
row("  mean of eight vectors", film_names, l2(pictures(f["films"])["all"].unflatten(0, (-1, 8)).mean(1)), one(len(v)))

# One index of texts, drawings and clips
mixed = LISTS["mixed"]
om_of = {i: n for n, (_, i) in enumerate(openmoji)}
tv = m.texts([", ".join(CONCEPTS[i]["tags"][:4]) for i in mixed])
pv, sv = om["all"][[om_of[i] for i in mixed]], clips(f["mixed"])["all"]
items, n = torch.cat([tv, pv, sv]), len(mixed)
score = names[mixed] @ items.T
top = score.topk(10, 1).indices
right = {k: round(100 * float((top == torch.arange(n)[:, None] + s * n).any(1).float().mean()), 1) for s, k in enumerate(("text", "picture", "speech"))}
shares = {k: round(100 * float((top // n == s).float().mean()), 1) for s, k in enumerate(("text", "picture", "speech"))}
eye = torch.eye(n, dtype=torch.bool)
cosines = {k: [round(float(score[:, s * n:(s + 1) * n][eye].mean()), 3), round(float(score[:, s * n:(s + 1) * n][~eye].mean()), 3)] for s, k in enumerate(("text", "picture", "speech"))}
for s, k in enumerate(("text", "picture", "speech")):
    row(f"mixed list alone: {k}", names[mixed], items[s * n:(s + 1) * n], one(n))
print("mixed index of", 3 * n, "right item in the top 10", right, "shares", shares, "cosine of right and wrong pairs", cosines)
save_json(out, dict(rows=table, mixed=dict(n=n, items=3 * n, right_in_top_10=right, floor=dict(text=75, picture=60, speech=70), shares=shares, cosines=cosines)))

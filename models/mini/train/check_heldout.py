"""Proves over the caches that training really read: no held-out style, voice, file or text, no trace of the 100 unseen concepts.

Ends with 1 on any hit. What training reads is what these scripts name; the last check reads the scripts themselves."""
import hashlib, json, sys
import numpy as np
from common import *

# Derived here once more from the lists, so that a mistake in the rule of common.py is a hit and not repeated.
_plain = lambda t: " ".join("".join(ch if ch.isascii() and ch.isalnum() else " " for ch in t.lower()).split())
_concepts = json.loads((HERE / "lists/concepts.json").read_text())
_unseen = json.loads((HERE / "lists/lists.json").read_text())["unseen_concepts"]
_labels = {_plain(_concepts[i]["label"]) for i in _unseen}
_texts = (_labels | {_plain(t) for i in _unseen for t in _concepts[i]["tags"]}) - {""}
assert len(set(_unseen)) == 100 and {"tiger", "red heart", "fire engine"} <= _labels and UNSEEN == set(_unseen)
banned = lambda t: _plain(t) in _texts
holds_label = lambda t: any(f" {x} " in f" {_plain(t)} " for x in _labels)
hits, seen = [], {}


def check(name, bad, of):
    bad = list(bad)
    seen[name] = dict(looked_at=of, hits=len(bad))
    print(f"{name:95s} {of:7d} looked at, {len(bad)} hits", bad[:5] if bad else "", flush=True)
    if bad:
        hits.append(name)


s = read("speech_texts")
rows = json.loads((CACHE / "drawings.json").read_text())
check("drawings of another style than the seven", [r for r in rows if r[0] not in STYLES], len(rows))
check("drawings of an unseen concept", [r for r in rows if r[1] in UNSEEN], len(rows))
bodies, used = {}, []
for style in STYLES:
    icons = Icons(style)
    for i, c in enumerate(CONCEPTS):
        icon = icons.icon(c)
        if icon and i in UNSEEN:
            bodies[icon[0]] = (style, i)
for style in STYLES:
    icons = Icons(style)
    used += [(style, i, icons.icon(CONCEPTS[i])[0]) for st, i in rows if st == style]
check("drawings with the very lines of an unseen concept's drawing", [u[:2] for u in used if u[2] in bodies], len(used))
px, om = np.load(CACHE / "drawings.npy", mmap_mode="r"), np.load(CACHE / "drawings-openmoji.npy", mmap_mode="r")
digest_of = lambda a: hashlib.sha256(np.ascontiguousarray(a).tobytes()).digest()
om_rows = json.loads((CACHE / "drawings-openmoji.json").read_text())
held = {digest_of(om[n]): n for n in range(len(om_rows))}
check("drawings equal, pixel by pixel, to an OpenMoji drawing", [rows[n] for n in range(len(rows)) if digest_of(px[n]) in held], len(rows))
for p in ("plain", "augmented-1", "augmented-2", "augmented-3"):
    f = CACHE / f"picture-{p}.npy"
    if f.exists():
        check(f"feature rows of {f.name} beyond the drawings above", range(np.load(f, mmap_mode="r").shape[0] - len(rows)), len(rows))

b = json.loads((CACHE / "banks.json").read_text())
check("label bank: texts of an unseen concept", [t for t in b["labels"] if banned(t)], len(b["labels"]))
check("spoken bank: texts of an unseen concept", [t for t in b["spoken"] if banned(t)], len(b["spoken"]))
from banks import banks, class_names, class_texts
_, targets, labels, spoken, allowed = banks()
check("banks other than the lists above", [0] if list(labels) != b["labels"] or spoken != b["spoken"] else [], 2)
check("targets of an unseen concept", [i for i in UNSEEN if targets[i][0] or targets[i][1]], len(targets))
texts = class_texts()
check("class texts aimed at: named like an unseen concept", [t for n, t, a in zip(class_names(), texts, allowed) if a and (banned(n) or banned(t))], int(allowed.sum()))
check("class texts: hypernym is a text of an unseen concept", [t for n, t in zip(class_names(), texts) if t != n and banned(t[len(n) + 2:])], len(texts))

never, phrases = {norm(t) for t in s["never"]}, {norm(t) for t in s["test_phrases"]}
listed = set(s["phrases"])
for p in ("words-1", "words-2", "core", "phrases"):
    f = CACHE / f"speech-{p}.npz"
    if not f.exists():
        continue
    z = np.load(f)
    t = z["t2"].tolist() + z["t3"].tolist()
    check(f"{f.name}: spoken texts of an unseen concept", [x for x in t if banned(x)], len(t))
    check(f"{f.name}: phrases that hold an unseen concept's label", [x for x in t if x in listed and holds_label(x)], len(t))
    check(f"{f.name}: words never to be spoken, test phrases, captions of stamps", [x for x in t if norm(x) in never | phrases or digest(x) in CAPTIONS], len(t))
    check(f"{f.name}: texts outside the training lists", [x for x in t if x not in set(b["spoken"])], len(t))
from speech_features import ACCENTS, VARIANTS
check("voices that are not espeak-ng's", [v for v in VARIANTS + ACCENTS if v.startswith(("kal", "awb", "rms", "slt"))], len(VARIANTS) + len(ACCENTS))
steps = ["render.py", "picture_features.py", "speech_features.py", "banks.py", "train_picture.py", "train_speech.py", "loop.py", "parts.py"]
named = [(f, k) for f in steps for k in ("heldout", "openmoji", "tuxpaint", "flite", "STAMPS", "stamps") for line in open(HERE / f)
         if k in line and not (f == "render.py" and k == "openmoji")]
check("training scripts that name a held-out set (render.py draws OpenMoji into a file of its own)", named, len(steps))

# For the reader, not a hit: generic keywords of unseen concepts ("man", "red") stay inside longer phrases.
inside = sum(any(f" {x} " in f" {_plain(t)} " for x in _texts) for t in b["spoken"])
print(f"{inside} of {len(b['spoken'])} spoken texts hold a keyword of an unseen concept among other words")
save_json(RESULTS / "heldout.json", dict(checks=seen, spoken_texts_with_such_a_keyword_among_other_words=inside, passed=not hits))
sys.exit(1 if hits else 0)

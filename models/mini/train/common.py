"""Paths, lists and the rule for what is held out. Every step imports this first."""
import glob, gzip, hashlib, json, os, re
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("MINI_CACHE", HERE / "cache"))  # packages and every step's output
DATA = CACHE / "data"
RESULTS = Path(os.environ.get("MINI_RESULTS", HERE / "results"))

# The seven drawing styles of training. OpenMoji is never among them: it is the test of an unseen style.
STYLES = ["noto", "noto-v1", "fxemoji", "fluent-emoji", "fluent-emoji-flat", "twemoji", "emojione"]


def read(name):
    path = HERE / "lists" / f"{name}.json"
    # The long lists are kept packed.
    return json.loads(path.read_text() if path.exists() else gzip.decompress(path.with_suffix(".json.gz").read_bytes()))


def save_json(path, value):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def norm(text):
    """Case and punctuation do not make a text another text."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


CONCEPTS = read("concepts")
LISTS = read("lists")
UNSEEN = set(LISTS["unseen_concepts"])
# Labels and keywords of the concepts that are kept out of training altogether.
UNSEEN_LABELS = {norm(CONCEPTS[i]["label"]) for i in UNSEEN}
UNSEEN_TEXTS = {norm(t) for i in UNSEEN for t in [CONCEPTS[i]["label"], *CONCEPTS[i]["tags"]]} - {""}


def contains(text, wanted):
    """True where a text of `wanted` stands in `text` as whole words."""
    w = norm(text).split()
    return any(" ".join(w[i:j]) in wanted for i in range(len(w)) for j in range(i + 1, len(w) + 1))


def banned(text):
    """A label or keyword of an unseen concept: in no bank, not spoken."""
    return norm(text) in UNSEEN_TEXTS


def concept_texts(i):
    """(label or None, keywords) of concept i as training may see them: without every unseen concept's texts."""
    c = CONCEPTS[i]
    label = None if banned(c["label"]) else c["label"]
    return label, [t for t in dict.fromkeys(c["tags"]) if t != c["label"] and norm(t) and not banned(t)]


def digest(text):
    return hashlib.sha256(norm(text).encode()).hexdigest()[:12]


# Captions of the held-out stamps as digests: the captions themselves are GPL text and stay in their package.
CAPTIONS = set(read("caption_digests"))


def training_speech():
    """(words, core, phrases) that are spoken in training. Out: texts of unseen concepts, phrases that hold an unseen
    concept's label, and everything that is, but for case and punctuation, a held-out word, phrase or caption."""
    s = read("speech_texts")
    core, test = set(s["core"]), {norm(t) for t in s["never"] + s["test_phrases"]}
    free = lambda t: not banned(t) and norm(t) not in test and digest(t) not in CAPTIONS
    words = [w for w in s["words"] if free(w)]
    phrases = [p for p in s["phrases"] if free(p) and not contains(p, UNSEEN_LABELS)]
    return words, [w for w in words if w in core], phrases


class Icons:
    """One icon set as its npm package stores it."""

    def __init__(self, style):
        self.style = style
        (folder,) = glob.glob(str(DATA / f"iconify-json-{style}-[0-9]*"))
        self.set = json.loads(Path(folder, "icons.json").read_text())
        chars = Path(folder, "chars.json")
        self.chars = json.loads(chars.read_text()) if chars.exists() else {}
        names = [*self.set["icons"], *self.set.get("aliases", {})]
        self.squashed = {n.replace("-", ""): n for n in reversed(names)}

    def icon(self, concept):
        """Body and size of the concept's drawing, or None."""
        s = self.set
        name = self.chars.get(concept["hex"]) if self.chars else None
        if name is None:
            name = self.squashed.get(concept["slug"].replace("-", ""))
        if name is None or concept["slug"] == "keycap" and not self.chars:
            return None
        alias = s.get("aliases", {}).get(name)
        if alias and set(alias) - {"parent"}:
            return None  # flipped or turned: another drawing
        icon = s["icons"].get(alias["parent"] if alias else name)
        if icon is None:
            return None
        w = icon.get("width", s.get("width", 16))
        h = icon.get("height", s.get("height", 16))
        return icon["body"], icon.get("left", 0), icon.get("top", 0), w, h

    def svg(self, icon):
        body, x, y, w, h = icon
        return f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{x} {y} {w} {h}" width="{w}" height="{h}">{body}</svg>'

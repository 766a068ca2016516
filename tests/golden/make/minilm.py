"""Vectors of 600 texts by the published all-MiniLM-L6-v2, as sentence-transformers 6.2.0 computes them in f32.

  sh fetch_minilm.sh && python minilm.py [FOLDER] [OUT] [--all FILE]

FOLDER is what fetch_minilm.sh made, by default where it makes it; OUT is tests/golden unless it is named. The texts are made by a seed: from one token to twice what the model reads, in the scripts
of its vocabulary and in others, with emoji, marks, controls, code and numbers. Each goes through alone, on one thread, so that no
padding and no batch mate is in the reference. Writes OUT/refs/all-minilm-l6-v2.json (texts, numbers of tokens) and
OUT/refs/all-minilm-l6-v2.safetensors: whole vectors of every fifth text, of the others 64 of 384 numbers that move from text to
text (16-bit halves would not do for 2e-6). `--all FILE` writes the whole vectors of all of them, for a comparison by hand.
"""
import argparse
import json
import random
import sys
import unicodedata
from pathlib import Path

# A maker beside this one carries the name of a package, so this folder must not be searched.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

SEED = 1
TEXTS = 600
# One text in so many has its whole vector in the reference.
WHOLE = 5
PART = 64

SCRIPTS = {
    "latin": "naïve café Ångström façade jalapeño Łódź smörgåsbord Đà Nẵng crème brûlée żółw straße İstanbul ﬁne Ⅷ ½",
    "greek": "η θάλασσα και ο άνεμος το καλοκαίρι Αθήνα φως σοφία",
    "cyrillic": "красный велосипед стоит у двери Київ вечір ёлка объект Ђорђе",
    "hebrew": "אופניים אדומים ליד הדלת שָׁלוֹם ירושלים",
    "arabic": "دراجة حمراء قرب الباب السلام عليكم القاهرة مُحَمَّد",
    "devanagari": "लाल साइकिल दरवाज़े के पास हिन्दी नमस्ते दिल्ली",
    "thai": "จักรยานสีแดง กรุงเทพ สวัสดี",
    "tamil": "சிவப்பு மிதிவண்டி தமிழ் சென்னை",
    "han": "今天天气很好 紅色自行車 東京都 北京大学 龍 𠮷野家",
    "kana": "赤い自転車 カタカナ ひらがな ｶﾀｶﾅ きゃりー",
    "hangul": "빨간 자전거 서울 안녕하세요 한국어",
    "georgian": "წითელი ველოსიპედი თბილისი",
    "ethiopic": "ቀይ ብስክሌት አዲስ አበባ",
}
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🇫🇷", "🏳️‍🌈", "❤️", "❤", "☃", "🚲", "🎻", "1️⃣", "©", "™", "→", "∑", "€", "𝒳", "𝔸"]
MARKS = list(".,;:!?\"'()[]{}<>#@&*+-=/\\|~^`_%$") + ["…", "“", "”", "’", "—", "–", "«", "»", "¿", "¡", "、", "。", "「", "」"]
CODE = [
    "def add(a, b): return a + b", "for (int i = 0; i < n; ++i) { s += x[i]; }", "SELECT name FROM users WHERE id = 42;",
    "let v: Vec<_> = it.map(|x| x * 2).collect();", "https://example.org/a/b?c=d&e=%20#f", "me@example.org", "C:\\Users\\a\\b.txt",
    "0x1F600", "3.14159265358979", "1,234,567.89", "2026-12-01T08:10:00Z", "192.168.0.1", "[CLS] [SEP] [MASK] [PAD] [UNK]", "##ing",
    "a" * 99, "a" * 101, "x_y_z", "don't won't can't", "U.S.A.", "C++", "e.g.", "№ 5", "½ cup", "５６７", "ＦＵＬＬ ｗｉｄｔｈ",
]
# Those of the anchors that this model was first compared with.
FIRST = [
    "The harbour lights signal the returning boats.", "Boats come home when the lamps at the port are lit.", "A recipe for tomato soup with basil.",
    "¿Dónde está la biblioteca?", "今天天气很好", "WHY?! -- (see #123)", "naïve café Ångström", "The quick brown fox jumps over the lazy dog. " * 40,
]
ODD = ["", " ", "\t\n", "a\u0000b", "a\u200bb", "a\u00adb", "\ufeffstart", "a\u2028b", "a\u0301\u0302", "\ufffd", "e\u0301te\u0301", "\u202eright", "a\u00a0b", "a\u3000b"]


def texts(words):
    draw = random.Random(SEED)
    pools = [text.split() for text in SCRIPTS.values()]
    found = FIRST + ODD + CODE + EMOJI + list(SCRIPTS.values())
    found += [pool[0] for pool in pools]

    def word():
        kind = draw.random()
        if kind < 0.80:
            plain = draw.choice(words)
            return draw.choice([plain, plain, plain, plain.capitalize(), plain.upper()])
        if kind < 0.88:
            return draw.choice(draw.choice(pools))
        if kind < 0.91:
            return draw.choice(EMOJI)
        if kind < 0.95:
            return draw.choice(MARKS)
        if kind < 0.98:
            return str(draw.randrange(10 ** draw.randrange(1, 7)))
        return draw.choice(CODE)

    def sentence(count, pool=None):
        parts = [draw.choice(pool) if pool else word() for _ in range(count)]
        text = " ".join(parts)
        return unicodedata.normalize(draw.choice(["NFC", "NFC", "NFC", "NFD"]), text)

    while len(found) < TEXTS:
        at = len(found)
        if at % 10 == 0:
            # A script by itself, without spaces now and then.
            text = sentence(draw.randrange(1, 60), pools[at // 10 % len(pools)])
            found.append(text.replace(" ", "") if draw.random() < 0.3 else text)
        elif at % 12 == 1:
            # About as long as the model reads, and longer.
            found.append(sentence(draw.randrange(120, 340)))
        elif at % 10 == 3:
            found.append(word())
        else:
            found.append(sentence(draw.randrange(2, 28)))
    assert len(found) == TEXTS
    return found


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("folder", type=Path, nargs="?", default=Path.home() / ".cache/omniburn/all-MiniLM-L6-v2")
    ask.add_argument("out", type=Path, nargs="?", default=Path(__file__).resolve().parent.parent)
    ask.add_argument("--all", type=Path)
    asked = ask.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    vocabulary = (asked.folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words = [word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2]
    model = SentenceTransformer(str(asked.folder), device="cpu", model_kwargs={"torch_dtype": torch.float32})
    twin = SentenceTransformer(str(asked.folder), device="cpu", model_kwargs={"torch_dtype": torch.float32}).double()
    assert model.max_seq_length == 256
    cases, vectors, noise = [], [], 0.0
    for text in texts(words):
        vector = model.encode([text], batch_size=1, convert_to_tensor=True, normalize_embeddings=False)[0]
        exact = twin.encode([text], batch_size=1, convert_to_tensor=True, normalize_embeddings=False)[0]
        noise = max(noise, float((vector.double() - exact).abs().max()))
        features = model.preprocess([text]) if hasattr(model, "preprocess") else model.tokenize([text])
        tokens = int(features["attention_mask"].sum())
        cases.append({"text": text, "tokens": tokens})
        vectors.append(vector.float())
    vectors = torch.stack(vectors)
    whole = vectors[::WHOLE].contiguous()
    columns = torch.arange(PART)
    rest = [(columns * 6 + i) % 384 for i in range(TEXTS) if i % WHOLE]
    part = torch.stack([vectors[i][at] for i, at in zip((i for i in range(TEXTS) if i % WHOLE), rest)]).contiguous()
    lengths = [case["tokens"] for case in cases]
    print("tokens", min(lengths), max(lengths), "at the limit", sum(n == 256 for n in lengths), "f32 to f64", noise)
    (asked.out / "refs").mkdir(parents=True, exist_ok=True)
    save_file({"whole": whole, "part": part}, str(asked.out / "refs/all-minilm-l6-v2.safetensors"))
    manifest = {"model": "sentence-transformers/all-MiniLM-L6-v2", "library": "sentence-transformers 6.2.0, transformers 5.23.0, torch 2.15.0, f32",
                "f32_to_f64": float(f"{noise:.2e}"), "cases": cases}
    text = json.dumps(manifest, ensure_ascii=False, separators=(",", ":"))
    (asked.out / "refs/all-minilm-l6-v2.json").write_text(text, encoding="utf-8")
    if asked.all:
        save_file({"vectors": vectors}, str(asked.all))


if __name__ == "__main__":
    main()

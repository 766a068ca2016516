"""The folder that `omniburn convert` reads: `export.py [ROWS HEAD A B [FOLDER]]`."""
import hashlib, json, sys
import torch
from safetensors.torch import load_file, save_file
import mini
from common import *
from banks import class_texts, clear_names
from mini import Texts
from parts import TOKENIZER, part, parts, tokenizer

# The four trained parts by the names that the training steps print, then the folder.
trained = sys.argv[1:5] if len(sys.argv) > 4 else ["picture-rows-3-s0", "picture-head-s0", "speech-a-2-s0", "speech-b-2-s0"]
folder = Path(sys.argv[5]) if len(sys.argv) > 5 else CACHE / "hf"
P = "picture_connector."
w = parts()
# Training aims at the class texts of torchvision's names; the model that ships names its classes without ambiguity ("crane bird").
w[P + "class_vectors.weight"] = Texts(mini.Backbone(w), tokenizer())(class_texts(clear_names()))
for name in trained:
    w.update(load_file(CACHE / f"{name}.safetensors"))
stats = load_file(CACHE / "picture-stats.safetensors")
for name, kind in (("global", "g"), ("quadrant", "q"), ("head", "g")):  # the standardisation goes into the first layers
    k = f"{P}{name}.0"
    scaled = w[k + ".weight"] / stats[kind + "_dev"]
    w[k + ".bias"] = w[k + ".bias"] - scaled @ stats[kind + "_mean"]
    w[k + ".weight"] = scaled
count = {p: sum(v.numel() for k, v in w.items() if k.startswith(p)) for p in
         ("text.", "picture.", "speech.", "picture_connector.", "picture_connector.class_vectors", "speech_connector.a.", "speech_connector.b.")}
count["picture_connector."] -= count["picture_connector.class_vectors"]
want = {"text.": 22565376, "picture.": 4631000, "speech.": 7632384, "picture_connector.": 3795072, "picture_connector.class_vectors": 384000,
        "speech_connector.a.": 2692228, "speech_connector.b.": 2103556}
assert count == want, count
assert all(v.dtype == torch.float32 and v.isfinite().all() for v in w.values())
folder.mkdir(parents=True, exist_ok=True)
save_file({k: w[k].contiguous() for k in sorted(w)}, folder / "model.safetensors", metadata={"format": "pt"})
(folder / "config.json").write_text(json.dumps(mini.CONFIG, indent=1) + "\n")
t = json.loads(open(part(TOKENIZER), encoding="utf-8").read())
t["truncation"] = t["padding"] = None
(folder / "tokenizer.json").write_text(json.dumps(t, ensure_ascii=False) + "\n", encoding="utf-8")

# Read back: the same vectors, and word embeddings as rows give the text vector.
m, first = mini.Mini(folder), mini.Backbone(w)
x, cells = torch.rand(3, 1280), torch.rand(3, 9, 1280)
with torch.no_grad():
    same = torch.equal(mini.picture_vector(m.w, m.backbone, x, cells)[3], mini.picture_vector(w, first, x, cells)[3])
    ids = m.texts.tokenizer.encode("red car").ids[1:-1]
    red = float((m.backbone.rows(m.backbone.words[torch.tensor([ids])])[0] * m.texts(["red car"])[0]).sum())
assert same and red > 0.99999, (same, red)
print({k: hashlib.sha256((folder / k).read_bytes()).hexdigest() for k in ("config.json", "model.safetensors", "tokenizer.json")}, count)

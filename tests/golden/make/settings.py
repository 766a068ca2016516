"""Ids and preprocessing of folders whose settings files say something else than tokenizer.json, or are nested.

  python settings.py

Reads tests/golden/checkpoints/{bert-tiny,mpnet-tiny,omni-small-tiny,omni-nano-tiny}, lays the files of each case over a copy and loads it with
transformers (AutoTokenizer, AutoImageProcessor, AutoVideoProcessor, AutoFeatureExtractor; no weights are read). Writes
tests/golden/refs/tokenizer_settings.json and tests/golden/refs/processor_settings.json: the files laid over, and what the
library made of them. Written with transformers 5.24.0 (the cases of MPNet with 5.23.0, which gives the same for all others) and,
for the processors, torchvision 0.29.2; without torchvision,
which other makers must not find (their images are those of the library's other backend), the second file is left as it is.
"""
import copy
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

# A file beside this one carries the name of a package that is needed.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
os.environ["HF_HUB_OFFLINE"] = "1"
import transformers  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

transformers.logging.set_verbosity_error()
GOLDEN = Path(__file__).resolve().parent.parent
TEXTS = ["The Quick BROWN fox", "\u00c9mile's na\u00efve caf\u00e9", "\u4e2d\u6587 and words", "", "a [MASK] b[SEP] the Fox  <|im_end|> x", " don't   stop\u2026 12"]

SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
PLAIN = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL}


def bert(**more):
    return {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", **SPECIAL, **more}}


def mpnet(**more):
    return {"tokenizer_config.json": {"tokenizer_class": "MPNetTokenizer", **more}}


def read(name, file="tokenizer.json"):
    return json.loads((GOLDEN / "checkpoints" / name / file).read_text())


def normal(name, **flags):
    tokenizer = read(name)
    tokenizer["normalizer"].update(flags)
    return {"tokenizer.json": tokenizer}


def without(name, *fields):
    tokenizer = read(name)
    for field in fields:
        tokenizer[field] = None
    return {"tokenizer.json": tokenizer}


def properties(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True, **flags}


def decoder(name, extra):
    listed = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in read(name)["added_tokens"]}
    return {"added_tokens_decoder": {**listed, **extra}}


def vocabulary(name):
    vocab = read(name)["model"]["vocab"]
    return "\n".join(sorted(vocab, key=vocab.get)) + "\n"


def tokenizers():
    b, s, n = "bert-tiny", "omni-small-tiny", "omni-nano-tiny"
    some = next(t for t in read(b)["model"]["vocab"] if len(t) > 2 and t.isalpha() and t.isascii())
    some_id = str(read(b)["model"]["vocab"][some])
    cut = {"truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
           "padding": {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}}
    cased = normal(b, lowercase=False)
    yield "a class that lowers case over a file that does not", b, {**bert(do_lower_case=True), **cased}
    yield "a class that lowers case by itself over a file that does not", b, {**bert(), **cased}
    yield "no settings at all over a cased file", b, cased
    yield "case kept over a file that lowers it", b, bert(do_lower_case=False)
    yield "accents kept over a file that strips them", b, bert(strip_accents=False)
    yield "accents stripped and case kept", b, bert(do_lower_case=False, strip_accents=True)
    yield "accents left to the case", b, {**bert(strip_accents=None), **normal(b, strip_accents=False)}
    yield "no spaces around ideographs", b, bert(tokenize_chinese_chars=False)
    yield "spaces around ideographs over a file without", b, {**bert(tokenize_chinese_chars=True), **normal(b, handle_chinese_chars=False)}
    yield "flags that the plain class does not read", b, {"tokenizer_config.json": {**PLAIN, "do_lower_case": False, "tokenize_chinese_chars": False}}
    yield "the plain class over a cased file", b, {"tokenizer_config.json": PLAIN, **cased}
    yield "the fast name of the class", b, {**bert(tokenizer_class="BertTokenizerFast", do_lower_case=False)}
    yield "a class that is an alias", b, {**bert(tokenizer_class="ElectraTokenizerFast"), **cased}
    yield "a class that nobody knows", b, {**bert(tokenizer_class="SomeTokenizer", do_lower_case=False), **cased}
    yield "other tokens around a text", b, bert(cls_token="[MASK]", sep_token="[PAD]")
    yield "a token around a text with properties", b, bert(sep_token={"__type": "AddedToken", **properties("[MASK]", lstrip=True)})
    yield "another unknown token", b, bert(unk_token="[PAD]")
    yield "a word made an added token", b, bert(**decoder(b, {some_id: properties(some, special=False)}))
    yield "an added token that takes the spaces beside it", b, bert(**decoder(b, {"4": properties("[MASK]", lstrip=True, rstrip=True)}))
    yield "an added token that is normalised", b, {"tokenizer_config.json": {**PLAIN, **decoder(b, {some_id: properties(some, normalized=True, special=False)})}}
    yield "added tokens that the settings do not list", b, bert(added_tokens_decoder={"0": properties("[PAD]"), "1": properties("[UNK]")})
    yield "special tokens without a name", b, bert(additional_special_tokens=[some, "[MASK]"])
    yield "special tokens of the older file", b, {**bert(), "special_tokens_map.json": {"cls_token": "[MASK]", "sep_token": properties("[PAD]")}}
    yield "special tokens of the older file beside a list", b, {**bert(**decoder(b, {})), "special_tokens_map.json": {"cls_token": "[MASK]"}}
    yield "truncation and padding in the file", b, {**bert(), "tokenizer.json": {**read(b), **cut}}
    yield "another post-processor in the file", b, {**bert(), **without(b, "post_processor")}
    yield "no post-processor under the plain class", b, {"tokenizer_config.json": PLAIN, **without(b, "post_processor")}
    yield "a vocabulary alone", b, {**bert(do_lower_case=False), "vocab.txt": vocabulary(b), "tokenizer.json": None}
    yield "a vocabulary alone without settings", b, {"vocab.txt": vocabulary(b), "tokenizer.json": None}
    m = "mpnet-tiny"
    yield "the class of MPNet over a file that keeps case", m, {**mpnet(), **normal(m, lowercase=False)}
    yield "case kept under the class of MPNet", m, mpnet(do_lower_case=False)
    yield "the class of MPNet by the model's type alone", m, {"tokenizer_config.json": None, **normal(m, lowercase=False)}
    yield "tokens of MPNet that no file lists", m, {**mpnet(), "tokenizer.json": {**read(m), "added_tokens": [], "post_processor": None}}
    yield "other tokens around a text under the class of MPNet", m, mpnet(cls_token="[UNK]", sep_token="<mask>")
    own = read(s, "tokenizer_config.json")
    own_nano = read(n, "tokenizer_config.json")
    yield "byte pairs under their class", s, {"tokenizer_config.json": {**own, "tokenizer_class": "Qwen2Tokenizer"}}
    yield "byte pairs with a space in front", s, {"tokenizer_config.json": {**own, "tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": True}}
    yield "a space in front that the plain class does not read", s, {"tokenizer_config.json": {**own, "add_prefix_space": True}}
    yield "tokens at the ends that the file's post-processor overrules", s, {"tokenizer_config.json": {**own, "tokenizer_class": "Qwen2TokenizerFast", "add_eos_token": True}}
    yield "byte pairs of another family under the class", n, {"tokenizer_config.json": {**own_nano, "tokenizer_class": "Qwen2Tokenizer"}}
    yield "byte level under the name of a class that has none", n, {"tokenizer_config.json": {**own_nano, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True}}
    yield "byte pairs under the first of their classes", n, {"tokenizer_config.json": {**own_nano, "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}}
    yield "an added token of byte pairs that takes the spaces beside it", s, {"tokenizer_config.json": {**own, **decoder(s, {
        str(t["id"]): properties(t["content"], lstrip=True, rstrip=True) for t in read(s)["added_tokens"] if t["content"] == "<|im_end|>"})}}


def lay(base, files, folder):
    folder.mkdir(parents=True)
    for source in (GOLDEN / "checkpoints" / base).glob("*.json"):
        shutil.copy(source, folder / source.name)
    for name, content in files.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def small(base, files):
    """Files as they are stored: a tokenizer.json as what is changed of the checkpoint's."""
    files = copy.deepcopy(files)
    if files.get("tokenizer.json"):
        there = read(base)
        files["tokenizer.json"] = {k: v for k, v in files["tokenizer.json"].items() if v != there.get(k)}
    return files


IMAGE = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
         "rescale_factor": 1 / 255, "resample": 3, "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "image_processor_type": "Qwen2VLImageProcessor",
         "size": {"shortest_edge": 1024, "longest_edge": 4096}}
VIDEO = {**{k: v for k, v in IMAGE.items() if k != "image_processor_type"}, "video_processor_type": "Qwen3VLVideoProcessor",
         "size": {"shortest_edge": 1024, "longest_edge": 8192}, "fps": 2, "min_frames": 4, "max_frames": 768, "do_sample_frames": False}
SOUND = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128, "sampling_rate": 16000, "hop_length": 160, "n_fft": 400, "chunk_length": 30,
         "n_samples": 480000, "nb_max_frames": 3000, "padding_value": 0.0, "padding_side": "right", "dither": 0.0, "return_attention_mask": True}
SIDES = [[40, 70], [300, 200], [40, 500], [640, 480]]


def processors():
    p, i, v = "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"
    nested = {"processor_class": "OmniProcessor", "image_processor": IMAGE, "video_processor": VIDEO, "feature_extractor": SOUND}
    gone = {i: None, v: None}
    less = lambda d, *names: {k: x for k, x in d.items() if k not in names}  # noqa: E731
    yield "as transformers 5 saves", {p: nested, **gone}
    yield "nested beside the older files", {p: nested}
    yield "nested without a section for video", {p: less(nested, "video_processor")}
    yield "nested without a section for sound", {p: {**less(nested, "feature_extractor")}}
    yield "a nested section that is null", {p: {**nested, "image_processor": None}}
    yield "a file that nests nothing", {p: {"processor_class": "OmniProcessor", "size": {"shortest_edge": 1, "longest_edge": 2}}}
    yield "limits by their older names", {p: {**nested, "image_processor": {**less(IMAGE, "size"), "min_pixels": 2048, "max_pixels": 30000}}, **gone}
    yield "limits under both names", {p: {**nested, "image_processor": {**IMAGE, "min_pixels": 2048, "max_pixels": 30000}}, **gone}
    yield "limits of video under both names", {p: {**nested, "video_processor": {**VIDEO, "min_pixels": 2048, "max_pixels": 30000}}, **gone}
    yield "a size that is null", {p: {**nested, "image_processor": {**IMAGE, "size": None}, "video_processor": less(VIDEO, "size")}, **gone}
    yield "means and deviations that are not there", {p: {**nested, "image_processor": less(IMAGE, "image_mean", "image_std", "rescale_factor"),
                                                       "video_processor": less(VIDEO, "image_mean", "image_std")}, **gone}
    yield "a mean that is one number", {p: {**nested, "image_processor": {**IMAGE, "image_mean": 0.25, "image_std": [0.2, 0.3, 0.4]}}, **gone}
    yield "another factor", {i: {**IMAGE, **SOUND, "rescale_factor": 1 / 127.5}}
    yield "no file for video", {i: {**IMAGE, **SOUND}, v: None}
    yield "video frame by frame", {i: {**IMAGE, **SOUND}, v: {**VIDEO, "video_processor_type": "Qwen2VLVideoProcessor", "min_pixels": 4096}}
    yield "another step of sound", {p: {**nested, "feature_extractor": {**SOUND, "hop_length": 320, "n_fft": 512}}, **gone}


def resolve(folder):
    import numpy as np
    import torch
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoVideoProcessor

    three = lambda x: list(x) if isinstance(x, (list, tuple)) else [x] * 3  # noqa: E731
    numbers = lambda q: {"min_pixels": q.size["shortest_edge"], "max_pixels": q.size["longest_edge"], "mean": three(q.image_mean),  # noqa: E731
                         "std": three(q.image_std), "rescale": q.rescale_factor}
    images = AutoImageProcessor.from_pretrained(folder, backend="torchvision")
    videos = AutoVideoProcessor.from_pretrained(folder)
    sound = AutoFeatureExtractor.from_pretrained(folder)
    grids = [images([np.zeros((h, w, 3), np.uint8)], return_tensors="pt")["image_grid_thw"][0].tolist() for h, w in SIDES]
    clips = [videos([torch.zeros((4, 3, h, w), dtype=torch.uint8)], do_sample_frames=False, return_tensors="pt")["video_grid_thw"][0].tolist() for h, w in SIDES]
    return {"image": {**numbers(images), "grids": grids}, "video": {**numbers(videos), "grids": clips},
            "audio": {"sample_rate_hz": sound.sampling_rate, "fft_samples": sound.n_fft, "hop_samples": sound.hop_length, "mels": sound.feature_size}}


def write(name, content):
    """One case a line."""
    cases = content.pop("cases")
    head = json.dumps(content, ensure_ascii=False)[:-1]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (GOLDEN / "refs" / name).write_text(f'{head}, "cases": [\n{lines}\n]}}\n')


def main():
    with tempfile.TemporaryDirectory() as tmp:
        cases = []
        for at, (name, base, files) in enumerate(tokenizers()):
            folder = Path(tmp, f"t{at}")
            lay(base, files, folder)
            loaded = AutoTokenizer.from_pretrained(folder)
            cases.append({"name": name, "base": base, "files": small(base, files), "ids": [loaded(text)["input_ids"] for text in TEXTS]})
        write("tokenizer_settings.json", {"texts": TEXTS, "cases": cases})
        if importlib.util.find_spec("torchvision") is None:
            print("processor_settings.json is left as it is: torchvision is not installed")
            return
        cases = []
        for at, (name, files) in enumerate(processors()):
            folder = Path(tmp, f"p{at}")
            lay("omni-small-tiny", files, folder)
            cases.append({"name": name, "files": files, **resolve(folder)})
        write("processor_settings.json", {"frames": 4, "sides": SIDES, "cases": cases})


main()

"""Tiny checkpoints of decoders that embed texts by their last token, and what transformers computes from them.

  python decoders.py [SEED FOLDER]

Writes tests/golden/checkpoints/{qwen2-tiny,mistral-tiny} in the layout they are published in, and tests/golden/refs/ of the same
names: ids by AutoTokenizer, vectors by AutoModel of transformers 5.23.0 in f32 with eager attention, the row of the last token
at length 1; sentence-transformers 6.2.0 must give the same from the same folder. With SEED and FOLDER the set is another one,
in FOLDER/checkpoints and FOLDER/refs.

What the checkpoints make visible on purpose: biases of queries, keys and values as large as the products (qwen2), rows that see later
ones because `is_causal` is false (qwen2), a window and no `head_dim` (mistral), tokenizers that append an end token, bf16 files.
"""
import json
import sys
import tempfile
from pathlib import Path

# A maker beside this one carries the name of a package, so this folder must not be searched.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402
from transformers import AutoModel, AutoTokenizer, MistralConfig, MistralModel, Qwen2Config, Qwen2Model  # noqa: E402

GOLDEN = Path(__file__).resolve().parent.parent
TEXTS = {
    "letter": "a",
    "words": "red car",
    "plain": "The quick brown fox jumps over the lazy dog",
    "digits": "two dogs, 1 cat and 17 birds on 2026-11-30!",
    "german": "Die Brücke über den Fluss wurde größer gebaut.",
    "chinese": "今天天气很好",
    "emoji": "a boat ⛵ on the sea 🌊",
    "space": "  two  spaces ",
    "code": "fn main() { println!(\"{}\", 1 << 4); }",
}
QUERY = "Instruct: Given a web search query, retrieve relevant passages\nQuery: "
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
torch.set_num_threads(1)


def special(*names):
    return [AddedToken(name, special=True, normalized=False) for name in names]


def qwen_tokenizer():
    """Byte pairs behind the split of Qwen2, with an end token appended."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([*TEXTS.values(), QUERY] * 3, trainer)
    made.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    end = ("<|endoftext|>", made.token_to_id("<|endoftext|>"))
    made.post_processor = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[end])
    return made


def mistral_tokenizer():
    """Pairs of letters with spaces as a visible mark and bytes for what is unknown, between a begin and an end token."""
    mark, ends = "▁", ["<unk>", "<s>", "</s>"]
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", mark)
    trained.pre_tokenizer = pre_tokenizers.Split(mark, "merged_with_next")
    lines = [text for name, text in TEXTS.items() if name not in ("chinese", "emoji")]
    trained.train_from_iterator(lines * 3, trainers.BpeTrainer(vocab_size=140, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    names = [*ends, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend(mark), normalizers.Replace(" ", mark)])
    made.decoder = decoders.Sequence([decoders.Replace(mark, " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens(special(*ends))
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return made


def randomise(model, seed):
    """Gains near one, biases as large as the products, matrices that keep the length of a row."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            drawn = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                weight.copy_(1 + 0.2 * drawn)
            elif name.endswith("bias"):
                weight.copy_(0.7 * drawn)
            else:
                weight.copy_(drawn * (0.6 if "embed" in name else weight.shape[-1] ** -0.5))


def qwen2(seed):
    made = qwen_tokenizer()
    config = Qwen2Config(
        vocab_size=made.get_vocab_size(),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )
    model = Qwen2Model(config).eval()
    randomise(model, seed)
    settings = {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 200, "pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    return made, model, settings, {"is_causal": False}, ["layer_types"]


def mistral(seed):
    made = mistral_tokenizer()
    config = MistralConfig(
        vocab_size=made.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        sliding_window=160,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    model = MistralModel(config).eval()
    randomise(model, seed + 1)
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "model_max_length": 1000000000000000019884624838656,
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "add_bos_token": True,
        "add_eos_token": True,
    }
    return made, model, settings, {}, ["head_dim", "layer_types"]


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def lay(folder, made, model, settings, more, drop):
    """The folder as it is published: the configuration as transformers 4 writes it, bf16 weights, sentence-transformers' files."""
    with tempfile.TemporaryDirectory() as place:
        model.to(torch.bfloat16).save_pretrained(place)
        config = json.loads((Path(place) / "config.json").read_text())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes((Path(place) / "model.safetensors").read_bytes())
    rope = config.pop("rope_parameters")
    for field in [*drop, "transformers_version", "dtype"]:
        config.pop(field, None)
    dump(folder / "config.json", {**config, "rope_theta": rope["rope_theta"], "torch_dtype": "bfloat16", **more})
    made.save(str(folder / "tokenizer.json"))
    dump(folder / "tokenizer_config.json", settings)
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths))
    ]
    dump(folder / "modules.json", listed)
    dump(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": config["hidden_size"], "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False})
    dump(folder / "config_sentence_transformers.json", {"prompts": {"query": QUERY, "document": ""}, "default_prompt_name": None})


def reference(name, folder, seed, causal):
    """Ids, and the unit row of the last token."""
    from sentence_transformers import SentenceTransformer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    library = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    tensors, cases, far = {}, [], 0.0
    for prompt, prefix in [("query", QUERY), ("document", "")]:
        for text_name, text in TEXTS.items():
            ids = tokenizer(prefix + text)["input_ids"]
            with torch.no_grad():
                rows = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
                other = model(input_ids=torch.tensor([[*ids, ids[-1]]])).last_hidden_state[0]
            if len(ids) > 2:
                # The first row of a causal model does not see what comes behind.
                assert (rows[0] - other[0]).abs().max().item() < 1e-5 or not causal, (name, text_name)
                assert (rows[0] - other[0]).abs().max().item() > 1e-4 or causal, (name, text_name)
            key = f"text/{text_name}/{prompt}"
            tensors[key] = F.normalize(rows[-1], dim=0).contiguous()
            theirs = library.encode(text, prompt=prefix, normalize_embeddings=True, convert_to_tensor=True)
            far = max(far, (tensors[key] - theirs).abs().max().item())
            cases.append({"kind": "text", "name": text_name, "prompt": prompt, "prompt_text": prefix, "text": text, "input_ids": ids, "embedding": key})
    assert far < 2e-6, (name, far)
    print(f"{name}: {len(cases)} cases, {far:.1e} from sentence-transformers")
    manifest = {"model": name, "seed": seed, "compute": "float32, eager attention", "pooling": "last", "normalize": True, "cases": cases}
    return tensors, manifest


def main(seed, checkpoints, refs):
    refs.mkdir(parents=True, exist_ok=True)
    for name, make, causal in [("qwen2-tiny", qwen2, False), ("mistral-tiny", mistral, True)]:
        folder = checkpoints / name
        lay(folder, *make(seed))
        tensors, manifest = reference(name, folder, seed, causal)
        save_file(tensors, str(refs / f"{name}.safetensors"))
        dump(refs / f"{name}.json", manifest)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(int(sys.argv[1]), Path(sys.argv[2]) / "checkpoints", Path(sys.argv[2]) / "refs")
    else:
        main(5, GOLDEN / "checkpoints", GOLDEN / "refs")

"""Vectors of chunks of a text that is read whole, by transformers.

  python chunks.py

Reads tests/golden/checkpoints/{modernbert,nomic-bert}-tiny and writes tests/golden/refs/late-chunks.{json,safetensors}: of a text, the rows
of the last layer (transformers 5.23.0, torch 2.15.0, f32), their mean over each chunk of whole sentences of so many tokens at most, and
their mean over all. What the tokenizer puts in front belongs to the first chunk, and what it puts behind to the last.
"""
import json
import sys
from pathlib import Path

# A maker beside this one carries the name of a package, so this folder must not be searched.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoModel  # noqa: E402

GOLDEN = Path(__file__).resolve().parent.parent
TEXT = ("Berlin is the capital of Germany. The city has more than three million people. It lies on the river Spree! "
        "Does it have an old centre? Yes. Museums stand on an island in the river, and one of them holds a gate.")


def sentences(text):
    """First byte of each: behind the space that follows an end mark."""
    starts, at = [0], 0
    for mark in range(len(text) - 1):
        if text[mark] in ".!?" and text[mark + 1] == " ":
            starts.append(mark + 2)
    return starts


def first_tokens(offsets, special):
    """Of each sentence, the first token that ends behind its beginning; tokens around the text are not counted."""
    tokens = [row for row, around in enumerate(special) if not around]
    return [next(at for at, row in enumerate(tokens) if offsets[row][1] > start) for start in sentences(TEXT)]


def chunks(offsets, special, most):
    """Rows of each chunk: whole sentences, `most` tokens at most."""
    tokens, firsts = [row for row, around in enumerate(special) if not around], first_tokens(offsets, special)
    cuts, start = [0], 0
    while len(tokens) - start > most:
        start = max(first for first in firsts if start < first <= start + most)
        cuts.append(start)
    rows = [0] + [tokens[cut] for cut in cuts[1:]] + [len(special)]
    return list(zip(rows[:-1], rows[1:]))


def main():
    cases, tensors = [], {}
    for name in ["modernbert-tiny", "nomic-bert-tiny"]:
        folder = GOLDEN / "checkpoints" / name
        model = AutoModel.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager").float().eval()
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding(), tokenizer.no_truncation()
        found = tokenizer.encode(TEXT)
        with torch.no_grad():
            rows = model(input_ids=torch.tensor([found.ids]), attention_mask=torch.ones(1, len(found.ids), dtype=torch.long)).last_hidden_state[0]
        unit = lambda x: torch.nn.functional.normalize(x, dim=-1)  # noqa: E731
        tensors[f"{name}/whole"] = unit(rows.mean(0))
        firsts = first_tokens(found.offsets, found.special_tokens_mask) + [sum(1 for around in found.special_tokens_mask if not around)]
        longest = max(b - a for a, b in zip(firsts, firsts[1:]))
        for most in [longest, 2 * longest]:
            ranges = chunks(found.offsets, found.special_tokens_mask, most)
            tensors[f"{name}/{most}"] = torch.stack([unit(rows[a:b].mean(0)) for a, b in ranges]).contiguous()
            cases.append({"model": name, "most": most, "text": TEXT, "input_ids": found.ids, "rows": ranges,
                          "chunks": f"{name}/{most}", "whole": f"{name}/whole"})
    (GOLDEN / "refs" / "late-chunks.json").write_text(json.dumps({"transformers": "5.23.0", "torch": "2.15.0", "cases": cases}, indent=1) + "\n")
    save_file(tensors, str(GOLDEN / "refs" / "late-chunks.safetensors"))


if __name__ == "__main__":
    main()

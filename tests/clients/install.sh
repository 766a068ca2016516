#!/bin/sh
# Published clients of the server, in a Python environment in the user's cache; says so and ends well where they cannot be had.
set -eu
cd "$(dirname "$0")"
folder="${XDG_CACHE_HOME:-$HOME/.cache}/omniburn/clients"
if cmp -s requirements.txt "$folder/installed"; then
    exit 0
fi
if ! python3 -m venv --clear "$folder" >/dev/null 2>&1; then
    echo "clients of the server: NOT INSTALLED, python3 has no venv here" >&2
    exit 0
fi
if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement requirements.txt; then
    echo "clients of the server: NOT INSTALLED, the packages cannot be had here" >&2
    exit 0
fi
cp requirements.txt "$folder/installed"

#!/bin/sh
# Published clients of the server and what drives a browser, from PyPI and npm, in the user's cache; says so and ends well where
# they cannot be had.
set -eu
cd "$(dirname "$0")"
folder="${XDG_CACHE_HOME:-$HOME/.cache}/omniburn/clients"
if cat requirements.txt packages.txt | cmp -s - "$folder/installed"; then
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
# Clients in JavaScript, and what drives a browser over the page, where there is npm.
if command -v npm >/dev/null 2>&1; then
    mkdir -p "$folder/page"
    xargs npm install --silent --no-audit --no-fund --prefix "$folder/page" <packages.txt ||
        echo "clients in JavaScript, the page in a browser: NOT INSTALLED, the packages cannot be had here" >&2
fi
cat requirements.txt packages.txt >"$folder/installed"

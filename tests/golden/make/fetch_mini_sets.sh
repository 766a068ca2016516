#!/bin/sh
# Puts the sets that the shipped model is measured on where `cargo xtask eval-mini` looks for them: the drawings of the npm
# packages @iconify-json/openmoji and @iconify-json/noto, the pictures, captions and voices of Debian's
# tuxpaint-stamps-default, and Debian's synthesiser flite. They are under licences of their own and never committed.
# Does nothing where they are there.
#   fetch_mini_sets.sh [FOLDER]     FOLDER: $OMNIBURN_MINI_SETS, else ~/.cache/omniburn/mini-sets
set -eu
folder=${1:-${OMNIBURN_MINI_SETS:-$HOME/.cache/omniburn/mini-sets}}
[ -f "$folder/complete" ] && exit 0
mkdir -p "$(dirname "$folder")"
# Within one file system, and moved into place when it is whole: an interrupted run leaves nothing half there.
work=$(mktemp -d "$(dirname "$folder")/.mini-sets.XXXXXX")
trap 'rm -rf "$work"' EXIT
# The download runs as a user of its own where there is one.
chmod 755 "$work"
(
    cd "$work"
    mkdir new
    for set in openmoji@1.2.29 noto@1.2.9; do
        npm pack --silent "@iconify-json/$set" >/dev/null
        name=${set%@*}
        mkdir "$name"
        tar xzf iconify-json-"$name"-*.tgz -C "$name"
        mkdir "new/$name"
        cp "$name/package/icons.json" "$name/package/chars.json" "new/$name/"
    done
    apt-get download -qq tuxpaint-stamps-default flite libflite1 2>/dev/null
    # What flite is linked with, though it writes to a file here; its name changed between releases.
    apt-get download -qq libasound2 2>/dev/null || apt-get download -qq libasound2t64 2>/dev/null
    for package in *.deb; do dpkg -x "$package" deb; done
    cp -r deb/usr/share/tuxpaint/stamps new/stamps
    mkdir new/flite
    cp deb/usr/bin/flite new/flite/
    find deb/usr/lib \( -name 'libflite*' -o -name 'libasound.so*' \) -exec cp -P {} new/flite/ \;
    touch new/complete
)
rm -rf "$folder"
mv "$work/new" "$folder"

#!/bin/sh
# Puts files that people have (photos, recordings, films, documents) where the tests look for them: Debian's package
# forensics-samples-files and the npm package audio-lena. Does nothing where they are there. They are large and under
# licences of their own, so they are never committed; samples.sha256 beside this script says which bytes are meant.
#   fetch_samples.sh [FOLDER]     FOLDER: $OMNIBURN_TEST_SAMPLES, else ~/.cache/omniburn/samples
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-${OMNIBURN_TEST_SAMPLES:-$HOME/.cache/omniburn/samples}}

complete() {
    [ -d "$1" ] || return 1
    if command -v sha256sum >/dev/null; then
        (cd "$1" && sha256sum --quiet -c "$here/samples.sha256" >/dev/null 2>&1)
    else
        (cd "$1" && shasum -a 256 -c "$here/samples.sha256" >/dev/null 2>&1)
    fi
}

complete "$folder" && exit 0
mkdir -p "$(dirname "$folder")"
# Within one file system, and moved into place when it is whole: an interrupted run leaves nothing half there.
work=$(mktemp -d "$(dirname "$folder")/.samples.XXXXXX")
trap 'rm -rf "$work"' EXIT
# The download runs as a user of its own where there is one.
chmod 755 "$work"
(
    cd "$work"
    npm pack --silent audio-lena@3.0.1 >/dev/null
    tar xzf audio-lena-*.tgz
    mkdir -p new/lena
    cp package/lena* new/lena/
    cp -r package/audacity package/logic new/lena/
    apt-get download -qq forensics-samples-files 2>/dev/null
    dpkg -x forensics-samples-files_*.deb deb
    cp -r deb/usr/share/forensics-samples/original-files new/forensics
)
if ! complete "$work/new"; then
    echo "the sample files are not those of samples.sha256" >&2
    exit 1
fi
rm -rf "$folder"
mv "$work/new" "$folder"

#!/usr/bin/env bash
# Installs a Swift toolchain for Linux into one folder; nothing else on this computer changes. Needs root and mmdebstrap.
#
#   toolchain.sh [FOLDER]        default: CLUE_SWIFT, else .cache/swift in the checkout
#
#   FOLDER/root/    Debian trixie with Swift 6.0 (compiler, SwiftPM, XCTest, swift-format), SQLite, OpenSSL and ONNX Runtime's
#                   C headers; its library is the Python wheel's, test.sh puts it there
#
# apt checks the packages by Debian's signature. A folder that is complete is left alone. CLUE_DEBIAN_MIRROR names a Debian
# mirror where apt's own sources have none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
folder=${1:-${CLUE_SWIFT:-$checkout/.cache/swift}}
packages=swiftlang,libstdc++-14-dev,libc6-dev,g++,libsqlite3-dev,libssl-dev

wanted=$(sha256sum "$here/toolchain.sh" | cut -d' ' -f1)
if [ "$(cat "$folder/complete" 2>/dev/null)" = "$wanted" ]; then
    echo "$folder is complete"
    exit 0
fi
refuse() { echo "toolchain.sh: $1" >&2; exit 2; }
[ "$(id -u)" = 0 ] || refuse "a system in a folder is made and entered by root only: run it as root"
command -v mmdebstrap >/dev/null || refuse "mmdebstrap is missing: apt-get install mmdebstrap"
# shellcheck disable=SC2016
site='$(SITE)' # for apt, not for the shell
mirror=${CLUE_DEBIAN_MIRROR:-$(apt-get indextargets --format "$site" 'Created-By: Packages' | grep '/debian$' | head -n 1 || true)}
[ -n "$mirror" ] || refuse "apt has no Debian source: set CLUE_DEBIAN_MIRROR to a mirror's address"

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
rm -rf --one-file-system "$folder/complete" "$folder/root"
echo "packages from $mirror"
# the headers without the library that belongs to them: its own dependencies are many, and the wheel's is newer
# shellcheck disable=SC2016
headers='cd "$1/tmp" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq download libonnxruntime-dev &&
    dpkg -x libonnxruntime-dev_*.deb unpacked && mv unpacked/usr/include/onnxruntime "$1/usr/include/" &&
    rm -r unpacked libonnxruntime-dev_*.deb'
mmdebstrap --quiet --variant=apt --include="$packages" --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook="$headers" trixie "$folder/root" "$mirror"
mkdir -p "$folder/root/checkout" "$folder/root/scratch" "$folder/root/material"
[ -f "$folder/root/usr/include/onnxruntime/onnxruntime_c_api.h" ] || refuse "no header of ONNX Runtime was unpacked"
echo "$wanted" >"$folder/complete"
du -sh "$folder" | cut -f1

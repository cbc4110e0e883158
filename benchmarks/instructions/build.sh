#!/usr/bin/env bash
# Builds the emulator that counts instructions: QEMU's qemu-aarch64 (user mode, dynamic, with plugins) and counter.c.
#
#   build.sh [FOLDER]        default: CLUE_QEMU_PLUGIN, else .cache/qemu-plugin in the checkout
#
#   FOLDER/qemu-aarch64      the emulator, from Debian's source package of qemu (suite CLUE_QEMU_SUITE, default trixie)
#   FOLDER/libcounter.so     the plugin of this folder
#   FOLDER/version           the package's version
#
# Fetches: the source package (about 40 MB, apt checks it by Debian's signature) and meson from the Python package index,
# into a virtual environment of FOLDER. Installs nothing; it needs gcc, ninja, pkg-config, dpkg-dev, python3 with venv, and
# libglib2.0-dev. A step that is done is not done again: run it again
# after an interruption. CLUE_DEBIAN_MIRROR names a Debian mirror where apt's own sources have none; JOBS is the number of
# compilers at once (default 2).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
folder=${1:-${CLUE_QEMU_PLUGIN:-$checkout/.cache/qemu-plugin}}
suite=${CLUE_QEMU_SUITE:-trixie}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

missing=()
for tool in gcc ninja pkg-config dpkg-source python3; do command -v "$tool" >/dev/null || missing+=("$tool"); done
pkg-config --exists 'glib-2.0 >= 2.66' 2>/dev/null || missing+=("libglib2.0-dev")
[ ${#missing[@]} -eq 0 ] || { echo "build.sh: missing: ${missing[*]}: install them (Debian: gcc ninja-build pkg-config dpkg-dev libglib2.0-dev)" >&2; exit 2; }

# 1. the source, by an apt of our own: its folders, Debian's key, one suite
if [ ! -f "$folder/source.done" ]; then
    rm -rf "$folder/apt" "$folder/source" "$folder/work"
    # shellcheck disable=SC2016
    site='$(SITE)' # for apt, not for the shell
    mirror=${CLUE_DEBIAN_MIRROR:-$(apt-get indextargets --format "$site" 'Created-By: Packages' | grep '/debian$' | head -n 1 || true)}
    [ -n "$mirror" ] || { echo "build.sh: apt has no Debian source: set CLUE_DEBIAN_MIRROR to a mirror's address" >&2; exit 2; }
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -f "$key" ] || { echo "build.sh: $key is missing: install debian-archive-keyring" >&2; exit 2; }
    apt="$folder/apt"
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/etc" "$folder/work"
    touch "$apt/state/status"
    echo "deb-src [signed-by=$key] $mirror $suite main" >"$apt/etc/sources.list"
    cat >"$apt/etc/apt.conf" <<END
Dir::State "$apt/state";
Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root";
Acquire::Languages "none";
END
    export APT_CONFIG="$apt/etc/apt.conf"
    echo "source package qemu of $suite from $mirror"
    apt-get -qq update
    (cd "$folder/work" && apt-get -qq source --download-only qemu && dpkg-source --no-check -x ./*.dsc "$folder/source")
    basename "$folder"/work/*.dsc .dsc | cut -d_ -f2 >"$folder/version"
    rm -rf "$folder/work" "$folder/apt"
    touch "$folder/source.done"
fi

# 2. only the user mode emulator of aarch64, with plugins and nothing that is optional
if [ ! -f "$folder/build/build.ninja" ]; then
    rm -rf "$folder/build"
    mkdir "$folder/build"
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'meson==1.9.1' setuptools
    (cd "$folder/build" && PATH="$folder/venv/bin:$PATH" ../source/configure --python="$folder/venv/bin/python" \
        --target-list=aarch64-linux-user --enable-plugins --without-default-features --disable-docs \
        --disable-tools --disable-system --disable-bsd-user --disable-install-blobs --disable-debug-info --disable-werror \
        --disable-download)
fi
ninja -C "$folder/build" -j "${JOBS:-2}" qemu-aarch64
cp "$folder/build/qemu-aarch64" "$folder/qemu-aarch64"

# 3. the plugin
# shellcheck disable=SC2046
gcc -shared -fPIC -O2 -Wall -I"$folder/source/include/qemu" $(pkg-config --cflags glib-2.0) \
    "$here/counter.c" -o "$folder/libcounter.so"
"$folder/qemu-aarch64" -version | head -n 1

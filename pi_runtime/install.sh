#!/usr/bin/env bash
# Installs clue-pi from a bundle's runtime/ folder on Raspberry Pi OS, 64 bit (README.md beside it says each step).
#
# The prefix gets venv-ID, a virtual environment of its own that is complete or absent, and the link venv to it, which
# changes in one step: an installation that breaks off leaves the former one as it was. Same files, same ID: a second run
# does nothing. Only wheels of requirements.lock are installed, by their hashes; nothing is compiled.
set -euo pipefail

die() {
    echo "install.sh: $1" >&2
    exit 2
}

usage() {
    cat <<'END'
usage: bash install.sh [options]
  --prefix DIR     where to install (default: /opt/clue-pi for root, else ~/.local/lib/clue-pi)
  --python PYTHON  the Python to use, 3.11 to 3.13 (default: the newest of these that is found)
  --litert         install ai-edge-litert too, for `clue-pi --engine litert`
  --wheels DIR     take the wheels from this folder and use no network (default: wheels/ beside install.sh, if there)
  --download DIR   only fetch the wheels for a Pi into DIR, on any computer; with --python-version 3.11, 3.12 or 3.13
  --service        also copy the bundle to PREFIX/bundle and run `clue-pi run --watch` as a systemd service (root)
  --dry-run        check everything and say what would be done
  --help           this text
example: bash ~/cifar.clue/runtime/install.sh --litert
END
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$here
[ -d "$source/pi_runtime" ] || source=$(dirname "$here")
prefix='' python='' wheels='' download='' python_version='' litert=0 service=0 dry=0
while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --python | --wheels | --download | --python-version)
        [ $# -ge 2 ] || die "$1 needs a value; see --help"
        case $1 in
        --prefix) prefix=$2 ;;
        --python) python=$2 ;;
        --wheels) wheels=$2 ;;
        --download) download=$2 ;;
        --python-version) python_version=$2 ;;
        esac
        shift
        ;;
    --litert) litert=1 ;;
    --service) service=1 ;;
    --dry-run) dry=1 ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) die "unknown option $1; see --help" ;;
    esac
    shift
done
for part in pi_runtime/requirements.lock contract/schema.sql; do
    [ -f "$source/$part" ] || die "$source/$part is missing: copy the whole bundle, install.sh stays in its runtime/ folder"
done
locks=("$source/pi_runtime/requirements.lock")
[ $litert = 0 ] || locks+=("$source/pi_runtime/requirements-litert.lock")
requirements=()
for lock in "${locks[@]}"; do requirements+=(--requirement "$lock"); done

if [ -n "$download" ]; then
    command -v python3 >/dev/null || die "--download needs python3 with pip on this computer"
    arguments=()
    for tag in 2_34 2_31 2_28 2_27 2_17; do arguments+=(--platform "manylinux_${tag}_aarch64"); done
    python3 -m pip download --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --implementation cp --python-version "${python_version:-3.11}" "${arguments[@]}" --platform manylinux2014_aarch64 \
        --dest "$download" "${requirements[@]}"
    echo "The wheels for Python ${python_version:-3.11} on a 64-bit Pi are in $download: install.sh --wheels takes them."
    exit 0
fi

# --- what this device is

[ "$(uname -s)" = Linux ] || die "this is $(uname -s): clue-pi is for Linux"
case $(uname -m) in
aarch64) ;;
x86_64) echo "note: this is a computer with x86-64, not a Raspberry Pi" ;;
armv6l | armv7l | armv8l)
    die "this is a 32-bit system ($(uname -m)): onnxruntime has no wheels for it; install the 64-bit Raspberry Pi OS" ;;
*) die "this processor is $(uname -m): clue-pi needs aarch64 (a Pi with the 64-bit Raspberry Pi OS)" ;;
esac

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
if [ -z "$python" ]; then
    for candidate in python3.13 python3.12 python3.11 python3; do
        case $(version_of "$candidate" || true) in 3.11 | 3.12 | 3.13)
            python=$candidate
            break
            ;;
        esac
    done
    [ -n "$python" ] || die "no Python from 3.11 to 3.13 was found: Raspberry Pi OS bookworm (3.11) and trixie (3.13) have one"
fi
version=$(version_of "$python") || die "$python does not run: --python names a Python from 3.11 to 3.13"
case $version in 3.11 | 3.12 | 3.13) ;; *) die "$python is Python $version: clue-pi needs 3.11, 3.12 or 3.13" ;; esac
[ "$("$python" -c 'import struct; print(8 * struct.calcsize("P"))')" = 64 ] ||
    die "$python is a 32-bit program on a 64-bit kernel: install the 64-bit Raspberry Pi OS"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python has no venv module: sudo apt install python3-venv, then run this again"

if [ -z "$prefix" ]; then
    if [ "$(id -u)" = 0 ]; then prefix=/opt/clue-pi; else prefix=$HOME/.local/lib/clue-pi; fi
fi
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
if [ -z "$wheels" ] && [ -d "$here/wheels" ]; then wheels=$here/wheels; fi
if [ -n "$wheels" ]; then
    [ -d "$wheels" ] || die "--wheels $wheels: there is no such folder; make it with --download on another computer"
    wheels=$(cd "$wheels" && pwd)
fi
if [ $service = 1 ]; then
    bundle=$(dirname "$here")
    [ -f "$bundle/manifest.json" ] || die "--service runs a bundle: start install.sh from the runtime/ folder of one"
    unit=$source/pi_runtime/clue-pi.service
    [ -f "$unit" ] || die "this runtime has no clue-pi.service: export the bundle again"
    [ $dry = 1 ] || [ "$(id -u)" = 0 ] || die "--service needs root: sudo bash $0 --service"
    [ "$prefix" = /opt/clue-pi ] || die "--service is made for the prefix /opt/clue-pi: leave --prefix out"
    [ $dry = 1 ] || command -v systemctl >/dev/null || die "--service needs systemd, and there is no systemctl"
fi

above=$prefix
while [ ! -e "$above" ]; do above=$(dirname "$above"); done
[ -w "$above" ] || die "$above may not be written by $(id -un): use sudo or another --prefix"
needed=$((litert ? 700 : 400)) # MiB: pip unpacks beside what it has fetched
free=$(df -Pm "$above" | awk 'NR == 2 { print $4 }')
[ "$free" -ge "$needed" ] || die "$above has $free MiB free, the installation needs $needed: free some or use another --prefix"

# --- the installation

id=$({
    echo "$version $litert $(uname -m)"
    cd "$source" && find pi_runtime contract -type f ! -name '*.pyc' | LC_ALL=C sort | xargs sha256sum
} | sha256sum | cut -c 1-12)
venv=$prefix/venv-$id
if [ "$(id -u)" = 0 ]; then commands=/usr/local/bin; else commands=$HOME/.local/bin; fi
case $prefix in /opt/clue-pi | "$HOME/.local/lib/clue-pi") ;; *) commands='' ;; esac

if [ $dry = 1 ]; then
    echo "$(uname -m), $python ($version), $free MiB free in $above: fit"
    if [ -f "$venv/complete" ]; then echo "already there: $venv"; else echo "would make $venv from ${wheels:-the package index}"; fi
    echo "would link $prefix/venv to it${commands:+, and $commands/clue-pi}"
    if [ $service = 1 ]; then echo "would copy $bundle to $prefix/bundle and enable clue-pi.service"; fi
    exit 0
fi

mkdir -p "$prefix"
exec 9>"$prefix/.lock"
flock --nonblock 9 || die "another installation into $prefix is running: wait until it ends"

if [ -f "$venv/complete" ]; then
    echo "clue-pi is installed already: $venv"
else
    trap 'rm -rf "$venv"' EXIT
    rm -rf "$venv"
    echo "making $venv with Python $version"
    "$python" -m venv "$venv"
    offline=()
    [ -z "$wheels" ] || offline=(--no-index --find-links "$wheels")
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes \
        ${offline[@]+"${offline[@]}"} "${requirements[@]}" ||
        die "pip could not install the wheels (its message is above); nothing was changed"
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp -R "$source/pi_runtime" "$source/contract" "$site/"
    cat >"$venv/bin/clue-pi" <<END
#!$venv/bin/python
import sys

from pi_runtime.cli import main

sys.exit(main())
END
    chmod 755 "$venv/bin/clue-pi"
    "$venv/bin/python" -m compileall -q "$site/pi_runtime"
    "$venv/bin/clue-pi" --help >/dev/null || die "the installed clue-pi does not start; nothing was changed"
    "$venv/bin/python" -c 'import cryptography, jsonschema, numpy, onnxruntime, PIL, safetensors' ||
        die "a package does not load on this device; nothing was changed"
    touch "$venv/complete"
    sync
    trap - EXIT
fi

former=$(readlink "$prefix/venv" || true)
ln -sfn "venv-$id" "$prefix/venv.new"
mv -T "$prefix/venv.new" "$prefix/venv"
if [ -n "$commands" ]; then
    mkdir -p "$commands"
    ln -sfn "$prefix/venv/bin/clue-pi" "$commands/clue-pi.new"
    mv -T "$commands/clue-pi.new" "$commands/clue-pi"
fi
# the former one stays for processes that still run from it; older ones go
for old in "$prefix"/venv-*; do
    name=$(basename "$old")
    if [ "$name" != "venv-$id" ] && [ "$name" != "$former" ]; then rm -rf "$old"; fi
done

if [ $service = 1 ]; then
    if ! cmp -s "$bundle/manifest.sha256" "$prefix/bundle/manifest.sha256"; then
        rm -rf "$prefix/bundle.part"
        cp -R "$bundle" "$prefix/bundle.part"
        chmod -R go+rX,go-w "$prefix/bundle.part"
        sync
        rm -rf "$prefix/bundle.old"
        [ ! -e "$prefix/bundle" ] || mv -T "$prefix/bundle" "$prefix/bundle.old"
        mv -T "$prefix/bundle.part" "$prefix/bundle"
        rm -rf "$prefix/bundle.old"
    fi
    id -u clue-pi >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin clue-pi
    install -m 644 "$unit" /etc/systemd/system/clue-pi.service
    systemctl daemon-reload
    systemctl enable clue-pi.service
    systemctl restart clue-pi.service
    echo "the service clue-pi runs: systemctl status clue-pi"
fi
echo "done: ${commands:-$prefix/venv/bin}/clue-pi"
if [ -f "$(dirname "$here")/manifest.json" ]; then echo "next: clue-pi check $(dirname "$here")"; fi

#!/usr/bin/env bash
# Fetches what runs an aarch64 Python on this computer into one folder; nothing is installed.
#
#   fetch.sh [FOLDER]        default: CLUE_AARCH64, else .cache/aarch64 in the checkout
#
#   FOLDER/qemu-aarch64      QEMU's user mode emulator, 10 or newer (7.2 crashes in onnxruntime), one static file
#   FOLDER/root/             Debian's Python 3.11 for arm64 with its libraries, as on Raspberry Pi OS
#   FOLDER/site/             the wheels of pi_runtime/requirements*.lock for aarch64
#
# apt checks the packages by Debian's signature, pip the wheels by the hashes of the lock files. A folder that is complete
# is left alone. CLUE_DEBIAN_MIRROR names a Debian mirror where apt's own sources have none; PIP is the pip to use.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
folder=${1:-${CLUE_AARCH64:-$checkout/.cache/aarch64}}
locks=("$checkout/pi_runtime/requirements.lock" "$checkout/pi_runtime/requirements-litert.lock")
platforms=(manylinux_2_34_aarch64 manylinux_2_31_aarch64 manylinux_2_28_aarch64 manylinux_2_27_aarch64
    manylinux_2_17_aarch64 manylinux2014_aarch64)
python_packages=(python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 zlib1g libexpat1
    libssl3 libffi8 libsqlite3-0 libbz2-1.0 liblzma5 libuuid1 libncursesw6 libtinfo6 libreadline8 libcrypt1
    libgcc-s1 libstdc++6)

wanted=$(cat "$here/fetch.sh" "${locks[@]}" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$folder/complete" 2>/dev/null)" = "$wanted" ]; then
    echo "$folder is complete"
    exit 0
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
rm -rf "$folder/complete" "$folder/root" "$folder/site" "$folder/qemu-aarch64"

# an apt of our own: its folders, Debian's key, two suites
# shellcheck disable=SC2016
site='$(SITE)' # for apt, not for the shell
mirror=${CLUE_DEBIAN_MIRROR:-$(apt-get indextargets --format "$site" 'Created-By: Packages' | grep '/debian$' | head -n 1 || true)}
[ -n "$mirror" ] || { echo "fetch.sh: apt has no Debian source: set CLUE_DEBIAN_MIRROR to a mirror's address" >&2; exit 2; }
key=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$key" ] || { echo "fetch.sh: $key is missing: install debian-archive-keyring" >&2; exit 2; }
apt="$folder/apt"
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/etc" "$apt/debs"
touch "$apt/state/status"
host=$(dpkg --print-architecture)
cat >"$apt/etc/sources.list" <<END
deb [signed-by=$key arch=$host] $mirror trixie main
deb [signed-by=$key arch=arm64] $mirror bookworm main
END
cat >"$apt/etc/apt.conf" <<END
Dir::State "$apt/state";
Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architectures { "$host"; "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
END
export APT_CONFIG="$apt/etc/apt.conf"
echo "packages from $mirror"
apt-get -qq update
(cd "$apt/debs" && rm -f ./*.deb &&
    apt-get -qq download "qemu-user:$host" "${python_packages[@]/%/:arm64}")

mkdir -p "$apt/qemu" "$folder/root"
dpkg -x "$apt"/debs/qemu-user_*.deb "$apt/qemu"
cp "$apt/qemu/usr/bin/qemu-aarch64" "$folder/qemu-aarch64"
for package in "$apt"/debs/*_arm64.deb; do
    [[ $package == */qemu-user_* ]] || dpkg -x "$package" "$folder/root"
done
rm -rf "$apt/qemu"

arguments=()
for platform in "${platforms[@]}"; do arguments+=(--platform "$platform"); done
for lock in "${locks[@]}"; do arguments+=(--requirement "$lock"); done
${PIP:-python3.11 -m pip} install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --implementation cp --python-version 3.11 "${arguments[@]}" --target "$folder/site"
"$folder/qemu-aarch64" -version | head -n 1
"$here/python.sh" "$folder" -c 'import onnxruntime, platform, sys
print("Python", sys.version.split()[0], platform.machine(), "onnxruntime", onnxruntime.__version__)'
rm -rf "$apt"
echo "$wanted" >"$folder/complete"
du -sh "$folder" | cut -f1

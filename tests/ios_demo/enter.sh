#!/usr/bin/env bash
# Runs a command inside the folder of toolchain.sh: enter.sh FOLDER COMMAND ...
#
# Inside, /checkout is this checkout (its git folder and caches too), /scratch is FOLDER/scratch for what is built, and /material is what
# CLUE_MATERIAL names (a folder with bundles and records for the tests). The mounts are seen by the command alone and end with it.
set -euo pipefail
folder=$(cd "$1" && pwd)
shift
checkout=$(cd "$(dirname "$0")/../.." && pwd)
material=${CLUE_MATERIAL:-$folder/material}
mkdir -p "$folder/scratch" "$material"
# shellcheck disable=SC2016
exec unshare --mount --pid --fork --kill-child sh -c '
    root=$1/root; checkout=$2; material=$3; scratch=$1/scratch; shift 3
    mount -t proc proc "$root/proc" && mount --bind "$checkout" "$root/checkout" && mount --bind "$scratch" "$root/scratch" &&
        mount --bind "$material" "$root/material" &&
        exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin LANG=C.UTF-8 "$@"
' sh "$folder" "$checkout" "$(cd "$material" && pwd)" "$@"

#!/usr/bin/env bash
# Builds and tests the Swift package on Linux against the real libonnxruntime, checks its format, parses every Swift file and type checks
# those for Apple platforms: test.sh [FOLDER], FOLDER being that of toolchain.sh. BIN is the folder of the environment's python.
#
# The digits request is compared with pi_runtime's: its bundle is that of `make demo`, in DEMO (default demo_out in the checkout).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
folder=${1:-${CLUE_SWIFT:-$checkout/.cache/swift}}
bin=${BIN:-$checkout/.venv/bin}
demo=${DEMO:-$checkout/demo_out}
export PYTHONPATH=$checkout OMP_NUM_THREADS=1

began=$SECONDS
step() { echo "== $1 ($((SECONDS - began)) s)"; }

step "toolchain"
"$here/toolchain.sh" "$folder"
folder=$(cd "$folder" && pwd)
# the library of the environment's wheel stands in the folder like an installed one
capi=$("$bin/python" -c 'import onnxruntime.capi as capi; print(capi.__path__[0])')
library=$(basename "$capi"/libonnxruntime.so.*)
libraries=$(echo "$folder"/root/usr/lib/*-linux-gnu)
if ! cmp -s "$capi/$library" "$libraries/$library"; then
    rm -f "$libraries"/libonnxruntime.so*
    cp "$capi/$library" "$libraries/"
    ln -s "$library" "$libraries/libonnxruntime.so"
    ln -s "$library" "$libraries/libonnxruntime.so.1"
fi

step "what pi_runtime does with the digits request"
[ -f "$demo/digits.clue/manifest.json" ] || "$bin/python" -c 'from clue_mobile.cli import main; main()' demo --out "$demo"
export CLUE_MATERIAL=$folder/material
rm -rf "$CLUE_MATERIAL"
"$bin/python" "$here/make_reference.py" "$demo" "$CLUE_MATERIAL"

inside() { "$here/enter.sh" "$folder" "$@"; }
step "format"
inside sh -c "cd /checkout/ios_demo && swift format lint --strict --recursive --parallel Package.swift Sources Tests Ort ExecuTorch ClueDemo"
step "build and test"
inside CLUE_DIGITS=/material swift test -j 2 --package-path /checkout/ios_demo --scratch-path /scratch/build
step "the packages that export writes"
"$bin/python" "$here/manifests.py" "$folder/scratch/exported" /scratch/exported "$here/enter.sh" "$folder"
step "one store for two runtimes"
"$bin/python" "$here/exchange.py" "$CLUE_MATERIAL/exchange" /material/exchange "$here/enter.sh" "$folder" /scratch/build/debug/clue-swift
step "parse and type check"
inside /checkout/tests/ios_demo/typecheck.sh
step "done"

#!/usr/bin/env bash
# python.sh FOLDER ARGUMENT...: the aarch64 Python of FOLDER (see fetch.sh) on an emulated Cortex-A76.
set -euo pipefail
folder=$1
shift
export PYTHONPATH="$folder/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONNOUSERSITE=1
exec "$folder/qemu-aarch64" -cpu cortex-a76 -L "$folder/root" "$folder/root/usr/bin/python3.11" "$@"

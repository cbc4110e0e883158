#!/usr/bin/env bash
# The CIFAR-10 table by protocol.md, a stage at a time; each goes on where it was.
#   benchmarks/methods/cifar10/cifar10.sh tune|table DATA MODELS OUT      MODELS: what models.sh wrote
set -euo pipefail
stage=$1 data=$2 models=$3 out=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=1
common=(--model resnet20 --data "$data" --validation 500 --weights "$models/whole.safetensors" --batch 256)
tuned=ga,rl,be,bs,clue,ssd,salun,iu,lu,unsir
case $stage in
tune)
    search() { clue-mobile tune "${common[@]}" --method "$1" --forget deer --trials 12 --trial-seconds "$2" --out "$out/tuned"; }
    search ga,rl,be,bs,clue,salun,lu,unsir 90
    search ssd,iu 240 # each trial reads all training images once
    # Fisher forgetting is not tuned; all 40,500 retained images, one at a time in ten backward passes, take half an hour (2,000 take 88 s)
    python - "$out/tuned/hyperparameters.json" "$here/hyperparameters.json" <<'PYTHON'
import json, sys
found = json.load(open(sys.argv[1]))
json.dump({**found, "fisher": {"samples": 2000}}, open(sys.argv[2], "w"), indent=1)
PYTHON
    ;;
table)
    clue-mobile compare "${common[@]}" --methods $tuned,fisher,logit_mask --classes airplane,frog --seeds 3 --jobs 2 \
        --retrained "airplane=$models/without_0.safetensors" --retrained "frog=$models/without_6.safetensors" \
        --hyperparameters "$here/hyperparameters.json" --out "$out/table"
    ;;
*)
    echo "cifar10.sh: $stage is no stage: tune, table" >&2
    exit 2
    ;;
esac

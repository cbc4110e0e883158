#!/usr/bin/env bash
# The small vision transformer on CIFAR-10, a stage at a time; each goes on where it was.
#   benchmarks/methods/vit/vit.sh train|tune|table|maps DATA MODELS OUT      MODELS: what train writes
# train: whole and without airplane, side by side, nine epochs with crops and flips, then three without augmentation.
# tune: deer, validation images only, four trials a method of at most four minutes of a core, two searches side by side; CLUE has five.
# table: airplane, one seed; RA and the attacks on 4,500 retained training images.
# maps: attention rollout before and after a request of BS for airplane and of CLUE for deer.
set -euo pipefail
stage=$1 data=$2 models=$3 out=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=1
common=(--model vit_small_patch4 --data "$data" --validation 500)
adam=(--optimizer adamw --weight-decay 0.05 --batch 128)
train() { # NAME [--exclude CLASS]: resumable after each epoch
    local name=$1
    [ -f "$models/$name.first.safetensors" ] || clue-mobile train "${common[@]}" "${adam[@]}" --lr 0.001 --epochs 9 \
        --out "$models/$name.first.safetensors" "${@:2}" 2>>"$models/$name.log"
    [ -f "$models/$name.safetensors" ] || clue-mobile train "${common[@]}" "${adam[@]}" --lr 0.0003 --epochs 3 --augment none \
        --weights "$models/$name.first.safetensors" --out "$models/$name.safetensors" "${@:2}" 2>>"$models/$name.log"
}
case $stage in
train)
    mkdir -p "$models"
    train whole --seed 0 &
    train without_0 --seed 1 --exclude airplane
    wait $!
    ;;
tune)
    search() { # METHODS FOLDER [OPTION ...]
        clue-mobile tune "${common[@]}" --weights "$models/whole.safetensors" --method "$1" --forget deer --batch 256 \
            --trials 4 --trial-seconds 240 --out "$out/$2" "${@:3}"
    }
    search ga,bs,clue tuned &
    search rl,be,salun tuned_too
    wait $!
    # three of CLUE's four ran out of time, the fourth left 52 % of the class: one more, what was found for ResNet-20
    search clue tuned_clue --seed 1 --hyperparameters "$here/../cifar10/hyperparameters.json" --trials 1 --trial-seconds 400
    python - "$here" "$out" tuned tuned_too tuned_clue <<'PYTHON'
import json, pathlib, shutil, sys
here, out = map(pathlib.Path, sys.argv[1:3])
found = {}
for folder in sys.argv[3:]:
    for method, fields in json.load(open(out / folder / "hyperparameters.json")).items():
        trials = json.load(open(out / folder / f"{method}.trials.json"))["trials"]
        best = min(trial["value"] for trial in trials if trial["state"] == "complete")
        if best < found.get(method, (1000,))[0]:
            found[method] = best, fields, folder
json.dump({method: fields for method, (_, fields, _) in found.items()}, open(here / "hyperparameters.json", "w"), indent=1)
for method in ("bs", "clue"):
    shutil.copy(out / found[method][2] / f"{method}.json", out / f"{method}.json")
PYTHON
    ;;
table)
    clue-mobile compare "${common[@]}" --weights "$models/whole.safetensors" --retrained "airplane=$models/without_0.safetensors" \
        --methods ga,rl,iu,be,bs,lu,unsir,clue,ssd,salun,logit_mask --classes airplane --batch 256 --retain-images 4500 --jobs 2 \
        --hyperparameters "$here/hyperparameters.json" --out "$out/table"
    ;;
maps)
    mkdir -p "$out"
    map() { # METHOD CLASS
        local name=$1_$2
        [ -d "$out/$name.clue" ] || clue-mobile export --model vit_small_patch4 --weights "$models/whole.safetensors" --target host \
            --runtime onnx --method "$1" --hyperparameters "$out/$1.json" --out "$out/$name.clue"
        clue-mobile forget "$out/$name.clue" --data "$data" --validation 500 --forget "$2" --store "$out/$name.store"
        clue-mobile explain "$out/$name.clue" --store "$out/$name.store" --data "$data" --validation 500 --forget "$2" --out "$here/$name.png"
    }
    map bs airplane # the nearest without retain data; CLUE's request for airplane ends in "the model collapsed", old weights kept
    map clue deer
    ;;
*)
    echo "vit.sh: $stage is no stage: train, tune, table, maps" >&2
    exit 2
    ;;
esac

#!/usr/bin/env bash
# The models of the study: ResNet-20 on CIFAR-10, whole, without airplane (0) and without frog (6), by one recipe.
#   benchmarks/methods/models.sh DATA START OUT
# START has resnet20_cifar10.safetensors and resnet20_cifar10_without_airplane.safetensors (36 and 32 epochs with crops and
# flips); the one without frog is trained alike here. All are then finished without augmentation at a small rate, so that the
# retain accuracy, measured on images as they are stored, comes near that of the published models. Resumable. What it
# wrote lies in benchmarks/methods/models.
set -euo pipefail
data=$1 start=$2 out=$3
export OMP_NUM_THREADS=1
mkdir -p "$out"
train() { [ -f "$2" ] || clue-mobile train --model resnet20 --data "$data" --validation 500 --out "$2" "${@:3}" 2>>"$out/$1.log"; }
finish() { train "$1" "$out/$1.safetensors" --weights "$2" --augment none --epochs 8 --lr 0.02 --batch 128 "${@:3}"; }
finish whole "$start/resnet20_cifar10.safetensors" --seed 2
finish without_0 "$start/resnet20_cifar10_without_airplane.safetensors" --seed 3 --exclude airplane
train without_6 "$out/without_6_first.safetensors" --epochs 32 --lr 0.1 --seed 3 --exclude frog
finish without_6 "$out/without_6_first.safetensors" --seed 3 --exclude frog

#!/bin/sh
# Builds clue_runner with g++ (or $CXX) against the libraries of the installed executorch package.
#   PYTHON=/path/to/python sh build.sh OUTPUT [more compiler flags, such as -O2]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
output=$1
shift
et=$("${PYTHON:-python3}" -c 'from importlib.util import find_spec as f; print(f("executorch").submodule_search_locations[0])')
# --no-as-needed: kernels and the XNNPACK delegate register themselves when loaded, nothing calls them by name
exec "${CXX:-g++}" -std=c++17 -Wall -Wextra "$@" \
    -DC10_USING_CUSTOM_GENERATED_MACROS -DET_EVENT_TRACER_ENABLED -DET_USE_THREADPOOL \
    -isystem "$et/include" -isystem "$et/include/executorch/runtime/core/portable_type/c10" \
    "$here/clue_program.cpp" "$here/clue_runner.cpp" -o "$output" \
    -L"$et/lib" -Wl,-rpath,"$et/lib" -Wl,--no-as-needed \
    -lexecutorch_kernels_optimized -lexecutorch_backend_xnnpack -lexecutorch_threadpool -lexecutorch

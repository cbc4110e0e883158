#!/usr/bin/env bash
# One request on all three runtimes (one_request.py): run.sh PYTHON. After `make test-android` and `make test-ios`, which build two of them.
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
cd "$checkout"
swift=$(cd "${CLUE_SWIFT:-$checkout/.cache/swift}" && pwd)
export PYTHONPATH=$checkout OMP_NUM_THREADS=1 CLUE_MATERIAL=$swift/material

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mvn -q -B -ntp -f android_demo/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath \
    -Dmdep.outputFile="$work/classpath"
"$python" "$here/one_request.py" "${DEMO:-demo_out}" "$CLUE_MATERIAL/one_request" --inside /material/one_request \
    --jvm "java -Djava.io.tmpdir=$work -cp android_demo/build/maven/classes:$(cat "$work/classpath") io.cluemobile.jvm.Main" \
    --swift "$checkout/tests/ios_demo/enter.sh $swift /scratch/build/debug/clue-swift"

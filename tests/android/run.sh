#!/usr/bin/env bash
# All that can be checked of android_demo/ on a computer without Android (docs/android.md, "What was run").
#
#   run.sh PYTHON        an interpreter with clue-mobile installed
#
# 1. tools: a JDK, Maven, aapt2, zipalign, apksigner, by apt where they are missing; jars by Maven into .cache/android
# 2. what pi_runtime computes in a request, and the demo app's sample bundle
# 3. ktlint on every Kotlin file and Gradle script, the documentation's too
# 4. an APK without code: resources and manifest linked, aligned, signed
# 5. Maven: the JVM's tests, calls of Java held against API 26, every Kotlin file and the documentation's Kotlin compiled against API 35
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
cache=$PWD/.cache/android
export PYTHONPATH=$PWD
began=$SECONDS
step() { echo "== $1 ($((SECONDS - began)) s)"; }

step "tools"
packages=()
command -v javac >/dev/null || packages+=(openjdk-17-jdk-headless)
command -v mvn >/dev/null || packages+=(maven)
command -v aapt2 >/dev/null || packages+=(aapt)
command -v zipalign >/dev/null || packages+=(zipalign)
command -v apksigner >/dev/null || packages+=(apksigner)
if [ ${#packages[@]} -gt 0 ]; then
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${packages[@]}"
fi
fetch() { # the jar GROUP:ARTIFACT:VERSION[:jar:CLASSIFIER] into the cache, once
    IFS=: read -r _ artifact version _ classifier <<<"$1"
    jar="$cache/$artifact-$version${classifier:+-$classifier}.jar"
    [ -f "$jar" ] || mvn -q -B -ntp org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
        -Dartifact="$1" -DoutputDirectory="$cache"
}
fetch "org.robolectric:android-all:$(sed -n 's#.*<android.version>\(.*\)</android.version>.*#\1#p' "$here/pom.xml")"
android=$jar
fetch com.pinterest.ktlint:ktlint-cli:1.7.1:jar:all
ktlint=$jar

step "what pi_runtime computes"
"$python" "$here/reference.py" --demo demo_out --out android_demo/build/reference
step "sample bundle"
"$python" tests/android/make_sample.py --demo demo_out
step "ktlint"
"$python" "$here/snippets.py" "$here/target"
(cd android_demo && java -jar "$ktlint" --relative '**/*.kt' '**/*.kts' '!build/**' '!sample/**' '../tests/android/target/scripts/*.kts')
step "assembly"
"$python" "$here/assemble.py" "$android" "$here/target" android_demo/sample
step "tests and compile"
mvn -B -ntp -f "$here/pom.xml" test
# what stands in for Android in the tests lies on the compiler's path, and must not be used
if grep -rl io/cluemobile/jvm "$here/library/target/classes" "$here/app/target/classes"; then
    echo "run.sh: these use src/jvm, which is no part of the library" >&2
    exit 1
fi
step "done"

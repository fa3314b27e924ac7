#!/bin/sh
# Installs what grpo.c needs, on Debian or Ubuntu: tools/deps.sh to build and run; tools/deps.sh test to test as well;
# tools/deps.sh code for rewards that run a model's programs; tools/deps.sh judge for a judge behind an HTTP endpoint
# (build again afterwards); tools/deps.sh report for the browser in which make check-report looks at reports; tools/deps.sh
# sass for what shows machine code (make check-cuda), from PyPI, into build/sass.
# This is the only list of packages. Quick where everything is installed already.
set -eu

packages="gcc libc6-dev make libpcre2-dev libyaml-dev libjansson-dev libutf8proc-dev"
case "${1-}" in
"") ;;
# What rewards run on is tested too: programs in a sandbox, an HTTP endpoint.
test) packages="$packages libcmocka-dev g++ libboost-context-dev bubblewrap python3 libcurl4-openssl-dev" ;;
code) packages="$packages bubblewrap python3 g++" ;;
judge) packages="$packages libcurl4-openssl-dev" ;;
report) packages="$packages libcmocka-dev chromium" ;;
sass)
    cd "$(dirname "$0")/.."
    [ ! -x build/sass/nvidia/cu13/bin/cuobjdump ] || exit 0
    exec python3 -m pip install --quiet --no-deps --target build/sass nvidia-cuda-cuobjdump==13.4.92 nvidia-cuda-nvdisasm==13.5.37
    ;;
*)
    echo "usage: tools/deps.sh [test|code|judge|report|sass]" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "tools/deps.sh: this is not Debian or Ubuntu; install what these packages are called here: $packages" >&2
    exit 1
fi

wanted=""
for p in $packages; do
    case "$(dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null || true)" in
    ?i*) ;;
    *) wanted="$wanted $p" ;;
    esac
done
if [ -z "$wanted" ]; then
    echo "tools/deps.sh: all installed: $packages"
    exit 0
fi

if [ "$(id -u)" = 0 ]; then
    root="env"
elif command -v sudo >/dev/null; then
    root="sudo env"
else
    echo "tools/deps.sh: neither root nor sudo; as root, run: apt-get install$wanted" >&2
    exit 1
fi

echo "tools/deps.sh: installing:$wanted"
export DEBIAN_FRONTEND=noninteractive
apt() { $root DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" </dev/null; }
apt update || echo "tools/deps.sh: apt-get update failed; trying with the lists that are here" >&2
# shellcheck disable=SC2086 # a list of words
apt install -y --no-install-recommends $wanted >/dev/null
echo "tools/deps.sh: done"

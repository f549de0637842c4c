# Gets what scripts/demo and scripts/test need on Debian or Ubuntu. Sourced by both; quick when nothing is missing.
# Every function says what it does; nothing is installed that is already there.

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "this needs root to run: $*; install sudo or run it as root"
    fi
}

# need_packages PACKAGE:COMMAND ...   installs each package whose command is not on PATH
need_packages() {
    local missing=() pair
    for pair in "$@"; do command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}"); done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || fail "please install ${missing[*]} (this script knows apt-get only)"
    say "installing ${missing[*]} (apt-get)"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null \
        || fail "apt-get could not install ${missing[*]}"
}

need_rust() {
    command -v cargo >/dev/null || { [ -x "$HOME/.cargo/bin/cargo" ] && PATH="$HOME/.cargo/bin:$PATH"; }
    command -v cargo >/dev/null || fail "the Rust toolchain is missing; get it from https://rustup.rs and run this again"
}

# need_bpy VERSION NAME   Blender VERSION as a Python module, in a folder of its own; needs Python 3.11. Exports NAME as its
# Python, or leaves it unset.
need_bpy() {
    local version=$1 name=$2 python
    local home="${XDG_CACHE_HOME:-$HOME/.cache}/kiln/bpy-$version"
    [ -z "${!name:-}" ] || { export "${name?}"; return; }
    if [ -x "$home/bin/python" ] && [ -e "$home/complete" ]; then
        export "$name=$home/bin/python"
        return
    fi
    # Debian's Python comes without what makes environments.
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        say "installing python3-venv (apt-get)"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null \
            || say "python3-venv could not be installed"
    fi
    for python in python3.11 python3 ''; do
        [ -n "$python" ] || { say "no Python 3.11 here: the tests with the wheel of bpy $version are left out"; return; }
        command -v "$python" >/dev/null && "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && break
    done
    say "getting Blender $version as a Python module (the wheel bpy, about 400 MB, once)"
    rm -rf "$home"
    "$python" -m venv "$home" && "$home/bin/pip" install -q --disable-pip-version-check "bpy==$version" \
        || fail "pip could not install bpy $version into $home"
    touch "$home/complete"
    export "$name=$home/bin/python"
}

# need_schemathesis NAME   schemathesis, which makes requests of an OpenAPI document, in a folder of its own; needs Python
# 3.11 or newer. Exports NAME as its program, or leaves it unset.
need_schemathesis() {
    local name=$1 version=4.32.5 python
    local home="${XDG_CACHE_HOME:-$HOME/.cache}/kiln/schemathesis-$version"
    [ -z "${!name:-}" ] || { export "${name?}"; return; }
    if [ -x "$home/bin/schemathesis" ] && [ -e "$home/complete" ]; then
        export "$name=$home/bin/schemathesis"
        return
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11 ''; do
        [ -n "$python" ] || { say "no Python 3.11 or newer here: the tests with schemathesis are left out"; return; }
        command -v "$python" >/dev/null && "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    done
    say "getting schemathesis $version (from PyPI, once)"
    rm -rf "$home"
    "$python" -m venv "$home" && "$home/bin/pip" install -q --disable-pip-version-check "schemathesis==$version" \
        || fail "pip could not install schemathesis $version into $home"
    touch "$home/complete"
    export "$name=$home/bin/schemathesis"
}

# need_trixie NAME   A Debian trixie root with a windowed Blender 4.3, made once in the cache folder (1.8 GB). Exports NAME
# as its folder, or leaves it unset. Only root can make it and run in it (scripts/in-trixie).
need_trixie() {
    local name=$1 mirror
    local home="${XDG_CACHE_HOME:-$HOME/.cache}/kiln/trixie"
    [ -z "${!name:-}" ] || { export "${name?}"; return; }
    if [ -e "$home/complete" ]; then
        export "$name=$home/root"
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        say "not root: the tests with Blender 4.3 from Debian trixie are left out"
        return
    fi
    need_packages debootstrap:debootstrap
    # The machine's own mirror where it runs Debian.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | grep -E '/debian/?$' | head -n 1) || true
    say "making a Debian trixie root with Blender 4.3 (1.8 GB, once)"
    rm -rf "$home"
    mkdir -p "$home"
    debootstrap --variant=minbase trixie "$home/root" "${mirror:-http://deb.debian.org/debian}" >"$home/log" 2>&1 \
        || { tail -n 5 "$home/log" >&2; fail "debootstrap could not make $home/root (see $home/log)"; }
    # How this machine reaches its mirror.
    cp -a /etc/apt/apt.conf.d/. "$home/root/etc/apt/apt.conf.d/"
    [ ! -e /etc/apt/auth.conf.d ] || cp -a /etc/apt/auth.conf.d "$home/root/etc/apt/"
    # Packages that ask or start services would want more than a folder.
    printf '#!/bin/sh\nexit 101\n' >"$home/root/usr/sbin/policy-rc.d"
    chmod +x "$home/root/usr/sbin/policy-rc.d"
    KILN_TEST_TRIXIE="$home/root" scripts/in-trixie sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get \
        install -y -qq --no-install-recommends blender xvfb libgl1-mesa-dri libegl1 && apt-get clean' >>"$home/log" 2>&1 \
        || { tail -n 5 "$home/log" >&2; fail "Blender could not be installed in $home/root (see $home/log)"; }
    touch "$home/complete"
    export "$name=$home/root"
}

# Gets what scripts/demo and scripts/test need on Debian or Ubuntu. Sourced by both; quick when nothing is missing.
# Every function says what it does; nothing is installed that is already there.

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# stage NAME   begins a stage; stage ''   prints the time of each
stages=()
stage() {
    local now=${EPOCHREALTIME/[.,]/}
    [ -z "${stage_name:-}" ] || stages+=("$(printf '%7.1f s  %s' "$(((now - stage_begun) / 100000))e-1" "$stage_name")")
    stage_name=$1 stage_begun=$now
    if [ -n "$1" ]; then say "$1"
    else say "time of each stage"; printf '%s\n' "${stages[@]}"
    fi
}

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

# need_rust [COMPONENT ...]   Rust of Cargo.toml's rust-version or newer, with these components
need_rust() {
    local wanted component home="${CARGO_HOME:-$HOME/.cargo}/bin"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    # A shell that was started before rustup's installer does not have this folder on its PATH.
    rust_is "$wanted" || [ ! -x "$home/cargo" ] || PATH="$home:$PATH"
    if ! rust_is "$wanted"; then
        command -v rustup >/dev/null || install_rustup
        use_rustup "$wanted"
    fi
    for component in "$@"; do
        cargo "${component#rust}" --version >/dev/null 2>&1 && continue
        say "adding $component to Rust (rustup)"
        quietly rustup component add "$component" || fail "rustup could not add $component: $(reason)"
    done
}

# rust_is VERSION   succeeds if there is a working Rust of at least this version
rust_is() {
    local have
    # A rustup without a toolchain has a cargo, which fails.
    have=$(rustc --version 2>/dev/null | cut -d ' ' -f 2) && cargo --version >/dev/null 2>&1 || return
    [ "$(printf '%s\n' "$1" "${have%%-*}" | sort -V | head -n 1)" = "$1" ]
}

# apt_has PACKAGE   succeeds if apt could install it. A name that others only mention is shown, too, as nothing.
apt_has() { [ -n "$(apt-cache show "$1" 2>/dev/null)" ]; }

install_rustup() {
    # Debian's rustup conflicts with Debian's rustc. If that is installed, rustup goes into the home folder instead.
    if command -v apt-cache >/dev/null && ! dpkg -s rustc >/dev/null 2>&1 \
        && { apt_has rustup || as_root apt-get update -qq; } && apt_has rustup; then
        need_packages rustup:rustup
        return
    fi
    need_packages curl:curl ca-certificates:update-ca-certificates
    say "installing Rust into ${CARGO_HOME:-$HOME/.cargo} and ${RUSTUP_HOME:-$HOME/.rustup} (rustup's installer, https://sh.rustup.rs)"
    local installer
    installer=$(mktemp)
    { quietly curl --proto '=https' --tlsv1.2 -sSf -o "$installer" https://sh.rustup.rs \
        && quietly sh "$installer" -y --no-modify-path --profile minimal --default-toolchain none; } \
        || fail "rustup's installer failed: $(reason)"
    rm -f "$installer"
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
}

# use_rustup VERSION   the stable toolchain of rustup. A default that the user has set is not changed.
use_rustup() {
    say "getting the stable Rust (rustup)"
    quietly rustup toolchain install stable --profile minimal || fail "rustup could not install Rust: $(reason)"
    if ! rustup default 2>/dev/null | grep -q .; then
        quietly rustup default stable || fail "rustup could not make the stable Rust the default: $(reason)"
    fi
    rust_is "$1" || export RUSTUP_TOOLCHAIN=stable
    rust_is "$1" || fail "Kiln needs Rust $1 or newer, and this is $(rustc --version 2>&1 | head -n 1); update it and run this again"
}

# quietly COMMAND ...   runs it with its output in a log; `reason` prints the line of it that says why it failed
quietly() {
    log="${XDG_CACHE_HOME:-$HOME/.cache}/kiln/setup.log"
    mkdir -p "${log%/*}"
    "$@" >"$log" 2>&1
}
reason() { grep -E '^(error|curl:)' "$log" | head -n 1 || tail -n 1 "$log"; }

# need_nextest   cargo-nextest, which runs each test in a process of its own with a time limit
need_nextest() {
    local version=0.9.151
    local home="${XDG_CACHE_HOME:-$HOME/.cache}/kiln/nextest-$version"
    PATH="$PATH:$home/bin"
    command -v cargo-nextest >/dev/null && return
    say "building cargo-nextest $version (once, some minutes)"
    # A debug build: it is built faster, and it only starts processes.
    CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --debug --root "$home" --version "=$version" \
        --no-default-features --features default-no-update cargo-nextest || fail "cargo could not install cargo-nextest"
}

# need_cargo_deb NAME   cargo-deb 3.8.0, which makes .deb packages: the one on PATH, or one that is built once into the cache
# folder. Exports NAME as its program.
need_cargo_deb() {
    local version=3.8.0 name=$1 home
    home="${XDG_CACHE_HOME:-$HOME/.cache}/kiln/cargo-deb-$version"
    [ -z "${!name:-}" ] || { export "${name?}"; return; }
    if [ "$(cargo-deb --version 2>/dev/null)" = "cargo-deb $version" ]; then
        export "$name=$(command -v cargo-deb)"
        return
    fi
    if [ ! -x "$home/bin/cargo-deb" ]; then
        say "building cargo-deb $version (from crates.io, once)"
        cargo install --quiet --locked --root "$home" "cargo-deb@$version" \
            || fail "cargo could not install cargo-deb $version into $home"
    fi
    export "$name=$home/bin/cargo-deb"
}

# say_how_to_install   how to have `kiln` as a command, where it is none yet.
say_how_to_install() {
    ! command -v kiln >/dev/null || return 0
    say "to have \`kiln\` as a command: scripts/install (into ~/.local/bin, with completions and manual pages)"
}

# make_venv PYTHON FOLDER PACKAGE   a new environment of this Python with a package; the file `complete` ends it
make_venv() {
    rm -rf "$2"
    "$1" -m venv "$2" && "$2/bin/pip" install -q --disable-pip-version-check "$3" || fail "pip could not install $3 into $2"
    touch "$2/complete"
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
    make_venv "$python" "$home" "bpy==$version"
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
    make_venv "$python" "$home" "schemathesis==$version"
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

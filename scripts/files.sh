# The files of an installed Kiln and their places: the one list behind scripts/install, the archive and the .deb. Sourced.

# stage PROGRAM FOLDER [ZSH]   lays everything into FOLDER as it lies below a prefix such as ~/.local or /usr. The program
# itself makes its completions and manual pages. ZSH is the folder of zsh's completions below share/zsh; Debian's packages
# have another one than what people install themselves.
stage() {
    local program=$1 folder=$2 zsh=${3:-site-functions} shell target
    rm -rf "$folder"
    install -D -m 755 "$program" "$folder/bin/kiln"
    program=$folder/bin/kiln
    for shell in bash:bash-completion/completions/kiln "zsh:zsh/$zsh/_kiln" fish:fish/vendor_completions.d/kiln.fish; do
        target=$folder/share/${shell#*:}
        mkdir -p "${target%/*}"
        "$program" completions "${shell%%:*}" >"$target" || fail "$1 makes no completions for ${shell%%:*}"
    done
    "$program" man "$folder/share/man/man1" >/dev/null || fail "$1 makes no manual pages"
    # Without the time: the same program gives the same bytes.
    gzip -9n "$folder"/share/man/man1/*.1
    install -D -m 644 -t "$folder/share/doc/kiln" README.md CHANGELOG.md LICENSE
    chmod -R u=rwX,go=rX "$folder"
}

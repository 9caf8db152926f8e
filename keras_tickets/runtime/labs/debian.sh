# For the scripts beside: packages of a Debian release, whatever this machine runs,
# without root and without installing them. Mirrors, proxies and certificates are those
# of the machine's own package settings. Expects $work, a folder that the script removes
# in the end.
#
#     check_debian TOOL...         fails unless apt and the tools are here
#     read_lists "ARCH SUITE"...   reads what the suites have
#     download PACKAGE...          downloads packages to $work/debs

fail() {
    echo "$0: $*" >&2
    exit 1
}

check_debian() {
    local tool
    for tool in apt-get dpkg-deb "$@"; do
        command -v "$tool" >/dev/null ||
            fail "'$tool' is not here; this script needs a Debian machine with it."
    done
    machine=$(dpkg --print-architecture)
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$keyring" ] || fail "$keyring is missing (package debian-archive-keyring)."
}

# The mirrors that this machine's own settings name. Which of them is Debian's shows when
# it is asked: its packages are signed by Debian's key.
find_mirrors() {
    mapfile -t mirrors < <(
        apt-get indextargets --no-release-info \
            --format '$(COMPONENT) $(RELEASE) $(REPO_URI)' |
            awk '$1 == "main" && $2 !~ /security/ && !seen[$3]++ { print $3 }'
    )
    [ "${#mirrors[@]}" -gt 0 ] ||
        fail "the package settings of this machine (apt) name no mirror with 'main'."
}

# apt with lists, cache and sources of its own; proxies and certificates stay the machine's.
own_apt() {
    local tool=$1
    shift
    "$tool" -qq -o Dir::State="$work/apt" -o Dir::State::status="$work/apt/status" \
        -o Dir::Cache="$work/apt/cache" -o Dir::Etc::sourcelist="$work/apt/sources.list" \
        -o Dir::Etc::sourceparts=- -o Dir::Etc::preferencesparts=- \
        -o APT::Architecture="$machine" -o APT::Architectures::="$machine" \
        -o APT::Architectures::=arm64 -o Acquire::Languages=none \
        -o APT::Sandbox::User="$(id -un)" "$@"
}

read_lists() {
    local mirror wanted
    find_mirrors
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    touch "$work/apt/status"
    for mirror in "${mirrors[@]}"; do
        for wanted in "$@"; do
            echo "deb [arch=${wanted% *} signed-by=$keyring] $mirror ${wanted#* } main"
        done >"$work/apt/sources.list"
        own_apt apt-get update -o APT::Update::Error-Mode=any && return
    done
    fail "no mirror of this machine's package settings has Debian's $*; what they" \
        "answered is above."
}

download() {
    mkdir -p "$work/debs"
    (cd "$work/debs" && own_apt apt-get download "$@")
}

# Makes the environment that the scripts run in, or reuses the one that is there.
# Source it from a script in scripts/, then call `environment cpu` or `environment dev`.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $1"
    say "hint: $2"
    exit 2
}

# The first Python of at least 3.11 on the path.
find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11 or newer on the path" "install one; its name may be python3, python3.11 or newer"
}

# environment cpu: what users install. environment dev: the tools of ./scripts/test as well.
# environment all: the frameworks of the converters too, several gigabytes.
# environment docs: what users install, and what builds the site.
# What is installed is noted in .venv, so that the next run finds it and goes on at once.
environment() {
    local kind=$1 made python wanted
    wanted=$(cat pyproject.toml constraints.txt | cksum)
    if [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null; then
        for made in ".venv/made-$kind" $(more_than "$kind"); do
            if [ "$(cat "$made" 2>/dev/null)" = "$wanted" ]; then return; fi
        done
    else
        python=$(find_python)
        say "making .venv with $("$python" --version)"
        rm -rf .venv
        make_venv "$python"
    fi
    local packages=(-e '.[cpu]')
    if [ "$kind" = all ]; then packages=(-e '.[cpu,keras,pytorch,zoo]'); fi
    case $kind in
        dev | all) mapfile -t -O "${#packages[@]}" packages < <(group dev) ;;
        docs) mapfile -t -O "${#packages[@]}" packages < <(group docs) ;;
    esac
    say "installing ${packages[*]:1}"
    install "${packages[@]}"
    printf '%s\n' "$wanted" >".venv/made-$kind"
}

# The environments that hold all of another.
more_than() {
    case $1 in
        cpu) echo .venv/made-dev .venv/made-all .venv/made-docs ;;
        dev) echo .venv/made-all ;;
    esac
}

make_venv() {
    if command -v uv >/dev/null; then
        uv venv --quiet --python "$1" .venv
    else
        "$1" -m venv .venv ||
            fail "this Python cannot make an environment" "install its venv package (python3-venv), or uv"
    fi
}

install() {
    if command -v uv >/dev/null; then
        uv pip install --quiet --python .venv/bin/python --constraint constraints.txt "$@"
    else
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$@"
    fi
}

# A group of pyproject.toml; pip learned to read groups only lately.
group() {
    .venv/bin/python - "$1" <<'PYTHON'
import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["dependency-groups"][sys.argv[1]], sep="\n")
PYTHON
}

# Sourced by the scripts beside it: a virtual environment of the project's own, made once and renewed when its inputs
# change. Everything a script needs is installed here and nowhere else.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed" >&2
    return 1
}

# digest of what an installation depends on
inputs() {
    cat pyproject.toml setup.py requirements/*.txt "$@" | sha256sum | cut -d' ' -f1
}

# ready VENV STAMP: whether VENV was installed from these inputs
ready() {
    [ -f "$1/installed" ] && [ "$(cat "$1/installed")" = "$2" ]
}

# fresh VENV: an empty environment with a current pip
fresh() {
    local python
    python="$(find_python)"
    rm -rf "$1"
    "$python" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
}

#!/bin/sh
# install.sh SOURCE TARGET [PYTHON]: Postroom from its source, with exactly what the constraints pin, into a new
# virtual environment. The Dockerfile runs it, and so may a machine without Docker.
set -eu
source=$1 target=$2 python=${3:-python3}

"$python" -m venv "$target"
export PIP_CONSTRAINT="$source/constraints.txt" # for what the build needs, too
"$target/bin/pip" --disable-pip-version-check install --quiet "$source[front]"

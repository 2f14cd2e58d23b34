#!/bin/sh
# Installs recsys into a virtual environment; the Dockerfile runs it from the project's folder, and a test does.
#   install.sh libraries VENV EXTRAS   what it needs, at the versions of constraints.txt (a layer of its own: it is large)
#   install.sh recsys VENV             the project itself: a wheel is built and installed, nothing is downloaded
set -eu
part=$1 venv=$2
case $part in
libraries)
  python3 -m venv "$venv"
  # torch first and alone, so that nothing else pulls a larger build than the index has
  "$venv/bin/python" -m pip install --no-cache-dir --constraint constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
  "$venv/bin/python" container/requirements.py "$3" >/tmp/requirements.txt
  "$venv/bin/python" -m pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/requirements.txt
  ;;
recsys)
  wheels=$(mktemp -d)
  "$venv/bin/python" -m pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir "$wheels" .
  "$venv/bin/python" -m pip install --quiet --no-index --no-deps --ignore-installed "$wheels"/recsys-*.whl
  rm -r "$wheels"
  ;;
*)
  echo "install.sh: there is no part $part; give libraries or recsys." >&2
  exit 2
  ;;
esac

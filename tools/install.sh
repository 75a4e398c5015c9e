#!/usr/bin/env bash
# Makes .venv from the locks, once: a second call with the same locks does nothing.
# Usage: tools/install.sh [cpu|gpu]
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-cpu}
lock=locks/$kind.txt
venv=.venv
stamp=$venv/.installed
torch_cpu_index=https://download.pytorch.org/whl/cpu

fail() {
  printf '\nInstallation stopped: %s\n' "$1" >&2
  exit 2
}

[ -f "$lock" ] || fail "there is no $lock: use cpu or gpu"
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "the locked versions are built for Linux x86-64; this is $(uname -s) $(uname -m)."

key="$kind $(cat "$lock" locks/dev.txt pyproject.toml tools/install.sh | sha256sum | cut -d' ' -f1)"
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && exit 0

is_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }

python=
for candidate in ${PYTHON:-} python3.11 python3 /usr/bin/python3.11; do
  if is_311 "$candidate"; then python=$candidate && break; fi
done
[ -n "$python" ] || fail "Python 3.11 was not found, and the locked versions were measured on no other.
Debian 12: apt-get install python3 python3-venv.  Ubuntu: apt-get install python3.11 python3.11-venv.
Installed elsewhere? make install PYTHON=/path/to/python3.11"

if [ -e "$venv" ] && { ! is_311 "$venv/bin/python" || { [ -f "$stamp" ] && ! grep -q "^$kind " "$stamp"; }; }; then
  echo "Replacing $venv: it was made for another Python or another kind of machine"
  rm -rf "$venv"
fi
if [ ! -x "$venv/bin/pip" ]; then
  echo "Making $venv with $("$python" --version)"
  "$python" -m venv "$venv" || fail "this Python has no venv module. Debian/Ubuntu: apt-get install python3-venv (or python3.11-venv)"
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

# The version pinned with "+cpu" matches CPU builds alone, so a source that has only CUDA builds answers "none" at once.
install_cpu_torch() {
  local torch
  torch=$(grep '^torch==' "$lock")
  echo "Installing $torch"
  pip install -q --no-deps "$torch" 2>"$venv/torch.log" && return
  echo "  not in the sources pip is set up with; trying $torch_cpu_index"
  pip install -q --no-deps --retries 1 --index-url "$torch_cpu_index" "$torch" 2>>"$venv/torch.log" && return
  tail -n 5 "$venv/torch.log" >&2
  fail "no CPU build of torch was found (and a CUDA build, several GB, is not wanted here).
Either let this machine reach $torch_cpu_index, or put the wheel
  ${torch/==/-}-cp311-cp311-manylinux_2_28_x86_64.whl
in a folder and run: PIP_FIND_LINKS=/that/folder make install"
}

if [ "$kind" = cpu ]; then install_cpu_torch; fi
echo "Installing $lock and locks/dev.txt (about 4 GB, two to three minutes)"
pip install -q --no-deps -r "$lock" -r locks/dev.txt || fail "pip could not install $lock: see its message above. Run again, what is installed stays"
pip install -q --no-deps --no-build-isolation -e . || fail "pip could not install this project: see its message above"
echo "$key" >"$stamp"
echo "Installed into $venv"

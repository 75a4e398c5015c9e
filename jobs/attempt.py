"""Which attempt owns a run directory: the newest. On Kubernetes the pods of two attempts of one job may overlap.

`R4T_ATTEMPT` names an attempt (cluster/kuberay sets it to the name of the attempt's Ray cluster). A new one signs the
run directory and waits for its lock; an older one sees that at its next line or step and stops before it writes more.
This also holds on storage whose locks do not reach other nodes.
"""

from __future__ import annotations

import os
from pathlib import Path

from r4t.errors import UserError
from r4t.lineage import atomic_path

VARIABLE = "R4T_ATTEMPT"
FILE = ".attempt"
TAKEOVER = 300.0  # seconds to wait for an older attempt to let go


def patience() -> float:
    """Seconds to wait for the lock of a run directory. Without attempts none: another process is a mistake."""
    return TAKEOVER if os.environ.get(VARIABLE) else 0.0


def claim(folder: Path) -> None:
    """Signs the run directory, where this process is an attempt."""
    if own := os.environ.get(VARIABLE):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / FILE) as temporary:
            temporary.write_text(own)


def check(folder: Path) -> None:
    """Raises UserError once a newer attempt has signed the run directory."""
    own = os.environ.get(VARIABLE)
    path = folder / FILE
    if own and path.is_file() and (owner := path.read_text()) != own:
        raise UserError(f"attempt {owner} has taken over {folder}: this one, {own}, stops here and writes nothing more")

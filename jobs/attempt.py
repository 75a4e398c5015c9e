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


def claim(folder: Path) -> float:
    """Signs the run directory, where this process is an attempt. Returns the seconds to wait for its lock.

    None without attempts, and none where this attempt has signed before: then another process of it is a mistake.
    """
    own, path = os.environ.get(VARIABLE), folder / FILE
    if not own or (path.is_file() and path.read_text() == own):
        return 0.0
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(own)
    return TAKEOVER


def check(folder: Path) -> None:
    """Raises UserError once a newer attempt has signed the run directory."""
    own = os.environ.get(VARIABLE)
    path = folder / FILE
    if own and path.is_file() and (owner := path.read_text()) != own:
        raise UserError(f"attempt {owner} has taken over {folder}: this one, {own}, stops here and writes nothing more")

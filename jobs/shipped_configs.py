"""The configurations and rates that ship with R4T, in a checkout as in an installed package."""

from __future__ import annotations

from pathlib import Path

from r4t.config import load_config
from r4t.errors import UserError, did_you_mean

SHIPPED = Path(__file__).resolve().parent / "shipped"


def names() -> list[str]:
    return sorted(path.stem for path in (SHIPPED / "configs").glob("*.yaml"))


def path_of(name: str) -> Path:
    """The file of a shipped configuration. Raises UserError for a name that is none."""
    if name not in names():
        raise UserError(
            f"no configuration '{name}' ships with R4T{did_you_mean(name, names())}: they are {', '.join(names())};"
            " your own file is run by `r4t run FILE`"
        )
    return SHIPPED / "configs" / f"{name}.yaml"


def missing_files(name: str) -> list[str]:
    """Keys of a shipped configuration that name files of yours, which do not ship."""
    config = load_config(path_of(name))
    files = {
        "data.items": config.data.items,
        "data.sets": config.data.sets,
        "data.queries": config.data.queries,
        "data.item_vectors": config.data.item_vectors,
        "encoder.path": config.encoder.path,
        "policy.model": config.policy.model,
        "evaluate.judge_path": config.evaluate.judge_path,
    }
    return [key for key, path in files.items() if path is not None and not path.exists()]


def runnable(name: str) -> Path:
    """`path_of`, for a configuration whose files are all here. Raises UserError, with the way out, for another."""
    if missing := missing_files(name):
        raise UserError(
            f"configuration '{name}' reads files of yours ({', '.join(missing)}): save it with"
            f" `r4t quickstart --config {name} --show > {name}.yaml`, set those keys and `r4t run {name}.yaml`"
        )
    return path_of(name)


def listing() -> str:
    """One line a configuration: what its first comment says, and whether it needs files of yours."""
    lines = []
    for name in names():
        first = path_of(name).read_text().splitlines()[0].removeprefix("# ")
        needs = f"  [needs {', '.join(missing)}]" if (missing := missing_files(name)) else ""
        lines.append(f"{name:<22} {first}{needs}")
    return "\n".join(lines)

"""`report/index.html`: one page that needs no network, from the files of a run directory."""

from __future__ import annotations

from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from r4t.errors import UserError
from r4t.evaluation.run_page import RunRecord, Section, lead, read_record, sections_of, summary, title
from r4t.lineage import atomic_path


def write_report(run_folder: Path, out: Path) -> Path:
    """Writes `out/index.html` from what the run has. Raises UserError when it has not been evaluated."""
    source = run_folder / "evaluate" / "metrics.json"
    if not source.is_file():
        raise UserError(f"{run_folder} has no evaluate/metrics.json: run `r4t run CONFIG --stage evaluate` first")
    page = render(read_record(run_folder))
    with atomic_path(out / "index.html") as temporary:
        temporary.write_text(page)
    return out / "index.html"


def render(record: RunRecord) -> str:
    """The page as text. Sections without data are left out."""
    package, shared = resources.files("r4t.evaluation"), resources.files("r4t.explorer")
    shown = sections_of(record)
    return Template((package / "report.html").read_text()).substitute(
        name=escape(record.name),
        title=escape(title(record)),
        style=(shared / "design.css").read_text() + (package / "report.css").read_text(),
        lead=escape(lead(record)),
        summary=summary(record),
        links="".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in shown),
        sections="\n".join(_section(section) for section in shown),
    )


def _section(section: Section) -> str:
    return (
        f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">'
        f'<h2 id="{section.anchor}-title">{escape(section.title)}</h2>'
        f'<p class="hint">{escape(section.hint)}</p>{section.body}</section>'
    )

"""The sections of the report as HTML. Every text that comes from a catalogue or a model is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from r4t.evaluation import svg
from r4t.evaluation.labels import METHOD_NAMES, METRICS, NOT_DRAWN, OURS, cell_of, in_words, method_name, network_calls

Json = Mapping[str, Any]


def tiles(metrics: Json) -> str:
    """The headline numbers that exist."""
    found = [_tile(*tile) for tile in _headlines(metrics)]
    return f'<div class="tiles">{"".join(found)}</div>' if found else ""


def facts(metrics: Json) -> str:
    """What was measured, with what."""
    sampler, student = metrics.get("sampler", {}), metrics.get("student", {})
    pairs = {
        "Queries": f"{metrics['n_queries']:,} {metrics['split']}, seeds {', '.join(map(str, metrics['seeds']))}",
        "Items": f"{metrics['database_items']:,}",
        "Set": f"k = {metrics['k']}, n = {metrics['n']}",
        "Encoder": metrics["encoder"],
        "Judge": metrics["judge_encoder"],
        "Policy": _size(metrics.get("policy_parameters")),
        "Retriever": _size(metrics.get("retriever_parameters")),
        "Sampler": f"{sampler['name']}, {network_calls(sampler['nfe'])}" if sampler else "",
        "Student": network_calls(student["nfe"]) if student else "",
    }
    rows = [f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs.items() if value]
    return f'<dl class="facts">{"".join(rows)}</dl>'


def results_table(metrics: Json) -> str:
    """Every method and metric, mean and standard error; what does not apply stays empty."""
    methods = metrics["methods"]
    shown = [key for key in METRICS if any(cell_of(method, key) for method in methods.values())]
    head = "".join(f'<th scope="col" title="{escape(METRICS[k][1])}">{escape(METRICS[k][0])}</th>' for k in shown)
    counted = any("distinct_overall" in method for method in methods.values())
    head += '<th scope="col">Items over all queries</th>' if counted else ""
    body = []
    for name, method in methods.items():
        cells = "".join(_table_cell(cell_of(method, key)) for key in shown)
        if counted:
            overall = method.get("distinct_overall")
            cells += f"<td>{overall:,}</td>" if overall is not None else _NONE
        kind = ' class="ours"' if name in OURS else ""
        body.append(f'<tr{kind}><th scope="row">{escape(method_name(name))}</th>{cells}</tr>')
    if floors := metrics.get("floors"):
        cells = "".join(f"<td>{floors[key]:.3f}</td>" if key in floors else _NONE for key in shown)
        body.append(f'<tr><th scope="row">Expected of a blind pool</th>{cells}{_NONE}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="All results"><table>'
        f'<thead><tr><th scope="col">Method</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def llm_judge(judged: Json) -> str:
    """Scores of the language model, apart from every other number."""
    dimensions = list(dict.fromkeys(d for cells in judged["methods"].values() for d in cells))
    rows = [
        [method_name(name), *(_score_text(cells.get(d)) for d in dimensions)]
        for name, cells in judged["methods"].items()
    ]
    note = f"{judged['model']}, temperature {judged['temperature']:g}, {judged['n_queries']} queries;"
    note += f" {judged['unanswered']} questions without a usable answer are left out."
    head = ["Method", *(dimension.capitalize() for dimension in dimensions)]
    return plain_table(head, rows, "Judged by a language model", note)


def _score_text(cell: Json | None) -> str:
    return f"{cell['mean']:.1f} ± {cell['stderr']:.1f} (n = {cell['n']})" if cell else ""


def bars(metrics: Json) -> str:
    """One chart per metric with a bar for each method that has it."""
    charts = []
    for key, (label, note) in METRICS.items():
        if key in NOT_DRAWN:
            continue
        cells = {name: cell_of(method, key) for name, method in metrics["methods"].items()}
        rows = [
            svg.Bar(label=method_name(name), style=f"m-{name}", value=cell["mean"], error=cell.get("stderr", 0.0))
            for name, cell in cells.items()
            if cell
        ]
        if len(rows) > 1:
            charts.append(svg.bar_chart(rows, title=label, note=note))
    return _charts(charts)


def trade_offs(metrics: Json) -> str:
    """Diversity against relevance in each space, and against coverage where references exist."""
    pairs = [("content_alignment", "diversity", "Reward's encoder"), ("judge.alignment", "judge.diversity", "Judge")]
    pairs = [("recall", "diversity", "Coverage"), *pairs]
    charts = []
    for x_key, y_key, title in pairs:
        both = {name: (cell_of(m, x_key), cell_of(m, y_key)) for name, m in metrics["methods"].items()}
        dots = [
            svg.Dot(
                label=method_name(name),
                style=f"m-{name}",
                x=x["mean"],
                y=y["mean"],
                x_error=x.get("stderr", 0.0),
                y_error=y.get("stderr", 0.0),
            )
            for name, (x, y) in both.items()
            if x and y
        ]
        if len(dots) > 1:
            x_label = METRICS[x_key][0].removeprefix("Judge: ").lower()
            charts.append(svg.scatter_chart(dots, title=title, x_label=x_label, y_label="diversity"))
    return _charts(charts)


def latency(metrics: Json) -> str:
    """One chart per batch size on the same logarithmic axis."""
    timed = {name: m["latency_ms"] for name, m in metrics["methods"].items() if m.get("latency_ms")}
    if not timed:
        return ""
    every = [value for batches in timed.values() for cell in batches.values() for value in (cell["p50"], cell["p95"])]
    charts = []
    for batch in sorted({batch for batches in timed.values() for batch in batches}, key=int):
        spans = [
            svg.Span(label=method_name(n), style=f"m-{n}", low=b[batch]["p50"], high=b[batch]["p95"])
            for n, b in timed.items()
            if batch in b
        ]
        queries = "1 query" if batch == "1" else f"{batch} queries"
        charts.append(svg.span_chart(spans, title=f"Batch of {queries}", low=min(every), high=max(every)))
    return _charts(charts) + _latency_table(timed, metrics.get("latency_setup", {}))


def _latency_table(timed: Mapping[str, Any], setup: Json) -> str:
    """Every number behind the charts, the methods' own share, and the cost of 1,000 queries."""
    columns = {"p50": "p50 ms", "p95": "p95 ms", "own_p50": "own p50 ms", "own_p95": "own p95 ms"}
    columns["cost_per_1000"] = "cost of 1,000 queries"
    shown = [key for key in columns if any(key in cell for batches in timed.values() for cell in batches.values())]
    rows = [
        [method_name(name), batch, *(f"{cell[key]:.4g}" if key in cell else "" for key in shown)]
        for name, batches in timed.items()
        for batch, cell in batches.items()
    ]
    note = f"Own: {setup['own']}." if "own" in setup else ""
    if "cost_assumes" in setup:
        note += f" Cost at {setup['price_per_core_hour']:g} a core hour on {setup['cores']} cores: "
        note += f"{setup['cost_assumes']}."
    return plain_table(["Method", "Batch", *(columns[key] for key in shown)], rows, "Latency and cost", note)


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], label: str, note: str = "") -> str:
    """A table of texts whose first column names the row, and a note above it."""
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(text)}</td>" for text in row[1:])}</tr>'
        for row in rows
    )
    hint = f'<p class="hint">{escape(note)}</p>' if note else ""
    return (
        f'{hint}<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def learning(log: Sequence[Json]) -> str:
    """Reward and its terms over reinforcement learning, on training and on validation queries."""
    train = _series(log, "folm", lambda key: key.removeprefix("reward/") if key.startswith("reward/") else None)
    train |= _series(log, "folm", lambda key: key if key == "distinct" else None)
    valid = _series(log, "valid", lambda key: None if key.startswith(RAISED) else key)
    train["reward"] = train.pop("mean", [])
    train.pop("group_std", None)
    charts = []
    for name in dict.fromkeys(["reward", *train, *valid]):
        lines = [
            svg.Line(label="training", style="m-train", points=train.get(name, [])),
            svg.Line(label="validation", style="m-valid", points=valid.get(name, []), marks=True),
        ]
        drawn = [line for line in lines if line.points]
        if drawn:
            charts.append(svg.line_chart(drawn, title=_term_name(name), x_label="step"))
    return _raised(log) + _charts(charts)


def losses(log: Sequence[Json]) -> str:
    """The loss of the warm start and of every retriever that was trained."""
    charts = []
    for stage in dict.fromkeys(line["stage"] for line in log if line["stage"] not in ("folm", "valid")):
        series = _series(log, stage, {"loss": "training", "held_out_loss": "held out"}.get)
        lines = [
            svg.Line(label=label, style=style, points=series[label])
            for label, style in (("training", "m-train"), ("held out", "m-valid"))
            if label in series
        ]
        if lines:
            charts.append(svg.line_chart(lines, title=f"Loss: {stage.replace('_', ' ')}", x_label="step"))
    return _charts(charts)


def _raised(log: Sequence[Json]) -> str:
    """Which alarms and failure modes validation named, and at which steps."""
    steps: dict[str, list[str]] = {}
    validations = [line for line in log if line["stage"] == "valid"]
    for line in validations:
        for key, value in line["values"].items():
            if key.startswith(RAISED) and value:
                kind, name = key.split("/", 1)
                label = f"{name.replace('_', ' ')} ({'alarm' if kind == 'alarm' else 'failure mode'})"
                steps.setdefault(label, []).append(str(line["step"]))
    if not validations:
        return ""
    if not steps:
        return '<p class="hint">No validation raised a collapse alarm or showed a known failure mode.</p>'
    return bullet_list([f"{label} at step {', '.join(at)}" for label, at in steps.items()])


def checks(metrics: Json) -> str:
    """The acceptance lines, each with its numbers."""
    rows = []
    for check in metrics.get("checks", []):
        mark = ("yes", "✓ holds") if check["holds"] else ("no", "✗ missed")
        rows.append(
            f'<tr><td><span class="mark {mark[0]}">{mark[1]}</span></td><td>{escape(in_words(check["name"]))}</td>'
            f'<td class="n">{check["value"]:.2f}</td><td class="n">{check["threshold"]:g}</td>'
            f'<td class="none">{escape(in_words(check.get("detail", "")))}</td></tr>'
        )
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", "Check", "Value", "Threshold", "Detail"))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Checks"><table class="checks">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def side_by_side(samples: Sequence[Json]) -> str:
    """A fold per query with one card per method, the compiled retriever first."""
    blocks = []
    for place, sample in enumerate(samples):
        references = set(sample.get("references", []))
        order = [name for name in _CARD_ORDER if name in sample["methods"]]
        cards = "".join(
            _set_card(method_name(name), f"m-{name}", sample["methods"][name], references) for name in order
        )
        found = f'<p class="hint inset">Reference: {escape(", ".join(sorted(references)))}</p>'
        blocks.append(_fold(sample["query"], (found if references else "") + _cards(cards), open_=place == 0))
    return "".join(blocks)


def over_training(samples: Sequence[Json]) -> str:
    """A fold per validation query with one card per validation, in the order of the steps."""
    blocks = []
    for place, sample in enumerate(samples):
        cards = "".join(
            _set_card(f"Step {step['step']}: reward {svg.number(step['reward'])}", "m-valid", step, set())
            for step in sample["steps"]
        )
        blocks.append(_fold(sample["query"], _cards(cards), open_=place == 0))
    return "".join(blocks)


def negative_control(control: Json) -> str:
    """Curves of runs whose objective lacks terms, to show what each term prevents."""
    runs = control.get("runs", [])
    keys = list(dict.fromkeys(key for run in runs for point in run["curve"] for key in point if key != "step"))
    charts = []
    for key in keys:
        lines = [
            svg.Line(
                label=run["name"],
                style=f"c-{place % 4}",
                points=[(p["step"], p[key]) for p in run["curve"] if p.get(key) is not None],
            )
            for place, run in enumerate(runs)
        ]
        lines = [line for line in lines if line.points]
        if lines:
            charts.append(svg.line_chart(lines, title=_term_name(key), x_label="step"))
    return _charts(charts)


def bullet_list(lines: Iterable[str]) -> str:
    return f'<ul class="plain">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


RAISED = ("alarm/", "mode/")
_CARD_ORDER = [*OURS[::-1], *(name for name in reversed(METHOD_NAMES) if name not in OURS)]
_LOGGED = {"distinct": "Distinct items within a set", "distinct_items": "Distinct items over all queries"}
_NONE = '<td class="none" aria-label="does not apply"></td>'


def _table_cell(cell: Mapping[str, float] | None) -> str:
    if cell is None:
        return _NONE
    error = f'<span class="se">±{cell["stderr"]:.3f}</span>' if "stderr" in cell else ""
    return f"<td>{svg.number(cell['mean'])}{error}</td>"


def _headlines(metrics: Json) -> Iterable[tuple[str, str]]:
    """(big text, explanation) of each headline that the numbers allow."""
    methods = metrics["methods"]
    gaps = metrics.get("against_zero_shot", {}).get("r4t_folm", {})
    goal = "recall" if "recall" in gaps else "reward"
    if goal in gaps:
        errors = gaps[goal]["mean"] / gaps[goal]["stderr"] if gaps[goal].get("stderr") else 0.0
        yield f"{gaps[goal]['mean']:+.3f}", f"{goal} of R4T-FOLM over zero-shot ({errors:+.1f} standard errors)"
    for metric, words in (("judge.diversity", "diversity"), ("judge.alignment", "alignment")):
        if metric in gaps:
            yield f"{gaps[metric]['mean']:+.3f}", f"{words} by an independent judge, ±{gaps[metric]['stderr']:.3f}"
    times = {name: methods.get(name, {}).get("latency_ms", {}).get("1") for name in OURS}
    slow, *compiled = [(name, time["p50"]) for name, time in times.items() if time] or [("", 0.0)]
    if slow[0] == OURS[0] and compiled:
        name, fast = compiled[-1]
        took = f"R4T-FOLM's time over {method_name(name)}'s {svg.milliseconds(fast)} at one query"
        yield f"{slow[1] / fast:.1f} ×", took
    if listed := metrics.get("checks"):
        yield f"{sum(check['holds'] for check in listed)} of {len(listed)}", "checks hold"


def _tile(big: str, words: str) -> str:
    return f'<div class="tile"><b>{escape(big)}</b><span>{escape(words)}</span></div>'


def _fold(title: str, body: str, *, open_: bool) -> str:
    return f"<details{' open' if open_ else ''}><summary>{escape(title)}</summary>{body}</details>"


def _cards(cards: str) -> str:
    return f'<div class="sets" tabindex="0" role="region" aria-label="Sets">{cards}</div>'


def _set_card(title: str, style: str, sample: Json, references: set[str]) -> str:
    directions = sample.get("subqueries", [])
    seen: set[str] = set()
    rows = []
    for place, item in enumerate(sample["items"]):
        classes = " ".join(["hit"] * (item in references) + ["again"] * (item in seen))
        under = f"<small>“{escape(directions[place])}”</small>" if place < len(directions) else ""
        rows.append(f"<li{f' class={chr(34)}{classes}{chr(34)}' if classes else ''}>{escape(item)}{under}</li>")
        seen.add(item)
    warning = "" if sample.get("valid", True) else '<p class="warn">answer unusable: the plain query\'s items</p>'
    return f'<div class="set {escape(style)}"><h3>{escape(title)}</h3>{warning}<ol>{"".join(rows)}</ol></div>'


def _series(log: Sequence[Json], stage: str, rename: Any) -> dict[str, list[tuple[float, float]]]:
    """`{name: [(step, value)]}` of one stage's lines, for the keys that `rename` keeps."""
    series: dict[str, list[tuple[float, float]]] = {}
    for line in log:
        if line["stage"] != stage:
            continue
        for key, value in line["values"].items():
            name = rename(key)
            if name is not None and value is not None:
                series.setdefault(name, []).append((line["step"], value))
    return {name: sorted(points) for name, points in series.items()}


def _charts(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def _term_name(key: str) -> str:
    """The label of a number in a training log."""
    if key in _LOGGED:
        return _LOGGED[key]
    return METRICS[key][0] if key in METRICS else key.replace("_", " ").capitalize()


def _size(parameters: int | None) -> str:
    return f"{parameters / 1e6:.1f}M parameters" if parameters else ""

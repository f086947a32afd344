"""A plan as text for a terminal."""

from collections.abc import Sequence
from typing import Any

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
SHOWN = 5


def plan_text(plan: dict[str, Any]) -> str:
    """Return the plan as two tables, of kinds of slides and of steps."""
    sampled = "" if plan["sampled"] == plan["slides"] else f", {plan['sampled']} of them opened; 95 % intervals"
    lines = [f"{plan['slides']} slides{sampled}", ""]
    head = ["slides of kind", "number", "opened", "failed", "tiles", "their bytes"]
    kinds = [
        [kind, str(one["slides"]), str(one["sampled"]), str(one["failed"]), _number(one["tiles"]), _bytes(one["read"])]
        for kind, one in plan["classes"].items()
    ]
    lines += [*_table([head, *kinds]), ""]
    head = ["step", "tiles", "reads", "writes", "CPU h", "GPU h", "GETs", "PUTs", "dollars", "rate"]
    steps = [
        [
            *(one["step"], _number(one["tiles"]), _bytes(one["read"]), _bytes(one["written"])),
            *(_number(one["cpu_hours"]), _number(one["gpu_hours"]), _number(one["reads"]), _number(one["writes"])),
            *(_number(one["dollars"]), one["rate"]),
        ]
        for one in plan["steps"]
    ]
    lines += _table([head, *steps])
    if plan["later"]:
        head = ["then", "rows", "genes", "reads", "writes", "as neighbours"]
        lines += ["", *_table([head, *(_later(one) for one in plan["later"])])]
        lines += ["", *(f"{one['step']}: {one['unknown']}" for one in plan["later"] if one["unknown"])]
    if plan.get("cluster"):
        lines += ["", *cluster_lines(plan["cluster"])]
    if plan["not_planned"]:
        lines += ["", f"not planned: {', '.join(plan['not_planned'])}"]
    for slide, problem in list(plan["problems"].items())[:SHOWN]:
        lines.append(f"cannot be tiled: {slide}: {problem}")
    if len(plan["problems"]) > SHOWN:
        lines.append(f"and {len(plan['problems']) - SHOWN} more")
    return "\n".join(lines) + "\n"


def cluster_lines(found: dict[str, Any]) -> list[str]:
    """Return a column for each number of nodes, the sizes of the results, and what is assumed."""
    rows = found["nodes"]
    names = {
        "encoders": lambda one: f"{one['encoders']:,}",
        "hours": lambda one: f"{one['hours']:.3g}",
        "driver, memory": lambda one: f"{one['driver_mb']:,.0f} MB",
        "driver, of a core": lambda one: f"{one['driver_share']:.2g}",
        "GCS, memory": lambda one: f"{one['gcs_mb']:,.0f} MB",
        "tasks/s": lambda one: f"{one['tasks_per_s']:.3g}",
        "PUTs and lists": lambda one: f"{one['puts']:,.0f}",
        "PUTs/s": lambda one: f"{one['puts_per_s']:.3g}",
        "GETs": lambda one: f"{one['gets']:,.0f}",
        "slides, bytes/s": lambda one: _bytes_of(one["read_bytes_per_s"]),
        "index, sent to nodes": lambda one: _bytes_of(one["index_bytes"]),
        "dollars": lambda one: f"{one['dollars']:,.2f}",
    }
    lines = _table(
        [["nodes", *(f"{one['nodes']:,}" for one in rows)]] + [[name, *map(of, rows)] for name, of in names.items()]
    )
    sizes = ", ".join(f"{name} {_bytes_of(size)}" for name, size in found["outputs"].items())
    lines += ["", f"results: {sizes}"]
    lines += [f"assumed: {', '.join(f'{name} {value:g}' for name, value in found['assumed'].items())}"]
    return lines + [f"{one['nodes']:,} nodes: {limit}" for one in rows for limit in one["limits"]]


def _later(one: dict[str, Any]) -> list[str]:
    shown = [_bytes(one[key]) if one[key] else "-" for key in ("read", "written", "as_neighbours")]
    return [one["step"], _number(one["rows"]), f"{one['genes']:,}", *shown]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _number(total: dict[str, float] | str | None) -> str:
    if total is None or isinstance(total, str):
        return total or "unknown"
    value = total["value"]
    shown = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004 -- digits
    return shown + _interval(total)


def _bytes(total: dict[str, float]) -> str:
    return _bytes_of(total["value"]) + _interval(total)


def _bytes_of(value: float) -> str:
    unit = 0
    while value >= 1000 and unit < len(UNITS) - 1:  # noqa: PLR2004 -- decimal units
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {UNITS[unit]}"


def _interval(total: dict[str, float]) -> str:
    return f" ±{total['half_width'] / total['value']:.0%}" if total["half_width"] > 0 and total["value"] > 0 else ""

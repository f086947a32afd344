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
    if plan["not_planned"]:
        lines += ["", f"not planned: {', '.join(plan['not_planned'])}"]
    for slide, problem in list(plan["problems"].items())[:SHOWN]:
        lines.append(f"cannot be tiled: {slide}: {problem}")
    if len(plan["problems"]) > SHOWN:
        lines.append(f"and {len(plan['problems']) - SHOWN} more")
    return "\n".join(lines) + "\n"


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
    value, unit = total["value"], 0
    while value >= 1000 and unit < len(UNITS) - 1:  # noqa: PLR2004 -- decimal units
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {UNITS[unit]}{_interval(total)}"


def _interval(total: dict[str, float]) -> str:
    return f" ±{total['half_width'] / total['value']:.0%}" if total["half_width"] > 0 and total["value"] > 0 else ""

"""The few pieces of HTML that a report is made of. Whatever comes from outside is escaped here, at one place.

A page is one file: its style is inline, its pictures are base64, and it fetches nothing.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --paper: #ffffff; --soft: #f3f5f8; --line: #d5dbe3; --dim: #5b6675;
  --mark: #1f5fa8; --warn: #8a4b00; --warn-soft: #fff4e2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --paper: #14181e; --soft: #1d232c; --line: #353e4b;
  --dim: #9aa6b5; --mark: #7fb2f0; --warn: #ffc878; --warn-soft: #33270f; } }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1.25rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { margin-top: 2.4rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.6rem 0 .4rem; } .dim { color: var(--dim); }
.verdict { border-left: 4px solid var(--mark); background: var(--soft); padding: .7rem 1rem; font-size: 1.05rem; }
.leak { border-left: 4px solid var(--warn); background: var(--warn-soft); color: var(--warn); padding: .7rem 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .6rem 0; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { background: var(--soft); white-space: nowrap; } td { font-variant-numeric: tabular-nums; }
tr.mark td { font-weight: 600; color: var(--mark); }
td small { display: block; color: var(--dim); font-weight: 400; white-space: nowrap; }
figure { margin: 1rem 0; } figure img { max-width: 100%; background: white; border: 1px solid var(--line);
  border-radius: 6px; } figcaption { color: var(--dim); font-size: .9rem; }
details { margin: .5rem 0; } summary { cursor: pointer; } pre { overflow-x: auto; background: var(--soft);
  padding: .8rem; border-radius: 6px; font-size: .82rem; }
"""


@dataclass(frozen=True)
class PageFigure:
    """A PNG and what to say of it."""

    title: str
    png: bytes
    caption: str = ""


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole HTML document."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def text(tag: str, content: str, of_class: str = "") -> str:
    """Return one element around escaped text."""
    attribute = f' class="{escape(of_class)}"' if of_class else ""
    return f"<{tag}{attribute}>{escape(content)}</{tag}>"


def cell(content: str, small: Sequence[str] = ()) -> str:
    """Return a table cell: a value, and smaller lines below it."""
    return f"<td>{escape(content)}{''.join(text('small', line) for line in small if line)}</td>"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]], marked: Sequence[bool] = ()) -> str:
    """Return a table whose lines are ready-made cells; `marked` lines stand out."""
    marks = marked or [False] * len(lines)
    starts = ['<tr class="mark">' if mark else "<tr>" for mark in marks]
    body = "".join(f"{start}{''.join(line)}</tr>" for start, line in zip(starts, lines, strict=True))
    head = "".join(text("th", name) for name in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(picture: PageFigure) -> str:
    """Return a picture inside the page itself, its title as the alternative text."""
    source = base64.b64encode(picture.png).decode("ascii")
    caption = text("figcaption", picture.caption) if picture.caption else ""
    alt = escape(picture.title, quote=True)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{source}">{caption}</figure>'


def fold(summary: str, inside: str) -> str:
    """Return a part that opens when its summary is clicked; `inside` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"

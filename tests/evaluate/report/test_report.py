import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from raystp.errors import ConfigError
from raystp.evaluate.comparison.differences import PairedDifference
from raystp.evaluate.comparison.report import comparison_parts
from raystp.evaluate.comparison.seeds import SeedScore
from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.protocols import PROTOCOLS, protocol_of
from raystp.evaluate.report.document import TEMPLATES, Report, build_report
from raystp.evaluate.report.parts import ReportFigure, ReportSection
from raystp.evaluate.report.score_tables import spots_text
from raystp.evaluate.report.verdict import verdict

EVIL = "<script>alert('x')</script>"


def row(model: str, value: float, spread: float | None = 0.05, **more: object) -> ScoreRow:
    base = ScoreRow("section", "toy", model, "mean", "all", "PCC", value, n=90)
    low, high = (None, None) if spread is None else (value - spread, value + spread)
    return replace(base, low=low, high=high, **more)  # type: ignore[arg-type]  # a test's overrides


def content(**more: object) -> Report:
    rows = [row("ridge", 0.3), row("bleep", 0.2, null_mean=0.0, null_sd=0.01), row(EVIL, 0.1, constant=7)]
    values: dict[str, object] = {
        "title": f"Report {EVIL}",
        "protocol": PROTOCOLS["section"],
        "model": "bleep",
        "trained": ["C3", EVIL],
        "tested": ["C2"],
        "interval": "within section",
        "rows": rows,
        "against": "ridge",
        "permutations": 20,
        "sections": [ReportSection(EVIL, [ReportFigure(f'"{EVIL}', b"png", EVIL)], EVIL)],
        "curves": [ReportFigure("loss", b"png")],
        "failures": [{"slide": "S9", "stage": "tile", "reason": f"no um/px {EVIL}"}],
        "manifests": {"model": {"step": "train", "name": "a", "fingerprint": "0f", "uri": "http://host/", "x": EVIL}},
    }
    return Report(**(values | more))  # type: ignore[arg-type] # a test's overrides


class Tags(HTMLParser):
    """Collect tags and links, and check that the tags are nested correctly."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag not in ("meta", "img"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def test_the_page_is_well_formed_and_links_only_to_itself() -> None:
    page = build_report(content())
    tags = Tags()
    tags.feed(page)
    assert tags.opened == []
    assert not tags.tags & {"link", "iframe", "base", "form"}
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in tags.links)
    anchors = {link[1:] for link in tags.links if link.startswith("#")}
    assert anchors >= {"scores", "failures", "provenance", "training"}
    assert all(f'id="{anchor}"' in page for anchor in anchors)
    assert not re.search(r"@import|url\(", page)


def test_whatever_comes_from_outside_is_escaped() -> None:
    page = build_report(content(model=EVIL))
    assert EVIL not in page
    assert page.count("&lt;script&gt;") >= 10


QUOTED = f'"><img src=x onerror="{EVIL}'
OUTSIDE: dict[str, dict[str, object]] = {
    "title": {"title": QUOTED},
    "model": {"model": QUOTED},
    "baseline": {"against": QUOTED},
    "trained section": {"trained": [QUOTED]},
    "tested section": {"tested": [QUOTED]},
    "footnote": {"footnotes": [QUOTED]},
    "slide": {"sections": [ReportSection(QUOTED, [], QUOTED)]},
    "gene in a figure": {"sections": [ReportSection("A", [ReportFigure(QUOTED, b"png", QUOTED)])]},
    "chart": {"charts": [ReportFigure(QUOTED, b"png")]},
    "reason": {"failures": [{"slide": QUOTED, "stage": QUOTED, "reason": QUOTED}]},
    "manifest": {"manifests": {QUOTED: {"step": QUOTED, "name": QUOTED, "config": {QUOTED: [QUOTED]}}}},
    "row": {
        "rows": [
            ScoreRow(QUOTED, QUOTED, QUOTED, section, QUOTED, "PCC", 0.1) for section in ("mean", "pooled", QUOTED)
        ]
    },
}


@pytest.mark.parametrize("changes", OUTSIDE.values(), ids=list(OUTSIDE))
def test_names_and_messages_from_outside_add_no_html(changes: dict[str, object]) -> None:
    page = build_report(content(**changes))
    plain, tags = Tags(), Tags()
    plain.feed(build_report(content()))
    tags.feed(page)
    assert "onerror" in page
    assert 'onerror="' not in page
    assert tags.tags <= plain.tags
    assert tags.opened == []


def test_no_template_turns_autoescape_off() -> None:
    templates = [*TEMPLATES.iterdir()]
    assert {file.name for file in templates} >= {"report.html.j2", "style.css"}
    for file in templates:
        assert not re.search(r"\|\s*safe|autoescape|Markup", file.read_text()), file.name


def test_the_page_holds_protocol_leak_every_model_failures_and_provenance() -> None:
    page = build_report(content())
    for wanted in (
        "Protocol section",
        PROTOCOLS["section"].leak,
        ">ridge<",
        ">bleep<",
        "null 0.000 ± 0.010",
        "7 constant",
        "within section",
        "over 20 permutations.",
        "Failures (1)",
        "S9",
        "model: train/a-0f",
        "bleep is not better than ridge<",
    ):
        assert wanted in page


def test_few_permutations_and_no_failures_are_stated() -> None:
    page = build_report(content(permutations=3, failures=[], interval="over patients"))
    assert "over 3 permutations; with fewer than 20" in page
    assert "None: all slides and sections were processed." in page
    assert "bootstrap 95 % interval, over patients; for a single section" in page


def test_each_panel_has_its_own_verdict() -> None:
    smooth = [row("ridge", 0.1, panel="smoothed"), row("bleep", 0.4, panel="smoothed")]
    page = build_report(content(rows=[row("ridge", 0.3), row("bleep", 0.2), *smooth]))
    assert "Panel toy: bleep is not better than ridge" in page
    assert "Panel smoothed: bleep is better than ridge" in page


@pytest.mark.parametrize(
    ("ours", "spread", "sentence"),
    [
        (0.5, 0.05, "bleep is better than ridge: PCC 0.500 [0.450, 0.550] versus 0.300 [0.250, 0.350]"),
        (0.35, 0.05, "bleep scores higher than ridge, but not clearly: "),
        (0.3, 0.05, "bleep is not better than ridge: "),
        (0.1, 0.05, "bleep is not better than ridge: "),
        (0.5, None, "bleep scores higher than ridge, but not clearly: PCC 0.500 versus 0.300 [0.250, 0.350]"),
    ],
)
def test_the_verdict_claims_no_more_than_the_intervals_allow(ours: float, spread: float | None, sentence: str) -> None:
    found = verdict([row("ridge", 0.3), row("bleep", ours, spread)], "bleep", "ridge")
    assert found.startswith(sentence)
    separate = spread is not None and abs(ours - 0.3) > 0.1
    assert ("do not overlap" in found) == separate
    assert ("intervals overlap" in found) == (spread is not None and not separate)


def difference(value: float, p: float | None, **more: object) -> PairedDifference:
    base = PairedDifference(
        "section", "toy", "bleep", "ridge", "mean", "all", "PCC", value, value - 0.01, value + 0.01,
        p=p, p_holm=p, test="bootstrap of blocks within section", units=20,
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]  # a test's overrides


@pytest.mark.parametrize(
    ("value", "p", "sentence"),
    [
        (0.03, 0.018, "bleep is better than ridge: PCC 0.330 [0.230, 0.430] versus 0.300 [0.250, 0.350]"),
        (0.03, 0.2, "bleep scores higher than ridge, but not clearly: "),
        (-0.03, 0.2, "bleep is not better than ridge: "),
        (-0.03, 0.001, "bleep is worse than ridge: "),
        (0.03, None, "bleep scores higher than ridge, but not clearly: "),
    ],
)
def test_a_paired_difference_decides_where_intervals_overlap(value: float, p: float | None, sentence: str) -> None:
    rows = [row("ridge", 0.3), row("bleep", 0.3 + value, 0.1)]
    found = verdict(rows, "bleep", "ridge", difference=difference(value, p))
    assert found.startswith(sentence)
    assert (f"paired difference {value:+.3f}" in found) == (p is not None)
    turned = [difference(-value, p, model="ridge", against="bleep")]
    page = build_report(content(rows=rows, differences=turned))
    assert all(part in page for part in found.split(": ", 1)) or value < 0


def test_the_page_holds_the_differences_with_their_corrected_p_and_notes() -> None:
    rows = [difference(0.03, 0.0001), difference(-0.4, None, metric="MSE"), difference(0.2, 0.5, genes="HEG-50")]
    seeds = [SeedScore("section", "toy", "bleep, mean of 3 seeds", "mean", "HEG-9", "PCC", 0.31, 0.02, 3)]
    page = build_report(content(comparison=comparison_parts(rows, ["Differences are paired."], seeds)))
    for wanted in ("+0.030 [0.020, 0.040]", "<td>&lt;0.001</td>", "-0.400 [-0.410, -0.390]", "n/a", "are paired."):
        assert wanted in page
    for wanted in ("bleep, mean of 3 seeds", "<td>HEG-9</td>", "<td>0.310</td>", "<td>0.020</td>"):
        assert wanted in page
    assert "+0.200" not in page


def test_there_is_no_comparison_with_a_model_that_was_not_scored() -> None:
    assert verdict([row("bleep", 0.3)], "bleep", "ridge") == (
        "No comparison of bleep with ridge: this run has no PCC of ridge."
    )
    assert "the baseline itself" in verdict([row("ridge", 0.3)], "ridge", "ridge")


def test_the_verdict_states_that_a_model_is_no_better_than_its_null() -> None:
    found = verdict([row("ridge", 0.3), row("bleep", 0.02, null_mean=0.01, null_sd=0.01)], "bleep", "ridge")
    assert found.endswith("permuted labels reach 0.030 by chance (mean + 2 sd), so bleep shows no signal here.")


def test_the_table_for_the_terminal_is_aligned_and_complete() -> None:
    rows = [
        row("ridge", 0.3, null_mean=0.001, null_sd=0.012),
        row("ridge", 0.4, genes="HEG-20"),
        row("ridge", 0.5, genes="HVG-20"),
        row("ridge", 1.25, metric="MSE"),
        row("ridge", 0.75, metric="MAE"),
        row("gene mean", 0.0, None),
        row("ridge", 0.9, section="C2"),
    ]
    assert spots_text(rows).splitlines() == [
        "protocol section, panel toy, mean over sections, [bootstrap 95 % interval]",
        "model      PCC all               PCC HEG-20            PCC HVG-20            MSE    MAE",
        "---------------------------------------------------------------------------------------",
        "ridge      0.300 [0.250, 0.350]  0.400 [0.350, 0.450]  0.500 [0.450, 0.550]  1.250  0.750",
        "  null     0.001 ± 0.012",
        "gene mean  0.000                 n/a                   n/a                   n/a    n/a",
    ]


def test_protocols_have_their_name_and_their_leak() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.leak.endswith(".")
    assert (protocol_of("patient").same_patient, protocol_of("section").same_patient) == ("refuse", "allow")
    with pytest.raises(ConfigError, match="unknown protocol 'spot'; choose from patient, section"):
        protocol_of("spot")


def test_a_long_list_of_sections_is_folded_and_names_in_backquotes_are_code() -> None:
    sections = [f"S{number}" for number in range(12)]
    page = build_report(content(trained=sections, footnotes=["`log total counts` uses no image", f"`{EVIL}`"]))
    assert "<summary>12 sections</summary>S0, S1," in page
    assert "<code>log total counts</code> uses no image" in page
    assert "<code>&lt;script&gt;" in page

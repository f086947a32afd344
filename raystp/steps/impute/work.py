"""What a process of `impute` is sent, and the ledger of what it did."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from raystp.steps.impute.slide import SlidePredictor, SlideTask
from raystp.storage.attempts import MAX_CRASHES, AttemptLedger


@dataclass(frozen=True)
class ImputeWork(SlideTask):
    """Any slide of a cohort to predict: a `SlideWork`."""

    @property
    def attempts(self) -> AttemptLedger:
        """The marks of slides that were begun."""
        return AttemptLedger(self.target / "attempts")

    def rows(self, slide: str) -> int | None:
        """Return the tiles of a slide that is done already, None of another."""
        record = self.target / "commits" / f"{slide}.json"
        return int(json.loads(record.read_bytes())["rows"]) if record.exists() else None

    def begin(self, slide: str) -> str:
        """Leave a mark; return a sentence where this slide has ended too many processes."""
        if host := self.attempts.begin(slide):
            return (
                f"Slide {slide!r} crashed {MAX_CRASHES} workers (last on {host}), probably out of memory; skipped. "
                "Lower run.chunk_tiles or choose fewer genes, then rerun with run.retry_failed=true"
            )
        return ""

    def end(self, slide: str) -> None:
        """Take the mark away."""
        self.attempts.ended(slide)

    def make_worker(self) -> Callable[[str], int]:
        """Open the model, and its bank; return what predicts a slide and commits it."""
        predict = SlidePredictor(self)

        def commit(slide: str) -> int:
            rows = predict(slide)
            (self.target / "commits" / f"{slide}.json").write_bytes(json.dumps({"rows": rows}).encode())
            return rows

        return commit

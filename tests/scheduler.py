"""How pytest-xdist spreads the tests over its workers, and what it does with those of a worker that dies."""

import contextlib
from typing import Any

from xdist.scheduler import LoadFileScheduling


class OneRay(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist ships no types
    """Send all files with tests that start Ray to one worker, which has one Ray for them, and any other file to any.

    Groups of pytest-xdist would say the same; pytest-xdist 3.8 loses them with pytest 9.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "ray" if "mark.ray" in (self.config.rootpath / file).read_text(encoding="utf-8") else file

    def _assign_work_unit(self, node: Any) -> None:
        """Send a file to a worker. One that has just died, unknown to pytest-xdist, has it until `remove_node`."""
        with contextlib.suppress(OSError):
            super()._assign_work_unit(node)

    def remove_node(self, node: Any) -> str | None:
        """Give the unfinished files of a worker to others; return the test in which it died, which is not run again.

        pytest-xdist 3.8 gives away the finished files too. A worker that gets one has nothing to run and asks for no
        more, so the run never ends. It also runs the test that killed a worker again, until no worker may be replaced.
        """
        files: dict[str, dict[str, bool]] = self.assigned_work.pop(node)
        pending = [(file, test) for file, tests in files.items() for test, done in tests.items() if not done]
        if not pending:
            return None
        file, crashed = pending[0]
        files[file][crashed] = True
        self.workqueue.update((name, tests) for name, tests in files.items() if not all(tests.values()))
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed

"""A stand-in for `torch.cuda` that finds races: two uses of a buffer, one of them a write, that no event orders.

Every operation of torch runs at once on the CPU. It is recorded as one of the host or of a stream, with a vector clock:
what has certainly happened before it. Two uses are ordered if the later one's clock contains the earlier one.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Clock = dict[str, int]
HOST, COMPUTE, UPLOAD, DOWNLOAD = "host", "compute", "upload", "download"


@dataclass(eq=False)
class ToyStream:
    name: str
    engine: "RaceDetector"

    def wait_event(self, event: "ToyEvent") -> None:
        if f"{self.name} waits" not in self.engine.ignored:
            _merge(self.engine.clocks[self.name], event.clock)


@dataclass(eq=False)
class ToyEvent:
    engine: "RaceDetector"
    clock: Clock = field(default_factory=dict)

    def record(self, stream: ToyStream) -> None:
        self.clock = {**self.engine.clocks[HOST], **self.engine.clocks[stream.name]}

    def synchronize(self) -> None:
        if "host waits" not in self.engine.ignored:
            _merge(self.engine.clocks[HOST], self.clock)


@dataclass(frozen=True)
class Use:
    agent: str
    time: int
    writes: bool


class RaceDetector(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """A `CopyEngine`, and a mode in which torch's operations are recorded. `ignored` names waits that do nothing."""

    def __init__(self, ignored: str = "") -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.ignored, self.races = ignored, set[str]()
        self.clocks: dict[str, Clock] = defaultdict(dict)
        self._streams = {name: ToyStream(name, self) for name in (COMPUTE, UPLOAD, DOWNLOAD)}
        self._new = iter([UPLOAD, DOWNLOAD])
        self._current = COMPUTE
        self._uses: dict[int, list[Use]] = defaultdict(list)
        self._device: set[int] = set()
        self._kept: list[torch.Tensor] = []  # an address is not used twice

    def stream(self) -> ToyStream:
        return self._streams[next(self._new)]

    def computing(self) -> ToyStream:
        return self._streams[COMPUTE]

    @contextlib.contextmanager
    def on(self, stream: ToyStream) -> Iterator[None]:
        before, self._current = self._current, stream.name
        yield
        self._current = before

    def event(self) -> ToyEvent:
        return ToyEvent(self)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        tensor = torch.zeros(shape, dtype=dtype)
        self._device.add(_address(tensor))
        return tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        made = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        written = {_address(one) for one in _written(func, args, kwargs)}
        read = {_address(one) for one in given} - written
        on_device = any(_address(one) in self._device for one in given)
        if on_device:
            self._device |= {_address(one) for one in made}
        self._kept += given + made
        if not func.is_view:
            self._record(self._current if on_device else HOST, read, written)
        return result

    def _record(self, agent: str, read: set[int], written: set[int]) -> None:
        clock = self.clocks[agent]
        _merge(clock, self.clocks[HOST])  # the host queued it
        clock[agent] = clock.get(agent, 0) + 1
        for address, writes in [*((one, False) for one in read), *((one, True) for one in written)]:
            for earlier in self._uses[address]:
                if (writes or earlier.writes) and clock.get(earlier.agent, 0) < earlier.time:
                    self.races.add(f"{earlier.agent}, {agent}")
            self._uses[address].append(Use(agent, clock[agent], writes))


def _merge(clock: Clock, other: Clock) -> None:
    for agent, time in other.items():
        clock[agent] = max(clock.get(agent, 0), time)


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    written = []
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            written += [one for one in tree_leaves(value) if isinstance(one, torch.Tensor)]
    return written

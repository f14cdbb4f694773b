"""What a benchmark found: numbers for machines, a table for people."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import UsageError


@dataclass(frozen=True)
class Side:
    """One engine on one network."""

    name: str
    """What tables call it: 'openwork', 'onnxruntime', 'onnxruntime, dense model'."""
    engine: str
    """The engine: 'openwork', or a peer's name."""
    network: str
    """'compiled': the network that the artifact holds; 'dense': the baseline that was passed as `model`."""
    version: str
    """Version of the engine."""
    precision: str
    """What it computes in: 'fp32', 'bf16', 'int8'."""
    median_us: float
    """Median over the rounds, microseconds an inference."""
    low_us: float
    """First quartile, microseconds."""
    high_us: float
    """Third quartile, microseconds."""
    min_us: float
    """Fastest round, microseconds."""
    ratio: float
    """Median of this side over that of Openwork, same rounds: above 1 means that Openwork is faster."""
    ratio_low: float
    """Lower end of the ratio's 95 % interval."""
    ratio_high: float
    """Upper end of the ratio's 95 % interval."""
    difference: float | None
    """Largest difference to Openwork's outputs, relative; None where the network is another one."""
    rounds_us: list[float] = field(repr=False)
    """Median of each round, microseconds."""


@dataclass(frozen=True)
class BenchResult:
    """What `bench` measured. `str()` is a table; `to_dict()` goes into bench.json."""

    sides: tuple[Side, ...]
    """Openwork first, then the others in the order asked for."""
    threads: int
    """Threads of every side."""
    batch: int
    """Examples in one inference."""
    repeats: int
    """Rounds."""
    warmup: int
    """Untimed inferences of each side before the first round."""
    isa: str
    """Instruction set of Openwork's kernels."""
    load: float
    """Load average of the last minute, processes; above the number of cores the figures are noisy."""
    machine: dict[str, Any]
    """Processor, cores, system."""
    versions: dict[str, str]
    """Python and the libraries that matter here."""
    when: str
    """Date and time, ISO 8601."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""

    def side(self, engine: str, network: str = "compiled") -> Side:
        """The side of `engine` on `network`; `UsageError` if it was not measured."""
        for side in self.sides:
            if (side.engine, side.network) == (engine, network):
                return side
        raise UsageError(
            f"{engine} was not measured on the {network} network; measured: {[s.name for s in self.sides]}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and strings, for JSON."""
        return {**asdict(self), "sides": [asdict(side) for side in self.sides], "notes": list(self.notes)}

    def __str__(self) -> str:
        width = max(len(side.name) for side in self.sides)
        lines = [
            f"{'engine':{width}}  {'median':>9}  {'quartiles':>19}  {'min':>9}  {'ratio':>7}  {'95 % interval':>15}"
            "  difference"
        ]
        for side in self.sides:
            lines.append(
                f"{side.name:{width}}  {_time(side.median_us):>9}  {_time(side.low_us):>9}-{_time(side.high_us):>9}"
                f"  {_time(side.min_us):>9}  {side.ratio:>6.2f}x  {side.ratio_low:>6.2f}-{side.ratio_high:>6.2f}x"
                f"  {'' if side.difference is None else f'{side.difference:.1e}':>10}".rstrip()
            )
        lines.append(
            f"batch {self.batch}, {self.threads} thread{'s' * (self.threads != 1)}, {self.repeats} rounds in turn, "
            f"{self.isa}, {self.machine['processor']}; load {self.load:.1f} on {self.machine['cores']} cores"
        )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _time(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f} ms" if microseconds >= 1000 else f"{microseconds:.1f} us"

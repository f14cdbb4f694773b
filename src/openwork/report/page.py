"""`write_report`: one self-contained HTML page about a run, for people.

Everything that is counted or worded is computed here; the template page.html.j2 only lays out.
"""

import datetime
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_text
from . import charts
from .figures import Side, byte_sizes, engine_sides, headline, percent
from .reading import Run, read_run

MASKS_SHOWN = 6
"""Pictures of masks on the page: the largest constrained layers."""

OF_SOLVERS: tuple[tuple[dict[str, str], str, dict[str, bool]], ...] = (
    ({"primal_residual": "primal", "dual_residual": "dual"}, "Residuals of the solver", {"log": True}),
    (
        {"rho": "rho", "strength": "strength", "step_size": "step"},
        "Weight of the penalty, step size",
        {"log": True},
    ),
    (
        {"ratio": "nearly gone", "acceptance": "accepted", "share": "of the sparsity"},
        "What the solver says of itself, %",
        {"percent": True},
    ),
)
"""Charts of what solvers say of themselves (`METRICS`): series, title, and how they are drawn."""


def write_report(run_dir: str | Path, bench: Any = None, engine: Any = None, output: str | Path | None = None) -> Path:
    """Write the page about the run in `run_dir` and return its path.

    The page holds headline figures, curves by epoch, every layer with its kernel and time, latency against each other
    engine, bytes, pictures of masks and what is needed to repeat the run. It loads nothing from anywhere. Parts that
    the run folder lacks are named on the page.

    Args:
        run_dir: folder that `openwork.compress` wrote.
        bench: result of `openwork.bench`; default: bench.json of the run folder.
        engine: the compiled engine; default: the artifact of the run folder.
        output: where the page goes; default: report.html in the run folder.

    Raises:
        RunError: the folder holds no run, or a damaged one, or the page cannot be written.

    Example:
        >>> import openwork.report
        >>> openwork.report.write_report("runs/demo")  # doctest: +SKIP
        PosixPath('runs/demo/report.html')
    """
    run = read_run(Path(run_dir), bench, engine)
    path = Path(output) if output is not None else run.folder / "report.html"
    write_text(path, render(run))
    return path


def render(run: Run) -> str:
    """The page about `run` as HTML text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = charts.number
    environment.filters["percent"] = percent
    sides = engine_sides(run.bench)
    page = environment.get_template("page.html.j2").render(
        run=run,
        title=_title(run),
        subtitle=_subtitle(run),
        figures=headline(run, sides),
        curves=_curves(run),
        partial=run.result.get("steps", ()),
        note=run.result.get("note", ""),
        layers=layers(run),
        quantized=quantized(run),
        dense=_left_dense(run),
        dense_won=_dense_won(run),
        foreign=_left_to_pytorch(run),
        steps_total=sum(step.get("microseconds") or 0 for step in run.steps),
        latency=_latency_chart(sides),
        bench_note=_bench_note(run.bench),
        bench_remarks=_bench_remarks(run.bench),
        bytes_chart=_bytes_chart(run),
        masks=_masks(run),
        facts=_facts(run),
        commands=_commands(run),
        finished=bool(run.result),
        written=datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
    )
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"


def layers(run: Run) -> list[dict[str, Any]]:
    """One row a step of the program with the constraint that training put on it, then layers that no step names."""
    trained = {str(layer["name"]): layer for layer in run.result.get("layers", ())}
    rows = []
    for step in run.steps:
        # Steps that move data carry the name of the layer they serve; the constraint belongs to the one that computes.
        layer = trained.pop(str(step.get("name")), {}) if step.get("weights") else {}
        rows.append(_row({**layer, **{k: v for k, v in step.items() if v is not None}}))
    return rows + [_row(layer) for layer in trained.values()]


def _row(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that the table shows, None where unknown."""
    shape = found.get("shape", "")
    return {
        "name": found.get("name", ""),
        "op": found.get("op", ""),
        "shape": shape if isinstance(shape, str) else " x ".join(str(n) for n in shape),
        "constraint": found.get("constraint"),
        "sparsity": found.get("sparsity"),
        "kernel": found.get("kernel"),
        "microseconds": found.get("microseconds"),
        "share": found.get("share_of_peak"),
        "why": found.get("why"),
    }


def quantized(run: Run) -> list[dict[str, Any]]:
    """One row a quantized layer; ratios as text, that of the outputs also as a share of the worst error."""
    found = run.quantization.get("layers", ())
    measured = [layer["output_db"] for layer in found if layer.get("output_db") is not None]
    worst = min(measured, default=0.0)
    return [
        {
            **layer,
            "shape": " x ".join(str(n) for n in layer["shape"]),
            "weight": _decibels(layer["weight_db"]),
            "entering": _decibels(layer["input_db"]),
            "alone": "" if not measured else _decibels(layer["output_db"]),
            # Amplitudes: 20 dB less noise is a tenth of the error.
            "share": None if layer["output_db"] is None else 10 ** ((worst - layer["output_db"]) / 20),
        }
        for layer in found
    ]


def _decibels(ratio: float | None) -> str:
    return "exact" if ratio is None else f"{ratio:.1f}"


def _left_dense(run: Run) -> list[str]:
    return [layer["name"] for layer in run.result.get("layers", ()) if not layer.get("constraint")]


def _dense_won(run: Run) -> list[str]:
    """Layers whose sparse kernels lost against the dense one in the compiler's measurement."""
    return [str(s.get("name")) for s in run.steps if str(s.get("why", "")).startswith("dense won")]


def _left_to_pytorch(run: Run) -> list[str]:
    return [f"{s.get('name')} ({s.get('kernel')})" for s in run.steps if s.get("op") == "torch"]


def _curves(run: Run) -> list[str]:
    parts = {name: name for epoch in run.epochs for name in epoch.get("losses") or ()}
    drawn = [
        charts.curves(run.epochs, {"validation_accuracy": "validation"}, "Validation accuracy, %", percent=True),
        charts.curves(run.epochs, {"train_loss": "training"}, "Training loss, without the penalty"),
        charts.curves([{**e, **(e.get("losses") or {})} for e in run.epochs], parts, "What the loss is made of"),
        *(charts.curves(run.epochs, series, label, **look) for series, label, look in OF_SOLVERS),
        charts.curves(run.epochs, {"sparsity": "zeros"}, "Sparsity, %", percent=True),
    ]
    return [chart for chart in drawn if chart is not None]


def _latency_chart(sides: Sequence[Side]) -> str | None:
    rows = [
        {
            "name": s.name,
            "value": s.median,
            "low": s.low,
            "high": s.high,
            "ours": s.ours,
            "note": "" if s.ours else s.ratio,
        }
        for s in sides
    ]
    return charts.bars(rows, "µs", "Latency of one inference by engine, microseconds")


def _bench_note(bench: Mapping[str, Any]) -> str:
    parts = []
    if bench.get("threads"):
        parts.append(f"{bench['threads']} threads" if bench["threads"] != 1 else "1 thread")
    if bench.get("batch"):
        parts.append(f"batch {bench['batch']}")
    if bench.get("repeats"):
        parts.append(f"{bench['repeats']} rounds")
    return ", ".join(parts)


def _bench_remarks(bench: Mapping[str, Any]) -> list[str]:
    """What the benchmark says about itself: machine, load, versions, sides that were left out and why."""
    said = []
    machine = bench.get("machine") or {}
    if machine.get("processor"):
        load = f"; load {bench['load']:.1f} on {machine.get('cores')} cores" if bench.get("load") is not None else ""
        said.append(f"{machine['processor']}, {bench.get('isa', '')} kernels{load}; measured {bench.get('when', '')}")
    versions = {str(row["name"]): row["version"] for row in bench.get("sides", ()) if row.get("version")}
    if versions:
        said.append(", ".join(f"{name} {version}" for name, version in versions.items()))
    return said + [str(note) for note in bench.get("notes", ())]


def _bytes_chart(run: Run) -> str | None:
    sizes = byte_sizes(run)
    rows = [{"name": name, "value": size / 1024, "ours": name == "the artifact"} for name, size in sizes.items()]
    return charts.bars(rows, "KiB", "Size of the files, KiB") if rows else None


def _masks(run: Run) -> list[dict[str, Any]]:
    """Pictures of the largest layers that are constrained, in the order of the network."""
    chosen = []
    for layer in run.result.get("layers", ()):
        weight = run.weights.get(f"{layer['name']}.weight", run.weights.get(layer["name"]))
        if layer.get("constraint") and weight is not None:
            chosen.append((layer, weight))
    largest = {layer["name"] for layer, _ in sorted(chosen, key=lambda c: -c[1].size)[:MASKS_SHOWN]}
    return [
        {
            "name": layer["name"],
            "shape": " x ".join(str(n) for n in weight.shape),
            "constraint": layer["constraint"],
            "picture": charts.mask(weight),
        }
        for layer, weight in chosen
        if layer["name"] in largest
    ]


def _title(run: Run) -> str:
    model = str(run.result.get("model") or run.provenance.get("model") or run.folder.name)
    data = run.result.get("data")
    return f"{model} on {data}" if data else model


def _subtitle(run: Run) -> str:
    parts = []
    if run.result.get("recipe"):
        parts.append(f"recipe {run.result['recipe']}")
    if run.quantization:
        bits = run.quantization["settings"]
        parts.append(f"{bits['weight_bits']} bits a weight, {bits['activation_bits']} an activation")
    if run.epochs:
        parts.append(f"{len(run.epochs)} epochs")
    if run.result.get("seconds"):
        parts.append(f"{_duration(run.result['seconds'])} of training")
    return ", ".join(parts)


def _facts(run: Run) -> list[tuple[str, str]]:
    """environment.json as lines of a table; nested objects flattened."""
    facts: list[tuple[str, str]] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix} {key}".strip(), inner)
        elif isinstance(value, list | tuple):
            facts.append((prefix, " ".join(str(v) for v in value)))
        elif value is not None:
            facts.append((prefix, str(value)))

    # The starting point repeats the recipe; the sessions repeat the command.
    walk("", {key: value for key, value in run.environment.items() if key not in ("start", "sessions")})
    if (sessions := len(run.environment.get("sessions", ()))) > 1:
        facts.append(("sessions", f"{sessions}: the run was interrupted and went on"))
    return [(name.replace("_", " "), value) for name, value in facts]


def _commands(run: Run) -> list[str]:
    """The commands that repeat the run and the timing."""
    command = run.result.get("command") or run.environment.get("command")
    found = []
    if command:
        found.append(command if isinstance(command, str) else shlex.join(command))
    if run.artifact is not None:
        found.append(f"openwork explain {run.artifact}")
        found.append(f"openwork bench {run.artifact} --against pytorch,onnxruntime")
    return found


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""Writes docs/performance.md from the results of the other benchmarks.

python benchmarks/page.py [runs/bench/*.json] [--to docs/performance.md]
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from _suite import FOLDER, milliseconds, show_goals, table, write_text
from patterns import show as show_patterns

PAGE = Path("docs/performance.md")

BOUNDS = {
    "fma": "the multiply-add peak",
    "load": "loads into registers",
    "memory": "bytes of weights from beyond the first two caches",
    "moves data": "steps that move data and multiply little (copies, pooling, normalisation, softmax)",
}

Row = dict[str, Any]

HEAD = """\
# Performance

This page is written by `python benchmarks/page.py` from the last run; every figure was printed by the command above it.
Medians at batch 1 on two threads unless a row says otherwise, all sides of a row in turn in one run; ratios with 95 %
intervals. Weights are random, zeros in place: latency depends on where the zeros are, accuracy is measured elsewhere.
"""

PATTERNS = """\
One layer in every [pattern](patterns.md), beside the same layer without zeros. Efficiency counts useful multiply-adds,
two operations for each weight that is kept and each output, against the measured peak.
"""

ROOFLINE = """\
### What bounds it

Counted for each layer: multiply-adds, loads into registers (vectors and broadcasts), bytes of packed weights. Divided
by what this machine was measured to do, that gives three times that no kernel can undercut; the longest of them bounds
the layer. 'At' is that time over the measured one, summed over those layers. Of Winograd's convolutions the products
are counted, not the transforms around them.
"""


def page(rows: Sequence[Row]) -> str:
    """The whole page, from all rows of all suites."""
    suites: dict[str, list[Row]] = {}
    for row in rows:
        suites.setdefault(row["suite"], []).append(row)
    parts = [*head(rows)]
    if found := suites.get("targets"):
        parts += ["## Targets", "", "    make bench", "", show_goals(found), "", *networks(found), *rooflines(found)]
    if found := suites.get("sweep"):
        parts += ["## Never slower", "", "    make sweep", "", *sweep(found), ""]
    if found := suites.get("scaling"):
        parts += ["## Scaling", "", "    python benchmarks/scaling.py", "", show_goals(found), "", *scaling(found)]
    if found := suites.get("patterns"):
        parts += ["## Patterns", "", "    python benchmarks/patterns.py", "", PATTERNS, show_patterns(found), ""]
    return "\n".join(parts).rstrip() + "\n"


def head(rows: Sequence[Row]) -> Iterator[str]:
    """What the figures are, where and when they were measured."""
    yield HEAD
    machines = Counter((r["machine"]["processor"], r["machine"]["cores"], r["machine"]["system"]) for r in rows)
    for (processor, cores, system), count in machines.most_common():
        those = [r for r in rows if (r["machine"]["processor"], r["machine"]["cores"]) == (processor, cores)]
        when = sorted(r["when"][:10] for r in those)
        between = when[0] if when[0] == when[-1] else f"{when[0]} to {when[-1]}"
        yield f"- {processor}, {cores} cores, {system}; {between}; {count} rows; Openwork {those[-1]['openwork']}"
    loads = [row["result"]["load"] for row in rows if row.get("result", {}).get("load") is not None]
    if loads:
        yield f"- load average before the rows: {min(loads):.1f} to {max(loads):.1f}"
    yield ""


def networks(rows: Sequence[Row]) -> Iterator[str]:
    """A table of engines for each network."""
    for row in rows:
        if "result" not in row or len(row["result"]["sides"]) < 2:
            continue
        yield f"### {row['title']}"
        yield ""
        yield f"    {row['command']}"
        yield ""
        yield engines(row)
        yield ""


def engines(row: Row) -> str:
    """The engines of a row: medians, spread, ratios, and how far their outputs are from ours."""
    lines = []
    for side in row["result"]["sides"]:
        ours = side["engine"] == "openwork"
        error = "" if side["difference"] is None else f"{side['difference']:.1e}"
        ratio = "" if ours else f"{side['ratio']:.2f}x ({side['ratio_low']:.2f}-{side['ratio_high']:.2f})"
        spread = f"{milliseconds(side['low_us'])} - {milliseconds(side['high_us'])}"
        lines.append([f"{side['name']} {side['version']}", milliseconds(side["median_us"]), spread, ratio, error])
    return table(("engine", "median", "quartiles", "Openwork is faster by", "difference of outputs"), lines)


def rooflines(rows: Sequence[Row]) -> Iterator[str]:
    """Where the time of each row goes, and by how much and why a target is missed."""
    found = [row for row in rows if "roofline" in row]
    if not found:
        return
    yield ROOFLINE
    peaks = found[-1]["peaks"]
    loads = ", ".join(f"{size}: {rate:.0f}" for size, rate in peaks["gbytes"].items())
    yield f"Measured on {peaks['threads']} threads: {peaks['gflops']:.0f} GFLOP/s of multiply-adds; GB/s loaded from"
    yield f"working sets of {loads}."
    yield ""
    lines = []
    for row in found:
        shares = row["roofline"]["bounds"]
        sums = [milliseconds(row["roofline"][key]) for key in ("total_us", "limit_us")]
        lines.append([row["title"], *sums, *(share_cell(shares.get(bound), bound) for bound in BOUNDS)])
    names = ("bound by multiply-adds", "by loads", "by memory", "moving data")
    yield table(("workload", "sum of steps", "sum of limits", *names), lines)
    yield ""
    yield "A cell says which share of the time is spent in layers so bound, and how much of their limit they reach."
    yield ""
    yield from misses(rows)


def share_cell(found: dict[str, float] | None, bound: str) -> str:
    """'62% at 90%': share of the time, and of the limit that is reached."""
    if found is None:
        return ""
    return f"{found['share']:.0%}" + ("" if bound == "moves data" else f" at {found['of_limit']:.0%}")


def misses(rows: Sequence[Row]) -> Iterator[str]:
    """One paragraph for each missed target."""
    missed = [(row, goal) for row in rows for goal in row.get("goals", []) if goal["met"] is False]
    if not missed:
        return
    yield "Missed:"
    yield ""
    for row, goal in missed:
        short = 1 - goal["found"] / goal["at_least"]
        yield f"- **{row['title']}**, {goal['target']}: {goal['reached']}, {short:.0%} short. {reason(row)}"
    yield ""


def reason(row: Row) -> str:
    """What most of the time goes into, and how near to its limit that is."""
    if why := row.get("why"):
        return f"{why[0].upper()}{why[1:]}."
    if "roofline" not in row:
        slow = sorted(row.get("layers", []), key=lambda r: r.get("ratio", r.get("share_of_peak", 0)))[:2]
        named = "; ".join(f"{r['layer']} {r.get('ratio', r.get('share_of_peak')):.2f}" for r in slow)
        return f"Furthest from it: {named}." if named else ""
    shares = row["roofline"]["bounds"]
    most = max(shares, key=lambda bound: shares[bound]["share"])
    text = f"{shares[most]['share']:.0%} of the time is bound by {BOUNDS[most]}"
    text = text.replace("is bound by steps", "goes into steps")
    if most != "moves data":
        text += f", at {shares[most]['of_limit']:.0%} of the limit"
    slowest = sorted(row["steps"], key=lambda s: (s["limit_us"] or 0) - s["microseconds"])[:3]
    lost = ", ".join(f"{s['name']} ({milliseconds(s['microseconds'])} of {s['kernel']})" for s in slowest)
    return f"{text}. Most time above their limits: {lost}."


def sweep(rows: Sequence[Row]) -> Iterator[str]:
    """Latency as multiples of PyTorch's and of the own dense one, and every place where it is slower."""
    from sweep import LIMIT, show

    yield f"Every model and pattern beside PyTorch eager and its own dense engine; slower is a latency above {LIMIT}x."
    yield ""
    yield show(list(rows))
    slower = [
        f"- {row['title']}: {a['ratio']:.2f}x {side} ({a['low']:.2f}-{a['high']:.2f})"
        for row in rows
        for side, a in row.get("against", {}).items()
        if a["slower"]
    ]
    if slower:
        yield ""
        yield "Slower:"
        yield ""
        yield from slower


def scaling(rows: Sequence[Row]) -> Iterator[str]:
    """The figures behind the goals of scaling."""
    for row in rows:
        if points := row.get("points"):
            line = row["line"]
            yield table(
                ("sparsity", "billion taps x pixels", "latency"),
                [[f"{p['sparsity']:.0%}", f"{p['work']:.2f}", f"{p['ms']:.2f} ms"] for p in points],
            )
            yield ""
            yield f"Line: {line['ms_at_none']:.2f} ms, and {line['ms_each']:.2f} ms for each billion."
            yield ""
        if rates := row.get("images_a_second"):
            yield f"{row['title']}:"
            yield ""
            yield table(("batch", *rates), [["images a second", *(f"{rate:.1f}" for rate in rates.values())]])
            yield ""
        if size := row.get("bytes"):
            mib = {key: f"{value / 2**20:.1f} MiB" for key, value in size.items()}
            ratio = f"{row['arena_over_live']:.2f}x the largest live activations ({mib['largest_live']})"
            yield f"- {row['row'].removeprefix('memory-')}: arena {mib['arena']}, {ratio};"
            yield f"  packed weights {mib['packed']}, of {mib['weights']} in the model."


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, write, say where; 2 if there is nothing to read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path, help=f"default: {FOLDER}/*.json")
    parser.add_argument("--to", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    paths = options.results or sorted(FOLDER.glob("*.json"))
    rows = []
    for path in paths:
        try:
            rows.append(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            print(f"error: {path} cannot be read ({error})", file=sys.stderr)
            return 2
    if not rows:
        print(f"error: there is no result in {FOLDER}; run `make bench` first", file=sys.stderr)
        return 2
    write_text(options.to, page(ordered(rows)))
    print(f"wrote {options.to}")
    return 0


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Rows in the order in which their suites list them; rows that no suite lists any more are left out."""
    import scaling
    import sweep
    import targets

    order = {(m.SUITE.name, row): at for m in (targets, sweep, scaling) for at, row in enumerate(m.SUITE.rows)}
    known = [row for row in rows if (row.get("suite"), row.get("row")) in order]
    return sorted(known, key=lambda row: order[row["suite"], row["row"]])


if __name__ == "__main__":
    raise SystemExit(main())

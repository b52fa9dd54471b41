"""The record of a benchmark: one JSON file, and its readable table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

FORMAT = 1
KEYS = ("format", "kind", "note", "date", "device", "versions", "ceilings", "rows")
KINDS = {"gpu": "", "cpu": "no GPU: plain forms on the CPU"}


@dataclass
class Row:
    """One form of an operation, at one size, in one pass.

    Attributes:
        op: "patch_mix" or "loss".
        sizes: B, C, side, box (px) of patch_mix; N, D of the loss.
        dtype: "fp32" or "bf16".
        form: "ours", or a baseline's name.
        part: "forward", "backward" or "both".
        status: "ok", "wrong" (with times), or the reason why there are no times, such as "out of memory".
        error, limit: largest error against float64, relative to the largest value, and the largest correct error. error
            is None if it is not finite or nothing was computed.
        ms: "median", "p20", "p80" in milliseconds and the number of "runs", launches included; or None.
        graph_ms: the same for a CUDA graph, or None; graph_note may say why.
        peak_bytes: peak of the memory allocated besides the inputs; None on the CPU.
        bytes, operations: the necessary work; see :mod:`semimedref_kernels.benchmark.cases`.
        copy: bytes per second of a copy that moves as many bytes, for patch_mix; None otherwise. Older records have
            only the copy of large tensors.
        share: share of the measured ceiling. For patch_mix it is bytes / time over the rate of the copy, for the loss
            operations / time over the matrix rate of this type. It uses graph_ms if there is one.
        ratio, graph_ratio: median of this form over the median of ours; below 1, ours is slower.
    """

    op: str
    sizes: dict[str, int]
    dtype: str
    form: str
    part: str
    status: str = "ok"
    error: float | None = None
    limit: float | None = None
    ms: dict[str, float] | None = None
    graph_ms: dict[str, float] | None = None
    graph_note: str | None = None
    peak_bytes: int | None = None
    bytes: int = 0
    operations: int = 0
    copy: float | None = None
    share: float | None = None
    ratio: float | None = None
    graph_ratio: float | None = None


def matrix_ceiling(ceilings: dict[str, Any], dtype: str) -> float:
    """Operations per second of the fastest matrix product that keeps the digits of this type.

    For float32 this may be three TF32 products, if they are fast; our products are made in this way.
    """
    matrix = ceilings["matrix"]
    return max(matrix["fp32"], matrix.get("tf32", 0) / 3) if dtype == "fp32" else matrix[dtype]


def against_best(record: dict[str, Any]) -> list[dict[str, Any]]:
    """For each case and pass, the time of the fastest other form over the time of ours; above 1, ours is the fastest.

    Returns:
        Dicts with op, sizes, dtype, part, and the ratios ``alone`` (from CUDA graphs; None on a CPU) and ``launched``.
        Cases that our form or all other forms did not finish are left out.
    """
    found = []
    for _, rows in groupby(record["rows"], lambda row: (row["op"], row["sizes"], row["dtype"])):
        rows = list(rows)
        for part in dict.fromkeys(row["part"] for row in rows):
            timed = [row for row in rows if row["part"] == part and row["status"] == "ok" and row["ms"]]
            ratios = {}
            for name, clock in (("alone", "graph_ms"), ("launched", "ms")):
                times = {row["form"]: row[clock]["median"] for row in timed if row[clock]}
                ours = times.pop("ours", None)
                ratios[name] = min(times.values()) / ours if ours and times else None
            if ratios["launched"] is not None:
                found.append({key: rows[0][key] for key in ("op", "sizes", "dtype")} | {"part": part} | ratios)
    return found


def write(record: dict[str, Any], path: str | Path) -> None:
    """Writes a record with one row on each line, so that two runs can be compared as text. Missing entries have their
    defaults."""
    defaults = {field.name: field.default for field in fields(Row)}
    head = json.dumps({**record, "rows": []}, indent=1, allow_nan=False)
    kept = [{key: value for key, value in row.items() if value != defaults[key]} for row in record["rows"]]
    rows = ",\n".join(json.dumps(row, separators=(",", ":"), allow_nan=False) for row in kept)
    Path(path).write_text(head.replace('"rows": []', f'"rows": [\n{rows}\n]') + "\n", encoding="utf-8")


def read(path: str | Path) -> dict[str, Any]:
    """Reads a record: a dict with the keys :data:`KEYS`; its rows are dicts with the keys of :class:`Row`.

    Raises:
        ValueError: if the file is not such a record; the message names the file and the fault.
    """
    cure = "make it again: python -m semimedref_kernels.benchmark --output FILE"
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); {cure}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} is not a benchmark record of format {FORMAT}; {cure}")
    missing = [key for key in KEYS if key not in record]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; {cure}")
    rows = []
    for number, row in enumerate(record["rows"], 1):
        try:
            rows.append(asdict(Row(**row)))
        except TypeError as error:
            raise ValueError(f"{path}, row {number}: {error}; {cure}") from error
    return {**record, "rows": rows}


def table(record: dict[str, Any]) -> str:
    """The record as aligned text: machine and ceilings, then for each size the forms in their order."""
    gpu = record["kind"] == "gpu"
    lines = heading(record)
    columns = f"  {'form':16} {'pass':8} {'median ms':>10} {'20 to 80 %':>19} {'ratio':>7}"
    columns += f" {'graph ms':>10} {'ratio':>7} {'peak MB':>8}" if gpu else ""
    columns += f" {'share':>6} {'error':>8}"
    for name, rows in groupby(record["rows"], case_name):
        lines += ["", name, columns]
        lines += [line(row, gpu) for row in rows]
    lines += ["", *explanation(record)]
    return "\n".join(lines)


def heading(record: dict[str, Any]) -> list[str]:
    device, ceilings = record["device"], record["ceilings"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    details = [
        f"CPU threads {device['threads']}",
        f"load {device['load']}",
        f"compute capability {device['capability']}",
    ]
    rates = [f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in ceilings["matrix"].items()]
    return [
        *([record["note"]] if record["note"] else []),
        f"{device['name']} ({', '.join(text for text in details if not text.endswith('None'))}), {record['date']}",
        versions,
        f"measured ceilings: copy {ceilings['copy'] / 1e9:,.4g} GB/s, matrix product {', '.join(rates)}",
    ]


def case_name(row: dict[str, Any]) -> str:
    """Operation, size and type of a row as text."""
    sizes = row["sizes"]
    if row["op"] == "patch_mix":
        return f"patch_mix {row['dtype']}, B={sizes['B']} C={sizes['C']}, {sizes['side']} px, box {sizes['box']} px"
    hard = ", all codes 0" if "codes" in sizes else ""
    return f"loss {row['dtype']}, N={sizes['N']} D={sizes['D']}{hard}"


def line(row: dict[str, Any], gpu: bool) -> str:
    start = f"  {row['form']:16} {row['part']:8}"
    if row["ms"] is None:
        return f"{start} {row['status']}"
    ms, graph = row["ms"], row["graph_ms"]
    spread = f"{ms['p20']:.4g} to {ms['p80']:.4g}"
    text = f"{start} {ms['median']:10.4g} {spread:>19} {number(row['ratio'], 7)}"
    if gpu:
        peak = None if row["peak_bytes"] is None else row["peak_bytes"] / 1e6
        text += f" {number(graph and graph['median'], 10)} {number(row['graph_ratio'], 7)} {number(peak, 8)}"
    share = "-" if row["share"] is None else f"{row['share']:.1%}"
    error = "not finite" if row["error"] is None else f"{row['error']:.1e}"
    wrong = "" if row["status"] == "ok" else f"  {row['status'].upper()}: at most {row['limit']:.0e} is correct"
    note = f"  no graph: {row['graph_note']}" if row["graph_note"] else ""
    return f"{text} {share:>6} {error:>8}{wrong}{note}"


def significant(value: float) -> float:
    """Rounds to four digits, the precision of the times."""
    return float(f"{value:.4g}")


def number(value: float | None, width: int) -> str:
    return f"{'-' if value is None else format(value, '.3g'):>{width}}"


def explanation(record: dict[str, Any]) -> list[str]:
    text = [
        "ratio: the form's median over that of ours; below 1, ours is slower.",
        "share: patch_mix, bytes that must move / time, of what a copy of as many bytes reaches;",
        "       loss, operations that must be done / time, of the matrix rate. What stays in a cache may pass 100 %.",
        "error: largest, against float64, relative to the largest value.",
    ]
    if record["kind"] == "gpu":
        text.append(
            "graph: replayed from a CUDA graph, so without the launches; shares are of this time. L2 cache cold."
        )
    slower = [row for row in record["rows"] if row["ratio"] is not None and row["ratio"] < 1]
    return [*text, f"{len(slower)} of {len(record['rows'])} rows have a ratio below 1."]

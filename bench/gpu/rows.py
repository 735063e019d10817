"""`handloom bench --device cuda`: gpu-check's timings and the GPU's limits, in the form of the suite's results."""

from ...nn import gpu
from ...nn.utils import did_you_mean
from ..measure import OURS, Row
from ..results import SCHEMA
from . import worker
from .parts import MACHINE, TIMINGS
from .timings import DIRECTIONS, LIMITS, cases

ALL = "all"  # in the place of a number of threads
METHOD = {
    "cuBLAS": "through CuPy, on the same stream; TF32 is off but in the rows named so.",
    "torch": "on the memory of the same arrays and the same stream, TF32 off, cudnn.benchmark on; steps eager.",
}
FAMILIES = {"conv2d": "convolution", "fit": "programs", "adam_update": "optimizers", "lstm": "recurrent"}
FAMILIES |= {"matmul": "gemm", "max_pool2d": "pooling", "avg_pool2d": "pooling", "softmax_cross_entropy": "losses"}


def run(options) -> tuple[dict, bool]:
    """(What was found, whether to the end.) ValueError where there is no GPU."""
    from rich.console import Console

    if problem := gpu.find().problem:
        raise ValueError(f"bench: --device cuda: {problem}")
    if gpu.simulated():
        raise ValueError("bench: --device cuda: this is Numba's simulator, where times mean nothing: use a GPU")
    console = Console(highlight=False, soft_wrap=True, markup=False)
    arguments = ["--quick"] if options.extent == "quick" else []
    for text in _beginnings(options.only):
        arguments += ["--match", text]
    found, messages, complete = [], [], True

    def told(message):
        for one in message.get("rows", ()):
            messages.append(one)
            console.print(_line(one))

    worker.run(MACHINE, [], lambda message: found.extend(message.get("rows", ())))
    if not found or found[0]["status"] != "ok":
        raise ValueError(f"bench: --device cuda: {found[0]['text'] if found else 'the machine says nothing'}")
    try:
        worker.run(TIMINGS, arguments, told)
    except KeyboardInterrupt:
        complete = False
        console.print("interrupted: what follows is of the cases so far")
    return gather(found[0], messages, complete), complete


def _beginnings(only) -> list[str]:
    """Those of the names of what is timed; "limits" alone adds nothing to what always is."""
    ops = dict.fromkeys(name.split()[0] for name in cases(quick=False) if not name.startswith(LIMITS))
    found = ["copy"] if only else []
    for text in only:
        op = text.partition("/")[0]
        named = [one for one in (*ops, "fit") if op in (one, FAMILIES.get(one, "activation"))]
        if not named and text != "limits":
            raise ValueError(did_you_mean("bench: --only", text, [*dict.fromkeys(FAMILIES.values()), *ops, "fit"]))
        found += ["step of" if one == "fit" else one for one in named]
    return found


def gather(machine: dict, messages: list[dict], complete: bool) -> dict:
    """The results, in the suite's schema, of the rows that the worker told."""
    limits = _limits(messages)
    rows = [_row(one, limits) for one in messages if not one["name"].startswith(LIMITS)]
    last = {row.name: row for row in rows}
    for row in last.values():
        row.default = True
    missing = {part.strip() for one in messages for part in one["text"].split(";") if one["status"] == "ok" and part}
    missing |= {
        f"{one['name']}: {one['text']}" for one in messages if one["name"].startswith(LIMITS) and "us" not in one
    }
    return {
        "schema": SCHEMA,
        "device": "cuda",
        "complete": complete,
        "machine": {key: value for key, value in machine.items() if key not in ("name", "status", "text")},
        "limits": limits,
        "spread of a fixed loop": None,
        "not measured": sorted(missing),
        "method": [[name, text] for name, text in METHOD.items()],
        "rows": [row.as_dict() for row in rows],
    }


def _limits(messages):
    """By the names that the suite has on a CPU."""
    found = {one["name"]: one for one in messages if one["status"] == "ok"}
    limits = {"multiply-adds, GFLOP/s": {}, "copy, GB/s": {}, "launch, us": None}
    for name, one in found.items():
        if name == "peak of float32":
            limits["multiply-adds, GFLOP/s"] = {ALL: one["gflops"]}
        elif name.startswith("peak of "):
            limits[f"{name[8:]} on tensor cores, GFLOP/s"] = {ALL: one["gflops"]}
        elif name.startswith("copy"):
            limits["copy, GB/s"] = {"memory": {ALL: one["gbs"]}}
        elif name.startswith("launch"):
            limits["launch, us"] = one["us"]
    return limits


def _row(one, limits):
    op, _, case = one["name"].partition(" ")
    if op == "step":
        op, case = "fit", case.removeprefix("of ").partition(",")[0]
    way = next((way for way in DIRECTIONS if f", {way}" in case), "")
    case = case.replace(f", {way}", "").replace(", with gradients", "")
    way = "with-gradients" if "with gradients" in one["name"] else way.replace(" ", "-")
    mode, variant = one.get("mode", "float32"), one.get("variant", "default")
    row = Row(
        "/".join(filter(None, (op, way, case))), FAMILIES.get(op, "activation"), op, way, case, variant,
        False, mode, command=f"handloom bench --device cuda --full --only {op}",
    )  # fmt: skip
    if one["status"] != "ok":
        row.wrong = f"{one['status']}: {one['text']}"
        return row
    row.us = {OURS: one["us"], **one.get("peers_us", {})}
    row.p20_p80 = {OURS: one["p20_p80"]}
    row.gflops, row.gbs = one.get("gflops"), one.get("gbs")
    row.flops = round(one["us"] * row.gflops * 1e3) if row.gflops else 0
    row.bytes = round(one["us"] * row.gbs * 1e3) if row.gbs else 0
    theirs = list(one.get("peers_us", {}).values())
    row.ratio = min(theirs) / one["us"] if theirs else None
    peak = limits.get(f"{mode} on tensor cores, GFLOP/s") or limits["multiply-adds, GFLOP/s"]
    shares = {}
    if row.gflops and peak:
        shares["multiply-adds" if mode == "float32" else mode] = row.gflops / peak[ALL]
    if row.gbs and limits["copy, GB/s"]:
        shares["memory"] = row.gbs / limits["copy, GB/s"]["memory"][ALL]
    if shares:
        row.limit, row.share = max(shares.items(), key=lambda one: one[1])
    return row


def _line(one):
    if one["status"] != "ok":
        return f"{one['name']}: {one['status'].upper()}: {one['text']}"
    speed = "  ".join(f"{one[key]:,.0f} {unit}" for key, unit in (("gflops", "GFLOP/s"), ("gbs", "GB/s")) if key in one)
    theirs = ", ".join(f"{name} {us:,.1f}" for name, us in one.get("peers_us", {}).items())
    return f"{one['name']} {one.get('variant', '')}: {one['us']:,.1f} us  {speed}  {theirs}"

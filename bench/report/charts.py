"""Charts as SVG for the page: matplotlib draws in stand-in colours, which become the page's own, light or dark."""

import io
import itertools
import re

import numpy as np

from ..measure import OURS, verdict

# A colour that is drawn with, and the variable of the page's style that it becomes.
INK, FAINT, BASE = "#010203", "#010204", "#010205"
COLOURS = {"ahead": "#010206", "level": "#010207", "behind": "#010208", OURS: "#010209"}
FAMILIES = (
    "gemm", "convolution", "pooling", "recurrent", "activation", "losses", "optimizers", "randomness", "programs",
)  # fmt: skip
HUES = {family: f"#0103{number:02x}" for number, family in enumerate(FAMILIES)}
MARKERS = dict(zip(FAMILIES, "osD^vP*Xh"))
VARIABLES = {
    INK: "ink", FAINT: "faint", BASE: "page", **{colour: name for name, colour in COLOURS.items()},
    **{colour: f"hue-{number}" for number, colour in enumerate(HUES.values())},
}  # fmt: skip
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "handloom",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "grid.color": FAINT,
    "grid.alpha": 0.3,
}
WIDTH = 5.0  # inches: on a phone an inch is about one of its own
LINE = 0.24  # of a bar

_numbers = itertools.count()


def _figure(height):
    """A figure of the page's width, with axes that fill it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _drawn(draw):
    """A function that draws in the page's style and gives the SVG's text."""

    def drawn(*args) -> str:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            figure = draw(*args)
            stream = io.StringIO()
            figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return _inline(stream.getvalue(), f"c{next(_numbers)}")

    drawn.__doc__ = draw.__doc__
    return drawn


def _inline(text, prefix):
    """The SVG element alone, with the page's colours, ids that no other chart has, and the size that its place has."""
    text = text[text.index("<svg") :]
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'((?:xlink:)?href="|url\()#', rf"\1#{prefix}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )


@_drawn
def candidates(row):
    """Microseconds of handloom and the peers, as bars."""
    figure, axes = _figure(LINE * len(row["us"]) + 0.15)
    names, values = list(row["us"]), list(row["us"].values())
    _bars(axes, names, values, [COLOURS[OURS] if name == OURS else FAINT for name in names], [""] * len(names))
    axes.set_xlim(0, 1.25 * max(values))
    return figure


@_drawn
def ladder(rungs):
    """Microseconds of each rung, with what it gains over the one above, and of the peers."""
    peers = {name: us for name, us in rungs[-1]["us"].items() if name != OURS}
    names, values = [row["variant"] for row in rungs], [row["us"][OURS] for row in rungs]
    gains = ["", *(f"  {above / us:.1f} ×" for above, us in itertools.pairwise(values))]
    colours = [COLOURS[OURS]] * len(names) + [FAINT] * len(peers)
    figure, axes = _figure(LINE * (len(names) + len(peers)) + 0.15)
    _bars(axes, [*names, *peers], [*values, *peers.values()], colours, gains + [""] * len(peers))
    everything = [*values, *peers.values()]
    axes.set_xscale("log")
    axes.set_xlim(min(everything) / 3, max(everything) * (max(everything) / min(everything)) ** 0.35 * 1.5)
    return figure


def _bars(axes, names, values, colours, notes):
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.72)
    for place, value, note in zip(places, values, notes):
        axes.annotate(f"{value:,.0f} µs{note}" if value >= 100 else f"{value:.1f} µs{note}", (value, place), (4, 0),
                      textcoords="offset points", va="center")  # fmt: skip
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)


@_drawn
def ratios(rows):
    """The best peer's time divided by ours, sorted, on an axis where twice and half as fast are as far from 1."""
    rows = sorted(rows, key=lambda row: -row["ratio"])
    figure, axes = _figure(LINE * 0.75 * len(rows) + 0.5)
    for place, row in enumerate(rows):
        colour = COLOURS[verdict(row["ratio"])]
        axes.plot([1, row["ratio"]], [place, place], color=colour, linewidth=2)
        axes.plot(row["ratio"], place, {"ahead": ">", "level": "o", "behind": "<"}[verdict(row["ratio"])], color=colour)
        side = 1 if row["ratio"] >= 1 else -1
        axes.annotate(
            f"{row['ratio']:.2f}", (row["ratio"], place), (7 * side, 0), textcoords="offset points", va="center",
            ha="left" if side > 0 else "right", fontsize=7,
        )  # fmt: skip
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    reach = max(2.0, *(max(row["ratio"], 1 / row["ratio"]) for row in rows)) * 1.5
    axes.set_xlim(1 / reach, reach)
    shared = f"{rows[0]['op']}/" if len({row["op"] for row in rows}) == 1 else ""
    axes.set_yticks(range(len(rows)), [row["name"].removeprefix(shared) for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    _plain(axes.xaxis, [x for x in (1 / 64, 1 / 16, 1 / 4, 1 / 2, 1, 2, 4, 16, 64) if 1 / reach < x < reach])
    axes.set_xlabel("× the best peer: right of 1 handloom is faster")
    axes.grid(axis="x")
    return figure


def _plain(axis, ticks):
    """Ticks with plain numbers, fractions below 1."""
    labels = [f"1/{1 / x:.0f}" if x < 1 else f"{x:.0f}" for x in ticks]
    axis.set_major_locator(_ticker().FixedLocator(ticks))
    axis.set_major_formatter(_ticker().FixedFormatter(labels))
    axis.set_minor_locator(_ticker().NullLocator())


def _ticker():
    from matplotlib import ticker

    return ticker


@_drawn
def roofline(rows, limits):
    """GFLOP/s over operations a byte, below the measured limits; every rung is a point, default ones are filled."""
    figure, axes = _figure(4.4)
    x = np.array([row["flops"] / row["bytes"] for row in rows])
    y = np.array([row["flops"] / row["us"][OURS] * 1e-3 for row in rows])
    low, high = min(x.min(), 0.1) / 1.5, max(x.max(), 100) * 1.5
    peak = max(limits["multiply-adds, GFLOP/s"].values(), default=y.max())
    axes.plot([low, high], [peak, peak], color=INK, linewidth=1.2)
    axes.annotate(f"multiply-adds {peak:,.0f} GFLOP/s", (high, peak), (0, 4), textcoords="offset points", ha="right")
    bandwidths = {level: max(by_threads.values()) for level, by_threads in limits["copy, GB/s"].items()}
    for bandwidth in bandwidths.values():
        knee = min(high, peak / bandwidth)
        axes.plot([low, knee], [low * bandwidth, knee * bandwidth], color=FAINT, linewidth=1)
    for family in FAMILIES:
        chosen = [number for number, row in enumerate(rows) if row["family"] == family]
        for default in (False, True):
            at = [number for number in chosen if rows[number]["default"] is default]
            if at:
                axes.plot(
                    x[at], y[at], MARKERS[family], color=HUES[family], markersize=5.5, linestyle="none",
                    markerfacecolor=HUES[family] if default else BASE, label=family if default else None,
                )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(max(y.min() / 2, peak * 1e-5), peak * 2)
    axes.set_xlabel("operations a byte")
    axes.set_ylabel("GFLOP/s")
    axes.grid()
    axes.legend(loc="lower right", fontsize=7, frameon=False, ncols=2, handletextpad=0, columnspacing=0.8)
    figure.draw_without_rendering()  # settles the axes: how steep the lines are
    (left, bottom), (right, top) = axes.transData.transform([(low, 1), (10 * low, 10)])
    for level, bandwidth in bandwidths.items():
        start = max(low, 1.1 * axes.get_ylim()[0] / bandwidth)
        axes.annotate(
            f"{level} {bandwidth:,.0f} GB/s", (start, start * bandwidth), (6, 9), textcoords="offset points", fontsize=7,
            rotation=np.degrees(np.arctan2(top - bottom, right - left)), rotation_mode="anchor",
        )  # fmt: skip
    return figure

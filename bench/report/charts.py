"""Charts as SVG for the page: matplotlib draws in stand-in colours, which become the page's own, light or dark."""

import io
import math
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
    "text.parse_math": False,  # a name may hold a $
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
WIDTH, WIDE = 5.0, 9.0  # inches: on a phone an inch is about one of its own
LINE = 0.24  # of a bar
EDGE = 8  # ratios beyond it are drawn at it
TITLE = "title:"  # begins the id of what gets the rest of it as its title, which a browser shows when one points at it


def _figure(height, width=WIDTH):
    """A figure of the page's width, with axes that fill it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _drawn(draw):
    """A function that draws in the page's style, whatever the user's own is, and gives the SVG's text."""

    def drawn(*args, **options) -> str:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            figure = draw(*args, **options)
            stream = io.StringIO()
            figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return stream.getvalue()

    drawn.__doc__ = draw.__doc__
    return drawn


def inline(text: str, prefix: str, label: str) -> str:
    """The SVG element alone, with the page's colours, ids that no other chart has, and the size that its place has."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(rf'<g id="{TITLE}([^"]*)">', r"<g><title>\1</title>", text)
    head, rest = text.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    return re.sub(r"<[^>]*>", lambda tag: _own(tag[0], prefix), f'{head} role="img" aria-label="{label}">{rest}')


# Of a picture that stands alone, on a page that is light or dark and does not say which.
ALONE = {INK: "#7d7d76", FAINT: "#8d8d86", BASE: "none", COLOURS[OURS]: "#d9622b"}


def standalone(text: str) -> str:
    """The SVG as a file of its own: with colours that can be read on black and on white, and titles."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(rf'<g id="{TITLE}([^"]*)">', r"<g><title>\1</title>", text)
    for colour, shown in ALONE.items():
        text = text.replace(colour, shown)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _own(tag, prefix):
    """A tag with the colours and ids that it has on the page; text between tags stays as it is."""
    for colour, name in VARIABLES.items():
        tag = tag.replace(colour, f"var(--{name})")
    tag = re.sub(r'\bid="', f'id="{prefix}-', tag)
    return re.sub(r'((?:xlink:)?href="|url\()#', rf"\1#{prefix}-", tag)


@_drawn
def candidates(row):
    """Microseconds of handloom and the peers, as bars."""
    figure, axes = _figure(LINE * len(row["us"]) + 0.15)
    names, values = list(row["us"]), list(row["us"].values())
    _bars(axes, names, values, [COLOURS[OURS] if name == OURS else FAINT for name in names])
    axes.set_xlim(0, 1.25 * max(values))
    return figure


@_drawn
def ladder(rungs):
    """Microseconds of each rung, with what it gains over the one above, and of the peers; a wrong rung has no bar."""
    peers = {name: us for row in rungs for name, us in row["us"].items() if name != OURS}
    names, values = [row["variant"] for row in rungs], [row["us"].get(OURS) for row in rungs]
    gains = [f"  {above / us:.1f} ×" if above and us else "" for above, us in zip([None, *values], values)]
    figure, axes = _figure(LINE * (len(names) + len(peers)) + 0.15)
    colours = [COLOURS[OURS]] * len(names) + [FAINT] * len(peers)
    bars = _bars(axes, [*names, *peers], [*values, *peers.values()], colours, [*gains, *[""] * len(peers)])
    for bar, row in zip(bars, rungs):
        bar.set_alpha(1 if row["default"] else 0.55)
    everything = [us for us in (*values, *peers.values()) if us]
    reach = max(everything) / min(everything)
    axes.set_xscale("log")
    axes.set_xlim(min(everything) / 3, max(everything) * reach**0.35 * 1.5)
    return figure


def _bars(axes, names, values, colours, notes=None):
    """Bars with their values beside them; None is what went wrong."""
    bars = axes.barh(range(len(names)), [us or math.nan for us in values], color=colours, height=0.72)
    for place, (us, note) in enumerate(zip(values, notes or [""] * len(names))):
        if us is None:
            axes.text(0.01, place, "WRONG", color=COLOURS["behind"], va="center", transform=axes.get_yaxis_transform())
        else:
            text = f"{us:,.0f} µs{note}" if us >= 100 else f"{us:.1f} µs{note}"
            axes.annotate(text, (us, place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    return bars


@_drawn
def ratios(rows):
    """The best peer's time divided by ours, losses first, where twice and half as fast are as far from 1."""
    rows = sorted(rows, key=lambda row: row["ratio"])
    figure, axes = _figure(1.25 * LINE * len(rows) + 0.5)
    for place, row in enumerate(rows):
        kind = verdict(row["ratio"])
        shown = min(max(row["ratio"], 1 / EDGE), EDGE)
        axes.plot([1, shown], [place, place], color=COLOURS[kind], linewidth=2)
        axes.plot(shown, place, {"ahead": ">", "level": "o", "behind": "<"}[kind], color=COLOURS[kind], clip_on=False)
        peer = min((name for name in row["us"] if name != OURS), key=row["us"].get, default="")
        for x, text, side in ((0, row["name"], "left"), (1, f"{peer}  {row['ratio']:.2f} ×", "right")):
            axes.text(x, place - 0.3, text, ha=side, fontsize=8, transform=axes.get_yaxis_transform())
    axes.axvline(1, color=INK, linewidth=0.8, zorder=0.5)
    axes.set_xscale("log")
    axes.set_xlim(1 / EDGE / 1.1, EDGE * 1.1)
    axes.set_ylim(len(rows) - 0.6, -0.9)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    _plain(axes.xaxis, (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8))
    axes.grid(axis="x")
    return figure


def _plain(axis, ticks):
    """Ticks with plain numbers, fractions below 1."""
    from matplotlib import ticker

    axis.set_major_locator(ticker.FixedLocator(ticks))
    axis.set_major_formatter(ticker.FixedFormatter([f"1/{1 / x:,.0f}" if x < 1 else f"{x:,.0f}" for x in ticks]))
    axis.set_minor_locator(ticker.NullLocator())


@_drawn
def roofline(rows, limits, wide=False):
    """GFLOP/s over operations a byte, below the measured limits; every rung is a point, default ones are filled."""
    figure, axes = _figure(5.2 if wide else 4.6, WIDE if wide else WIDTH)
    x = np.array([row["flops"] / row["bytes"] for row in rows])
    y = np.array([row["flops"] / row["us"][OURS] * 1e-3 for row in rows])
    peaks, bandwidths = ceilings(limits, {row["dtype"] for row in rows})
    peak = max(peaks.values(), default=y.max())
    low, high = min(x.min(), 0.1) / 1.5, max(x.max(), 100) * 1.5
    floor = max(y.min() / 2, peak * 1e-5)
    for bandwidth in bandwidths.values():
        knee = min(high, peak / bandwidth)
        axes.plot([low, knee], [low * bandwidth, knee * bandwidth], color=FAINT, linewidth=1)
    captions = []
    for name, value in peaks.items():
        axes.plot([low, high], [value, value], color=INK, linewidth=1.2)
        caption = axes.annotate(
            f"{name} {value:,.0f} GFLOP/s", (high, value), (0, 4), textcoords="offset points", ha="right"
        )
        captions.append(caption)
    _points(axes, rows, x, y)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(floor, peak * 2)
    for axis, least, most in ((axes.xaxis, low, high), (axes.yaxis, floor, peak * 2)):
        _plain(axis, [10.0**n for n in range(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1)])
    axes.set_xlabel("operations a byte")
    axes.set_ylabel("GFLOP/s")
    axes.grid()
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=9 if wide else 4,
                  handletextpad=0, columnspacing=0.8)  # fmt: skip
    figure.draw_without_rendering()  # settles the axes: where everything is
    dots = axes.transData.transform(np.stack([x, y], 1)) / figure.dpi * 72
    taken = [(left - 3, bottom - 3, left + 3, bottom + 3) for left, bottom in dots]
    taken += [tuple(caption.get_window_extent().extents * 72 / figure.dpi) for caption in captions]
    _name_slopes(axes, bandwidths, low, floor, peak, taken)
    if wide:
        _name_points(axes, rows, y, dots, taken)
    return figure


@_drawn
def climb(columns, limits):
    """The rungs of one operation, a column of points for each case, joined upwards, below the measured limits."""
    figure, axes = _figure(4.4, 6.4)
    rows = [row for rungs in columns.values() for row in rungs]
    x, y = [row["flops"] / row["bytes"] for row in rows], [row["gflops"] for row in rows]
    peaks, bandwidths = ceilings(limits, {row["dtype"] for row in rows})
    peak = max(peaks.values(), default=max(y))
    low, high, floor = min(*x, 0.4) / 3, max(*x, 30) * 6, min(y) / 3
    for bandwidth in bandwidths.values():
        knee = min(high, peak / bandwidth)
        axes.plot([low, knee], [low * bandwidth, knee * bandwidth], color=FAINT, linewidth=1)
    for name, value in peaks.items():
        axes.plot([low, high], [value, value], color=INK, linewidth=1.2)
        axes.annotate(f"{name} {value:,.0f} GFLOP/s", (high, value), (0, 4), textcoords="offset points", ha="right")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(floor, peak * 2)
    for number, (name, rungs) in enumerate(sorted(columns.items(), key=lambda one: x[rows.index(one[1][0])])):
        _column(axes, name, rungs, "osD^v"[number % 5], left=len(columns) > 1 and number == 0)
    for axis, least, most in ((axes.xaxis, low, high), (axes.yaxis, floor, peak * 2)):
        _plain(axis, [10.0**n for n in range(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1)])
    axes.set_xlabel("operations a byte")
    axes.set_ylabel("GFLOP/s")
    axes.grid()
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, handletextpad=0.3)
    figure.draw_without_rendering()
    dots = axes.transData.transform(np.stack([x, y], 1)) / figure.dpi * 72
    _name_slopes(axes, bandwidths, low, floor, peak, [(a - 30, b - 6, a + 30, b + 6) for a, b in dots])
    return figure


def _column(axes, name, rungs, marker, left):
    """The rungs of one case; names that would cover each other are moved up."""
    at = rungs[0]["flops"] / rungs[0]["bytes"]
    axes.plot([at] * len(rungs), [row["gflops"] for row in rungs], color=COLOURS[OURS], linewidth=0.8, alpha=0.6)
    axes.plot([], [], marker, color=COLOURS[OURS], markersize=5, label=name)
    points_a_decade = 72 * 3.3 / math.log10(axes.get_ylim()[1] / axes.get_ylim()[0])
    below = -math.inf
    for row in sorted(rungs, key=lambda row: row["gflops"]):
        (point,) = axes.plot(at, row["gflops"], marker, color=COLOURS[OURS], markersize=5)
        point.set_gid(f"{TITLE}{name}, {row['variant']}: {row['gflops']:.3g} GFLOP/s, {at:.3g} operations a byte")
        height = math.log10(row["gflops"]) * points_a_decade
        below = max(height, below + 9)
        text, side = f"{row['variant']} {row['gflops']:,.3g}", "right" if left else "left"
        axes.annotate(text, (at, row["gflops"]), (-7 if left else 7, below - height - 3), fontsize=8, ha=side,
                      textcoords="offset points")  # fmt: skip


def ceilings(limits: dict, dtypes: set) -> tuple[dict, dict]:
    """({arithmetic: GFLOP/s}, {level of memory: GB/s}), each with as many threads as were measured."""
    peaks = {
        title.removesuffix(", GFLOP/s"): max(by_threads.values())
        for title, by_threads in limits.items()
        if title.endswith(", GFLOP/s") and by_threads
    }
    if "float64" in dtypes and "multiply-adds" in peaks:  # half as many fit into a vector
        peaks["multiply-adds in float64"] = peaks["multiply-adds"] / 2
    levels = limits.get("copy, GB/s") or {}
    return peaks, {level: max(by_threads.values()) for level, by_threads in levels.items()}


def _points(axes, rows, x, y):
    """The points, simpler rungs below the default ones, each with a title; and an entry of the legend a family."""
    seen = set()
    for number in sorted(range(len(rows)), key=lambda number: rows[number]["default"]):
        row, family = rows[number], rows[number]["family"]
        hue = HUES.get(family, INK)
        (point,) = axes.plot(
            x[number], y[number], MARKERS.get(family, "p"), color=hue, markersize=5.5,
            markerfacecolor=hue if row["default"] else BASE,
        )  # fmt: skip
        point.set_gid(f"{TITLE}{row['name']}, {row['variant']}: {y[number]:,.3g} GFLOP/s")
        seen.add(family)
    for family in sorted(seen, key=lambda family: (*FAMILIES, family).index(family)):
        axes.plot([], [], MARKERS.get(family, "p"), color=HUES.get(family, INK), markersize=5.5, label=family)


def _name_slopes(axes, bandwidths, low, floor, peak, taken):
    """The names of memory's levels along their lines, where the fewest points are."""
    scale = 72 / axes.figure.dpi
    (left, bottom), (right, top) = axes.transData.transform([(low, floor), (10 * low, 10 * floor)])
    angle = math.atan2(top - bottom, right - left)
    for level, bandwidth in bandwidths.items():
        text = f"{level} {bandwidth:,.0f} GB/s"
        begin, end = (math.log10(value) for value in (max(low, floor / bandwidth), peak / bandwidth))
        reach = 0.55 * 7 * len(text)  # points that the text takes, about
        last = max(begin, end - reach / scale / (right - left) * math.cos(angle))  # where it may begin at most

        along = np.linspace(0, reach, 12)[:, None] * [math.cos(angle), math.sin(angle)]

        def boxes(at, bandwidth=bandwidth, along=along):
            """Small ones, one after the other, below a text that begins there."""
            spots = axes.transData.transform((10**at, 10**at * bandwidth)) * scale + along + [-3, 5]
            return [(*spot - 4, *spot + 4) for spot in spots]

        def crowd(at, boxes=boxes):
            return sum(any(_overlap(box, other) for other in taken) for box in boxes(at))

        best = min(np.linspace(begin + 0.05 * (last - begin), last, 15), key=crowd)
        taken.extend(boxes(best))
        at = 10**best
        axes.annotate(text, (at, at * bandwidth), (-2, 4), textcoords="offset points", fontsize=7,
                      rotation=math.degrees(angle), rotation_mode="anchor")  # fmt: skip


def _name_points(axes, rows, y, dots, taken):
    """The names of default points, the fastest first, one of each pass of an operation, where there is room."""
    frame = axes.get_window_extent().extents * 72 / axes.figure.dpi
    named = set()
    for number in sorted(range(len(rows)), key=lambda number: -y[number]):
        row = rows[number]
        name = " ".join(filter(None, (row["op"], row["case"] if row["family"] == "programs" else row["pass"])))
        if name in named or not row["default"]:
            continue
        width, height = 0.55 * 7 * len(name), 7
        for dx, dy in ((6, -3), (-6 - width, -3), (-width / 2, 6), (-width / 2, -6 - height)):
            left, bottom = dots[number] + (dx, dy)
            box = left, bottom, left + width, bottom + height
            inside = left > frame[0] and bottom > frame[1] and box[2] < frame[2] and box[3] < frame[3]
            if inside and not any(_overlap(box, other) for other in taken):
                axes.annotate(name, (dots[number] + (dx, dy)), xycoords="figure points", fontsize=7)
                taken.append(box)
                named.add(name)
                break


def _overlap(one, other):
    """Whether two boxes (left, bottom, right, top) share a place."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]

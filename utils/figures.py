"""How figures look, in files and as SVG on pages."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# From the Okabe-Ito palette, which people with any common colour blindness can tell apart.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY = "#888888"
INK = "#1a1a1b"  # of words and axes; on a page it is the page's own colour, which in dark mode is light

WIDE = 460  # points: wider ones keep their size, and a page scrolls them
WIDTH = 4.5  # inches: legible on a phone

rcParams["text.parse_math"] = False  # names of classes and runs may have dollar signs
rcParams["svg.fonttype"] = "none"  # words stay words
rcParams["svg.hashsalt"] = "pictures"  # the same bytes each time
for part in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"):
    rcParams[part] = INK


def as_svg(figure: Figure) -> str:
    """A picture as a part of a page: as wide as there is room, in the page's own colours."""
    buffer, nothing = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with boxes_for_unknown_letters():
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    points = 72 * figure.get_figwidth()
    return (
        svg
        if points < WIDE
        else svg.replace("<svg", f'<svg style="width: {points:.0f}pt; max-width: none"', 1)
    )


@contextmanager
def boxes_for_unknown_letters() -> Iterator[None]:
    """A context in which letters that the font lacks are drawn as boxes without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def plain(axes: Axes) -> Axes:
    """The axes with a grid and without a frame."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return axes

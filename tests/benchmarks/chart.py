"""Draw a chart of the requests per second of each peer."""

from pathlib import Path

from matplotlib.figure import Figure

from tests.benchmarks.comparison import OPERATIONS, Results
from tests.benchmarks.peers import SERVICE

COLOUR, COLOUR_OF_PEERS = "#2563eb", "#9ca3af"


def draw(results: dict[str, Results], path: Path) -> None:
    """Draw a row of bars for each operation, and a column for each database.

    Args:
        results: The results for each database.
        path: The image file to write.
    """
    figure = Figure(figsize=(11, 8), layout="constrained")
    figure.suptitle("Requests per second: one process on one core, 16 connections, every commit flushed to disk")
    grid = figure.subplots(len(OPERATIONS), len(results), squeeze=False)
    for column, (database, measurements) in enumerate(results.items()):
        for row, operation in enumerate(OPERATIONS):
            axes = grid[row, column]
            bars = {peer: result.rate for (name, peer), result in measurements.items() if name == operation}
            colours = [COLOUR if peer == SERVICE else COLOUR_OF_PEERS for peer in bars]
            container = axes.barh(list(bars), list(bars.values()), color=colours)
            axes.bar_label(container, fmt="{:,.0f}", padding=4)
            axes.set_title(f"{database}: {operation}", loc="left")
            axes.invert_yaxis()
            axes.margins(x=0.15)
            axes.xaxis.set_visible(False)
            axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.savefig(path, dpi=120, bbox_inches="tight", pad_inches=0.2)

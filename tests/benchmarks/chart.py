"""Draws how many requests a second each application answers."""

from pathlib import Path

from matplotlib.figure import Figure

COLOURS = ("#2563eb", "#9ca3af", "#9ca3af", "#9ca3af")


def draw(requests: dict[tuple[str, str], float], path: Path) -> None:
    """Draw a bar for each operation and application, the service's own first.

    Args:
        requests: The requests a second, by operation and application.
        path: Where the picture goes.
    """
    operations = list(dict.fromkeys(operation for operation, _ in requests))
    figure = Figure(figsize=(9, 5), layout="constrained")
    figure.suptitle("Requests a second, one process, 16 connections, every commit flushed to the disk")
    for axes, operation in zip(figure.subplots(2, 2).flat, operations, strict=True):
        bars = {peer: value for (name, peer), value in requests.items() if name == operation}
        drawn = axes.barh(list(bars), list(bars.values()), color=COLOURS)
        axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
        axes.set_title(operation)
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.xaxis.set_visible(False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)

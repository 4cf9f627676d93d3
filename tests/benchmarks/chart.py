"""Draw a chart of the requests per second of each application."""

from pathlib import Path

from matplotlib.figure import Figure

COLOURS = ("#2563eb", "#9ca3af", "#9ca3af", "#9ca3af")


def draw(requests: dict[tuple[str, str], float], path: Path) -> None:
    """Draw a bar for each application and operation; the bar of the service is the first of each operation.

    Args:
        requests: The requests per second for each pair of operation and application.
        path: The image file to write.
    """
    operations = list(dict.fromkeys(operation for operation, _ in requests))
    figure = Figure(figsize=(9, 5), layout="constrained")
    figure.suptitle("Requests per second: one process, 16 connections, every commit flushed to disk")
    for axes, operation in zip(figure.subplots(2, 2).flat, operations, strict=True):
        bars = {peer: value for (name, peer), value in requests.items() if name == operation}
        container = axes.barh(list(bars), list(bars.values()), color=COLOURS)
        axes.bar_label(container, fmt="{:,.0f}", padding=3)
        axes.set_title(operation)
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.xaxis.set_visible(False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)

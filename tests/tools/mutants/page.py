"""Generate mutants of an HTML page and its script, line by line."""

import re
from collections.abc import Iterator
from functools import partial

from tests.tools.mutants.mutant import Mutant, number_repeated

# For each file suffix, the operators: the name, the pattern that the operator replaces, and the replacement.
OPERATORS = {
    ".js": (
        ("other constant", r"\btrue\b", "false"),
        ("other constant", r"\bfalse\b", "true"),
        ("other constant", r'"([^"\s]+)"', r'"x\1"'),
        ("other comparison", r">=", "<"),
        ("condition negated", r"\bif \((.*?)\) ", r"if (!(\1)) "),
        ("condition negated", r"(?<=: )([\w.]+) \? ", r"!\1 ? "),
        ("statement dropped", r"^\s*[\w.]+\(.*\);$", ""),
    ),
    ".html": (("element dropped", r"^ *<(meta|title|link|script)\b.*$", ""),),
}


def mutants(file: str, source: str) -> list[Mutant]:
    """Return every mutant of a page or a script."""
    return list(number_repeated(_mutants(file, source)))


def _mutants(file: str, source: str) -> Iterator[Mutant]:
    lines = source.splitlines()
    for number, line in enumerate(lines, 1):
        for operator, pattern, replacement in OPERATORS[f".{file.rpartition('.')[2]}"]:
            for found in re.finditer(pattern, line):
                if line.lstrip().startswith("//"):
                    continue
                changed = line[: found.start()] + found.expand(replacement) + line[found.end() :]
                text = "\n".join([*lines[: number - 1], changed, *lines[number:], ""])
                yield Mutant(file, "page", operator, line.strip(), changed.strip(), number, partial(str, text))

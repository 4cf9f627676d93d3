"""A mutant: the project with one small defect."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import unified_diff
from operator import itemgetter


@dataclass(frozen=True)
class Mutant:
    """A file of the project with one small defect.

    Attributes:
        file: The path, relative to the project.
        scope: The qualified name of the function or class, or the path in a YAML document.
        operator: The kind of change.
        before: The original fragment.
        after: The fragment that replaces it.
        line: The line of the fragment.
        render: A function that returns the file with the defect, or None if the file would be invalid or unchanged.
        lines: The lines that a test must cover to find the defect; empty if these lines are unknown.
        names: The names that these lines assign at import; a test that covers a use of a name may find the defect too.
        occurrence: A number that distinguishes equal changes in the same scope.
    """

    file: str
    scope: str
    operator: str
    before: str
    after: str
    line: int
    render: Callable[[], str | None]
    lines: frozenset[int] = frozenset()
    names: frozenset[str] = frozenset()
    occurrence: int = 0

    @property
    def id(self) -> str:
        """Return a hash of the change without its line number, so that edits elsewhere in the file keep the hash."""
        parts = (self.file, self.scope, self.operator, self.before, self.after, str(self.occurrence))
        return _hash("\0".join(parts))[:10]

    def __str__(self) -> str:
        return f"{self.id} {self.file}:{self.line} {self.scope}: {self.operator}"


def diff(before: str, after: str) -> str:
    """Return the lines that differ between two versions of a file."""
    lines = unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def number_repeated(mutants: Iterable[Mutant]) -> Iterator[Mutant]:
    """Add a sequence number to equal changes in the same scope, so that each mutant has a unique id."""
    seen: dict[str, int] = {}
    for mutant in mutants:
        count = seen[mutant.id] = seen.get(mutant.id, -1) + 1
        yield replace(mutant, occurrence=count)


def sample(mutants: Iterable[Mutant], size: int, seed: str = "") -> Iterator[tuple[Mutant, str]]:
    """Yield a random sample of the valid mutants, each with the changed file, and with equal shares of operators.

    The sample depends only on the seed and the ids. If a mutant is added or removed, at most one mutant of the sample
    changes.
    """
    count: Counter[str] = Counter()
    ranked = []
    for rank, mutant in sorted(((_hash(seed + mutant.id), mutant) for mutant in mutants), key=itemgetter(0)):
        count[mutant.operator] += 1
        ranked.append((count[mutant.operator], rank, mutant))
    for _, _, mutant in sorted(ranked, key=itemgetter(0, 1)):
        if size and (text := mutant.render()) is not None:
            size -= 1
            yield mutant, text


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

"""Plant generated defects one at a time, and list the defects that no test finds: `make mutants`.

Only the test files that cover a defect are run to find it. Equivalent mutants, which no test can find, are listed in
accepted.txt with a reason for each, and are not planted.
"""

import argparse
import os
import queue
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from tests.tools.mutants import process, trial
from tests.tools.mutants.mutant import Mutant, diff, sample
from tests.tools.mutants.project import Copy, Project
from tests.tools.mutants.selection import Coverage, measure, select

ROOT = Path(__file__).parents[3]
ACCEPTED = Path(__file__).with_name("accepted.txt")
BUILD = ROOT / "build/mutants"
SAMPLE = 100
Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Workers that run jobs at the same time, each in its own copy of the project.

    Args:
        project: The project to copy.
        folder: The folder in which to make the copies.
    """

    def __init__(self, project: Project, folder: Path) -> None:
        self._copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        self._count = os.cpu_count() or 1
        for number in range(self._count):
            self._copies.put(project.copy(folder / f"copy{number}"))

    def map(self, job: Callable[[Copy, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Run a job for each item, and yield the results as they complete."""

        def run(item: Item) -> Result:
            copy = self._copies.get()
            try:
                return job(copy, item)
            finally:
                self._copies.put(copy)

        pool = ThreadPoolExecutor(self._count)
        try:
            for future in as_completed([pool.submit(run, item) for item in items]):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            process.interrupt_all()
            pool.shutdown()


def measure_all(project: Project, workers: Workers, tests: list[str]) -> dict[str, Coverage]:
    """Return the coverage of each test file, from a cache if neither the test file nor the code has changed."""

    def job(copy: Copy, test: str) -> tuple[str, Coverage]:
        cache = BUILD / "coverage" / f"{project.fingerprint(test)}.json"
        if cache.exists():
            return test, Coverage.model_validate_json(cache.read_text("utf-8"))
        with tempfile.TemporaryDirectory() as scratch:
            coverage = measure(copy.folder, test, Path(scratch))
        print(f"{coverage.seconds:6.1f} s  {test}{'  FAILS' if coverage.failure else ''}", flush=True)
        if not coverage.failure:
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(coverage.model_dump_json(), "utf-8")
        return test, coverage

    print("Measuring the coverage of each test file:")
    coverages = dict(workers.map(job, tests))
    if failing := {test: coverage.failure for test, coverage in coverages.items() if coverage.failure}:
        sys.exit("\n".join([*failing.values(), f"These tests fail on the unchanged project: {', '.join(failing)}"]))
    return coverages


def read_accepted() -> dict[str, str]:
    """Return a dictionary from the id of each accepted mutant to the reason why it is accepted."""
    lines = [line for line in ACCEPTED.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return {identifier: reason for identifier, _, reason in (line.partition(" ") for line in lines)}


def choose(project: Project, arguments: argparse.Namespace) -> list[tuple[Mutant, str]]:
    """Return a sample of the mutants with the given ids, files or folders, or of all mutants that are not accepted."""
    everything = list(project.mutants())
    reasons = read_accepted()
    if obsolete := reasons.keys() - {mutant.id for mutant in everything}:
        print(f"Remove these ids from {ACCEPTED.name}, they no longer exist: {', '.join(sorted(obsolete))}")
    names = tuple(arguments.only)
    candidates = [
        mutant
        for mutant in everything
        if (mutant.id in names or mutant.file.startswith(names) if names else mutant.id not in reasons)
    ]
    picked = list(sample(candidates, arguments.sample, arguments.seed))
    print(f"{len(picked)} of {len(everything)} mutants, {len(reasons)} of them accepted:")
    return picked


def attempt_all(
    project: Project, workers: Workers, picked: list[tuple[Mutant, str]], coverages: dict[str, Coverage]
) -> list[tuple[Mutant, trial.Outcome]]:
    """Run the tests on each mutant, write the report, and return the outcomes."""
    sources = {file: project.text(file) for file in project.mutable if file.endswith(".py")}
    found: Counter[tuple[str, str]] = Counter()
    outcomes: list[tuple[Mutant, trial.Outcome]] = []

    def job(copy: Copy, item: tuple[Mutant, str]) -> tuple[Mutant, str, trial.Outcome, float]:
        mutant, text = item
        started = time.monotonic()
        outcome = trial.attempt(copy, mutant.file, text, select(mutant, coverages, sources, found), coverages)
        return mutant, text, outcome, time.monotonic() - started

    with (BUILD / "report.txt").open("w", encoding="utf-8") as report:
        for mutant, text, outcome, seconds in workers.map(job, picked):
            outcomes.append((mutant, outcome))
            if outcome.verdict == trial.FOUND:
                found[mutant.file, trial.test_file(outcome)] += 1
            change = diff(project.text(mutant.file), text)
            result = f"{outcome.verdict} {outcome.evidence[:150]}".rstrip()
            print(f"{len(outcomes):4}/{len(picked)} {mutant}: {result} ({seconds:.0f} s)", flush=True)
            if outcome.verdict == trial.SURVIVED:
                print(change, flush=True)
            print(f"{mutant}\n{change}\n{result} ({seconds:.1f} s)\n", file=report, flush=True)
    return outcomes


def summarize(outcomes: list[tuple[Mutant, trial.Outcome]]) -> None:
    """Print how many mutants of each file were found, and exit with status 1 if a mutant survived."""
    verdicts = (trial.FOUND, trial.TIMED_OUT, trial.SURVIVED)
    counts = Counter((mutant.file, outcome.verdict) for mutant, outcome in outcomes)
    for file in sorted({mutant.file for mutant, _ in outcomes}):
        print(f"{file:40}" + "".join(f"{counts[file, verdict]:5} {verdict}" for verdict in verdicts))
    survivors = [str(mutant) for mutant, outcome in outcomes if outcome.verdict == trial.SURVIVED]
    print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} mutants were found; see {BUILD / 'report.txt'}.")
    if survivors:
        sys.exit("\n".join(["These mutants survived; write a test for each or accept it in accepted.txt:", *survivors]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("only", nargs="*", help="ids of mutants, files or folders (default: all files)")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="maximum number of mutants to try")
    parser.add_argument("--seed", default="", help="any text; it determines the sample")
    parser.add_argument("--tests", default="*", help="glob pattern of the test files to run")
    parser.add_argument("--list", action="store_true", help="list the mutants without trying them")
    arguments = parser.parse_args()
    # Treat SIGTERM like Ctrl-C, so that the child processes end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    BUILD.mkdir(parents=True, exist_ok=True)
    project = Project(ROOT)
    if arguments.list:
        for mutant, text in choose(project, arguments):
            print(f"{mutant}\n{diff(project.text(mutant.file), text)}")
        return
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        workers = Workers(project, Path(folder))
        coverages = measure_all(project, workers, [test for test in project.tests if fnmatch(test, arguments.tests)])
        summarize(attempt_all(project, workers, choose(project, arguments), coverages))


if __name__ == "__main__":
    main()

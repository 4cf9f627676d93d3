"""Compare the service with peer applications, then measure the service under various conditions: `make bench`."""

import os
import platform
import sys

from tests.benchmarks.comparison import compare, format_table
from tests.benchmarks.peers import POSTGRESQL, SQLITE


def main() -> None:
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}")
    chosen = sys.argv[1:] or ["sqlite", "postgresql"]
    for database in (SQLITE, POSTGRESQL):
        if database.lower() in chosen:
            print(f"\n{database}\n")
            print(*format_table(database, compare(database)), sep="\n", flush=True)


main()

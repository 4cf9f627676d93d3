"""Print the contract."""

import sys
from io import TextIOWrapper
from typing import cast

from handlers.commands.parsing import Arguments
from handlers.contract import document


class Contract(Arguments):
    def run(self) -> None:
        # The locale may lack letters of the contract.
        cast("TextIOWrapper", sys.stdout).reconfigure(encoding="utf-8")
        print(document.to_yaml(document.raw()).decode(), end="")

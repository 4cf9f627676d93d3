"""Serve the API, or check that it can be served."""

import os
from tempfile import TemporaryDirectory

from handlers.application import create_app
from handlers.contract import document
from handlers.server.serve import serve
from handlers.settings import ServerSettings
from models.database.errors import require


class Serve(ServerSettings):
    def run(self) -> None:
        if not self.metrics:
            serve(self)
            return
        require("prometheus_client", "metrics", "--metrics")
        # Always use a new folder: one that the environment names may hold the metrics of another program.
        with TemporaryDirectory(prefix=f"{document.COMMAND}-metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            from handlers.observability import metrics  # noqa: PLC0415, after the variable that it needs

            metrics.serve(self.metrics)
            serve(self)


class Check(ServerSettings):
    def run(self) -> None:
        create_app(self.model_copy(update={"validate_responses": True}))
        print(f"{document.PATH.name}: {len(document.operations())} operations, no faults.")

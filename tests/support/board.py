"""A small service with several resources, for tests of the contract tests; board.yaml is its contract."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

import yaml
from jsonschema_rs import Draft4Validator

CONTRACT = Path(__file__).with_suffix(".yaml")
KEY = "key-of-the-board"

Row = dict[str, Any]


class RefusedError(Exception):
    """The request is refused with a status, and perhaps with header fields."""


class Board:
    """The rows of the service by path, such as `/tasks` and `/tasks/1/comments`, and the operations on them.

    Args:
        is_broken: Whether the service has defects: PUT of a task changes nothing, and DELETE of one fails; a page of
            tasks begins with the last one of the previous page; the list of projects lacks the last one, and DELETE of
            a project does nothing.
    """

    def __init__(self, is_broken: bool = False) -> None:
        self.contract: Row = yaml.safe_load(CONTRACT.read_text("utf-8"))
        for methods in self.contract["paths"].values():
            for operation in [methods[name] for name in methods if name != "parameters"]:
                operation["responses"]["401"] = {"description": "The key is missing or wrong."}
        self.is_broken = is_broken
        # The ids of the operations that responded with 2xx.
        self.succeeded: set[str] = set()
        self.numbers = count(1)
        self.settings = {"theme": "dark"}
        self.rows: dict[str, dict[str, Row]] = {
            "/projects": {},
            "/tasks": {},
            "/labels": {"urgent": {"color": "blue"}, "a": {"color": "red"}},
        }
        for name in ("Garden", "House"):
            project = self.add("/projects", {"name": name})
            task = self.add("/tasks", {"title": name, "projectId": project["id"]})
            self.add(f"/tasks/{task['number']}/comments", {"text": name})

    def state(self) -> str:
        """Return everything that is stored, as text."""
        return json.dumps([self.settings, {path: rows for path, rows in self.rows.items() if rows}], sort_keys=True)

    def add(self, path: str, body: Row) -> Row:
        """Store a new row."""
        key = {"/projects": "id", "/tasks": "number"}.get(path, "commentId")
        row = {key: str(uuid4()) if key == "id" else next(self.numbers), **body}
        if path == "/projects":
            row |= {"createdAt": f"The {next(self.numbers)}th moment", "photo": 0}
        self.rows.setdefault(path, {})[str(row[key])] = row
        return row

    def operation(self, method: str, path: str) -> Row:
        """Return the operation of the contract for a request; raise `RefusedError` if there is none."""
        for template, item in self.contract["paths"].items():
            if re.fullmatch(re.sub(r"\{.*?\}", "[^/]+", template), path):
                if method.lower() not in item:
                    raise RefusedError(405, {"Allow": ", ".join(name.upper() for name in item if name != "parameters")})
                return dict(item[method.lower()])
        raise RefusedError(404)

    def answer(self, method: str, url: str, content: bytes | None) -> tuple[int, Any, Row]:
        """Return the status, the body and the header fields of the response to a request; None is no content."""
        path = urlsplit(url).path.removeprefix("/v1")
        operation = self.operation("GET" if method == "HEAD" else method, path)
        response = self.answer_operation(method, path, url, self.parse(operation, content))
        self.succeeded.add(operation["operationId"])
        return response

    def answer_operation(self, method: str, path: str, url: str, body: Row) -> tuple[int, Any, Row]:
        """Answer a request with a valid body."""
        parent, _, id = map(unquote, path.rpartition("/"))
        if path == "/settings":
            self.settings |= body
            return 200, self.settings, {}
        if id == "photo":
            row = self.find(*parent.rpartition("/")[::2])
            row |= body
            return 200, row, {}
        if path in ("/projects", "/tasks") or id == "comments":
            return self.answer_collection(method, path, url, body)
        return self.answer_item(method, parent, id, body)

    def answer_collection(self, method: str, path: str, url: str, body: Row) -> tuple[int, Any, Row]:
        """Answer a request for a list: GET, POST or DELETE."""
        if path.endswith("comments"):
            self.find("/tasks", path.split("/")[2])
        if method == "DELETE":
            self.rows = {name: {} if name.startswith(path) else rows for name, rows in self.rows.items()}
            return 204, None, {}
        if method == "POST":
            self.check(path, body)
            row = self.add(path, body)
            return 201, row, {"Location": f"/v1/projects/{row['id']}"} if path == "/projects" else {}
        rows = list(self.rows.get(path, {}).values())
        if path != "/tasks":
            return 200, rows[:-1] if self.is_broken and path == "/projects" else rows, {}
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items()}
        if not all(re.fullmatch("[0-9]{1,10}", each) for each in query.values()):
            raise RefusedError(400)
        limit, after = int(query.get("limit", 50)), int(query.get("after", 0))
        if not 1 <= limit <= 50 or after > 2**31 - 1:
            raise RefusedError(400)
        rows = [row for row in rows if row["number"] > after - self.is_broken]
        more = f'</v1/tasks?limit={limit}&after={rows[limit - 1]["number"]}>; rel="next"' if len(rows) > limit else ""
        return 200, {"tasks": rows[:limit]}, {"Link": more} if more else {}

    def answer_item(self, method: str, path: str, id: str, body: Row) -> tuple[int, Any, Row]:
        """Answer a request for one row: GET, PUT, PATCH or DELETE."""
        if path == "/labels" and method == "PUT" and re.fullmatch("[a-z]{1,40}", id):
            status = 200 if id in self.rows[path] else 201
            self.rows[path][id] = body
            return status, body, {}
        row = self.find(path, id)
        if method == "DELETE":
            if self.is_broken and path == "/tasks":
                raise RefusedError(500)
            if self.is_broken and path == "/projects":
                return 204, None, {}
            if any(task["projectId"] == id for task in self.rows["/tasks"].values()):
                raise RefusedError(409)
            del self.rows[path][id]
            self.rows.pop(f"{path}/{id}/comments", None)
            return 204, None, {}
        self.check(path, body, id)
        if not self.is_broken or path != "/tasks":
            row |= body
        return 200, row, {}

    def find(self, path: str, id: str) -> Row:
        """Return a row; raise `RefusedError` if there is none."""
        if id not in self.rows.get(path, {}):
            raise RefusedError(404)
        return self.rows[path][id]

    def check(self, path: str, body: Row, id: str = "") -> None:
        """Raise `RefusedError` if a name is taken, or if a task belongs to no project."""
        others = [row for key, row in self.rows.get(path, {}).items() if key != id]
        taken = path == "/projects" and body.get("name") in [row["name"] for row in others]
        if taken or ("projectId" in body and body["projectId"] not in self.rows["/projects"]):
            raise RefusedError(409)

    def parse(self, operation: Row, content: bytes | None) -> Row:
        """Return the body of a request; raise `RefusedError` if it is invalid."""
        declared = operation.get("requestBody", {})
        if "$ref" in declared:
            declared = self.contract["components"]["requestBodies"][declared["$ref"].rpartition("/")[2]]
        content_types: Row = declared.get("content", {"": {}})
        media_type, media = next(iter(content_types.items()))
        if "json" not in media_type:
            if media_type and content is None:
                raise RefusedError(400)
            return {"photo": len(content or b"")} if media_type else {}
        try:
            body: Row = json.loads(content or b"")
        except ValueError as error:
            raise RefusedError(400) from error
        schema = {**media["schema"], "components": self.contract["components"]}
        if not Draft4Validator(schema, validate_formats=True).is_valid(body):
            raise RefusedError(400)
        return body


@contextmanager
def serving(board: Board) -> Iterator[str]:
    """Serve a board, and yield the URL of its contract."""
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Send the header and the body together; TCP would delay the second part.
        wbufsize = -1

        def respond(self) -> None:
            body_bytes = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = body_bytes if "Content-Type" in self.headers else None
            headers: Row = {}
            try:
                if self.path == "/openapi.yaml":
                    status, body = 200, json.loads(json.dumps(board.contract))
                elif self.headers.get("X-Key") != KEY:
                    raise RefusedError(401)
                else:
                    with lock:
                        status, body, headers = board.answer(self.command, self.path, content)
                        body = json.loads(json.dumps(body))
            except RefusedError as refusal:
                status, body, headers = refusal.args[0], {"refused": refusal.args[0]}, dict(*refusal.args[1:])
            text = b"" if status == 204 else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(text)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text if self.command != "HEAD" else b"")

        def log_message(self, *_: object) -> None:
            """Do not log requests."""

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "QUERY"):
        setattr(Handler, f"do_{method}", Handler.respond)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/openapi.yaml"
        finally:
            server.shutdown()
            thread.join()

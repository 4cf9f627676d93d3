"""Plants defects one at a time, and lists those that the tests do not find: `make mutants`.

Each defect is a file, a text that stands in it once, and what is put in its place.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
# The quick ones first; every test is among them.
FIRST = {f"test_{name}" for name in ("contract", "validation", "tasks", "problems", "routing", "protocol", "examples")}
# A run that takes longer has been sent round in circles by the defect, which is noticed too.
PATIENCE = 600  # seconds


class Defect(NamedTuple):
    """What is done to the project."""

    file: str
    old: str
    new: str


CONTRACT = "openapi.yaml"
DOCUMENTATION = "handlers/documentation.py"
PAGE = "handlers/swagger_ui/initializer.js"
DEFECTS = [
    # Rules of the contract, loosened or tightened.
    Defect(CONTRACT, "minLength: 1\n      maxLength: 255", "minLength: 1\n      maxLength: 256"),
    Defect(CONTRACT, "minLength: 1\n      maxLength: 255", "minLength: 1\n      maxLength: 254"),
    Defect(CONTRACT, "minLength: 1\n", "minLength: 0\n"),
    Defect(CONTRACT, r"pattern: '^([^\u0000]*[^\u0000\u0009", r"pattern: '^([^\u0000]*[^\u0000\u000A"),
    Defect(CONTRACT, "maxLength: 4000", "maxLength: 4001"),
    Defect(CONTRACT, "maxLength: 4000", "maxLength: 3999"),
    Defect(CONTRACT, "      nullable: true\n", ""),
    Defect(CONTRACT, "      additionalProperties: false\n      required: [title]\n", "      required: [title]\n"),
    Defect(
        CONTRACT, "      additionalProperties: false\n      required: [title]\n", "      additionalProperties: false\n"
    ),
    Defect(
        CONTRACT,
        "          type: boolean\n          default: false",
        "          type: boolean\n          default: true",
    ),
    Defect(CONTRACT, "maximum: 1000\n", "maximum: 1001\n"),
    Defect(CONTRACT, "        minimum: 1\n        maximum: 1000", "        minimum: 0\n        maximum: 1000"),
    Defect(CONTRACT, "default: 100\n", "default: 50\n"),
    Defect(CONTRACT, "        minimum: 0\n        maximum: 92233720", "        minimum: -1\n        maximum: 92233720"),
    Defect(CONTRACT, "x-max-bytes: 65536", "x-max-bytes: 65537"),
    Defect(CONTRACT, "x-max-bytes: 8192", "x-max-bytes: 8193"),
    Defect(CONTRACT, "maxItems: 100\n", "maxItems: 1000\n"),
    Defect(CONTRACT, "required: Title is required", "required: title is required"),
    Defect(CONTRACT, "        detail: Task not found", "        detail: No such task"),
    Defect(CONTRACT, "        '201':\n", "        '200':\n"),
    Defect(
        CONTRACT,
        "required: [id, title, description, completed, createdAt]",
        "required: [id, title, completed, createdAt]",
    ),
    Defect(CONTRACT, "        maximum: 86400\n        default: 1\n", "        maximum: 86400\n        default: 0\n"),
    # Paths and methods.
    Defect("handlers/routing.py", 'methods["HEAD"] = operation', "pass"),
    Defect("handlers/routing.py", '[*methods, "OPTIONS"]', "[*methods]"),
    Defect("handlers/routing.py", '[*methods, "OPTIONS"]', '[next(iter(methods)), "OPTIONS"]'),
    Defect("handlers/routing.py", "Refusal(405, headers", "Refusal(404, headers"),
    Defect("handlers/routing.py", 'Refusal(405, headers={"Allow": allow})', "Refusal(405)"),
    Defect("handlers/routing.py", "status_code=204", "status_code=200"),
    Defect("handlers/routing.py", "[^/]+)", ".+)"),
    Defect("handlers/routing.py", 'b"%2f" not in scope["raw_path"].lower() and ', ""),
    # Parameters.
    Defect("handlers/parameters.py", "[1-9][0-9]{0,4000}", "[0-9]+"),
    Defect("handlers/parameters.py", "get(text, text)", "get(text.lower(), text)"),
    Defect("handlers/parameters.py", "keep_blank_values=True", "keep_blank_values=False"),
    Defect("handlers/parameters.py", "if len(texts) > 1:", "if len(texts) > 2:"),
    Defect("handlers/parameters.py", "            violations.append(Violation", "            str(Violation"),
    Defect("handlers/parameters.py", "        if self.is_list:", "        if False:"),
    Defect("handlers/parameters.py", "        if self.is_list:", "        if True:"),
    Defect("handlers/parameters.py", '.strip(" \\t")', ""),
    Defect("handlers/dispatch.py", "            raise Refusal(404)", "            raise Refusal(400, [])"),
    Defect("handlers/dispatch.py", "            if parameter.argument not in arguments:", "            if False:"),
    Defect("handlers/dispatch.py", "raise _with(violations, refusal) from None", "raise"),
    Defect("handlers/dispatch.py", "if refusal.status_code != HTTPStatus.BAD_REQUEST:", "if False:"),
    Defect("handlers/dispatch.py", "        if violations:\n", "        if violations and not header:\n"),
    Defect("handlers/parameters.py", "violations += broken", "violations = broken"),
    # Bodies.
    Defect("handlers/body.py", "if len(body) > self.max_bytes:", "if len(body) >= self.max_bytes:"),
    Defect(
        "handlers/body.py",
        "if len(body) > self.max_bytes:",
        'if len(body) > self.max_bytes and not event["more_body"]:',
    ),
    Defect("handlers/body.py", "if declared > self.max_bytes:", "if declared > 2 * self.max_bytes:"),
    Defect("handlers/body.py", "allow_inf_nan=False", "allow_inf_nan=True"),
    Defect("handlers/body.py", "catch_duplicate_keys=True", "catch_duplicate_keys=False"),
    Defect("handlers/body.py", "len(types) == 1 and ", "types and "),
    Defect("handlers/body.py", " and not codings", ""),
    Defect("handlers/body.py", "all(part in", "any(part not in"),
    Defect("handlers/body.py", '.replace("~", "~0")', ""),
    Defect("handlers/body.py", "        if not self.rules.allow(value):", "        if False:"),
    Defect(
        "handlers/validation.py",
        "                    for name in error.kind.value:",
        "                    for name in error.kind.value[:1]:",
    ),
    Defect("handlers/validation.py", "validate_formats=True, formats", "validate_formats=False, formats"),
    Defect("handlers/validation.py", "        if keyword in own:", "        if False:"),
    # Answers.
    Defect("handlers/dispatch.py", "for name, value in reply.headers.items()]", "for name, value in ()]"),
    Defect("handlers/dispatch.py", "        status = reply.status or self.status", "        status = 200"),
    Defect("handlers/dispatch.py", '"headers": headers + self.headers[status]}', '"headers": headers}'),
    Defect("handlers/dispatch.py", "self.headers[status]}", "self.headers[self.status]}"),
    Defect("handlers/tasks.py", "if page.more:", "if True:"),
    Defect("handlers/tasks.py", "after=page.last", "after=page.last + 1"),
    Defect("handlers/tasks.py", "after=page.last", "after=page.last - 1"),
    Defect("handlers/tasks.py", "id=task.id)", "id=1)"),
    Defect("handlers/tasks.py", "(queries.delete, id, entity_tags.versions(if_match))", "(queries.delete, id, None)"),
    Defect(
        "handlers/tasks.py",
        "    task = await database.write(queries.update, id, body, entity_tags.versions(if_match))",
        "    import asyncio\n    task = await queries.select(id)\n"
        "    asyncio.ensure_future(database.write(queries.update, id, body, entity_tags.versions(if_match)))",
    ),
    Defect(
        "handlers/tasks.py",
        "    task = await database.write(queries.update, id, body, entity_tags.versions(if_match))",
        "    from models.errors import ChangedError\n    known = entity_tags.versions(if_match)\n"
        "    if known is not None and (await queries.select(id)).version not in known:\n        raise ChangedError\n"
        "    task = await database.write(queries.update, id, body, None)",
    ),
    Defect("handlers/context.py", 'if name == b"authorization"', "if not name"),
    Defect("handlers/context.py", "{scope['scheme']}://", "http://"),
    Defect("handlers/context.py", "{origin}{scope", "{scope"),
    Defect("handlers/context.py", "if pair[0] not in names]", "]"),
    Defect("handlers/context.py", "if pair[0] not in names]", "if not names]"),
    Defect("handlers/context.py", 'if host else ""', 'if True else ""'),
    # Conditions.
    Defect("handlers/entity_tags.py", "-{queries.representation()}\"'\n\n\ndef of_page", "\"'\n\n\ndef of_page"),
    Defect("handlers/entity_tags.py", "    if page.more:", "    if False:"),
    Defect("handlers/entity_tags.py", " if not weak)", ")"),
    Defect("handlers/entity_tags.py", "[1-9][0-9]{{0,17}}", "[0-9]+"),
    Defect("handlers/entity_tags.py", "{queries.representation()}\"')", "[0-9a-f]+\"')"),
    Defect("handlers/entity_tags.py", "if_none_match == ANY or", ""),
    Defect("handlers/entity_tags.py", "(tag for _, tag in TAG", "(_ + tag for _, tag in TAG"),
    Defect("handlers/entity_tags.py", 'Reply(b"", reply.headers, 304)', 'Reply(b"", {"ETag": "*"}, 304)'),
    Defect("handlers/entity_tags.py", 'Reply(b"", reply.headers, 304)', "Reply(reply.body, reply.headers, 304)"),
    Defect("handlers/entity_tags.py", "if if_match in (None, ANY):", "if if_match is None:"),
    # Idempotency keys.
    Defect("handlers/idempotency.py", "sha256(caller + b", "sha256(b"),
    Defect("handlers/idempotency.py", " + key.encode()", ""),
    Defect("handlers/idempotency.py", "{operation_id} {body.model_dump_json()}", "{operation_id}"),
    Defect("handlers/idempotency.py", "        if kept.fingerprint != fingerprint:", "        if False:"),
    Defect("handlers/idempotency.py", ", **REPLAYED}", "}"),
    Defect("handlers/idempotency.py", "{**kept.headers, **REPLAYED}", "REPLAYED"),
    Defect("handlers/idempotency.py", "    if name in _running:", "    if False:"),
    Defect("handlers/idempotency.py", "        _running.remove(name)", "        pass"),
    Defect(
        "handlers/idempotency.py",
        "            await answers.keep(execute, name, answers",
        "            str(execute) or await answers.keep(execute, name, answers",
    ),
    Defect("handlers/idempotency.py", "            while await database", "            if await database"),
    Defect("handlers/idempotency.py", "        except Exception as error:", "        except KeyError as error:"),
    Defect("handlers/application.py", "hours=settings.idempotency_hours", "hours=24"),
    Defect("models/answers.py", "BATCH = 100", "BATCH = 0"),
    Defect("models/answers.py", "KeptAnswer.created_at < parameter", "KeptAnswer.created_at > parameter"),
    Defect("models/answers.py", "where(KeptAnswer.key == parameter", "where(KeptAnswer.key != parameter"),
    Defect("models/task.py", "datetime.now(UTC) - ago", "datetime.now(UTC)"),
    # Problems.
    Defect(
        "handlers/problems.py",
        "    document = problem(operation_id, status",
        "    document = problem(None, status",
    ),
    Defect("handlers/problems.py", '"; ".join(error.detail for error in errors)', "errors[0].detail"),
    Defect("handlers/problems.py", ', "errors": errors}', "}"),
    Defect("handlers/problems.py", "ConnexionResponse(document.status,", "ConnexionResponse(400,"),
    Defect("handlers/problems.py", 'MEDIA_TYPE = "application/problem+json"', 'MEDIA_TYPE = "application/json"'),
    Defect("handlers/problems.py", "contract.constant_headers(operation_id, document.status) | headers", "headers"),
    Defect("handlers/problems.py", "HTTPStatus.PRECONDITION_FAILED", "HTTPStatus.NOT_FOUND"),
    Defect("handlers/problems.py", 'if scope["type"] != "http":', 'if scope["type"] == "":'),
    Defect("handlers/problems.py", "except asyncio.CancelledError:", "except asyncio.InvalidStateError:"),
    Defect("handlers/problems.py", "exclude_none=True", "exclude_none=False"),
    Defect("handlers/problems.py", ", exc_info=exception", ""),
    # The wire.
    Defect("handlers/protocol.py", "        return self._waits\n", "        return False\n"),
    Defect("handlers/protocol.py", "        self.transport.write_eof()", "        self.transport.close()"),
    Defect(
        "handlers/protocol.py",
        "            self._finish()\n        except httptools.HttpParserError",
        "            pass\n        except httptools.HttpParserError",
    ),
    Defect("handlers/protocol.py", "            self._waits = True\n\n", "            self._end()\n\n"),
    Defect("handlers/protocol.py", "                data = OTHER_METHOD", "                data = method"),
    Defect("handlers/protocol.py", 'b"host" in fields', "True"),
    Defect("handlers/protocol.py", "lenient_chunked_length=True", "lenient_chunked_length=False"),
    Defect("handlers/protocol.py", "if self.expect_100_continue or ", "if "),
    Defect(
        "handlers/protocol.py", "            if self._pending > MAX", "            if False and self._pending > MAX"
    ),
    Defect(
        "handlers/protocol.py",
        "_unset_keepalive_if_required()\n        self._stop",
        "_stop_arrival()\n        self._stop",
    ),
    Defect("handlers/protocol.py", 'CONTINUE = b"HTTP/1.1 100 "', 'CONTINUE = b"HTTP/1.1 999 "'),
    Defect("handlers/protocol.py", 'if self._scope["method"] != "HEAD":', "if True:"),
    Defect("handlers/protocol.py", '        self._head = b""\n\n\nclass', "\n\nclass"),
    Defect("handlers/protocol.py", "if self.cycle.keep_alive else self._close", "if True else self._close"),
    # Callers who are slow, many, or of other origins.
    Defect("handlers/protocol.py", "            self._finish(408)", "            self._finish(400)"),
    Defect("handlers/protocol.py", "._mind_arrival()\n\n    def connection", "._deaf\n\n    def connection"),
    Defect("handlers/protocol.py", "self.flow.read_paused or self._deaf", "self._deaf"),
    Defect("handlers/protocol.py", "            if not self._arrival:", "            if True:"),
    Defect("handlers/protocol.py", "if len(self.connections) > self.max", "if len(self.connections) >= self.max"),
    Defect("handlers/protocol.py", "for option in USER_TIMEOUT:", "for option in ():"),
    Defect("handlers/protocol.py", "        self._await_request()\n        if len", "        if len"),
    Defect("handlers/protocol.py", "not self._deaf and self.scope is not", "False and self.scope is not"),
    Defect("handlers/protocol.py", " or self._ended:", ":"),
    Defect("handlers/protocol.py", "            super().shutdown()", "            pass"),
    Defect("handlers/protocol.py", "        if not self._waits:", "        if True:"),
    Defect("handlers/protocol.py", "elif in_body and self.cycle.response_started:", "elif False:"),
    Defect("handlers/protocol.py", "REQUEST_ID.fullmatch(", "REQUEST_ID.match("),
    Defect("handlers/protocol.py", 'self._scope["scheme"] == "https"', 'self._scope["scheme"] != "https"'),
    Defect("handlers/cli.py", "else max(allowed, needed)", "else allowed"),
    Defect("handlers/cli.py", "and needed > most:", "and needed < 0:"),
    Defect("handlers/cross_origin.py", 'if p["in"] == "header"', 'if p["in"] == "query"'),
    Defect("handlers/cross_origin.py", "status_code=204", "status_code=400"),
    Defect("handlers/application.py", "            *cross_origin,\n", ""),
    Defect("handlers/settings.py", 'if origin != "*" and not', "if not"),
    # Keys.
    Defect("handlers/security.py", "if name is None:", "if False:"),
    Defect("handlers/security.py", 'if scheme.lower() == b"bearer" else', 'if scheme == b"Bearer" else'),
    Defect("handlers/security.py", 'if scheme.lower() == b"bearer" else', "if True else"),
    Defect("handlers/security.py", "if len(credentials) == 1 else", "if credentials else"),
    Defect("handlers/security.py", "        if ring.required:", "        if not ring.required:"),
    Defect("handlers/security.py", "            await ring.refresh()\n        if", "            pass\n        if"),
    Defect("handlers/security.py", 'request.scope["state"]["key"] = name', "pass"),
    Defect("handlers/security.py", "is not Match.NONE", "is Match.NONE"),
    Defect("handlers/application.py", "auth_all_paths=True", "auth_all_paths=False"),
    Defect("handlers/context.py", 'return f"key {name}".encode()', "pass"),
    Defect("models/keys.py", "TRUST = 0.5", "TRUST = 5"),
    Defect("models/keys.py", "if not revoked}", "}"),
    Defect("models/keys.py", "self._had_keys |= bool(rows)", "self._had_keys = bool(self._kept)"),
    Defect("models/keys.py", "BYTES = 32", "BYTES = 16"),
    Defect("models/keys.py", "return name if compare_digest(kept, digest) else None", "return name or None"),
    Defect("models/keys.py", ", where=ApiKey.revoked_at.is_null(False)", ""),
    Defect("models/keys.py", " & ApiKey.revoked_at.is_null())", ")"),
    Defect("models/keys.py", "    return sha256(key).digest()", "    return key.ljust(32)[:32]"),
    Defect("models/copy.py", ", KeptAnswer, ApiKey)", ", KeptAnswer)"),
    Defect("handlers/cli.py", "if not settings.insecure_open and not ip", "if False and not ip"),
    Defect("handlers/cli.py", "    if not find_all(database_url):", "    if True:"),
    # Health.
    Defect("handlers/health.py", "        await ensure_ready()", "        pass"),
    Defect("handlers/health.py", "    except Exception as error:", "    except UnavailableError as error:"),
    Defect("models/migrate.py", '.glob("[0-9]*.py")} - applied', '.glob("[0-9]*.py")} & set()'),
    # What can be seen.
    Defect("handlers/observation.py", 'state.get("answered", status)', "status"),
    Defect("handlers/protocol.py", 'if "answered" not in scope["state"]:', "if True:"),
    Defect("handlers/protocol.py", 'self.cycle.scope["state"].setdefault("answered", None)', "pass"),
    Defect("handlers/protocol.py", "if len(given) == 1 and", "if given and"),
    Defect("handlers/access_log.py", 'if b"%2f" in', 'if b"%2F" in'),
    Defect("handlers/cli.py", '"level": "INFO", "propagate": False', '"level": "WARNING", "propagate": False'),
    Defect(
        "handlers/cli.py",
        'os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder',
        'os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)',
    ),
    Defect("handlers/metrics.py", 'kind != "gauge" or _lives(int(process))', "bool(kind)"),
    Defect("handlers/metrics.py", "    if not file.stat().st_size:\n", "    if False:\n"),
    Defect("models/sqlite.py", "self._observe_batch(len(batch))", "self._observe_batch(1)"),
    # What is kept.
    Defect("models/queries.py", "where(Task.id > after", "where(Task.id >= after"),
    Defect("models/queries.py", ".order_by(Task.id)", ".order_by(Task.title)"),
    Defect("models/queries.py", "(narrow(Task.select(Task.id), page.c.last).limit", "(Task.select(Task.id).limit"),
    Defect("models/queries.py", '.limit(SQL("1")), SQL("IS NOT NULL")', '.limit(SQL("1")), SQL("IS NULL")'),
    Defect("models/sqlite.py", "(column == value) & (key > after)", "(key > after)"),
    Defect("models/postgresql.py", ', SQL("AND"), column <= value', ""),
    Defect("models/postgresql.py", "(Tuple(column, key), SQL", "(key > after, SQL('AND'), Tuple(column, key), SQL"),
    Defect(
        "models/queries.py",
        "if completed is None else _select_page_by_completed()",
        "if not completed else _select_page_by_completed()",
    ),
    Defect("models/queries.py", "in task.__dict__.items()}", "in task.__dict__.items() if value}"),
    Defect(
        "models/queries.py",
        "    values: dict[str, Node] = {name: parameter(name) for name in schemas.TaskInput.model_fields}",
        "    names = schemas.TaskInput.model_fields\n"
        "    values = {name: fn.COALESCE(parameter(name), getattr(Task, name)) for name in names}",
    ),
    Defect("models/queries.py", "    query = query.where(Task.id == param", "    query = query.where(Task.id >= param"),
    Defect("models/queries.py", 'Task.version + SQL("1")', 'Task.version + SQL("0")'),
    Defect("models/queries.py", "    if versions is None:\n        return query\n", "    return query\n"),
    Defect("models/queries.py", " if versions is not None else ()", ""),
    Defect("models/queries.py", "        if not found:\n            raise MissingError\n", ""),
    Defect("models/queries.py", "            raise ChangedError\n", "            raise MissingError\n"),
    Defect("models/migrations/0002_add_version.py", "DEFAULT 1", "DEFAULT 0"),
    Defect("models/migrations/0001_create_task.py", '[SQL("AUTOINCREMENT")]', "[]"),
    Defect("models/migrations/0001_create_task.py", '((("completed", "id"), False),)', "()"),
    Defect("models/task.py", 'timespec="milliseconds"', 'timespec="seconds"'),
    Defect("models/sqlite.py", '"synchronous": "full"', '"synchronous": "normal"'),
    Defect(
        "models/sqlite.py",
        '            self._writer.execute("COMMIT")\n',
        '            self._writer.execute("ROLLBACK")\n',
    ),
    Defect("models/sqlite.py", '                self._writer.execute("ROLLBACK")', "                pass"),
    Defect(
        "models/sqlite.py",
        '        self._writer.execute("SAVEPOINT one")',
        '        self._writer.execute("SAVEPOINT o")',
    ),
    Defect("models/sqlite.py", '            self._writer.execute("ROLLBACK TO one")\n', ""),
    Defect("models/sqlite.py", "            if not self._writer.in_transaction:\n                raise\n", ""),
    Defect(
        "models/sqlite.py",
        "        return [outcome for write in batch for outcome in self._commit([write])]",
        "            return [error] * len(batch)",
    ),
    Defect("models/sqlite.py", "if len(batch) == 1 or", "if batch or"),
    Defect("models/sqlite.py", " or isinstance(failure, UnavailableError):", ":"),
    Defect("models/sqlite.py", "range(len(self._waiting))", "range(bool(self._waiting))"),
    Defect("models/sqlite.py", "if len(self._waiting) == 1:", "if len(self._waiting) == 2:"),
    Defect(
        "models/sqlite.py",
        "            loop.call_soon_threadsafe(_answer, batch, self._commit(batch))",
        "            loop.call_soon_threadsafe(_answer, batch, [[(1, b'')]] * len(batch)), self._commit(batch)",
    ),
    Defect("models/sqlite.py", "        if write.done.cancelled():\n            continue\n", ""),
    Defect("models/sqlite.py", "if not _is_busy(error) or monotonic() > give_up:", "if True:"),
    Defect("models/sqlite.py", "if _is_busy(error) else error", "if False else error"),
    Defect("models/sqlite.py", "        self._ensure_there()\n        return", "        return"),
    Defect("models/sqlite.py", "        self._ensure_there()\n        self._begin", "        self._begin"),
    Defect("models/sqlite.py", "if monotonic() > self", "if False and monotonic() > self"),
    Defect(
        "models/sqlite.py", "        if self._file_at_path() != self._file:", "        if not self._file_at_path():"
    ),
    Defect(
        "models/sqlite.py",
        "        self._thread.shutdown()",
        "        self._thread.shutdown(wait=False, cancel_futures=True)",
    ),
    Defect(
        "models/sqlite.py",
        '        """Commit the writes that were accepted, then close the file."""\n        self._hand_over()\n',
        "",
    ),
    Defect("models/sqlite.py", "            if self.highest_id() < highest_id:", "            if False:"),
    Defect("models/sqlite.py", "    raise RuntimeError(", "    return None\n    str("),
    Defect("models/migrate.py", "        if not used.embedded:", "        if False:"),
    Defect("models/migrate.py", "if not migration.applied]:", "if migration.applied]:"),
    Defect("models/migrate.py", "    migrate(url)\n\n\ndef ensure", "\n\ndef ensure"),
    Defect("models/database.py", '"postgres": Server, ', ""),
    # A server.
    Defect(
        "models/postgresql.py",
        "current_setting('synchronous_commit'), 'off', 'on'",
        "current_setting('synchronous_commit'), 'off', 'off'",
    ),
    Defect("models/postgresql.py", 'SERVER_TIMEOUT = "2500ms"', 'SERVER_TIMEOUT = "0"'),
    Defect("models/postgresql.py", "call_later(RUN, _abort", "call_later(600, _abort"),
    Defect("models/postgresql.py", "            timer.cancel()\n".replace("            ", "                "), ""),
    Defect("models/postgresql.py", "self._pool.getconn(WAIT)", "self._pool.getconn(600)"),
    Defect("models/postgresql.py", "            if not _has_news(connection):", "            if True:"),
    Defect(
        "models/postgresql.py",
        "                await connection.close()\n                raise",
        "                raise",
    ),
    Defect("models/postgresql.py", "max_size=self._connections", "max_size=100"),
    Defect(
        "models/postgresql.py",
        "    async with connection.transaction():\n        return",
        "    if True:\n        return",
    ),
    Defect("models/postgresql.py", "errors.UniqueViolation, ", ""),
    Defect("models/postgresql.py", "errors.SerializationFailure, ", ""),
    Defect("models/postgresql.py", 'self.execute_sql("SELECT pg_advisory_xact_lock(%s)", (MIGRATION,))', "pass"),
    Defect("models/postgresql.py", 'if encoding != "UTF8":', "if not encoding:"),
    Defect("models/postgresql.py", "SET serial_normalization = 'sql_sequence'", "SET statement_timeout = 0"),
    Defect("models/postgresql.py", "except (psycopg.OperationalError, errors", "except (errors.Warning, errors"),
    # A file that moves to a server.
    Defect("models/copy.py", "if kept.digest() != copied.digest():", "if False:"),
    Defect("models/copy.py", "[file.highest_id()]", "[1]"),
    Defect("models/copy.py", ' LIMIT 1").fetchone():', ' LIMIT 0").fetchone():'),
    Defect("models/copy.py", ", KeptAnswer, ApiKey)", ", ApiKey)"),
    Defect("models/copy.py", 'file.atomic("IMMEDIATE")', "file.atomic()"),
    Defect("models/copy.py", "        ensure_migrated(file)\n", ""),
    # A copy of a file that is in use.
    Defect("models/backup.py", 'execute("BEGIN")', 'execute("BEGIN IMMEDIATE")'),
    Defect("models/backup.py", "PRAGMA journal_mode = delete", "PRAGMA journal_mode = wal"),
    Defect("models/backup.py", 'if verdict != "ok":', "if False:"),
    Defect("models/backup.py", "os.link(copy, file)", "os.replace(copy, file)"),
    # Several workers.
    Defect(
        "handlers/cli.py",
        "            Workers(config, [SharedPort.in_place_of(listener)]",
        "            Workers(config, [listener]",
    ),
    Defect("handlers/workers.py", "            process.wait_until_ready(START, self.should_exit)", "            pass"),
    # Limits on requests.
    Defect("handlers/rate_limits.py", "sorted(dict.fromkeys(parse_many(rate_limit))", "sorted(parse_many(rate_limit)"),
    Defect("handlers/rate_limits.py", "for window in windows if not window.left)", "for window in windows[:1])"),
    Defect("handlers/rate_limits.py", 'message["headers"] = [*message["headers"], *headers]', "pass"),
    Defect("handlers/rate_limits.py", 'return f"key {name}" if name else f', "return f"),
    Defect("handlers/rate_limits.py", "address.ipv4_mapped or ", ""),
    Defect("handlers/rate_limits.py", ", 64), strict", ", 128), strict"),
    Defect("handlers/rate_limits.py", ".startswith(UNLIMITED)", ".endswith(UNLIMITED)"),
    Defect("handlers/application.py", "return [limits, problems.Exceptions]", "return [limits]"),
    Defect("handlers/request_counts.py", "storage.get(key) if refused else ", ""),
    Defect("handlers/request_counts.py", "if self.expirations.get(known, now) <= now:", "if known == key:"),
    Defect("handlers/request_counts.py", "(key, *islice(self.expirations, 2))", "(key,)"),
    Defect("handlers/request_counts.py", "NoBackoff(), 1)", "NoBackoff(), 0)"),
    Defect("handlers/request_counts.py", "max(left, 0) / 1000", "round(max(left, 0) / 1000)"),
    Defect("handlers/request_counts.py", "asyncio.timeout(PATIENCE)", "asyncio.timeout(20 * PATIENCE)"),
    Defect("handlers/request_counts.py", "asyncio.Semaphore(TURNS)", "asyncio.Semaphore(1000)"),
    Defect("handlers/request_counts.py", "                self._resumes = now + PAUSE\n", "                pass\n"),
    Defect("handlers/request_counts.py", "            if self._resumes == before:", "            if True:"),
    Defect("handlers/request_counts.py", "                if not self._resumes:", "                if True:"),
    # What is published and set.
    Defect("handlers/settings.py", 'for tests")\n    ] = False', 'for tests")\n    ] = True'),
    Defect("handlers/settings.py", 'url.scheme not in ("http", "https")', "not url.scheme"),
    Defect("handlers/settings.py", 'return text.rstrip("/")', "return text"),
    Defect(DOCUMENTATION, '_with(closed, ("security",), "[]")', "closed"),
    Defect(DOCUMENTATION, "closed if ring.required else opened", "opened"),
    Defect(DOCUMENTATION, "            await ring.refresh()\n", "            pass\n"),
    Defect(DOCUMENTATION, "if settings.public_url else", "if not settings.public_url else"),
    Defect(DOCUMENTATION, "text[:start] + value + text[end:]", "text[:start] + value + text[end + 1 :]"),
    Defect(DOCUMENTATION, '", ".join(request.headers.getlist("If-None-Match")) or None', "None"),
    Defect(DOCUMENTATION, "media_type if reply.body else None", "media_type"),
    Defect(DOCUMENTATION, "connect-src 'self'; ", ""),
    Defect(DOCUMENTATION, "style-src 'self'; ", "style-src 'self' 'unsafe-inline'; "),
    Defect(PAGE, "  if (parameter.required) return parameter;", "  return parameter;"),
    Defect(PAGE, 'code >= "400"', 'code >= "600"'),
    Defect(PAGE, "contract.security.length ?", "!contract.security.length ?"),
    Defect(PAGE, 'toggle("dark-mode", dark.matches)', 'toggle("dark-mode", false)'),
]


def evidence(defect: Defect) -> str:
    """Plant a defect in a copy of the project, and return the first test that fails; nothing if all pass."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        project = Path(folder) / "project"
        shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".*", "*.db*", "build", "dist", "__pycache__"))
        if (ROOT / "build/node").exists():
            (project / "build").mkdir()
            (project / "build/node").symlink_to(ROOT / "build/node")
        path = project / defect.file
        path.write_text(path.read_text().replace(defect.old, defect.new))
        # The copy comes before the installed project.
        environment = os.environ | {"PYTHONPATH": str(project)}
        # What the copy lacks is skipped, as everywhere but in CI, or each defect would seem to be found.
        environment.pop("CI", None)
        if defect.file == CONTRACT:
            subprocess.run([Path(PYTHON).with_name("datamodel-codegen")], cwd=project, env=environment, check=False)
        files = sorted((project / "tests").glob("test_*.py"), key=lambda file: file.stem not in FIRST)
        # It finds every defect, since the text is no longer there.
        files.remove(project / "tests/project/test_mutants.py")
        command = [PYTHON, "-m", "pytest", "-x", "-q", f"--basetemp={folder}/pytest", *map(str, files)]
        try:
            run = subprocess.run(
                command, cwd=project, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return f"the tests do not end within {PATIENCE} s"
        failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return (failed or ["the tests cannot be run"])[0] if run.returncode else ""


def main() -> None:
    """Try the defects whose numbers are given, or all; exit with status 1 if one survives."""
    numbers = [int(number) for number in sys.argv[1:]] or list(range(len(DEFECTS)))
    surviving = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, found in zip(numbers, pool.map(lambda number: evidence(DEFECTS[number]), numbers), strict=True):
            defect = DEFECTS[number]
            print(f"{number:3} {defect.file}: {defect.old.strip()!r} → {defect.new.strip()!r}")
            print(f"    {found[:150] or 'SURVIVES'}", flush=True)
            if not found:
                surviving.append(number)
    print(f"{len(numbers) - len(surviving)} of {len(numbers)} defects were found.")
    if surviving:
        sys.exit(f"The tests do not find {surviving}.")


if __name__ == "__main__":
    main()

"""An example change: add the operation `updateTask`, a PATCH that changes some properties of a task."""

from pathlib import Path
from typing import Any

from tests.support.edits import add_to_yaml, append_to_class

OPERATION = """
patch:
  operationId: updateTask
  tags: [Tasks]
  summary: Update a task
  description: |
    Changes the properties that the body contains; the others do not change. With `If-Match`, the task is changed only
    if it has not changed since the client read it.
  parameters:
    - $ref: '#/components/parameters/IfMatch'
  requestBody:
    $ref: '#/components/requestBodies/TaskPatch'
  responses:
    '200':
      $ref: '#/components/responses/TaskReplaced'
    '400':
      $ref: '#/components/responses/InvalidTask'
    '401':
      $ref: '#/components/responses/KeyRequired'
    '404':
      $ref: '#/components/responses/TaskNotFound'
    '408':
      $ref: '#/components/responses/RequestTimeout'
    '412':
      $ref: '#/components/responses/TaskHasChanged'
    '413':
      $ref: '#/components/responses/BodyTooLarge'
    '414':
      $ref: '#/components/responses/TargetTooLong'
    '415':
      $ref: '#/components/responses/NotJson'
    '429':
      $ref: '#/components/responses/TooManyRequests'
    '431':
      $ref: '#/components/responses/HeadersTooLarge'
    '500':
      $ref: '#/components/responses/ReplaceTaskFailed'
    '503':
      $ref: '#/components/responses/Unavailable'
"""
BODY = """
TaskPatch:
  description: A JSON document of at most 65,536 bytes.
  required: true
  x-max-bytes: 65536
  content:
    application/json:
      schema:
        $ref: '#/components/schemas/TaskPatch'
      examples:
        CompletedPatch:
          $ref: '#/components/examples/CompletedPatch'
"""
SCHEMA = """
TaskPatch:
  description: The properties of a task to change.
  type: object
  additionalProperties: false
  properties:
    title:
      $ref: '#/components/schemas/TaskTitle'
    description:
      $ref: '#/components/schemas/TaskDescription'
    completed:
      description: Whether the task is completed.
      type: boolean
      example: true
"""
EXAMPLE = """
CompletedPatch:
  summary: Complete the task
  value:
    completed: true
"""
HANDLER = """
async def update_task(self, id: int, body: TaskPatch, if_match: str | None) -> Reply:
    task = await self.database.write(self.tasks.patch, id, body, self._versions(if_match))
    return Reply(task.json, {"ETag": self._tag(task)})
"""


def is_applied(document: dict[str, Any]) -> bool:
    """Return whether the contract in `document` already contains this change."""
    return "patch" in document["paths"]["/api/tasks/{id}"]


def apply(project: Path) -> None:
    """Apply the change to the copy of the project in a folder; `make generate` must be run afterwards."""
    contract = project / "openapi.yaml"
    add_to_yaml(contract, ("paths", "/api/tasks/{id}"), OPERATION)
    add_to_yaml(contract, ("components", "requestBodies"), BODY)
    add_to_yaml(contract, ("components", "schemas"), SCHEMA)
    add_to_yaml(contract, ("components", "examples"), EXAMPLE)

    handlers = project / "handlers/tasks.py"
    text = handlers.read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("from models.schemas import "))
    handlers.write_text(text.replace(line, f"{line}, TaskPatch"))
    append_to_class(handlers, "Handlers", HANDLER)

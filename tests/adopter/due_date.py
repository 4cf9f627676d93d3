"""An example change: add a due date to tasks, and let clients filter the list by due date."""

from pathlib import Path
from typing import Any

from tests.support.edits import (
    add_after,
    add_argument,
    add_entry,
    add_parameter,
    add_to_yaml,
    next_migration,
)

PROPERTY = """
dueDate:
  $ref: '#/components/schemas/DueDate'
"""
SCHEMA = """
DueDate:
  description: The day on which the task is due (RFC 3339, full-date), or null.
  type: string
  format: date
  nullable: true
  maxLength: 10
  pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'
  default: null
  example: '2026-05-31'
"""
FILTER = """
DueBefore:
  name: dueBefore
  in: query
  description: Returns only tasks that are due before this day (RFC 3339, full-date).
  schema:
    type: string
    format: date
    maxLength: 10
    pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'
  example: '2026-06-01'
"""
MIGRATION = '''\
"""Add the due date of a task."""

from peewee import Database
from playhouse.migrate import SchemaMigrator


def up(migrator: SchemaMigrator, db: Database) -> None:
    db.execute_sql("ALTER TABLE task ADD COLUMN due_date TEXT")
'''
CONDITION = '"due_before": lambda day: Task.due_date < day,'


def is_applied(document: dict[str, Any]) -> bool:
    """Return whether the contract in `document` already contains this change."""
    return "dueDate" in document["components"]["schemas"]["Task"]["properties"]


def apply(project: Path) -> None:
    """Apply the change to the copy of the project in a folder; `make generate` must be run afterwards."""
    contract = project / "openapi.yaml"
    components = ("components",)
    add_to_yaml(contract, (*components, "schemas"), SCHEMA)
    add_to_yaml(contract, (*components, "schemas", "TaskInput", "properties"), PROPERTY)
    add_to_yaml(contract, (*components, "schemas", "Task", "properties"), PROPERTY)
    add_to_yaml(contract, (*components, "schemas", "Task", "required"), "dueDate")
    add_to_yaml(contract, (*components, "parameters"), FILTER)
    parameters = ("paths", "/api/tasks", "get", "parameters")
    add_to_yaml(contract, parameters, "- $ref: '#/components/parameters/DueBefore'")
    # Every example of a task must contain the new property.
    for path in (
        ("TutorialTask", "value"),
        ("CompletedTask", "value"),
        ("TaskPage", "value", 0),
        ("TaskPage", "value", 1),
    ):
        add_to_yaml(contract, (*components, "examples", *path), "dueDate: null")

    next_migration(project / "models/migrations", "add_due_date").write_text(MIGRATION)
    add_after(project / "models/task.py", "Task", "created_at", "due_date = peewee.TextField(null=True)")
    add_entry(project / "models/task.py", "FILTERS", CONDITION)

    handlers = project / "handlers/tasks.py"
    add_parameter(handlers, "list_tasks", "due_before: str | None")
    add_argument(handlers, "list_tasks", "self.tasks.select_page", "due_before=due_before")

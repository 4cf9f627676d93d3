"""A peer: the API in FastAPI with SQLAlchemy, as in its documentation (fastapi.tiangolo.com/tutorial/sql-databases)."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import Session

from tests.benchmarks.applications.fastapi_schemas import Task, TaskInput, TaskRow

engine = create_engine(f"sqlite:///{os.environ['BENCHMARK_DATABASE']}", connect_args={"check_same_thread": False})


@event.listens_for(engine, "connect")
def set_pragmas(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = full")


def open_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


Database = Annotated[Session, Depends(open_session)]
app = FastAPI()


@app.get("/api/tasks", response_model=list[Task])
def list_tasks(session: Database, limit: Annotated[int, Query(ge=1, le=1000)] = 100, after: int = 0) -> Any:
    return session.scalars(select(TaskRow).where(TaskRow.id > after).order_by(TaskRow.id).limit(limit)).all()


@app.get("/api/tasks/{id}", response_model=Task)
def get_task(session: Database, id: int) -> Any:
    if not (task := session.get(TaskRow, id)):
        raise HTTPException(404)
    return task


@app.post("/api/tasks", response_model=Task, status_code=201)
def create_task(session: Database, body: TaskInput) -> Any:
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    task = TaskRow(**body.model_dump(), created_at=created_at)
    session.add(task)
    session.commit()
    return task


@app.put("/api/tasks/{id}", response_model=Task)
def replace_task(session: Database, id: int, body: TaskInput) -> Any:
    if not (task := session.get(TaskRow, id)):
        raise HTTPException(404)
    for name, value in body.model_dump().items():
        setattr(task, name, value)
    session.commit()
    return task

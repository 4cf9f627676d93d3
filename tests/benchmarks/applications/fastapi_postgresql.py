"""A peer: the API in FastAPI with SQLAlchemy on asyncpg, as in its documentation (docs.sqlalchemy.org, asyncio)."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query
from sqlalchemy import select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from tests.benchmarks.applications.fastapi_schemas import Task, TaskInput, TaskRow

url = make_url(os.environ["BENCHMARK_DATABASE"]).set(drivername="postgresql+asyncpg")
engine = create_async_engine(url, pool_size=10, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def open_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


Database = Annotated[AsyncSession, Depends(open_session)]
app = FastAPI()


@app.get("/api/tasks", response_model=list[Task])
async def list_tasks(session: Database, limit: Annotated[int, Query(ge=1, le=1000)] = 100, after: int = 0) -> Any:
    page = select(TaskRow).where(TaskRow.id > after).order_by(TaskRow.id).limit(limit)
    return (await session.scalars(page)).all()


@app.get("/api/tasks/{id}", response_model=Task)
async def get_task(session: Database, id: int) -> Any:
    if not (task := await session.get(TaskRow, id)):
        raise HTTPException(404)
    return task


@app.post("/api/tasks", response_model=Task, status_code=201)
async def create_task(session: Database, body: TaskInput) -> Any:
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    task = TaskRow(**body.model_dump(), created_at=created_at)
    session.add(task)
    await session.commit()
    return task


@app.put("/api/tasks/{id}", response_model=Task)
async def replace_task(session: Database, id: int, body: TaskInput) -> Any:
    if not (task := await session.get(TaskRow, id)):
        raise HTTPException(404)
    for name, value in body.model_dump().items():
        setattr(task, name, value)
    await session.commit()
    return task

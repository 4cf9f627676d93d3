"""The models of the peers in FastAPI: the table for SQLAlchemy, and the bodies for Pydantic."""

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase): ...


class TaskRow(Base):
    __tablename__ = "task"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    title: Mapped[str]
    description: Mapped[str | None]
    completed: Mapped[bool]
    created_at: Mapped[str]


class TaskInput(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str = Field(min_length=1, max_length=255)
    description: str | None = Field(default=None, max_length=4000)
    completed: bool = False


class Task(TaskInput):
    model_config = ConfigDict(from_attributes=True)
    id: int
    created_at: str = Field(serialization_alias="createdAt")

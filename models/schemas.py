# Generated from openapi.yaml by `make generate`; do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel as _BaseModel
from pydantic import ConfigDict, Field, RootModel, StrictBool, StrictInt, StrictStr


class BaseModel(_BaseModel):
    model_config = ConfigDict(
        extra="allow",
        populate_by_name=True,
    )


class EntityTags1(RootModel[StrictStr]):
    root: Annotated[
        StrictStr,
        Field(
            description="Entity tags separated by commas, or `*` (RFC 9110, section 13.1).",
            examples=['"1-4c1f0e9a"'],
            pattern='^(,[ \\t]*)*(W/)?"[!#-~\\u0080-\\u00FF]*"([ \\t]*,([ \\t]*(W/)?"[!#-~\\u0080-\\u00FF]*")?)*$',
        ),
    ]


class EntityTags(RootModel[Literal["*"] | EntityTags1]):
    root: Annotated[
        Literal["*"] | EntityTags1,
        Field(
            description="Entity tags separated by commas, or `*` (RFC 9110, section 13.1).",
            examples=['"1-4c1f0e9a", "2-4c1f0e9a"'],
        ),
    ]


class TaskInput(BaseModel):
    """The properties of a task that a client can set."""

    model_config = ConfigDict(
        extra="forbid",
    )
    title: Annotated[
        StrictStr,
        Field(
            description="The title of the task. Must not be blank or contain the character U+0000.",
            examples=["Write the tutorial"],
            max_length=255,
            min_length=1,
            pattern="^([^\\u0000]*[^\\u0000\\u0009-\\u000D\\u0020\\u0085\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000\\uFEFF][^\\u0000]*)?$",
        ),
    ]
    description: Annotated[
        StrictStr | None,
        Field(
            description="Details of the task, or null. Must not contain the character U+0000.",
            examples=["Finish the Next.js API routes guide"],
            max_length=4000,
            pattern="^[^\\u0000]*$",
        ),
    ] = None
    completed: Annotated[StrictBool, Field(description="Whether the task is completed.", examples=[False])] = False


class Task(BaseModel):
    """A stored task."""

    model_config = ConfigDict(
        extra="forbid",
    )
    id: Annotated[
        StrictInt,
        Field(
            description="The id of the task. Ids increase and are never reused.",
            examples=[1],
            ge=1,
            le=9223372036854775807,
        ),
    ]
    title: Annotated[
        StrictStr,
        Field(
            description="The title of the task. Must not be blank or contain the character U+0000.",
            examples=["Write the tutorial"],
            max_length=255,
            min_length=1,
            pattern="^([^\\u0000]*[^\\u0000\\u0009-\\u000D\\u0020\\u0085\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000\\uFEFF][^\\u0000]*)?$",
        ),
    ]
    description: Annotated[
        StrictStr | None,
        Field(
            description="Details of the task, or null. Must not contain the character U+0000.",
            examples=["Finish the Next.js API routes guide"],
            max_length=4000,
            pattern="^[^\\u0000]*$",
        ),
    ]
    completed: Annotated[StrictBool, Field(description="Whether the task is completed.", examples=[False])]
    created_at: Annotated[
        StrictStr,
        Field(
            alias="createdAt",
            description="The time of creation (RFC 3339, UTC, with milliseconds). Never changes.",
            examples=["2026-05-12T10:32:14.000Z"],
            max_length=24,
            pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$",
        ),
    ]


class Confirmation(BaseModel):
    """Confirms that the operation succeeded."""

    model_config = ConfigDict(
        extra="forbid",
    )
    message: Annotated[
        Literal["Task deleted"], Field(description="The result of the operation.", examples=["Task deleted"])
    ] = "Task deleted"

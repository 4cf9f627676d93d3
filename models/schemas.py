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


class EntityTags(RootModel[StrictStr]):
    root: Annotated[
        StrictStr,
        Field(
            description="Entity tags separated by commas, or `*` (RFC 9110, section 13.1).",
            examples=['"1-4c1f0e9a", "2-4c1f0e9a"'],
            min_length=1,
            pattern='^(\\*|(,[ \\t]*)*(W/)?"[^\\x00-\\x20"\\x7F]*"([ \\t]*,([ \\t]*(W/)?"[^\\x00-\\x20"\\x7F]*")?)*)?$',
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
            description="The title of the task. Must not be blank or contain the character U+0000. A blank title consists of nothing but\nwhite space as ECMAScript defines it, and U+0085.\n",
            examples=["Write the tutorial"],
            max_length=255,
            min_length=1,
            pattern="^([^\\x00]*[^\\x00\\s\x85][^\\x00]*)?$",
        ),
    ]
    description: Annotated[
        StrictStr | None,
        Field(
            description="Details of the task, or null. Must not contain the character U+0000.",
            examples=["Finish the Next.js API routes guide"],
            max_length=4000,
            pattern="^[^\\x00]*$",
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
            le=9007199254740991,
        ),
    ]
    title: Annotated[
        StrictStr,
        Field(
            description="The title of the task. Must not be blank or contain the character U+0000. A blank title consists of nothing but\nwhite space as ECMAScript defines it, and U+0085.\n",
            examples=["Write the tutorial"],
            max_length=255,
            min_length=1,
            pattern="^([^\\x00]*[^\\x00\\s\x85][^\\x00]*)?$",
        ),
    ]
    description: Annotated[
        StrictStr | None,
        Field(
            description="Details of the task, or null. Must not contain the character U+0000.",
            examples=["Finish the Next.js API routes guide"],
            max_length=4000,
            pattern="^[^\\x00]*$",
        ),
    ]
    completed: Annotated[StrictBool, Field(description="Whether the task is completed.", examples=[False])]
    created_at: Annotated[
        StrictStr,
        Field(
            alias="createdAt",
            description="The time of creation (RFC 3339, UTC, with milliseconds). Never changes.",
            examples=["2026-05-12T10:32:14.000Z"],
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

# Generated from openapi.yaml by `make generate`; do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, StrictBool, StrictInt, StrictStr


class EntityTags1(RootModel[StrictStr]):
    root: Annotated[
        StrictStr,
        Field(
            description="Entity tags with commas between them, or `*` (RFC 9110, section 13.1).",
            examples=['"1-4c1f0e9a"'],
            pattern='^(,[ \\t]*)*(W/)?"[!#-~\\u0080-\\u00FF]*"([ \\t]*,([ \\t]*(W/)?"[!#-~\\u0080-\\u00FF]*")?)*$',
        ),
    ]


class EntityTags(RootModel[Literal["*"] | EntityTags1]):
    root: Annotated[
        Literal["*"] | EntityTags1,
        Field(
            description="Entity tags with commas between them, or `*` (RFC 9110, section 13.1).",
            examples=['"1-4c1f0e9a", "2-4c1f0e9a"'],
        ),
    ]


class TaskInput(BaseModel):
    """What a caller says of a task."""

    model_config = ConfigDict(
        extra="forbid",
    )
    title: Annotated[
        StrictStr,
        Field(
            description="What is to be done. Not blank; without the character U+0000.",
            examples=["Write the tutorial"],
            max_length=255,
            min_length=1,
            pattern="^([^\\u0000]*[^\\u0000\\u0009-\\u000D\\u0020\\u0085\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000\\uFEFF][^\\u0000]*)?$",
        ),
    ]
    description: Annotated[
        StrictStr | None,
        Field(
            description="More about it, or null. Without the character U+0000.",
            examples=["Finish the Next.js API routes guide"],
            max_length=4000,
            pattern="^[^\\u0000]*$",
        ),
    ] = None
    completed: Annotated[StrictBool, Field(description="Whether it is done.", examples=[False])] = False


class Task(BaseModel):
    """A task as the service keeps it."""

    model_config = ConfigDict(
        extra="forbid",
    )
    id: Annotated[
        StrictInt,
        Field(
            description="Numbers the task. Ids grow and are never given again.",
            examples=[1],
            ge=1,
            le=9223372036854775807,
        ),
    ]
    title: Annotated[
        StrictStr,
        Field(
            description="What is to be done. Not blank; without the character U+0000.",
            examples=["Write the tutorial"],
            max_length=255,
            min_length=1,
            pattern="^([^\\u0000]*[^\\u0000\\u0009-\\u000D\\u0020\\u0085\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000\\uFEFF][^\\u0000]*)?$",
        ),
    ]
    description: Annotated[
        StrictStr | None,
        Field(
            description="More about it, or null. Without the character U+0000.",
            examples=["Finish the Next.js API routes guide"],
            max_length=4000,
            pattern="^[^\\u0000]*$",
        ),
    ]
    completed: Annotated[StrictBool, Field(description="Whether it is done.", examples=[False])]
    created_at: Annotated[
        StrictStr,
        Field(
            alias="createdAt",
            description="When it was created (RFC 3339, in UTC, to the millisecond). Never changes.",
            examples=["2026-05-12T10:32:14.000Z"],
            max_length=24,
            pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$",
        ),
    ]


class Confirmation(BaseModel):
    """Says what was done."""

    model_config = ConfigDict(
        extra="forbid",
    )
    message: Annotated[Literal["Task deleted"], Field(description="What was done.", examples=["Task deleted"])] = (
        "Task deleted"
    )


class Violation(BaseModel):
    """A rule that was broken, and by what; a place in the body or a parameter."""

    model_config = ConfigDict(
        extra="forbid",
    )
    detail: Annotated[
        StrictStr, Field(description="What the rule asks for.", examples=["Title is required"], max_length=131072)
    ]
    pointer: Annotated[
        StrictStr | None,
        Field(
            description="The place in the body, as a JSON Pointer (RFC 6901); empty for the body as a whole.",
            examples=["/title"],
            max_length=131072,
        ),
    ] = None
    parameter: Annotated[
        StrictStr | None,
        Field(description="The name of the query parameter or header field.", examples=["limit"], max_length=8192),
    ] = None


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    model_config = ConfigDict(
        extra="forbid",
    )
    type: Annotated[
        StrictStr,
        Field(
            description="Names the kind of problem; `about:blank` stands for what the status says.",
            examples=["about:blank"],
            max_length=255,
        ),
    ]
    title: Annotated[
        StrictStr,
        Field(
            description="The kind of problem in words; the same whenever it occurs.",
            examples=["Bad Request"],
            max_length=255,
        ),
    ]
    status: Annotated[StrictInt, Field(description="The status of the response.", examples=[400], ge=400, le=599)]
    detail: Annotated[
        StrictStr, Field(description="What was wrong this time.", examples=["Title is required"], max_length=131072)
    ]
    errors: Annotated[
        list[Violation] | None,
        Field(
            description="Every rule that was broken, up to the first hundred. Only a 400 has it.",
            examples=[[{"detail": "Title is required", "pointer": "/title"}]],
            max_length=100,
            min_length=1,
        ),
    ] = None

"""A generated model accepts a body exactly if the model's schema in the contract accepts it."""

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from handlers.contract.validation import Rules
from models import schemas
from tests.support.contract import resolved

SCHEMAS = resolved()["components"]["schemas"]
# A nightly run sets a larger number of examples.
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "250"))
# Other models are not tested: the service never rejects a body because of them. Nor are dates that do not exist.
MODELS = [schemas.TaskInput, schemas.Task]

# Edge cases: whitespace, characters that some languages count as two, and line endings in regular expressions.
CHARACTERS = (
    " \t\n\r\v\f\0\x1c\x1f\x7f\x85\xa0\u1680\u180e\u2000\u200a\u200b"
    "\u2028\u2029\u202f\u205f\u3000\ufeff\U0010ffff🚀é́aZ09"
)
LENGTHS = [0, 1, 2, 254, 255, 256, 3999, 4000, 4001]
TEXTS = st.one_of(
    st.text(st.sampled_from(CHARACTERS), max_size=6),
    st.builds(lambda character, length: character * length, st.sampled_from(CHARACTERS), st.sampled_from(LENGTHS)),
    st.builds(lambda length, end: "a" * length + end, st.sampled_from([0, 253, 254, 255, 3999]), st.text(max_size=2)),
    st.sampled_from(["2026-05-12T10:32:14.000Z", "2026-05-12T10:32:14Z", "2026-05-12T10:32:14.000Z\n"]),
)
NUMBERS = st.sampled_from([0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, 0.0, 1.0, 1.5, 1e300])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["title", "a"]), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def bodies(draw: st.DrawFn, schema: dict[str, Any]) -> Any:
    """Draw a valid body in which up to three properties are removed, added or changed; rarely, draw any JSON value."""
    if draw(st.integers(0, 19)) == 0:
        return draw(VALUES)
    body = {name: part["example"] for name, part in schema["properties"].items()}
    for name in draw(st.lists(st.sampled_from([*schema["properties"], "id", "createdAt", "other"]), max_size=3)):
        if draw(st.booleans()):
            body.pop(name, None)
        else:
            body[name] = draw(TEXTS if draw(st.booleans()) else VALUES)
    return body


def accepts(model: type[BaseModel], body: Any) -> bool:
    try:
        model.model_validate(body)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_model_and_schema_agree(model: type[BaseModel]) -> None:
    schema = SCHEMAS[model.__name__]
    rules = Rules(schema, "The body")
    outcomes = set()

    @given(bodies(schema))
    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
    def agree(body: Any) -> None:
        body = json.loads(json.dumps(body))
        allowed = rules.is_valid(body)
        outcomes.add(allowed)
        assert allowed == accepts(model, body)
        assert allowed != bool(list(rules.violations(body)))

    agree()
    assert outcomes == {True, False}

"""The handlers of the document of OpenAPI 3.1, with the measurements in a list."""

from typing import Any

measurements: list[dict[str, Any]] = []


async def list_measurements(above: float | None, unit: str | None, between: list[int] | None) -> list[dict[str, Any]]:
    return [found for found in measurements if above is None or found["value"] > above]


async def add_measurement(body: dict[str, Any]) -> dict[str, Any]:
    measurements.append(body)
    return body


async def set_picture(body: bytes) -> None:
    assert isinstance(body, bytes)

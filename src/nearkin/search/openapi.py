"""What can be asked of a service, as OpenAPI describes it."""

from __future__ import annotations

from typing import Any

MOST_HITS = 1000


def operation(summary: str, answers: dict[str, str], **rest: Any) -> dict[str, Any]:
    """One entry of OPENAPI."""
    responses = {status: {"description": text} for status, text in answers.items()}
    return {"summary": summary, "responses": responses, **rest}


PICTURE = {
    "required": True,
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
}
REFUSALS = {
    "400": "a parameter is wrong, or the body is empty",
    "401": "the API key is missing or wrong",
    "408": "the body came too slowly",
    "413": "the body is too large",
    "422": "the body is no picture that can be read",
    "503": "too many pictures wait",
}


def parameter(name: str, schema: dict, required: bool = False) -> dict[str, Any]:
    """A parameter of a query, as OpenAPI describes it."""
    return {"name": name, "in": "query", "required": required, "schema": schema}


OPENAPI = {
    "openapi": "3.1.0",
    "info": {"title": "Nearkin", "version": "1"},
    "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    "paths": {
        "/search": {
            "post": operation(
                "The nearest photographs of a picture",
                {"200": "hits, the label they vote for with its share, known or not", **REFUSALS},
                requestBody=PICTURE,
                parameters=[
                    parameter("k", {"type": "integer", "minimum": 1, "maximum": MOST_HITS}),
                    parameter("label", {"type": "string"}),
                ],
            )
        },
        "/embed": {
            "post": operation(
                "A picture's embedding",
                {"200": "the numbers, and the Model's identity", **REFUSALS},
                requestBody=PICTURE,
            )
        },
        "/thumbnail": {
            "get": operation(
                "A small picture of an item",
                {"200": "a JPEG", "404": "there is no such item"},
                parameters=[parameter("path", {"type": "string"}, True)],
            )
        },
        "/healthz": {"get": operation("Whether the service is alive", {"200": "it is"})},
        "/metrics": {"get": operation("Counts and times for Prometheus", {"200": "text"})},
    },
}

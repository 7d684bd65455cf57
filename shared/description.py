"""What a service's OpenAPI says of its problems, which FastAPI takes for its own kind of JSON."""

from typing import Any, Final

from fastapi import FastAPI

PROBLEM_TYPE: Final = "application/problem+json"
_OURS: Final = "#/components/schemas/Problem"
_FASTAPIS: Final = "#/components/schemas/HTTPValidationError"


class Application(FastAPI):
    """FastAPI, whose OpenAPI says that problems are problem+json, those of parameters among them."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            described = super().openapi()
            for path in described["paths"].values():
                for operation in path.values():
                    for response in operation["responses"].values():
                        _tell_problem(response)
            for name in ("HTTPValidationError", "ValidationError"):
                described.get("components", {}).get("schemas", {}).pop(name, None)
        return super().openapi()


def _tell_problem(response: dict[str, Any]) -> None:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref") in (_OURS, _FASTAPIS):
        response["content"] = {PROBLEM_TYPE: {"schema": {"$ref": _OURS}}}

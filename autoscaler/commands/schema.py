"""`tidegate schema`: the policy's JSON schema, from which editors complete."""

from __future__ import annotations

import json
from typing import Any

import typer

_EPILOG = """\b
Examples:
  tidegate schema > policy.schema.json
  # first line of a policy, for editors with a YAML language server:
  # yaml-language-server: $schema=policy.schema.json
"""


def register(app: typer.Typer) -> None:
    app.command("schema", epilog=_EPILOG)(schema)


def schema() -> None:
    """Print the JSON schema of the policy, with what each field means."""
    from autoscaler.policy.schema import Policy

    document = Policy.model_json_schema()
    for section in (document, *document["$defs"].values()):
        for field in section.get("properties", {}).values():
            _as_written(field)
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _as_written(field: dict[str, Any]) -> None:
    """Show a default as a file would have it: durations with their unit, sections by their own fields' defaults."""
    default = field.get("default")
    if isinstance(default, dict) and "$ref" in field:
        del field["default"]
    elif field.get("type") == "string" and isinstance(default, int | float):
        field["default"] = f"{default:.15g}s"
    elif isinstance(default, list) and field.get("items", {}).get("type") == "string":
        field["default"] = [f"{one:.15g}s" if isinstance(one, int | float) else one for one in default]

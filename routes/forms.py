"""Multipart forms as OpenAI's clients send them: lists as repeated `name[]`, objects as `name[key]`."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar, get_origin

from fastapi import Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData
from starlette.datastructures import UploadFile as StarletteUploadFile

from errors import InvalidAudio, InvalidRequest

M = TypeVar("M", bound=BaseModel)

MAX_FIELDS = 200  # 100 keywords, and every other field
MAX_FILES = 1
MAX_FIELD_BYTES = 20 * 1024 * 1024  # four speaker references of 10 s, in base64

KEYED_FIELD = re.compile(r"(\w+)\[(\w+)\]")

FILE_DESCRIPTION = "flac, mp3, mp4, mpeg, mpga, m4a, ogg, opus, wav or webm; the content decides, never the name"


@asynccontextmanager
async def submitted(request: Request, model: type[M]) -> AsyncGenerator[tuple[M, UploadFile]]:
    """The validated fields of a form, and its `file`, which is closed and removed at the end.

    Raises RequestValidationError for a wrong field, InvalidAudio where there is no file.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidAudio("file: the body should be a form with a file; send it as multipart/form-data.", param="file")
    async with request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
        try:
            fields = model.model_validate(_gathered(form, model))
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error
        file = form.get("file")
        if not isinstance(file, StarletteUploadFile):
            raise InvalidAudio("file: there is no file in the form; send it as multipart/form-data.", param="file")
        yield fields, UploadFile(file.file, size=file.size, filename=file.filename, headers=file.headers)


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """The form for /openapi.json: the model's fields under the names that clients send, and the file."""
    schema = _without_references(model.model_json_schema())
    properties = {"file": {"type": "string", "format": "binary", "description": FILE_DESCRIPTION}}
    for name, field in schema["properties"].items():
        properties[f"{name}[]" if field.get("type") == "array" else name] = field
    form = {"type": "object", "properties": properties, "required": ["file", *schema["required"]]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def _gathered(form: FormData, model: type[BaseModel]) -> dict[str, Any]:
    """Form fields → what the model validates. An empty value counts as none: many clients send every field."""
    gathered: dict[str, Any] = {}
    for key, value in form.multi_items():
        name = key.removesuffix("[]")
        if not isinstance(value, str) or not value:
            continue
        if keyed := KEYED_FIELD.fullmatch(name):
            _one_form_only(gathered.setdefault(keyed[1], {}), dict, keyed[1])[keyed[2]] = value
        elif name in model.model_fields and get_origin(model.model_fields[name].annotation) is list:
            _one_form_only(gathered.setdefault(name, []), list, name).append(value)
        else:
            _one_form_only(gathered.get(name, value), str, name)
            gathered[name] = value
    if "chunking_strategy" in gathered:
        gathered["chunking_strategy"] = _object(gathered["chunking_strategy"])
    return gathered


def _one_form_only(found: Any, expected: type, name: str) -> Any:
    """Refuse a field that is sent both as `name` and as `name[key]`: one of them would be lost."""
    if not isinstance(found, expected):
        raise InvalidRequest(f"{name}: it is sent in two forms, {name} and {name}[…].", param=name)
    return found


def _object(value: Any) -> Any:
    """An object that a client sends as JSON in one field, as the object."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _without_references(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its definitions put where they are referred to: OpenAPI would look for them elsewhere."""
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolved(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in node.items()}
        return [resolved(each) for each in node] if isinstance(node, list) else node

    result: dict[str, Any] = resolved(schema)
    return result

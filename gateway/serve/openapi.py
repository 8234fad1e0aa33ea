"""The gateway's own description, as OpenAPI 3.1: `GET /openapi.json`.

Built from the protocols that are served and from the models that check their bodies, so that it cannot drift from
them. What those models do not check themselves (conversations, tools) is any value here; the protocols' own
specifications define it. A model's answer is described as "an object" or "a stream of events", no further.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dragoman import gateway
from dragoman.translators.protocol import Json, Protocol

ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        },
    },
}
MODEL: Json = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
MODELS: Json = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}},
}
FORWARDED_REQUEST: Json = {
    "type": "object",
    "required": ["model"],
    "properties": {"model": {"type": "string", "minLength": 1}},
}
FAILURES = {
    "400": "The request is wrong, too large or too long for the model; `error` says what and where.",
    "401": "A key is needed.",
    "403": "The key may not use this.",
    "404": "There is no such model, path or answer.",
    "405": "The path does not take this method.",
    "408": "The request took too long to arrive.",
    "413": "The body is too large.",
    "417": "The only expectation that can be met is `100-continue`.",
    "426": "There is no WebSocket mode here, or a proxy has left headers of its handshake out.",
    "429": "This client asks too much; `Retry-After` says when to come back.",
    "431": "The request's head is too large.",
    "500": "A fault of the gateway.",
    "502": "The model server failed.",
    "503": "No room, no server, or the model is asleep; `Retry-After` says when to come back.",
    "504": "The model server did not answer in time.",
    "529": "No room now, in the words of Anthropic's clients.",
}
KEYWORDS = {"ge": "minimum", "le": "maximum"}  # pydantic has these of numbers that it checks by a function
ITEMS_QUERY: Json = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "order": {"enum": ["asc", "desc"], "default": "desc"},
    "after": {"type": "string"},
}
MODELS_QUERY: Json = {  # where Anthropic's clients ask
    "limit": {"type": "integer", "minimum": 1},
    "after_id": {"type": "string"},
    "before_id": {"type": "string"},
}
READY: Json = {
    "type": "object",
    "required": ["ready"],
    "properties": {
        "ready": {"type": "boolean"},
        "draining": {"type": "boolean"},
        "backends": {"type": "object"},
        "replicas": {"type": "object"},
    },
}


def describe(protocols: Iterable[Protocol], forwarded: Iterable[Protocol] = ()) -> Json:
    schemas: Json = {"Error": ERROR, "Model": MODEL, "Models": MODELS, "Readiness": READY}
    paths: Json = {}
    for protocol in protocols:
        name = protocol.name.title().replace("_", "")
        body = {"$ref": f"#/components/schemas/{name}Request"}
        schemas[f"{name}Request"] = _schema(protocol, schemas)
        events = {"text/event-stream": {"schema": {"type": "string"}}}
        whole = {"application/json": {"schema": {"type": "object"}}}
        paths[f"/v1/{protocol.path}"] = _post(f"A model call: {name}.", protocol.name, body, {**whole, **events})
        if protocol.socket is not None:
            paths[f"/v1/{protocol.path}"]["get"] = _socket(name, protocol)
        if protocol.state is not None:
            paths |= _stored(protocol)
        if protocol.count is not None:
            summary = f"How long the prompt of a call would be: {name}."
            paths[f"/v1/{protocol.count.path}"] = _post(summary, f"{protocol.name}_count", body, whole)
    for endpoint in forwarded:
        schemas["ForwardedRequest"] = FORWARDED_REQUEST
        paths[f"/v1/{endpoint.path}"] = _forwarded(endpoint)
    paths |= {
        "/v1/models": _get("The models that may be asked for.", "models", "Models", query=MODELS_QUERY),
        "/v1/models/{id}": _get("One model.", "model", "Model", parameter="id"),
        "/healthz": _get("Whether the process lives.", "healthz", None, public=True),
        "/readyz": _ready(),
        "/metrics": _get("Figures for Prometheus.", "metrics", None, media="text/plain"),
        "/openapi.json": _get("This description.", "openapi", None),
        "/": _get("A page for people.", "status_page", None, media="text/plain"),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dragoman",
            "version": gateway.__version__,
            "description": "Endpoints below /v1 are served without it too, with it twice, with a slash at the end.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"bearer": []}, {"key": []}, {}],
    }


def _forwarded(endpoint: Protocol) -> Json:
    """What is passed through is the model server's to describe: its answers, and any status of its refusals."""
    body = {"$ref": "#/components/schemas/ForwardedRequest"}
    unknown: Json = {"*/*": {"schema": {}}}
    summary = f"Passed through to the model's server: {endpoint.path}."
    operation = _post(summary, endpoint.path, body, unknown)
    operation["post"]["responses"]["default"] = {"description": "The model server's own.", "content": unknown}
    return operation


def _socket(name: str, protocol: Protocol) -> Json:
    operation: Json = _get(f"A WebSocket, for many model calls: {name}.", f"{protocol.name}_socket", None)["get"]
    del operation["responses"]["200"]
    operation["responses"]["101"] = {"description": "The connection is a WebSocket now."}
    return operation


def _stored(protocol: Protocol) -> Json:
    """What is kept of a call, below its endpoint."""
    one, name = f"/v1/{protocol.path}/{{id}}", protocol.name
    kept = _get("An answer that was kept.", f"{name}_kept", None, parameter="id")
    gone = _get("Deletes an answer that was kept.", f"{name}_delete", None, parameter="id")
    asked = _get(
        "The items that were asked with it, in pages.", f"{name}_input_items", None, parameter="id", query=ITEMS_QUERY
    )
    cancel = _get("Refused: nothing runs in the background.", f"{name}_cancel", None, parameter="id")
    return {
        one: {**kept, "delete": gone["get"]},
        f"{one}/input_items": asked,
        f"{one}/cancel": {"post": cancel["get"]},
    }


def _schema(protocol: Protocol, schemas: Json) -> Json:
    """The body's schema; the definitions it refers to are added to `schemas`, with the protocol as a prefix."""
    if protocol.schema is None:
        return {"type": "object"}
    prefix = protocol.name.title().replace("_", "")
    schema = _renamed(protocol.schema(), prefix)
    assert isinstance(schema, dict)
    schemas.update({f"{prefix}{name}": inner for name, inner in schema.pop("$defs", {}).items()})
    return schema


def _renamed(value: Any, prefix: str) -> Any:
    if isinstance(value, dict):
        return {
            KEYWORDS.get(key, key): f"#/components/schemas/{prefix}{inner.rpartition('/')[2]}"
            if key == "$ref"
            else _renamed(inner, prefix)
            for key, inner in value.items()
        }
    return [_renamed(each, prefix) for each in value] if isinstance(value, list) else value


def _post(summary: str, name: str, body: Json, answer: Json) -> Json:
    content = {"required": True, "content": {"application/json": {"schema": body}}}
    return {"post": {"summary": summary, "operationId": name, "requestBody": content, "responses": _answers(answer)}}


def _get(
    summary: str,
    name: str,
    schema: str | None,
    *,
    media: str = "application/json",
    parameter: str | None = None,
    query: Json | None = None,
    public: bool = False,
) -> Json:
    shape: Json = {"$ref": f"#/components/schemas/{schema}"} if schema else {}
    operation: Json = {"summary": summary, "operationId": name, "responses": _answers({media: {"schema": shape}})}
    parameters = [{"name": each, "in": "query", "schema": shape} for each, shape in (query or {}).items()]
    if parameter is not None:
        shape = {"type": "string", "minLength": 1}
        parameters.insert(0, {"name": parameter, "in": "path", "required": True, "schema": shape})
    if parameters:
        operation["parameters"] = parameters
    if public:
        operation["security"] = [{}]
    return {"get": operation}


def _ready() -> Json:
    path = _get("Whether requests can be served now.", "readyz", "Readiness", public=True)
    path["get"]["responses"]["503"] = {
        "description": "Not now.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Readiness"}}},
    }
    return path


def _answers(good: Json) -> Json:
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answers: Json = {"200": {"description": "As asked.", "content": good}}
    return answers | {status: {"description": words, "content": refusal} for status, words in FAILURES.items()}

"""What is known of a body that is passed through: where its model stands, and that it makes no server fetch."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from dragoman.gateway.calls.body import parse_object
from dragoman.gateway.calls.raw_body import RawBody, checked
from dragoman.gateway.config import Limits
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.steps import at_once

PNG = "data:image/png;base64,iVBORw0KGgo="


def read(raw: bytes) -> RawBody:
    return at_once(checked(raw, *at_once(parse_object(raw, Limits()))))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"m","input":"a"}',
        b'{ "input" : ["model", "a \\"model\\": b"], "model" :\n "m" }',
        b'{"input":{"model":"no"},"model":"m"}',
        b'{"mod\\u0065l":"m","input":"\\u00e9"}',
        b'{"input":"\\u00e9","model":"m","more":[{"model":{"model":1}}]}',
        b'{"input":"' + b'\\"' * 5000 + b'\\u0041","model"' + b" " * 200 + b':"m"}',
        b'\xef\xbb\xbf{"model":"m"}',
        b'{"model":"\\u006d"}',
    ],
)
def test_the_models_name_is_found_where_it_stands(raw: bytes) -> None:
    body = read(raw)
    start, stop = body.model_at
    assert body.model == "m"
    assert orjson.loads(raw[start:stop]) == "m"
    renamed = orjson.loads((raw[:start] + b'"other"' + raw[stop:]).removeprefix(b"\xef\xbb\xbf"))
    assert renamed == {**body.value, "model": "other"}


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"model":""}',
        b'{"model":1}',
        b'{"model":null,"input":"a"}',
        b'{"model":"a","model":"m"}',
        b'{"mod\\u0065l":"a","model":"m"}',
        b'{"model":1,"model":"m"}',
        b'{"model":["m"],"\\u006dodel":"m"}',
    ],
)
def test_a_model_that_is_missing_or_given_twice_is_refused(raw: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        read(raw)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "model")


@pytest.mark.parametrize(
    ("more", "path"),
    [
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]}
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
        ({"input": [{"image": "https://10.0.0.1/"}]}, "input[0].image"),
        ({"input": [{"image": "cat.png"}]}, "input[0].image"),
        ({"images": ["HTTPS://x/y"]}, "images[0]"),
        (
            {"documents": {"content": [{"video_url": {"url": " \tfile:///etc/passwd"}}]}},
            "documents.content[0].video_url.url",
        ),
        ({"documents": [{"anything": "s3://bucket/key"}]}, "documents[0].anything"),
        ({"input": [[{"audio": "file:/etc/x"}]]}, "input[0][0].audio"),
        ({"input_audio": "..\\secret"}, "input_audio"),
        ({"mediaUri": "gs:x"}, "mediaUri"),
        ({"guided_json": {"items": {"$ref": "https://x/schema.json"}}}, "guided_json.items.$ref"),
        ({"more": {"guided_json": {"$id": "https://x/schema.json"}}}, "more.guided_json.$id"),
    ],
)
def test_what_a_server_would_fetch_is_refused_and_named(more: dict[str, Any], path: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read(json.dumps({"model": "m", **more}).encode())
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, path)


@pytest.mark.parametrize(
    "more",
    [
        {"input": "https://example.org is a text"},
        {"input": ["https://example.org", "file:///x"]},
        {"prompt": ["http://a"], "suffix": "http://b", "stop": "//"},
        {"query": "http://a", "documents": ["http://b", {"text": "http://c", "title": "http://d"}]},
        {"input": [{"text": "http://a"}, {"image": PNG}, {"image": "/9j/4AAQSkZJRg=="}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]},
        {"messages": [{"role": "user", "content": "http://a"}]},
        {"input": [[1, 2], [3]], "encoding_format": "float", "dimensions": 8, "profile": None},
        {"prompt": "a", "guided_regex": "\\d+/x", "logit_bias": {"50256": -100}},
        {"prompt": "a", "guided_json": {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#/$defs"}},
        {"prompt": "a", "guided_choice": ["https://a", "c:\\d"]},
        {"prompt": "a", "response_format": {"json_schema": {"schema": {"properties": {"url": {"default": "a.org"}}}}}},
    ],
)
def test_texts_may_be_addresses_and_content_may_stand_in_the_request(more: dict[str, Any]) -> None:
    assert read(json.dumps({"model": "m", **more}).encode()).value == {"model": "m", **more}


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"input": [{"a": i} for i in range(40_000)], "model": "m", "m": {"model": 1}}).encode(),
        json.dumps({"input": list(range(40_000)), "model": "m"}).encode(),
    ],
)
def test_a_large_body_is_looked_at_in_steps(raw: bytes) -> None:
    value = orjson.loads(raw)
    steps = 0
    for _ in checked(raw, value, ()):
        steps += 1
    assert steps > 15

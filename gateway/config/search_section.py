"""The section `search`, as those of `gateway.config.sections`: which service searches the web, and how it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dragoman.gateway.config.fields import Bytes, Name, Seconds, Section, Unit, Variable

KEYED_SEARCH = frozenset({"brave", "tavily", "serper"})


def _one_value(value: object) -> object:
    """One fault for a value of another kind, not one for each kind that it might be."""
    if not isinstance(value, str | int | float):
        raise ValueError("must be text, a number, true or false")
    return value


Parameter = Annotated[str | int | float | bool, BeforeValidator(_one_value)]


class SearchShape(Section):
    method: Literal["GET", "POST"] | None = Field(
        None,
        description="GET, with the query in the address, or POST, with JSON. Default: GET.",
        examples=["POST"],
    )
    query: Name | None = Field(
        None, description="The parameter that holds the query. Default: q.", examples=["search_term"]
    )
    header: Name | None = Field(
        None,
        description="The header that carries the key. Default: Authorization, in which it stands after Bearer.",
        examples=["X-API-Key"],
    )
    results: Name | None = Field(
        None, description="Where the list of results is, by keys with dots. Default: results.", examples=["web.items"]
    )
    url: Name | None = Field(None, description="The key of a result's address. Default: url.", examples=["link"])
    title: Name | None = Field(None, description="Of its title. Default: title.", examples=["name"])
    text: Name | None = Field(None, description="Of its excerpt. Default: content.", examples=["snippet"])
    age: Name | None = Field(None, description="Of its date, if it has one. Default: date.", examples=["published"])


class SearchConfig(Section):
    service: Literal["searxng", "brave", "tavily", "serper", "json"] = Field(
        "searxng",
        description="What is asked: searxng (a SearXNG whose settings.yml lists json among search.formats), brave, "
        "tavily or serper (services that need a key), or json (any other that answers JSON; see `shape`).",
    )
    url: str | None = Field(
        None,
        description="Its address; it may be in a private network. Not set: the service's own for brave, tavily and "
        "serper; otherwise there is no search.",
        examples=["http://searxng:8080"],
    )
    api_key_env: Variable | None = Field(
        None,
        description="Where its key is: an environment variable or a file with one line, not both.",
        examples=["SEARCH_API_KEY"],
    )
    api_key_file: Path | None = Field(
        None, description="The file with its key, in place of the variable.", examples=["/run/secrets/search-key"]
    )
    parameters: dict[Name, Parameter] = Field(
        {},
        description="More parameters of each search, as the service has them (no keys: they would be printed).",
        examples=[{"language": "de"}],
    )
    shape: SearchShape | None = Field(
        None, description="With service json: how it is asked, and where in its answer the results are."
    )
    results: Annotated[int, Field(ge=1, le=50)] = Field(8, description="Results of one search, at most.")
    text: Annotated[int, Field(ge=100, le=1_000_000), Unit("characters")] = Field(
        12_000, description="Characters of results of one search that the model reads, at most."
    )
    bytes: Bytes = Field(1024 * 1024, description="Size of the service's answer, at most.")
    timeout: Seconds = Field(10, description="How long one search may take, in seconds.")
    most: Annotated[int, Field(ge=1, le=100)] = Field(
        8, description="Searches in one answer, whatever the client allows."
    )
    at_once: Annotated[int, Field(ge=1)] = Field(
        16, description="Searches that run at once, for each worker; further ones wait within their timeout."
    )

    @property
    def runs(self) -> bool:
        return self.url is not None or self.service in KEYED_SEARCH

    @field_validator("url")
    @classmethod
    def _plain_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address with http:// or https://")
        if "@" in parts.netloc or parts.query or parts.fragment:  # not quoted: there may be a key in it
            raise ValueError("must hold no user, password or query; see api_key_env and parameters")
        return value

    @model_validator(mode="after")
    def _key_where_needed(self) -> SearchConfig:
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env and api_key_file exclude each other")
        if self.service in KEYED_SEARCH and not (self.api_key_env or self.api_key_file):
            raise ValueError(f"the service {self.service} needs api_key_env or api_key_file")
        if self.service == "json" and self.url is None:
            raise ValueError("the service json needs a url")
        return self

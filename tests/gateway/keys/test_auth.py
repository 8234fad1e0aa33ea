"""Clients' keys: what a key may do, how much a minute, and a key file that changes while the gateway runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.background import end
from dragoman.gateway.config import Config, ConfigError
from dragoman.gateway.keys import key_file
from dragoman.gateway.keys.auth import ANYBODY, Client, Keys
from dragoman.gateway.keys.key_file import KeyFile
from dragoman.gateway.keys.secrets import Grant, Secrets, read
from dragoman.gateway.keys.spending import Spending
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.rate_headers import Standing
from tests.scripted import Script, ScriptedServer, model_list, text_stream
from tests.serving_gateway import Serving, over
from tests.waiting import until

BODY = text_stream("x")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def secrets_of(tmp_path: Path, text: str, **settings: Any) -> Secrets:
    path = tmp_path / "keys"
    path.write_text(text)
    return read(Config(api_keys_file=path, **settings), {})


# --------------------------------------------------------------------------------------------------------- the key file


def test_a_key_is_limited_to_its_models(tmp_path: Path) -> None:
    secrets = secrets_of(tmp_path, "# ours\nplain\nann-key name=ann models=qwen,claude-* rpm=60 tpm=100000\n")
    assert secrets.client_keys == ("plain", "ann-key")
    assert secrets.grants == {"ann-key": Grant("ann", ("qwen", "claude-*"), 60, 100_000)}
    assert "ann-key" not in repr(secrets)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("key rpm=0", "rpm"),
        ("key rpm=fast", "rpm"),
        ("key tpm=-3", "tpm"),
        ("key second-key", "behind a key only"),
        ("key limit=3", "behind a key only"),
        ("kéy", "printable ASCII"),
    ],
)
def test_a_wrong_line_stops_the_start_without_telling_a_key(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        secrets_of(tmp_path, line)
    assert "second-key" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "text", "told"),
    [
        ("", "# ours\nsame-key\n\nother\nsame-key rpm=5\n", "api_keys_file: {path}:5: the same key is in "
         "api_keys_file: {path}:2 already"),
        ("other,same-key", "same-key\n", "api_keys_file: {path}:1: the same key is in "
         "environment: DRAGOMAN_API_KEYS: key 2 already"),
        ("same-key,same-key", "other\n", "environment: DRAGOMAN_API_KEYS: key 2: the same key is in "
         "environment: DRAGOMAN_API_KEYS: key 1 already"),
        ("", "good-key\nx\n", "api_keys_file: {path}:2: a key needs at least 2 characters"),
        ("x", "good-key\n", "environment: DRAGOMAN_API_KEYS: key 1: a key needs at least 2 characters"),
        ("", "good-key\nother rpm=1 rpm=2\n", "api_keys_file: {path}:2: rpm= stands there twice"),
    ],
)  # fmt: skip
def test_a_slip_among_the_keys_is_one_line_with_its_place(
    tmp_path: Path, environment: str, text: str, told: str
) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(Config(api_keys_file=path), {"DRAGOMAN_API_KEYS": environment})
    assert str(caught.value) == told.format(path=path)


def test_beyond_loopback_needs_keys_or_an_explicit_word() -> None:
    with pytest.raises(ConfigError, match="loopback"):
        read(Config(host="0.0.0.0"), {})
    assert read(Config(host="0.0.0.0", no_auth=True), {}).client_keys == ()
    with pytest.raises(ConfigError, match="no_auth"):
        read(Config(no_auth=True), {"DRAGOMAN_API_KEYS": "sk-dummy"})


# ---------------------------------------------------------------------------------------------------------------- rates


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_refused_request_costs_nothing(clock: list[float]) -> None:
    client = Client("ann", Grant(rpm=10, tpm=100))
    client.spend(100)
    for _ in range(20):
        with pytest.raises(GatewayError) as caught:
            client.spend(100)
        assert caught.value.kind is Kind.RATE_LIMITED
        assert caught.value.retry_after == pytest.approx(60)
    clock[0] += 60
    client.spend(100)


def test_the_estimate_is_settled_with_what_was_measured(clock: list[float]) -> None:
    client = Client("ann", Grant(tpm=100))
    client.spend(80)
    client.settle(80, 20)
    client.spend(80)
    client.settle(80, 500)
    with pytest.raises(GatewayError):
        client.spend(1)


def test_a_client_of_two_workers_spends_one_rate(clock: list[float]) -> None:
    spending = Spending()
    first, second = (Client("ann", Grant(rpm=3), "ab" * 32, spending) for _ in range(2))
    first.spend(0)
    second.spend(0)
    standing = first.standings()["requests"]
    assert (standing.limit, standing.left) == (3, 1)
    assert standing.full_in == pytest.approx(40)
    first.spend(0)
    for each in (first, second):
        with pytest.raises(GatewayError):
            each.spend(0)


async def test_a_changed_limit_of_a_known_key_keeps_what_was_spent(clock: list[float]) -> None:
    keys = Keys(["key"], grants={"key": Grant(rpm=2)})
    client = keys.check("/", bearer("key"))
    client.spend(0)
    client.spend(0)
    keys._take({"key": Grant(rpm=60)})
    client = keys.check("/", bearer("key"))
    with pytest.raises(GatewayError) as caught:
        client.spend(0)
    assert caught.value.retry_after == pytest.approx(1)
    clock[0] += 1
    client.spend(0)


def test_what_is_given_back_fills_a_bucket_no_further_than_a_minutes_worth(clock: list[float]) -> None:
    client = Client("ann", Grant(tpm=100))
    client.spend(80)
    clock[0] += 60
    client.settle(80, 20)
    client.spend(100)
    with pytest.raises(GatewayError):
        client.spend(1)


@pytest.mark.parametrize(("tokens", "said"), [(1, "limit of 1 requests"), (100, "limit of 20 tokens")])
def test_a_refusal_names_the_limit_that_is_reached(clock: list[float], tokens: int, said: str) -> None:
    client = Client("ann", Grant(rpm=1, tpm=20) if tokens == 1 else Grant(rpm=9, tpm=20))
    client.spend(tokens)
    with pytest.raises(GatewayError, match=said):
        client.spend(tokens)


def test_a_client_whose_tokens_are_not_limited_has_none_to_settle(clock: list[float]) -> None:
    client = Client("ann", Grant(rpm=2))
    client.spend(100)
    client.settle(100, 5000)
    assert {what: standing.left for what, standing in client.standings().items()} == {"requests": 1}


def test_what_is_left_is_never_shown_below_nothing_nor_fuller_than_full(clock: list[float]) -> None:
    client = Client("ann", Grant(tpm=100))
    client.spend(80)
    client.settle(80, 500)
    assert client.standings()["tokens"].left == 0
    clock[0] += 1000
    assert client.standings()["tokens"] == Standing(100, 100, 0.0)


@pytest.mark.parametrize("limit", [3, 7, 11, 59, 61, 997])
@pytest.mark.parametrize("now", [0.3, 12345.678, 1e7 + 0.1])
def test_what_is_left_is_shown_to_the_request(clock: list[float], limit: int, now: float) -> None:
    clock[0] = now
    client = Client("ann", Grant(rpm=limit))
    for made in range(limit):
        assert client.standings()["requests"].left == limit - made
        client.spend(0)


# ------------------------------------------------------------------------------------------------------- which client


def refuses(keys: Keys, path: str, headers: dict[str, str]) -> bool:
    try:
        return not keys.check(path, headers)
    except GatewayError as error:
        return error.kind is Kind.UNAUTHENTICATED


@pytest.mark.parametrize("metrics_public", [False, True])
def test_without_a_key_only_health_is_open_and_metrics_where_they_are_public(metrics_public: bool) -> None:
    keys = Keys(["k"], metrics_public)
    paths = ["/healthz", "/readyz", "/metrics", "/", "/healthz/x", "/v1/models"]
    is_open = [path for path in paths if not refuses(keys, path, {})]
    assert is_open == ["/healthz", "/readyz", *(["/metrics"] if metrics_public else [])]
    assert not any(refuses(keys, path, bearer("k")) for path in paths)


def test_where_no_keys_are_configured_everybody_may_ask() -> None:
    assert Keys([]).check("/v1/models", {}) is ANYBODY
    assert Keys([]).check("/v1/models", bearer("any")) is ANYBODY


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        ({"Authorization": "Bearer k"}, True),
        ({"Authorization": "bearer k"}, True),
        ({"Authorization": "BEARER   k "}, True),
        ({"x-api-key": "k"}, True),
        ({"x-api-key": " k "}, True),
        ({"Authorization": "Basic k"}, False),
        ({"Authorization": "k"}, False),
        ({"Authorization": "Bearerk"}, False),
        ({"x-api-key": "K"}, False),
        ({"x-api-key": ""}, False),
        ({"Authorization": "Bearer other", "x-api-key": "k"}, True),
        ({"Authorization": "Bearer k", "x-api-key": "other"}, True),
    ],
)
def test_where_a_key_is_read(headers: dict[str, str], known: bool) -> None:
    assert refuses(Keys(["k"]), "/v1/models", headers) is not known


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_of_two_known_keys_the_one_in_x_api_key_decides(order: list[str]) -> None:
    keys = Keys(order, grants={"a": Grant("ann"), "b": Grant("bob")})
    assert keys.check("/", {**bearer("a"), "x-api-key": "b"}).name == "bob"


def test_a_client_is_owned_by_its_key_alone() -> None:
    keys = Keys(["a", "b"], grants={"a": Grant("same"), "b": Grant("same")})
    owners = [keys.check("/", bearer(key)).owner for key in ("a", "b")]
    assert owners[0] != owners[1]
    assert owners[0] == Keys(["a"]).check("/", bearer("a")).owner


def test_a_client_without_a_name_is_called_by_a_few_digits_of_its_hash() -> None:
    keys = Keys(["a", "b"], grants={"b": Grant("bob")})
    nameless, bob = (keys.check("/", bearer(key)) for key in ("a", "b"))
    assert nameless.name == f"key-{nameless.owner[:8]}"
    assert (nameless.named, bob.named) == (False, True)


def test_the_models_of_a_key_are_listed_in_the_order_of_the_servers() -> None:
    assert Client("ann", Grant(models=("b", "a*"))).usable(["a1", "b", "a2", "c"]) == ["a1", "b", "a2"]


def test_a_model_that_is_granted_twice_is_listed_once() -> None:
    client = Client("ann", Grant(models=("claude-opus", "claude-*")))
    assert client.usable(["claude-opus", "claude-haiku", "claude-*"]) == ["claude-opus", "claude-haiku", "claude-*"]


def test_a_long_model_name_is_not_sent_back_whole() -> None:
    with pytest.raises(GatewayError) as caught:
        Client("ann", Grant(models=("m",))).check_model("x" * 100_000)
    assert len(caught.value.message) < 300


# ------------------------------------------------------------------------------------------------ when keys change


def requests_left(keys: Keys, key: str) -> int:
    """How many requests the key may make now."""
    made = 0
    with contextlib.suppress(GatewayError):
        while made < 100:
            keys.check("/", bearer(key)).spend(0)
            made += 1
    return made


def test_a_reload_keeps_what_was_spent(clock: list[float]) -> None:
    before = Keys(["same", "more", "less"], grants={key: Grant(rpm=3) for key in ("same", "more", "less")})
    assert [requests_left(before, key) for key in ("same", "more", "less")] == [3, 3, 3]
    grants = {"same": Grant(rpm=3), "more": Grant(rpm=30), "less": Grant(rpm=1)}
    after = Keys(["same", "more", "less"], grants=grants, previous=before)
    assert [requests_left(after, key) for key in ("same", "more", "less")] == [0, 0, 0]
    clock[0] += 30
    assert [requests_left(after, key) for key in ("same", "more", "less")] == [1, 15, 0]


async def test_a_key_file_changes_what_a_known_key_may_do(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("k models=one\n")
    grants = {"k": Grant(models=("one",))}
    keys = Keys(["k"], grants=grants, file=KeyFile(path, lambda: {"k": Grant(rpm=7, models=("two",))}))
    following = asyncio.create_task(keys.follow())
    await until(lambda: keys.check("/", bearer("k")).may_use("two"))
    assert not keys.check("/", bearer("k")).may_use("one")
    assert requests_left(keys, "k") == 7
    await end(following)


# ------------------------------------------------------------------------------------------------- through the gateway


async def listed(it: Serving, key: str) -> list[str]:
    async with it.session.get(it.url + "/v1/models", headers=bearer(key)) as answer:
        return [each["id"] for each in (await answer.json())["data"]]


async def test_a_key_reaches_its_models_only(tmp_path: Path) -> None:
    secrets = secrets_of(tmp_path, "all\nsome models=one,tw*\n")
    server = ScriptedServer(default=Script(BODY), models=("one", "two", "three"))
    async with server, over(server.url, secrets=secrets) as it:
        for model, status in (("one", 200), ("two", 200), ("three", 403)):
            assert (await it.answer(bearer("some"), model=model))[0] == status
            assert (await it.answer(bearer("all"), model=model))[0] == 200
        assert await listed(it, "some") == ["one", "two"]
        assert await listed(it, "all") == ["one", "two", "three"]
        assert len(server.chats) == 5


def asking(path: str, model: str) -> dict[str, Any]:
    """The smallest body of any protocol."""
    if path == "/v1/responses":
        return {"model": model, "input": "x"}
    return {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"])
async def test_an_unknown_model_lists_to_a_key_only_the_models_it_may_use(tmp_path: Path, path: str) -> None:
    secrets = secrets_of(tmp_path, "all\nsome models=one,tw*,ghost\nnothing models=ghost\n")
    server = ScriptedServer(models=("one", "two", "secret-three"))
    async with server, over(server.url, secrets=secrets) as it:
        for key, name, valid in (
            ("all", "ghost", "one, two, secret-three"),
            ("some", "ghost", "one, two"),
            ("some", "two-more", "one, two"),
            ("nothing", "ghost", "none"),
        ):
            async with it.session.post(it.url + path, json=asking(path, name), headers=bearer(key)) as answer:
                assert answer.status == 404
                told = (await answer.json())["error"]["message"].removeprefix("model: ")
            assert told == f"The model '{name}' does not exist here. Valid names: {valid}."


@pytest.mark.parametrize("headers", [{}, {"anthropic-version": "2023-06-01"}])
async def test_one_model_that_a_key_may_not_use_is_as_unknown_as_any_other(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    secrets = secrets_of(tmp_path, "some models=one\n")
    server = ScriptedServer(models=("one", "secret"))
    async with server, over(server.url, secrets=secrets) as it:
        told = []
        for name in ("secret", "ghost"):
            async with it.session.get(f"{it.url}/v1/models/{name}", headers=bearer("some") | headers) as answer:
                assert answer.status == 404
                told.append((await answer.json())["error"]["message"].replace(name, "NAME"))
        assert told == ["The model 'NAME' does not exist here. Valid names: one."] * 2
        async with it.session.get(f"{it.url}/v1/models/one", headers=bearer("some") | headers) as answer:
            assert answer.status == 200


TABLE = [{"name": "qwen", "aliases": ["opus"]}, {"name": "secret"}, {"prefixes": ["claude-"], "upstream": "qwen"}]


@pytest.mark.parametrize(
    ("models", "valid", "in_list"),
    [
        ("qwen,ghost", "qwen", ["qwen"]),
        ("claude-*,ghost", "claude-*", []),
        ("claude-opus-*,claude-x,ghost", "claude-opus-*, claude-x", []),
        ("op*,cl*,ghost", "opus, claude-*", ["opus"]),
        ("ghost", "none", []),
        ("*", "qwen, opus, secret, claude-*", ["qwen", "opus", "secret"]),
    ],
)
async def test_a_key_sees_the_models_of_the_table_that_it_may_use(
    tmp_path: Path, models: str, valid: str, in_list: list[str]
) -> None:
    secrets = secrets_of(tmp_path, f"some models={models}\n")
    async with ScriptedServer() as server, over(server.url, secrets=secrets, models=TABLE) as it:
        status, told = await it.answer(bearer("some"), model="ghost")
        assert status == 404
        assert f"Valid names: {valid}." in told
        assert await listed(it, "some") == in_list


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"])
async def test_the_refusal_of_a_model_is_in_the_protocols_words(tmp_path: Path, path: str) -> None:
    secrets = secrets_of(tmp_path, "some models=one\n")
    async with ScriptedServer() as server, over(server.url, secrets=secrets) as it:
        async with it.session.post(it.url + path, json=asking(path, "m"), headers=bearer("some")) as answer:
            assert answer.status == 403
            told = await answer.json()
            assert "may not use the model 'm'" in told["error"]["message"]
            if "messages" in path:
                assert (told["type"], told["error"]["type"]) == ("error", "permission_error")
        assert not server.chats


async def test_a_rate_is_429_with_a_time_for_this_key_alone(tmp_path: Path) -> None:
    secrets = secrets_of(tmp_path, "fast\nslow rpm=2\n")
    async with ScriptedServer(default=Script(BODY)) as server, over(server.url, secrets=secrets) as it:
        for status in (200, 200, 429):
            async with it.ask(bearer("slow"), stream=True) as answer:
                assert answer.status == status
                await answer.read()
        assert 1 <= int(answer.headers["Retry-After"]) <= 30
        assert answer.headers["x-dragoman-error-source"] == "gateway"
        assert (await it.answer(bearer("fast")))[0] == 200
        assert len(server.chats) == 3


async def test_tokens_a_minute_are_counted_as_measured(tmp_path: Path) -> None:
    secrets = secrets_of(tmp_path, "key tpm=4000\n")
    async with ScriptedServer(default=Script(BODY)) as server, over(server.url, secrets=secrets) as it:
        for _ in range(5):  # estimated at about 2,000 each, measured at 18
            assert (await it.answer(bearer("key")))[0] == 200


async def test_tokens_of_a_request_that_came_to_nothing_are_given_back(tmp_path: Path) -> None:
    secrets = secrets_of(tmp_path, "key tpm=4000\n")
    async with (
        ScriptedServer(default=Script.json({"error": {"message": "broken"}}, 500)) as server,
        over(server.url, secrets=secrets, pool={"failures": 100}) as it,
    ):
        for _ in range(5):  # estimated at about 2,000 each
            assert (await it.answer(bearer("key")))[0] >= 500


async def test_tokens_of_a_request_that_was_left_behind_at_a_server_are_not_given_back(tmp_path: Path) -> None:
    secrets = secrets_of(tmp_path, "key tpm=4000\n")
    async with (
        ScriptedServer(Script(BODY, head_delay=5), default=Script(BODY)) as server,
        over(server.url, secrets=secrets) as it,
    ):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(it.answer(bearer("key"), input="word " * 6000), 0.5)
        await until(lambda: not it.gateway.handler.calls)
        assert (await it.answer(bearer("key")))[0] == 429


async def test_a_changed_key_file_counts_in_a_gateway_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_file, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(key_file, "AT_REST", 0.01)
    path = tmp_path / "keys"
    path.write_text("old\n")
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        over(server.url, api_keys_file=path) as it,
    ):

        async def statuses() -> list[int]:
            return [(await it.answer(bearer(key)))[0] for key in ("old", "new")]

        async def become(expected: list[int]) -> bool:
            return await statuses() == expected

        assert await statuses() == [200, 401]
        path.write_text("new\n")
        await until(lambda: become([401, 200]))


async def test_keys_that_stay_keep_what_they_have_spent(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("k rpm=1\n")
    grants = {"k": Grant(rpm=1)}
    keys = Keys(["k"], grants=grants, file=KeyFile(path, lambda: {**grants, "another": Grant()}))
    keys.check("/", bearer("k")).spend(0)
    with pytest.raises(GatewayError):
        keys.check("/", bearer("another"))
    following = asyncio.create_task(keys.follow())

    def known(key: str) -> bool:
        with contextlib.suppress(GatewayError):
            return bool(keys.check("/", bearer(key)).name)
        return False

    await until(lambda: known("another"))
    with pytest.raises(GatewayError):
        keys.check("/", bearer("k")).spend(0)
    assert keys.check("/", bearer("another")).name.startswith("key-")
    await end(following)


async def test_the_log_has_names_and_not_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secrets = secrets_of(tmp_path, "canary-key name=ann\ncanary-other\n")
    caplog.set_level("INFO", "dragoman")
    async with ScriptedServer(default=Script(BODY)) as server, over(server.url, secrets=secrets) as it:
        server.on("GET", "/v1/models", model_list("m"))
        for key in ("canary-key", "canary-other"):
            await it.answer(bearer(key))
    told = [getattr(record, "fields", {}) for record in caplog.records if record.message == "request"]
    assert told[0]["client"] == "ann"
    assert told[1]["client"].startswith("key-")
    assert "canary" not in str(told)

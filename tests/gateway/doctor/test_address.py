"""Where a chat server is looked for, and what is said where none is, or a key, or a certificate in the way."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from dragoman.gateway.keys.secrets import Secrets
from tests.certificates import Authority
from tests.gateway.doctor.asked import ask, backend, mended, printed
from tests.gateway.doctor.servers import able
from tests.scripted import Script, ScriptedServer, model_list

WINDOW = model_list("m", max_model_len=32_768)
NOTHING = Script.json({"detail": "Not Found"}, 404)


def elsewhere(server: ScriptedServer, place: str) -> None:
    """The server has everything below another path."""
    server.on("GET", "/v1/models", NOTHING)
    server.on("POST", "/v1/chat/completions", NOTHING)
    server.on("GET", f"{place}/models", WINDOW)
    server.on("POST", f"{place}/chat/completions", able)


@pytest.mark.parametrize(
    ("place", "path"),
    [("/v1", "/v2"), ("/v1", "/openai"), ("/openai/v1", ""), ("/api/v1", "/v1"), ("/llm/v1", "/llm")],
)
async def test_a_wrong_path_is_corrected(
    place: str, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ScriptedServer(default=able) as server:
        if place == "/v1":
            server.on("GET", "/v1/models", WINDOW)
        else:
            elsewhere(server, place)
        config = backend(f"{server.root}{path}")
        told = await ask(capsys, config)
        again = await mended(capsys, config, tmp_path / "gateway.yaml")
    assert told.findings["address"]["verdict"] == "FAIL"
    assert told.settings == {"backends.0.url": f"{server.root}{place}"}
    assert (told.status, again.status) == (1, 0)
    assert told.clients["Codex"] == "works with settings"


async def test_a_path_with_a_v_in_it_is_no_version(capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=able) as server:
        place = "/serving/vision"
        elsewhere(server, place)
        server.on("GET", f"{place}/get_model_info", Script.json({"model_path": "m"}))
        told = await ask(capsys, backend(f"{server.root}{place}"))
    assert told.findings["server"]["result"].startswith("SGLang")
    assert all(seen.path.startswith(place) for seen in server.requests)


async def test_a_server_that_has_no_chat(capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=NOTHING) as server:
        told = await ask(capsys, backend(server.url))
    assert "embeddings" in told.findings["text"]["advice"]


async def test_a_redirect_is_followed_to_where_it_leads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=able) as server:
        server.on("GET", "/old/v1/models", Script(status=308, headers={"location": f"{server.root}/v1/models"}))
        server.on("GET", "/v1/models", WINDOW)
        again = await mended(capsys, backend(f"{server.root}/old/v1"), tmp_path / "gateway.yaml")
    assert again.status == 0


async def test_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    told = await ask(capsys, backend("http://127.0.0.1:9/v1"))
    assert told.status == 1
    assert told.findings["address"]["result"] == "nothing listens there"
    assert "start the server, or check host, port" in told.findings["address"]["advice"]
    assert told.document["unserved"] == ["gpu: address: nothing listens there"]


async def test_a_host_that_no_name_server_knows(capsys: pytest.CaptureFixture[str]) -> None:
    told = await ask(capsys, backend("http://gpu.invalid:8000/v1"))
    assert told.findings["address"]["result"] == "the host's name has no address"


async def test_something_else_answers(capsys: pytest.CaptureFixture[str]) -> None:
    page = Script(b"<html>Welcome</html>", headers={"content-type": "text/html"})
    async with ScriptedServer() as server:
        server.on("GET", "/v1/models", page)
        server.on("POST", "/v1/chat/completions", NOTHING)
        told = await ask(capsys, backend(server.url))
    assert told.findings["address"]["result"] == "no chat completions there (GET …/models is no list of models)"


async def test_triton_s_own_protocol_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer() as server:
        server.on("GET", "/v1/models", NOTHING)
        server.on("POST", "/v1/chat/completions", NOTHING)
        server.on("GET", "/v2", Script.json({"name": "triton", "extensions": ["model_repository"]}))
        told = await ask(capsys, backend(server.url))
    assert f"triton+http://127.0.0.1:{server.port}/MODEL?tokenizer=DIR" in told.findings["address"]["advice"]


async def test_a_server_that_lists_no_models_is_examined(capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=lambda body: able(body) if body else Script.json({}, 422)) as server:
        server.on("GET", "/v1/models", NOTHING)
        told = await ask(capsys, backend(server.url, model="m", window=32_768))
    assert told.findings["address"]["verdict"] == "weak"
    assert told.status == 0


@pytest.mark.parametrize("listing", [{"object": "list", "data": []}, {"object": "list", "data": None}])
async def test_a_server_without_a_model_is_none_at_a_wrong_address(
    listing: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    async with ScriptedServer(default=Script.json({"error": {"message": "model 'default' not found"}}, 404)) as server:
        server.on("GET", "/v1/models", Script.json(listing))
        told = await ask(capsys, backend(server.url))
    assert told.findings["address"]["result"] == "answers, and lists no model"
    assert "ollama pull" in told.findings["address"]["advice"]
    assert "not found" in told.findings["text"]["result"]
    assert told.status == 1


async def test_a_server_that_still_loads(capsys: pytest.CaptureFixture[str]) -> None:
    loading = Script.json({"error": {"message": "Loading model"}}, 503)
    async with ScriptedServer(default=loading) as server:
        server.on("GET", "/v1/models", loading)
        told = await ask(capsys, backend(server.url))
    assert told.findings["address"]["result"] == "GET …/models has status 503: Loading model"
    assert "wait until it has loaded" in told.findings["address"]["advice"]


# ------------------------------------------------------------------------------------------------------------- the key


@pytest.mark.parametrize(
    ("key", "settings", "result", "advice"),
    [
        (None, {}, "wants a key (status 401: No key)", "export DRAGOMAN_BACKEND_API_KEY=…"),
        ("wrong-key", {}, "refuses the key (status 401: No key)", "the key in DRAGOMAN_BACKEND_API_KEY is not the one"),
        ("wrong-key", {"api_key_env": "GPU_KEY"}, "refuses the key (status 401: No key)", "the key in GPU_KEY is not"),
    ],
)
async def test_a_missing_or_wrong_key(
    key: str | None, settings: dict[str, Any], result: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ScriptedServer(default=able) as server:
        server.on("GET", "/v1/models", Script.json({"error": {"message": "No key"}}, 401))
        config = backend(server.url, **settings)
        told = await ask(capsys, config, Secrets(backend_keys={"gpu": key}))
    assert told.status == 1
    assert told.findings["address"]["result"] == result
    assert advice in told.findings["address"]["advice"]
    assert not server.chats


async def test_the_key_is_sent_and_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "the-key-of-the-gpu"
    async with ScriptedServer(default=Script.json({"error": {"message": f"{secret} is no friend"}}, 400)) as server:
        server.on("GET", "/v1/models", WINDOW)
        told = await ask(capsys, backend(server.url), Secrets(backend_keys={"gpu": secret}))
    assert {seen.headers.get("Authorization") for seen in server.requests} == {f"Bearer {secret}"}
    assert secret not in str(told.document)


# ----------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Authority, ssl.SSLContext]:
    folder = tmp_path / "certificates"
    folder.mkdir()
    authority = Authority(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.make("server"))
    return authority, context


async def test_a_certificate_of_an_unknown_authority(
    tls: tuple[Authority, ssl.SSLContext], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, context = tls
    async with ScriptedServer(default=able, tls=context) as server:
        server.on("GET", "/v1/models", WINDOW)
        told = await ask(capsys, backend(server.url))
        assert told.findings["address"]["result"].startswith("the certificate is not trusted: ")
        assert told.findings["address"]["advice"] == (
            "name the authority that signed it: `tls: {ca: FILE}` of the backend"
        )
        trusting = await ask(capsys, backend(server.url, tls={"ca": str(authority.ca)}))
    assert (told.status, trusting.status) == (1, 0)


async def test_a_certificate_for_another_name(
    tls: tuple[Authority, ssl.SSLContext], capsys: pytest.CaptureFixture[str]
) -> None:
    authority, context = tls
    context.load_cert_chain(*authority.make("other", host="gpu.example"))
    async with ScriptedServer(tls=context) as server:
        told = await ask(capsys, backend(server.url, tls={"ca": str(authority.ca)}))
    assert "use the host's name as it stands in the certificate" in told.findings["address"]["advice"]


async def test_https_where_the_server_speaks_http(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=able) as server:
        server.on("GET", "/v1/models", WINDOW)
        config = backend(server.url.replace("http:", "https:"))
        told = await ask(capsys, config)
        again = await mended(capsys, config, tmp_path / "gateway.yaml")
    assert told.findings["address"]["result"] == "what listens there does not speak TLS"
    assert told.settings == {"backends.0.url": server.url}
    assert again.status == 0


async def test_http_where_the_server_speaks_https(
    tls: tuple[Authority, ssl.SSLContext], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, context = tls
    async with ScriptedServer(default=able, tls=context) as server:
        server.on("GET", "/v1/models", WINDOW)
        url = server.url.replace("https:", "http:")
        config = backend(url, tls={"ca": str(authority.ca)})
        told = await ask(capsys, config)
        again = await mended(capsys, config, tmp_path / "gateway.yaml")
        untrusting = await ask(capsys, backend(url))
    assert told.settings == {"backends.0.url": server.url}
    assert again.status == 0
    assert "the certificate is not trusted" in untrusting.findings["address"]["result"]


async def test_a_person_reads_the_reason_and_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    status, told = await printed(capsys, backend("http://127.0.0.1:9/v1"))
    assert status == 1
    head, finding, advice = told.splitlines()[:3]
    assert head == "gpu  http://127.0.0.1:9/v1"
    assert finding == "FAIL  address                nothing listens there"
    assert advice.startswith(f"{' ' * 29}→ start the server, or check host, port and firewall; ")

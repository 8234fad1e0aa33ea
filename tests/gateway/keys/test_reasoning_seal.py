"""Sealed reasoning: deterministic, rotatable, and blind to what is not ours."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.gateway.keys.reasoning_seal import PREFIX, Opener, Sealer, own_key, state_directory
from dragoman.translators.errors import GatewayError, Kind
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, asking, served


@given(st.text())
def test_what_was_sealed_is_opened(text: str) -> None:
    sealer = Sealer(["a key"])
    assert sealer.open(sealer.seal(text)) == text


def test_the_same_thought_has_the_same_seal_on_every_replica() -> None:
    assert Sealer(["k"]).seal("a thought") == Sealer(["k"]).seal("a thought")
    assert "thought" not in Sealer(["k"]).seal("a thought")


def test_keys_rotate() -> None:
    old, new = Sealer(["old"]), Sealer(["new", "old"])
    assert new.open(old.seal("x")) == "x"
    assert old.open(new.seal("x")) is None


def test_a_changed_seal_does_not_open() -> None:
    sealer = Sealer(["k"])
    sealed = sealer.seal("a thought that matters")
    for at in range(len(PREFIX), len(sealed) - 1):
        other = "A" if sealed[at] != "A" else "B"
        assert sealer.open(sealed[:at] + other + sealed[at + 1 :]) is None


@pytest.mark.parametrize("foreign", ["", "gAAAAABm", PREFIX, PREFIX + "!", PREFIX + "ä", PREFIX + "AAAA", "\ud83d"])
def test_foreign_seals_are_ignored(foreign: str) -> None:
    assert Sealer(["k"]).open(foreign) is None


def test_one_key_for_all_workers_that_nobody_else_reads(tmp_path: Path) -> None:
    key = own_key(tmp_path / "state")
    assert own_key(tmp_path / "state") == key
    files = list((tmp_path / "state").iterdir())
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600]


def test_a_key_is_read_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = own_key(tmp_path / "state")
    monkeypatch.setattr("os.open", refused)
    assert own_key(tmp_path / "state") == key


def refused(*_arguments: object) -> int:
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_user_without_a_home_has_that_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert state_directory(None) == Path("/.local/state/dragoman")


def test_a_state_directory_that_cannot_be_written_costs_only_the_restart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(own_key(tmp_path / "file")) == 64


def test_what_one_request_holds_is_opened_up_to_a_limit() -> None:
    sealer = Sealer(["k"])
    thought = sealer.seal("a" * 1000)
    assert len(thought) < 100
    opener = Opener(sealer, 3500)
    assert [opener.open(each) for each in (thought, "foreign", thought, thought)] == [
        "a" * 1000,
        None,
        *["a" * 1000] * 2,
    ]
    with pytest.raises(GatewayError, match="3500 bytes") as caught:
        opener.open(thought)
    assert caught.value.kind is Kind.TOO_LARGE
    assert Opener(sealer, 3500).open(thought) == "a" * 1000


@pytest.mark.parametrize(("protocol", "too_large"), [("responses", 400), ("messages", 413)])
async def test_a_small_request_cannot_hold_very_much_sealed(protocol: str, too_large: int) -> None:
    async with served(Script(text_stream("a")), limits={"body_bytes": 20_000}) as it:
        thought = it.gateway.handler._sealer.seal("a" * 10_000)
        for count, status in ((1, 200), (3, too_large)):
            if protocol == "responses":
                item = {"type": "reasoning", "summary": [], "encrypted_content": thought}
                body = asking(protocol, "") | {"input": [*[item] * count, {"role": "user", "content": "x"}]}
            else:
                block = {"type": "thinking", "thinking": "", "signature": thought}
                said = {"role": "assistant", "content": [*[block] * count, {"type": "text", "text": "b"}]}
                user = {"role": "user", "content": "x"}
                body = asking(protocol, "") | {"messages": [user, said, user]}
            async with it.session.post(it.url + PATHS[protocol], json=body) as answer:
                assert answer.status == status, await answer.text()
                assert status == 200 or "20000 bytes" in (await answer.json())["error"]["message"]

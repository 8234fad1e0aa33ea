"""The bill of materials against the lock files, and what the audit says of each answer that a source can give."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import test_utils, web

from tests.conftest import RealComponent
from tests.lock_files import canonical, installed_here

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1], encoding="utf-8").read()))
"""
LOCKED = "idna==3.20 \\\n    --hash=sha256:" + 64 * "a" + "\n"


def make_bill(python: Path, lock_file: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [str(each) for each in (python, REQUIREMENTS / "sbom.py", lock_file, sys.executable, output)]
    return subprocess.run(command, cwd=output.parent, capture_output=True, text=True, timeout=300, check=False)


def hashes(component: dict[str, Any]) -> frozenset[str]:
    (offered,) = [each for each in component["externalReferences"] if each["type"] == "distribution"]
    return frozenset(each["content"] for each in offered["hashes"] if each["alg"] == "SHA-256")


@pytest.mark.parametrize("name", ["core", "extras"])
def test_a_bill_lists_what_is_locked_and_nothing_else(real_component: RealComponent, tmp_path: Path, name: str) -> None:
    python = real_component("sbom")
    lock_file = REQUIREMENTS / f"{name}.txt"
    done = make_bill(python, lock_file, tmp_path / "bill.json")
    assert done.returncode == 0, done.stderr
    bill = json.loads((tmp_path / "bill.json").read_text("utf-8"))
    listed = {canonical(each["name"]): (each["version"], hashes(each)) for each in bill["components"]}
    locked = installed_here(lock_file.read_text("utf-8"))
    assert listed == {each: (entry.version, entry.hashes) for each, entry in locked.items()}
    for component in bill["components"]:
        assert component["purl"] == f"pkg:pypi/{canonical(component['name'])}@{component['version']}"
        assert component["licenses"], component["name"]
    references = {each["bom-ref"] for each in (*bill["components"], bill["metadata"]["component"])}
    assert {each["ref"] for each in bill["dependencies"]} == references
    assert str(ROOT) not in json.dumps(bill)


def test_a_bill_keeps_the_schema_and_is_the_same_every_time(real_component: RealComponent, tmp_path: Path) -> None:
    python = real_component("sbom")
    written = []
    for name in ("one.json", "two.json"):
        assert make_bill(python, REQUIREMENTS / "build.txt", tmp_path / name).returncode == 0
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert not {"serialNumber", "timestamp"} & {*json.loads(written[0]), *json.loads(written[0])["metadata"]}
    subprocess.run([python, "-c", VALIDATE, tmp_path / "one.json"], check=True, timeout=120)


def test_there_is_no_bill_of_what_is_not_installed(real_component: RealComponent, tmp_path: Path) -> None:
    lock_file = tmp_path / "lock.txt"
    lock_file.write_text(LOCKED.replace("3.20", "1.0") + LOCKED.replace("idna", "no-such-thing"), "utf-8")
    done = make_bill(real_component("sbom"), lock_file, tmp_path / "bill.json")
    assert done.returncode == 1
    assert "not installed: idna 1.0, no-such-thing 3.20" in done.stderr
    assert not (tmp_path / "bill.json").exists()


VULNERABILITY = {
    "id": "GHSA-xxxx-yyyy-zzzz",
    "summary": "an example",
    "affected": [{"package": {"name": "idna", "ecosystem": "PyPI"}, "ranges": []}],
}


@pytest.mark.parametrize(
    ("status", "answer", "code", "words"),
    [
        (200, {}, 0, "requirements/lock.txt: 1 distributions, nothing known"),
        (200, {"vulns": [VULNERABILITY]}, 1, "idna 3.20: GHSA-xxxx-yyyy-zzzz, no fixed version"),
        (500, {}, 3, "NOT AUDITED"),
        (None, {}, 3, "NOT AUDITED"),
    ],
    ids=["nothing known", "vulnerable", "the source is broken", "the source is not there"],
)
async def test_an_audit_succeeds_only_when_the_source_answered(
    real_component: RealComponent, tmp_path: Path, status: int | None, answer: dict[str, Any], code: int, words: str
) -> None:
    asked = []

    async def query(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response(answer, status=status or 200)

    script = tmp_path / "requirements" / "audit.py"
    script.parent.mkdir()
    shutil.copy(REQUIREMENTS / "audit.py", script)
    (script.parent / "lock.txt").write_text(LOCKED, "utf-8")
    app = web.Application()
    app.router.add_post("/v1/query", query)
    async with test_utils.TestServer(app) as server:
        source = str(server.make_url("/v1/query")) if status else "http://127.0.0.1:9/v1/query"
        options = ["--vulnerability-service", "osv", "--osv-url", source, "--cache-dir", str(tmp_path / "cache")]
        child = await asyncio.create_subprocess_exec(
            str(real_component("audit")), str(script), *options, stdout=asyncio.subprocess.PIPE
        )
        output = (await child.communicate())[0].decode()
    assert (child.returncode, words in output) == (code, True), output
    assert bool(asked) == bool(status)

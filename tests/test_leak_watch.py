"""The watch over leaks, watched: each way to leak fails, and only that one.

The tests below run in a pytest of their own with our `conftest.py` and configuration, because a test that fails on
purpose cannot be part of this one.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

SUBJECTS = """
import asyncio, socket, sys, time
import aiohttp

async def test_clean():
    async with aiohttp.ClientSession():
        await asyncio.to_thread(time.sleep, 0.001)

async def test_clean_child():
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await child.wait()

def test_clean_synchronous():
    time.sleep(0.001)

async def test_leaks_task():
    asyncio.get_running_loop().keep = asyncio.create_task(asyncio.sleep(60), name="forgotten")

async def test_leaks_session():
    aiohttp.ClientSession()

async def test_leaks_socket():
    socket.socket()

async def test_blocks():
    time.sleep(0.001)
"""


def test_leaks_fail_and_nothing_else_does(tmp_path: Path) -> None:
    subjects = tmp_path / "tests" / "test_subjects.py"
    subjects.parent.mkdir()
    subjects.write_text(SUBJECTS, encoding="utf-8")
    (subjects.parent / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "-q"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    failed = set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE))
    assert failed == {"test_leaks_task", "test_leaks_session", "test_leaks_socket", "test_blocks"}, done.stdout
    assert "forgotten" in done.stdout

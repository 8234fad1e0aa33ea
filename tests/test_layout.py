"""Where the tests of a module are: `a/b/c.py` is tested by `tests/a/b/test_c.py`, or by what the table below names.

A row is a module, or a folder with a slash at its end whose modules are tested together; beside it stands the file
that tests it and, where that does not say it by itself, why there. A row that is no longer needed fails.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("translators", "backends", "gateway")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__init__.py"
)
PARSE = "test_parse.py"
ELSEWHERE = {
    # pure, and only seen through what is built of it
    "translators/errors.py": "tests/translators/responses/test_errors.py",
    "translators/call_part.py": "tests/translators/test_parts.py",
    "translators/ir.py": "tests/translators/test_parts.py",  # declarations
    "translators/protocol.py": "tests/test_golden.py",  # declarations
    "translators/tool_names.py": "tests/translators/responses/test_tools.py",
    "translators/registry.py": "tests/test_layering.py",
    "translators/chat_completions/": f"tests/translators/chat_completions/{PARSE}",
    "translators/messages/": f"tests/translators/messages/{PARSE}",
    "translators/openai/": f"tests/translators/responses/{PARSE}",  # what both OpenAI protocols share
    "translators/responses/": f"tests/translators/responses/{PARSE}",
    "translators/responses/output.py": "tests/translators/responses/test_cut_calls.py",
    "translators/responses/tool_choice.py": "tests/translators/responses/test_tools.py",
    # seen through a backend over a socket
    "backends/base.py": "tests/gateway_fakes.py",  # declarations, which the fake backend keeps
    "backends/child_main.py": "tests/backends/test_child_process.py",  # seen through its parent
    "backends/schema_worker.py": "tests/backends/test_schema_checks.py",  # the same
    "backends/max_tokens.py": "tests/backends/chat/test_retries.py",
    "backends/sensitive.py": "tests/backends/test_refusal.py",
    "backends/registry.py": "tests/backends/triton/test_factory.py",
    "backends/transport.py": "tests/backends/http1/test_client.py",  # declarations, which both clients keep
    "backends/chat/finish_reasons.py": "tests/backends/chat/test_decoder_ends.py",
    "backends/chat/logprobs.py": "tests/backends/chat/test_decoder.py",
    "backends/chat/usage.py": "tests/backends/chat/test_decoder_ends.py",
    "backends/chat/aiohttp_transport.py": "tests/backends/http1/test_client.py",  # beside the other one
    "backends/trace_headers.py": "tests/gateway/telemetry/test_tracing.py",
    "backends/local/": "tests/real/test_local_model.py",  # needs the model
    "backends/markup/": "tests/backends/markup/test_families.py",  # one suite holds for every family
    "backends/pool/attempt.py": "tests/backends/pool/test_replica.py",
    "backends/prompts/prompt.py": "tests/backends/prompts/test_template.py",
    "backends/prompts/tokenizer_config.py": "tests/backends/prompts/test_tokenizer.py",
    "backends/triton/address.py": "tests/backends/triton/test_factory.py",
    "backends/triton/client.py": "tests/backends/triton/test_http_client.py",  # declarations
    "backends/triton/transport.py": "tests/backends/triton/test_http_client.py",  # declarations
    "backends/triton/rpc.py": "tests/backends/triton/test_grpc_client.py",
    # seen through the gateway
    "gateway/__main__.py": "tests/test_packaging.py",
    "gateway/first_prompts.py": "tests/gateway/launch/test_run.py",  # two numbers
    "gateway/nearest.py": "tests/gateway/config/test_faults.py",
    "gateway/calls/access_log.py": "tests/gateway/telemetry/test_logs.py",
    "backends/numeric_fields.py": "tests/gateway/config/test_faults.py",
    "backends/unreached.py": "tests/backends/chat/test_probe.py",
    "gateway/calls/answer.py": "tests/gateway/calls/test_handler.py",
    "gateway/calls/call.py": "tests/gateway/calls/test_handler.py",
    "gateway/calls/document_worker.py": "tests/gateway/calls/test_documents.py",  # seen through its parent
    "gateway/calls/exchange.py": "tests/gateway/calls/test_handler.py",
    "gateway/calls/model_table.py": "tests/gateway/serve/test_app.py",
    "gateway/keys/secrets.py": "tests/gateway/test_config.py",
    "gateway/calls/search_services.py": "tests/gateway/calls/test_search_client.py",
    "gateway/calls/replies.py": "tests/gateway/calls/test_handler.py",
    "gateway/calls/trace_attributes.py": "tests/gateway/telemetry/test_tracing.py",
    "gateway/config/": "tests/gateway/test_config.py",
    "gateway/doctor/": "tests/gateway/doctor/test_examine.py",
    "gateway/launch/": "tests/gateway/launch/test_run.py",
    "gateway/shipped.py": "tests/test_packaging.py",
    "gateway/store/kept.py": "tests/gateway/store/test_store.py",
    "gateway/store/statements.py": "tests/gateway/store/test_store.py",
    "gateway/serve/": "tests/gateway/serve/test_app.py",
    "gateway/serve/sockets.py": "tests/gateway/test_cli.py",
}


def own(module: str) -> str:
    path = Path(module)
    return f"tests/{path.parent.as_posix()}/test_{path.name}"


def row(module: str) -> str | None:
    """The row of the table that covers a module without tests of its own: its own, or its folder's."""
    rows = (module, *(f"{folder.as_posix()}/" for folder in Path(module).parents))
    return next((each for each in rows if each in ELSEWHERE), None)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_tests(module: str) -> None:
    found = row(module)
    assert (ROOT / own(module)).exists() or found is not None, f"write {own(module)}, or say in the table who tests it"


@pytest.mark.parametrize("named", ELSEWHERE)
def test_every_row_of_the_table_is_needed(named: str) -> None:
    assert (ROOT / ELSEWHERE[named]).exists()
    covered = [module for module in MODULES if row(module) == named]
    assert any(not (ROOT / own(module)).exists() for module in covered), f"{named} has tests of its own"

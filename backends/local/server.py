"""The child process that holds the small local model: llama.cpp's server on a loopback port that the kernel chooses.

Run by path, never imported: it needs `xllamacpp` and the standard library only, so that its start is the load of the
model and nothing else. When the model answers, one JSON line goes to stdout, `{"ready": "http://127.0.0.1:PORT"}`;
everything that llama.cpp prints goes to stderr. The process lives no longer than its parent: it ends when its
standard input does, and on Linux by the kernel's parent-death signal, which works also while another process holds a
copy of the pipe. SIGTERM keeps its default action, death at once, even in the middle of a prompt; SIGINT is ignored,
because Ctrl-C is the parent's to handle. It does not restart, authenticate or download.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

PR_SET_PDEATHSIG = 1
LOAD_LIMIT_SECONDS = 600.0

# Measured with llama.cpp's server (build 11549), for its clients:
# - A slot larger than the 8,192 tokens of the training is capped to them; a longer prompt is a 400 with both sizes.
# - It closes the connection 0.15 ms after the end of a stream, although the head promises keep-alive: use a connection
#   per request (`Connection: close`). Answers that are not streamed keep theirs.
# - That the client of a stream has left is noticed with the next token (0.2 s). During a prompt, or an answer that is
#   not streamed, it is noticed only when the server has produced nothing for anybody for a second: the slot is free in
#   1 to 3 s, but works to its end beside another stream, or when `/slots` is requested often. So always stream.
# - `/apply-template` and `/tokenize` together, and `/v1/chat/completions/input_tokens` alone, give the very
#   `prompt_tokens` of the answer; 4,553 tokens take 20 ms.
# - The template drops tools and the calls in assistant messages silently; tool results keep their text.


def die_with_parent() -> None:
    """Must run in the main thread before the load: a parent that is already gone shows as the end of stdin."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=exit_at_end_of_input, name="parent-watch", daemon=True).start()


def exit_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def quiet_threads() -> None:
    """Before the library is loaded: OpenMP workers that spin while they wait lose nine tenths of a shared machine's
    speed.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def serve(arguments: argparse.Namespace) -> tuple[object, str]:
    """The server, which runs as long as the object lives, and its address. The load blocks."""
    import xllamacpp  # after quiet_threads, and after the check that the parent lives

    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.model_alias = {arguments.name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = arguments.slots
    params.n_ctx = arguments.context * arguments.slots  # divided among the slots by the server
    # Between two batches other slots get a turn and a dropped request is noticed: after 1 s on two cores, by default 8.
    params.n_batch = params.n_ubatch = 256
    params.fit_params = False  # the window asked for, not one shrunk to the free memory
    params.cors_origins = "null"  # no web page has business here; empty would mean any
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = arguments.threads
    params.cache_ram_mib = arguments.cache_mib
    params.sampling.temp, params.sampling.top_p = 0.2, 0.9  # what SmolLM2's authors advise; a request's own values win
    params.sampling.penalty_repeat = 1.15  # without it, one answer in three repeats itself to the window's end
    params.ui = False
    params.endpoint_metrics = True
    params.verbosity = 2  # warnings and errors
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:  # its reason is printed above; a traceback would bury it
        raise SystemExit(f"llama.cpp cannot serve {arguments.model}: {error}") from None
    return server, server.listening_address


def wait_until_healthy(address: str) -> None:
    deadline = time.monotonic() + LOAD_LIMIT_SECONDS
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # http_proxy must not catch loopback
    while time.monotonic() < deadline:
        try:
            with direct.open(f"{address}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.05)
    raise SystemExit("the model did not become healthy in time")


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve one gguf file over HTTP on 127.0.0.1.")
    parser.add_argument("--model", required=True, help="path of the gguf file")
    parser.add_argument("--name", required=True, help="name of the model in /v1/models")
    parser.add_argument("--context", type=int, required=True, help="tokens of the window of one slot")
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument(
        "--cache-mib", type=int, default=0, help="memory for the prompts of slots that were given to others"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ready = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the library prints on stdout must not be taken for the ready line
    die_with_parent()
    quiet_threads()
    server, address = serve(arguments)
    wait_until_healthy(address)
    print(json.dumps({"ready": address}), file=ready, flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while server:
        signal.pause() if hasattr(signal, "pause") else time.sleep(3600)


if __name__ == "__main__":
    main()

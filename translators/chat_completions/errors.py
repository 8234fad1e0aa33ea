"""The failure of a stream that has begun: one last chunk that is an error, in the shape that errors have over HTTP.

SDKs raise it as an API error; it takes the place of the finish reason and of `[DONE]`, so that no client can take the
answer for whole.
"""

from __future__ import annotations

from translators.errors import GatewayError
from translators.openai_errors import error
from translators.protocol import Json


def stream_error(err: GatewayError) -> Json:
    return error(err, "").body

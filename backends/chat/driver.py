"""The driver of a reader: a task that opens the answer, waits for its end, and looks at the clock meanwhile."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from dragoman.backends.chat.answer import AnswerReader
from dragoman.backends.chat.forward import PieceReader
from dragoman.backends.transport import Reply
from dragoman.backends.watch import Watch
from dragoman.translators.errors import GatewayError


async def drive(reader: AnswerReader | PieceReader, opened: AbstractAsyncContextManager[Reply]) -> None:
    """Reads the body of the reply that `opened` gives into the reader, and raises what is wrong with the answer."""
    try:
        async with Watch(reader) as watch, opened as reply:
            reader.head(reply.content_type)
            await reply.into(reader, watch)
    except TimeoutError:
        if not reader.over:
            reader.late()
    except ConnectionError:
        reader.lost()
    except GatewayError:
        if not reader.over:  # else the receiver left while the server refused
            raise
    finally:
        reader.close()
    reader.check()

"""The driver of a reader: a task that opens the answer, waits for its end, and looks at the clock meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable

from dragoman.backends.chat.answer import AnswerReader
from dragoman.backends.chat.forward import PieceReader
from dragoman.backends.transport import Reply
from dragoman.backends.watch import Watch
from dragoman.translators.errors import GatewayError


async def drive(reader: AnswerReader | PieceReader, asking: Awaitable[Reply]) -> None:
    """Reads the body of the reply into the reader, and raises what is wrong with the answer. What is not read to its
    end ends the connection."""
    try:
        async with Watch(reader) as watch:
            reply = await asking
            try:
                reader.head(reply.content_type)
                await reply.into(reader, watch)
            finally:
                await reply.close()
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

"""Functionary 3.2: `>>>all` and a line with text, `>>>NAME` and a line with the arguments. The prompt ends in `>>>`, so
that an answer begins with a recipient."""

from dragoman.backends.markup.family import Family
from dragoman.backends.markup.readers.recipient_calls import RecipientCalls

_RECIPIENT = ">>>"

FAMILY = Family(
    "functionary",
    "functionary 3.2",
    openers={_RECIPIENT: RecipientCalls()},
    thinking={},
    goes_on=_RECIPIENT,
    ends=("<|eot_id|>", "<|end_of_text|>"),
    signs=((">>>${recipient}",),),
    names=("functionary-medium-v3.2", "functionary-small-v3.2"),
    markup="`>>>NAME`, a line with `{…}`; `>>>all`, a line with text",
    recovers="forgotten brackets; recipients that are no tools are text",
)

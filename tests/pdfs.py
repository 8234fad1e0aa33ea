"""PDFs written by hand, as small as readers take them: whole ones, and every kind that a reader may trip over."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable

FILE_ID = b"0123456789abcdef"
_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
_FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"
_FIRST_PAGE = 4  # after catalog, page tree and font


def assembled(objects: Iterable[bytes], trailer: bytes = b"") -> bytes:
    """Objects by their numbers from 1 on, with the table that finds them."""
    out, places = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"), []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(places) + 1
    end = b"trailer\n<</Size %d/Root 1 0 R%b>>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, len(out))
    return bytes(out) + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + end


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<</Length %d%b>>stream\n%b\nendstream" % (len(data), entries, data)


def deflated(data: bytes) -> bytes:
    return stream(zlib.compress(data), b"/Filter/FlateDecode")


def drawn(text: str) -> bytes:
    """The operators that show lines of text."""
    lines = [line.encode("cp1252").replace(b"\\", rb"\\").replace(b"(", rb"\(") for line in text.split("\n")]
    shown = b" ".join(b"(%b) Tj 0 -14 Td" % line.replace(b")", rb"\)") for line in lines)
    return b"BT /F1 12 Tf 72 720 Td %b ET" % shown


def of_contents(*contents: bytes, trailer: bytes = b"", more: tuple[bytes, ...] = ()) -> bytes:
    """A page for each content stream, which is a whole object."""
    numbers = range(_FIRST_PAGE, _FIRST_PAGE + 2 * len(contents), 2)
    kids = b" ".join(b"%d 0 R" % number for number in numbers)
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count %d/Kids[%b]>>" % (len(contents), kids), _FONT]
    for number, content in zip(numbers, contents, strict=True):
        box = b"/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>"
        objects += [b"<</Type/Page/Parent 2 0 R%b/Contents %d 0 R>>" % (box, number + 1), content]
    return assembled([*objects, *more], trailer)


def pdf(*pages: str) -> bytes:
    return of_contents(*(stream(drawn(page)) for page in pages))


def compressed(*pages: str) -> bytes:
    return of_contents(*(deflated(drawn(page)) for page in pages))


def scanned() -> bytes:
    """A page that is one picture."""
    return of_contents(stream(b"q 612 0 0 792 0 0 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \x80 EI Q"))


def encrypted(password: bytes, *pages: str) -> bytes:
    """By the standard handler in its first form (ISO 32000-1, 7.6.3: V 1, R 2, 40 bits)."""
    owner = _rc4(hashlib.md5(_padded(b"owner")).digest()[:5], _padded(password))
    rights = 0xFFFFFFC0
    key = hashlib.md5(_padded(password) + owner + rights.to_bytes(4, "little") + FILE_ID).digest()[:5]
    contents = []
    for place, page in enumerate(pages):
        number = _FIRST_PAGE + 2 * place + 1
        own = hashlib.md5(key + number.to_bytes(3, "little") + b"\0\0").digest()[:10]
        contents.append(stream(_rc4(own, drawn(page))))
    user = _rc4(key, _PADDING)
    form = b"<</Filter/Standard/V 1/R 2/O<%b>/U<%b>/P %d>>"
    handler = form % (owner.hex().encode(), user.hex().encode(), rights - 2**32)
    last = _FIRST_PAGE + 2 * len(pages)
    named = FILE_ID.hex().encode()
    return of_contents(*contents, more=(handler,), trailer=b"/Encrypt %d 0 R/ID[<%b><%b>]" % (last, named, named))


def cyclic() -> bytes:
    """A page tree whose branch holds its own root."""
    branch = b"<</Type/Pages/Parent 2 0 R/Count 1/Kids[2 0 R]>>"
    return assembled([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>", branch])


def bomb(size: int = 300_000_000) -> bytes:
    """A page whose content becomes a thousand times as large as it is sent."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b" " * 1_000_000) for _ in range(size // 1_000_000)) + packer.flush()
    return of_contents(stream(packed, b"/Filter/FlateDecode"))


def slow() -> bytes:
    """A page that takes minutes, and is a few kilobytes."""
    return compressed("x\n" * 2_000_000)


def _padded(password: bytes) -> bytes:
    return (password + _PADDING)[:32]


def _rc4(key: bytes, data: bytes) -> bytes:
    box, j = list(range(256)), 0
    for i in range(256):
        j = (j + box[i] + key[i % len(key)]) % 256
        box[i], box[j] = box[j], box[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + box[i]) % 256
        box[i], box[j] = box[j], box[i]
        out.append(byte ^ box[(box[i] + box[j]) % 256])
    return bytes(out)

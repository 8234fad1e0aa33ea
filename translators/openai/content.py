"""Images and files in the content of a message, as both OpenAI protocols write them.

An image stays an image (whether the model can see it is up to the backend), also one that comes as a file; any other
file is read where its text came with it.
What cannot be read here, or would need a store of files, is replaced by a text (`translators.unreadable`).
"""

from __future__ import annotations

from dragoman.translators.fields import Given
from dragoman.translators.ir import Image, Note, Text
from dragoman.translators.openai.reading import expect_text, text_or_null
from dragoman.translators.openai.refusals import missing, unsupported, wrong_type
from dragoman.translators.protocol import Policy
from dragoman.translators.soft_words import known
from dragoman.translators.unreadable import UNREADABLE, Unreadable, in_place_of

_DETAILS = ("low", "high", "auto", "original")


class Media:
    """Reads the images and files of one request. `notes` grows with what is left out."""

    def __init__(self, policy: Policy, notes: list[Note]) -> None:
        self.inert: frozenset[str] = frozenset({"annotations"} if policy.web_search else ())  # as answers of ours cite
        self._notes = notes
        self._unreadable = Unreadable(policy, notes, "file")

    def image(self, owner: Given, path: str, key: str = "image_url") -> Image | Text:
        """`owner` holds the URL under `key`, and perhaps `detail`. `path` is that of `owner`."""
        place, url = f"{path}.{key}", owner.get(key)
        if url is None:
            if owner.get("file_id") is None:
                raise missing(place)
            place = f"{path}.file_id"
            expect_text(owner, "file_id", path)
            return self._unreadable.left_out("image", "uploaded image", place)
        if not isinstance(url, str):
            raise wrong_type(place, "a string", url)
        detail = known(text_or_null(owner, "detail", path), _DETAILS, "auto", "detail", self._notes)
        return self._unreadable.image_at(url, place, place, detail)

    def source(self, owner: Given, path: str) -> Image | Text:
        """An image as the Messages API writes it: base64 with its type, or a URL."""
        if expect_text(owner, "type", path) == "url":
            url = expect_text(owner, "url", path)
            return self._unreadable.image_at(url, path, f"{path}.url")
        media, data = expect_text(owner, "media_type", path), expect_text(owner, "data", path)
        return self._unreadable.image(media, data, path, f"{path}.data")

    def encrypted(self, path: str) -> Text:
        """What stands for content that another server has encrypted."""
        if self._unreadable.policy.unreadable == "reject":
            raise unsupported(path, "Content that is encrypted cannot be read by this gateway.")
        self._notes.append(Note("item", "encrypted_content"))
        return Text(in_place_of("encrypted content", UNREADABLE))

    def file(self, owner: Given, path: str) -> Image | Text:
        """`owner` holds `file_data`, or else `file_id` or `file_url`, and perhaps `filename`."""
        name = text_or_null(owner, "filename", path)
        if owner.get("file_data") is not None:
            data, place = expect_text(owner, "file_data", path), f"{path}.file_data"
            if image := self._unreadable.image_in_file(data, path, place):
                return image
            read = self._unreadable.data_url_text(data, place, name)
            return read if isinstance(read, Text) else Text(read if name is None else f"[File: {name}]\n{read}")
        for key, what in (("file_id", "uploaded document"), ("file_url", "document named by URL")):
            if owner.get(key) is not None:
                expect_text(owner, key, path)
                return self._unreadable.left_out("document", what, f"{path}.{key}", name)
        raise missing(f"{path}.file_data")

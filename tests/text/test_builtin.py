"""The built-in book: its chapters are the text, and the text is the known one."""

import pytest

from parbyte.base.errors import DataError
from parbyte.base.files import sha256_bytes
from parbyte.text.builtin import KJV_BYTES, KJV_CHAPTERS, KJV_SHA256, check_kjv, kjv_chapters


def test_the_chapters_join_to_exactly_the_known_text() -> None:
    text = b"".join(kjv_chapters())
    assert len(text) == KJV_BYTES
    assert sha256_bytes(text) == KJV_SHA256


def test_there_are_1189_chapters_and_each_starts_where_its_first_verse_does() -> None:
    chapters = list(kjv_chapters())
    assert len(chapters) == KJV_CHAPTERS
    assert chapters[0].startswith(b"\nIn the beginning God created")
    assert chapters[1].startswith(b"Thus the heavens and the earth were finished")
    assert chapters[50].startswith(b"Now these [are] the names of the children of Israel")
    assert min(map(len, chapters)) > 100


def test_the_chapters_can_be_read_again() -> None:
    assert list(kjv_chapters()) == list(kjv_chapters())


def test_another_text_is_refused_with_both_hashes() -> None:
    with pytest.raises(DataError, match=r"SHA-256 [0-9a-f]{16}\.\. \(11 bytes\), must be c98241f3"):
        check_kjv(b"not the KJV")

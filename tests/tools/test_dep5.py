"""Who made a file of a Debian package: worked examples of the machine-readable copyright format."""

import pytest

from tools.bundled.dep5 import read_terms, terms_of

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: example

Files: *
Copyright: 2001, Everybody <all@example.org>
License: GPL-3+

Files: images/*
 photos/a?.jpg photos/b.jpg
Copyright: 2010, Anna
           2011, Bert
License: public-domain
 From NASA.
 .
 Made by the government.
Comment: Cropped.

Files: images/with blank.jpg
Copyright: Carl
License: CC-BY-4.0

License: GPL-3+
 The text of the licence.
"""


@pytest.mark.parametrize(
    ("path", "licence"),
    [
        ("README", "GPL-3+"),
        ("images/x.jpg", "public-domain"),
        ("images/deep/er/x.jpg", "public-domain"),
        ("photos/a1.jpg", "public-domain"),
        ("photos/a12.jpg", "GPL-3+"),
        ("photos/b.jpg", "public-domain"),
        ("images/with blank.jpg", "CC-BY-4.0"),
        ("imagesx.jpg", "GPL-3+"),
    ],
)
def test_the_last_paragraph_that_fits_counts(path, licence):
    assert terms_of(path, read_terms(COPYRIGHT)).licence == licence


def test_holders_and_words():
    one = terms_of("images/x.jpg", read_terms(COPYRIGHT))
    assert one.holders == "2010, Anna; 2011, Bert"
    assert one.remark == "From NASA. Made by the government. Cropped."


def test_a_dot_is_a_dot():
    assert terms_of("photos/bxjpg", read_terms(COPYRIGHT)).licence == "GPL-3+"


def test_another_format_is_refused():
    with pytest.raises(ValueError, match="DEP-5"):
        read_terms("This package was debianized by somebody.\n")


def test_a_file_that_nothing_is_said_of_is_refused():
    with pytest.raises(ValueError, match="about b"):
        terms_of("b", read_terms("Files: a\nCopyright: A\nLicense: Expat\n"))

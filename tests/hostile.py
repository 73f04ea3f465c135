"""Strategies for hostile input: any bytes, and real files with something wrong in them."""

from __future__ import annotations

from hypothesis import strategies as st

NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(repr),
    st.sampled_from(
        ["1e999", "-0", "0x10", "1_0", "٣", "inf", "nan", "9" * 5000, "1e-320", "true", "[]", "[[]]", "{}"]
    ),
)
TOKENS = st.one_of(
    NUMBERS,
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "\0",
            "\n",
            "\r\n",
            "=",
            "[",
            "]",
            "#",
            "%d",
            "%09999d",
            "../../../etc",
            "/dev/zero",
            "*",
            "?",
            "'",
            '"',
            "${X}",
        ]
    ),
)


@st.composite
def mutated(draw: st.DrawFn, text: str) -> bytes:
    """Mutate `text`: replace, remove or repeat some of its words; sometimes truncate it or insert invalid bytes."""
    words = [word for word in _split(text) if word]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(words) - 1))
        what = draw(st.sampled_from(["replace", "cut", "double", "swap"]))
        if what == "replace":
            words[at] = draw(TOKENS)
        elif what == "cut":
            words[at] = ""
        elif what == "double":
            words[at] *= draw(st.sampled_from([2, 50]))
        else:
            other = draw(st.integers(0, len(words) - 1))
            words[at], words[other] = words[other], words[at]
    data = "".join(words).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from([b"", b"\xff\xfe", b"\0", data[at + 1 :]]))
    return data


def _split(text: str) -> list[str]:
    """Split into words and the characters between them."""
    words: list[str] = []
    for char in text:
        if words and char.isalnum() == words[-1][-1].isalnum() and char.isalnum():
            words[-1] += char
        else:
            words.append(char)
    return words

"""Text to pieces, each sized for one model call: a short one first, for a fast first sound, then longer ones.

sentencex finds the sentences. This module joins short ones, cuts long ones at clauses and keeps together what is said
in one breath (numbers, abbreviations, links). It changes no character, and it does not know phonemes or models.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from sentencex import segment as split_sentences

# Lengths are counted in Latin letters. A Chinese character or a digit counts as four, kana as two, because that is
# how many phonemes they take, and how long they last.
FIRST_CHARACTERS = 60  # about 4 seconds of speech
MAX_CHARACTERS = 320  # about 20 seconds; at 1 to 1.2 phonemes a letter it stays under Kokoro's 510

_SLACK = 1.25  # how far over its limit a piece may go to end where the speaker takes a breath
_SHORTEST = 20  # a piece under this sounds clipped, unless it is a paragraph of its own
_GROWTH = 2  # each piece may take twice as long to speak as everything before it
_WINDOW = 4000  # sentencex takes quadratic time for rows of quotation marks, so it never sees more at once


def segment(
    text: str,
    language: str | None = None,
    *,
    first_characters: int = FIRST_CHARACTERS,
    max_characters: int = MAX_CHARACTERS,
) -> list[str]:
    """Cuts `text` into pieces, without spaces at their ends. Every other character is there once, in order.

    `language`: a code like "en" or "pt-br"; without it the script decides. The first piece holds about
    `first_characters`, no piece more than `max_characters`, both counted in Latin letters (see above). A blank line
    always ends a piece. Only a single word over `max_characters` is cut inside.
    """
    first_characters = min(first_characters, max_characters)
    pieces: list[str] = []
    spoken = 0
    for block in _BLANK_LINE.split(text):
        paragraph = _Paragraph(block.strip(), language)
        start = 0
        while start < len(paragraph.text):
            limit = min(max_characters, max(first_characters, _GROWTH * spoken))
            end = paragraph.cut(start, limit, max_characters)
            pieces.append(paragraph.text[start:end])
            spoken += paragraph.length(start, end)
            start = paragraph.skip_spaces(end)
    return pieces


_BLANK_LINE = re.compile(r"\n[^\S\n]*\n|\u2029")
_ANY_SPACES = re.compile(r"\s+")
_SPACES = re.compile(r"[^\S\u00a0\u2007\u202f]+")  # a no-break space ends nothing
_BULLET = re.compile(r"[-*+•·–—][ \t]|\d{1,3}[.)][ \t]")
_CJK_SENTENCE_END = re.compile(r"[。！？｡]+[」』”’）》】]*")
_CJK_CLAUSE_END = re.compile(r"[，、；：]+[」』”’）》】]*|…+(?=[\u3040-\u9fff])")
# Where a Japanese speaker may pause without a mark: before kanji or katakana that follow hiragana.
_CJK_PHRASE_END = re.compile(r"[\u3041-\u309f](?=[\u30a1-\u30fa\u4e00-\u9fff])")
_QUOTE_GOES_ON = re.compile("[」』][\u3041-\u309f]")  # 「すごい！」と
_THOUSANDS_GAP = re.compile(r"\d \d{3}(?!\d)")  # 10 000
_ABBREVIATION = re.compile(
    # An initial, or a title that no sentence ends with. sentencex knows most of them, but not in every language.
    r"(?:^|[\s(\[\"'“‘«¿¡-])(?:[A-Z]|M|MM|Mme|Mlle|Mr|Mrs|Ms|Dr|Dra|Prof|Sr|Sra|Srta|Sig|Dott|dott|Ing|Av|Avv|St|Ste"
    r"|Nr|vs|cf|Fig|fig|pp?|Rev|Gen|Col|Capt|Lt|Sgt|e\.g|i\.e|p\.ej|z\.B|डॉ|श्री)\.$"
)
_ABBREVIATION_REACH = 12  # characters to look back for one
_CLOSING = "\"'”’»)]}」』"
_NOT_FIRST = frozenset("!?;:,.…%°€»”)]}—–-―、。，！？；：」』")
_NOT_LAST = frozenset("«“([{¿¡「『#")
_CLAUSE_MARKS = frozenset(",;:!?…।،؛—–-―")
_CJK_LAST = frozenset("。！？｡」』”’）》】…")
_SCRIPTS = {  # kana first: Japanese has kanji too
    "ja": re.compile("[\u3040-\u30ff]"),
    "zh": re.compile("[\u4e00-\u9fff]"),
    "hi": re.compile("[\u0900-\u097f]"),
}
_LONGEST_CLUSTER = 20  # characters that a hard cut may go back to keep a letter with its accents


@dataclass
class _Breaks:
    """Where a piece may end, in rising order: before the spaces. `words` holds all of them."""

    sentences: list[int]
    clauses: list[int]
    words: list[int]


class _Paragraph:
    """One paragraph, measured once, so that each cut is a look-up."""

    def __init__(self, text: str, language: str | None) -> None:
        self.text = text
        self._lengths = [0, *accumulate(map(_length, text))]
        self._breaks = _find_breaks(text, language)

    def length(self, start: int, end: int) -> int:
        """In Latin letters."""
        return self._lengths[end] - self._lengths[start]

    def skip_spaces(self, position: int) -> int:
        spaces = _ANY_SPACES.match(self.text, position)
        return spaces.end() if spaces else position

    def cut(self, start: int, limit: int, most: int) -> int:
        """Where the piece from `start` ends: a sentence or clause near `limit`, else a word, never past `most`."""
        soft = min(most, int(limit * _SLACK))
        rest = self.length(start, len(self.text))
        if rest <= soft:
            return len(self.text)
        # What would be left over alone gets company from this piece.
        soft, limit = (min(bound, max(rest - _SHORTEST, 1)) for bound in (soft, limit))
        shortest = min(_SHORTEST, limit // 2)
        for positions in (self._breaks.sentences, self._breaks.clauses):
            end = self._last_break(positions, start, soft)
            if end and self.length(start, end) >= shortest:
                return end
        return (
            self._last_break(self._breaks.words, start, limit)
            or self._next_break(start, most)
            or self._inside_word(start, most)
        )

    def _position(self, start: int, length: int) -> int:
        """The last position that `length` from `start` reaches."""
        return bisect_right(self._lengths, self._lengths[start] + length) - 1

    def _last_break(self, positions: list[int], start: int, length: int) -> int:
        """The last of `positions` within `length` of `start`, or 0."""
        index = bisect_right(positions, self._position(start, length)) - 1
        return positions[index] if index >= 0 and positions[index] > start else 0

    def _next_break(self, start: int, most: int) -> int:
        """The end of the word at `start`, for one that is longer than the limit, or 0 if it is past `most`."""
        index = bisect_right(self._breaks.words, start)
        end = self._breaks.words[index] if index < len(self._breaks.words) else len(self.text)
        return end if self.length(start, end) <= most else 0

    def _inside_word(self, start: int, most: int) -> int:
        """The last resort: a space that is no good place to cut, else the last character that fits."""
        end = max(self._position(start, most), start + 1)
        space = self.text.rfind(" ", start + 1, end)
        if space > start:
            return space
        for earlier in range(end, max(start, end - _LONGEST_CLUSTER), -1):
            if unicodedata.category(self.text[earlier])[0] not in "MC":
                return earlier
        return end


def _length(character: str) -> int:
    if character < "\x7f":
        return 4 if character in "0123456789%&@#+=$" else 1
    if "\u3040" <= character <= "\u30ff":
        return 2
    if "\u3400" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7a3" or character.isdigit():
        return 4
    return 1


def _find_breaks(text: str, language: str | None) -> _Breaks:
    sentences = set(_sentence_ends(text, language))
    clauses: set[int] = set()
    words: set[int] = set()
    for spaces in _SPACES.finditer(text):
        end, following = spaces.span()
        if "\n" in spaces.group() and _BULLET.match(text, following):
            sentences.add(end)
        elif _may_part(text, end, following):
            last = text[max(0, end - 4) : end].rstrip(_CLOSING)[-1:]
            (clauses if last in _CLAUSE_MARKS or text[end - 1] == ")" else words).add(end)
    for pattern, ends in ((_CJK_CLAUSE_END, clauses), (_CJK_PHRASE_END, words)):
        ends.update(match.end() for match in pattern.finditer(text) if _may_part(text, match.end(), match.end()))
    return _Breaks(sorted(sentences), sorted(clauses), sorted(sentences | clauses | words))


def _sentence_ends(text: str, language: str | None) -> Iterator[int]:
    code = re.split("[-_]", language)[0].lower() if language else _guess_language(text)
    start = 0
    while start < len(text):
        # The last sentence of a window may go on after it, so the next window begins with it again.
        *ends, _ = accumulate(map(len, split_sentences(code, text[start : start + _WINDOW])), initial=start)
        for following in ends[1:]:
            end = following
            while end > start and text[end - 1].isspace():
                end -= 1
            if (end < following or text[end - 1] in _CJK_LAST) and _may_part(text, end, following):
                yield end
        start = ends[-1] if len(text) > start + _WINDOW and ends[-1] > start + _WINDOW // 2 else start + _WINDOW
    for match in _CJK_SENTENCE_END.finditer(text):
        if _may_part(text, match.end(), match.end()):
            yield match.end()


def _guess_language(text: str) -> str:
    for code, script in _SCRIPTS.items():
        if script.search(text):
            return code
    return "en"


def _may_part(text: str, end: int, following: int) -> bool:
    """Whether text[:end] and text[following:] may be spoken apart."""
    if following >= len(text) or text[following] in _NOT_FIRST or text[end - 1] in _NOT_LAST:
        return False
    if _QUOTE_GOES_ON.match(text, end - 1) or _THOUSANDS_GAP.match(text, end - 1):
        return False
    return not _ABBREVIATION.search(text[max(0, end - _ABBREVIATION_REACH) : end])

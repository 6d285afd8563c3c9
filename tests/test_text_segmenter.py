"""The segmenter's promises, over real texts in nine languages and over random ones."""

import random
import re
import time

import pytest

from text_segmenter import FIRST_CHARACTERS, MAX_CHARACTERS, segment

TEXTS = {
    "en": "Dr. Smith arrived at 10:30 a.m. in the U.S., e.g. by train. He paid $3.14 for v1.2.3, see "
    "https://example.com/a.b,c?d=1&e=2 for more... Then he said: “Go home!” (He did.) Mr. J. R. Tolkien, who wrote "
    "many books about things that nobody had ever seen before, was quite content with the result of his labour, "
    "although nobody knew it at the time. It cost 1,234,567.89 dollars. Is that so? Yes.",
    "es": "El Sr. Pérez llegó a las 10:30. ¿Qué tal? ¡Muy bien! La casa, que está en la Av. de la Constitución, cuesta "
    "3,50 € al día; no es mucho, p.ej. comparado con otras ciudades más grandes de España. Nos vemos mañana.",
    "fr": "M. Dupont est arrivé ! Cela coûte 10 000 € ; vraiment ? « Oui », dit-il. Mme Curie était là aussi, avec "
    "tous les autres membres de la famille, venus de loin depuis le sud de la France. Et Mlle Blanche.",
    "hi": "नमस्ते, आज मौसम बहुत अच्छा है। हम बाजार जा रहे हैं। डॉ. शर्मा आज नहीं आएंगे, क्योंकि वे बीमार हैं। क्या आप "
    "कल हमारे साथ चलेंगे? हम सुबह दस बजे स्टेशन पर मिलेंगे और वहाँ से साथ जाएंगे।",
    "it": "Il Sig. Rossi è qui con il dott. Bianchi. Costa 3,50 €, ma non importa: domani andremo al mare con i nostri "
    "amici, mangeremo un gelato e torneremo a casa soltanto la sera tardi. Va bene? Benissimo!",
    "pt-br": "O Sr. Silva chegou à Av. Paulista às 10:30. Amanhã vamos viajar para o Rio com a nossa família, "
    "porque as férias começaram e o tempo está ótimo. Custa R$ 3,50. Está bem? Claro que sim!",
    "ja": "今日は天気がいいので、友達と公園へ行きました。「すごい！」と彼は言った。価格は3,500円です。それから私たちは"
    "家に帰って、晩ご飯を食べて、テレビを見ながらゆっくり休みました。本当に楽しい一日でした！また行きたいです。",
    "zh": "今天天气很好，我们一起去公园散步吧。票价是3,500元。“好。”他说，然后我们就走了……后来的事情大家都知道了，"
    "没有人再提起那一天发生的事情。真的吗？当然是真的！版本v1.2.3已经发布，请看https://example.com/a.b。",
    "en-gb": "Chapter 1\n\nIt was late.\nNobody had seen St. Paul's since 10.30 p.m. – not even Mrs. Jones.\n\n"
    "- First, the bread\n- Second, the butter\n\nThe end.",
}

WHOLE = (
    "Dr. Smith", "Mr. J. R. Tolkien", "10:30", "a.m.", "U.S.", "e.g.", "$3.14", "v1.2.3", "1,234,567.89", "more...",
    "https://example.com/a.b,c?d=1&e=2", "Sr. Pérez", "Av. de", "3,50 €", "p.ej.", "M. Dupont", "arrivé !",
    "10 000 € ;", "« Oui »", "Mlle Blanche", "डॉ. शर्मा", "Sig. Rossi", "dott. Bianchi", "Sr. Silva", "Av. Paulista",
    "」と彼は", "3,500", "https://example.com/a.b", "St. Paul's", "10.30", "Mrs. Jones",
)  # fmt: skip


def spoken_length(text: str) -> int:
    """The length as the segmenter documents it: in Latin letters."""
    kana = len(re.findall("[\u3040-\u30ff]", text))
    heavy = len(re.findall("[\u3400-\u9fff0-9%&@#+=$]", text))
    return len(text) + kana + 3 * heavy


def without_spaces(text: str) -> str:
    return "".join(text.split())


def random_text(rng: random.Random, words: int) -> str:
    kinds = (
        "word",
        "Dr.",
        "3.14",
        "e.g.",
        "10:30",
        "v1.2.3",
        "https://a.b/c?d=e",
        "U.S.",
        "今天",
        "カタカナです",
        "हिन्दी",
        "—",
        "...",
    )
    ends = (" ", " ", " ", ", ", ". ", "! ", "? ", "; ", "。", "、", "\n", "\n\n", "  ", "” ", " (")
    return "".join(rng.choice(kinds) + rng.choice(ends) for _ in range(words))


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("limits", [(FIRST_CHARACTERS, MAX_CHARACTERS), (20, 40), (40, 80), (200, 200)])
def test_real_texts_keep_every_character_and_every_bound(language: str, limits: tuple[int, int]) -> None:
    text = TEXTS[language]
    pieces = segment(text, language, first_characters=limits[0], max_characters=limits[1])
    assert without_spaces("".join(pieces)) == without_spaces(text)
    for piece in pieces:
        assert piece == piece.strip() != ""
        assert spoken_length(piece) <= limits[1]


@pytest.mark.parametrize("language", TEXTS)
def test_the_first_piece_is_short_and_the_later_ones_grow(language: str) -> None:
    text = "".join([TEXTS[language].replace("\n\n", " ") + " "] * 8)
    lengths = [spoken_length(piece) for piece in segment(text, language)]
    assert lengths[0] <= 1.25 * FIRST_CHARACTERS
    assert all(now <= max(1.25 * FIRST_CHARACTERS, 2.5 * sum(lengths[:i])) for i, now in enumerate(lengths) if i)
    assert sum(lengths[3:-1]) / len(lengths[3:-1]) > MAX_CHARACTERS / 2


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("limits", [(FIRST_CHARACTERS, MAX_CHARACTERS), (60, 60), (60, 90), (80, 80), (150, 150)])
def test_words_numbers_links_and_abbreviations_stay_whole(language: str, limits: tuple[int, int]) -> None:
    text = TEXTS[language]
    pieces = segment(text, language, first_characters=limits[0], max_characters=limits[1])
    present = [whole for whole in WHOLE if whole in text and spoken_length(whole) < limits[1]]
    for whole in present:
        assert sum(piece.count(whole) for piece in pieces) == text.count(whole), whole
    if language not in ("ja", "zh"):
        assert " ".join(pieces).split() == text.split()


@pytest.mark.parametrize("seed", range(40))
def test_random_texts_keep_every_character_and_every_bound(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    text = random_text(rng, rng.randint(1, 300))
    first, most = sorted((rng.randint(25, 100), rng.randint(40, 400)))
    language = rng.choice([None, *TEXTS, "xx"])
    pieces = segment(text, language, first_characters=first, max_characters=most)
    assert without_spaces("".join(pieces)) == without_spaces(text)
    assert all(piece == piece.strip() != "" and spoken_length(piece) <= most for piece in pieces)
    assert pieces == segment(text, language, first_characters=first, max_characters=most)


@pytest.mark.parametrize("language", [None, "en", "zh", "xx", "pt_BR"])
def test_nothing_to_say(language: str | None) -> None:
    assert segment("", language) == []
    assert segment(" \n\t\n \u00a0", language) == []


def test_short_texts_stay_whole() -> None:
    for text in ("Hi.", "Dr. Smith", "Yes. No. Maybe.", "…", "Ünïcödé 👍🏽", "这是一个很短的句子。"):
        assert segment(text) == [text]


def test_a_blank_line_ends_a_piece() -> None:
    assert segment("Title\n\nOne. Two.\n \nThree") == ["Title", "One. Two.", "Three"]


def test_no_tiny_leftovers() -> None:
    sentence = "This sentence is long enough to fill the whole of the first piece on its own, and more so. "
    for tail in ("Dr. X.", "Yes.", "Good, good."):
        assert all(len(piece) >= 20 for piece in segment(sentence * 6 + tail, "en"))


def test_text_without_punctuation_is_cut_at_spaces() -> None:
    text = "these words go on and on without a single mark " * 40
    pieces = segment(text, "en")
    assert len(pieces) > 4
    assert " ".join(pieces).split() == text.split()


def test_a_sentence_is_cut_at_its_clauses() -> None:
    text = "When the rain stopped, we went out to see the river; it had risen above the bridge, and nobody could cross."
    assert segment(text, "en") == [
        "When the rain stopped, we went out to see the river;",
        "it had risen above the bridge, and nobody could cross.",
    ]


def test_only_a_word_over_the_limit_is_cut_inside() -> None:
    link = "https://example.com/" + "a" * 200
    assert link in segment(f"See {link} for more, please, as soon as you can.", "en")[1]
    pieces = segment("b" * 1000, "en")
    assert "".join(pieces) == "b" * 1000
    assert max(map(len, pieces)) <= MAX_CHARACTERS
    accents = "e\u0301" * 400
    assert not any(piece.startswith("\u0301") for piece in segment(accents, "en", max_characters=41))


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a ",
        ".",
        "a.",
        "Dr. ",
        '("',
        "“",
        "“. ",
        "。",
        "[1] ",
        "a\n\n",
        "- a\n",
        "Hello. ",
        "1 ",
        "今",
        "あ漢",
        "x, ",
        "e\u0301",
        " ",
        "\n",
    ],
)
def test_time_grows_with_the_length_and_not_with_its_square(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * length)[:length]
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            pieces = segment(text)
            best = min(best, time.process_time() - start)
            assert without_spaces("".join(pieces)) == without_spaces(text)
        return best

    # 8 times the text takes about 8 times as long; quadratic time would be 64 times. The 2 ms level out the clock.
    assert seconds(80_000) < 24 * (seconds(10_000) + 0.002)

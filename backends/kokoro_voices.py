"""Kokoro's voices by their names: the first letter is the language, the second the gender."""

from phonemes import KOKORO_LANGUAGES

from .protocols import ModelVoice

# Where a voice without a letter of its own, a mixture say, takes its phonemes from.
DEFAULT_LETTER = "a"

_GENDERS = {"f": "female", "m": "male"}


def language_letter(voice: str) -> str:
    """The letter that phonemes.Phonemizer wants for this voice."""
    return voice[0] if voice[:1] in KOKORO_LANGUAGES else DEFAULT_LETTER


def model_voice(voice: str) -> ModelVoice:
    """What the name says of a voice."""
    language = KOKORO_LANGUAGES[language_letter(voice)].code
    return ModelVoice(voice, language=language, gender=_GENDERS.get(voice[1:2]))

"""GET /v1/audio/voices: the voices of a model, and the names that stand for them."""

from fastapi import APIRouter

from app_state import State
from openai_api import OPENAI_SPEECH_MODELS, Voice, VoiceList

router = APIRouter(tags=["audio"])


@router.get("/v1/audio/voices")
async def list_voices(state: State, model: str = OPENAI_SPEECH_MODELS[0]) -> VoiceList:
    """The presets, OpenAI's voices among them, then the model's own voices with the presets that stand for them."""
    engine = await state.pool.speech(model)
    model_id = state.pool.catalog.find(model, "speech").id
    presets = [
        Voice(
            id=preset.name,
            name=preset.name,
            language=own.language if (own := engine.voices.get(preset.voice)) else None,
            gender=own.gender if own else None,
            model=model_id,
            description=preset.description,
        )
        for preset in state.presets.values()
        if not engine.voices or preset.voice in engine.voices
    ]
    own_voices = [
        Voice(
            id=voice.id,
            name=voice.id,
            language=voice.language,
            gender=voice.gender,
            model=model_id,
            aliases=[preset.name for preset in state.presets.values() if preset.voice == voice.id],
        )
        for voice in engine.voices.values()
    ]
    voices = presets + own_voices
    return VoiceList(data=voices, voices=voices)

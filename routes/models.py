"""GET /v1/models and /v1/models/{id}: what a request may name."""

from fastapi import APIRouter

from app_state import State
from model_catalog import unknown_model
from openai_api import Model, ModelList

router = APIRouter(tags=["models"])


@router.get("/v1/models")
async def list_models(state: State) -> ModelList:
    """The local models, and OpenAI's names for the defaults among them."""
    return ModelList(data=_models(state))


@router.get("/v1/models/{model_id:path}")
async def retrieve_model(model_id: str, state: State) -> Model:
    """One model. The id may hold a slash, percent-encoded or not."""
    for model in _models(state):
        if model.id == model_id:
            return model
    raise unknown_model(model_id)


def _models(state: State) -> list[Model]:
    catalog = state.pool.catalog
    return [Model(id=name, created=catalog.created, owned_by=owner) for name, owner in catalog.ids()]

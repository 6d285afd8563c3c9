"""GET /v1/models and /v1/models/{id}: what a request may name."""

from fastapi import APIRouter

from app_state import State
from errors import NotYours
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


@router.delete("/v1/models/{model_id:path}")
async def delete_model(model_id: str, state: State) -> None:
    """No model can be deleted: OpenAI answers so for models that aren't the caller's own."""
    await retrieve_model(model_id, state)
    raise NotYours(f"The model {model_id!r} is not yours to delete.", param="model")


def _models(state: State) -> list[Model]:
    catalog = state.pool.catalog
    return [Model(id=name, created=catalog.created, owned_by=owner) for name, owner in catalog.ids()]

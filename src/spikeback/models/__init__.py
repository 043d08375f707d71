"""Networks by name: `create_model("spiking_resnet18")`, `list_models()`."""

from spikeback.models import resnet, vgg  # noqa: F401 - importing fills the registry
from spikeback.models.registry import create_model, list_models

__all__ = ["create_model", "list_models"]

"""The model that ships inside the package; MODEL_CARD.md beside it says more."""

from etils import epath

BUNDLED_MODEL = epath.resource_path('t5_align.bundled')

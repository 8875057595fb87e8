"""The model that ships inside the package; see MODEL_CARD.md beside it."""

from etils import epath

BUNDLED_MODEL = epath.resource_path('t5_align.bundled')

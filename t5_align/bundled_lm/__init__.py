"""A bundled decoder-only model; see MODEL_CARD.md beside it."""

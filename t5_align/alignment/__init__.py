"""Attention alignment: measure attention, and choose temperatures."""

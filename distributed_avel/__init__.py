"""Weakly-supervised audio-visual event localization with temporal label refinement, on Ray."""

__version__ = "0.1.0"

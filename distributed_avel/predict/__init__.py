"""Prediction: trained models in model folders, and events in any video."""

from distributed_avel.predict.model import TrainedModel, load_model
from distributed_avel.predict.prediction import Event, Prediction

__all__ = ["Event", "Prediction", "TrainedModel", "load_model"]

"""Media to aligned features, one file an extractor. Importing this registers all of them."""

from distributed_avel.features import descriptors as descriptors
from distributed_avel.features import pairs as pairs

"""Feature extractors, one file each. Importing this package registers all of them."""

from distributed_avel.features import descriptors as descriptors
from distributed_avel.features import published as published

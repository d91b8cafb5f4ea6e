"""Search space, resources, pre-selection of tau and model selection of sweeps, without Ray."""

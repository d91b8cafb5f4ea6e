"""Studies: many pipelines that share stages, such as sweeps and the paper's tables."""

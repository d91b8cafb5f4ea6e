"""Studies: many pipelines that share stages."""

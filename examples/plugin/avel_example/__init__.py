"""A base model, an extractor and a data set for distributed_avel."""

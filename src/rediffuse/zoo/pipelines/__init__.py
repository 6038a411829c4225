"""Pipelines of diffusers as models: the only modules that know diffusers and transformers, which are an extra."""

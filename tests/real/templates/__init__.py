"""The model templates that registry packages carry, rendered here and by transformers."""

"""What a model is made of, with no weights and no torch."""

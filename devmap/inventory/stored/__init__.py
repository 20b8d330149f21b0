"""A checkpoint as it is stored: headers, shards, and how its tensors make the model's."""

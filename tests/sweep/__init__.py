"""Every class of Transformers' auto mappings at tiny size: built, inspected, loaded, run."""

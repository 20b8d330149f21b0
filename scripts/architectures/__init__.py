"""What `make_architectures.py` is made of.

Builds of Transformers' classes, their trees, and what is read off them.
"""

"""What `make_architectures.py` is made of: builds of Transformers' classes, their trees, and what is read off them."""

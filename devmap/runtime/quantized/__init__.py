"""Quantised models: prepared by Transformers' quantizers, their parameters made over plain tensors."""

"""Fake execution: a plan run over fake tensors with a ledger of bytes."""

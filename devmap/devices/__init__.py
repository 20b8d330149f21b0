"""One small backend protocol and its implementations; the probes that measure a machine."""

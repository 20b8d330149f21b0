"""Where weights come from: files, read requests, the offload folder."""

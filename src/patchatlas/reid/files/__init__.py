"""The files of an episode: one module a format, each with its page in docs/formats."""

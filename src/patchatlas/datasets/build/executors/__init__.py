"""Who works on the units of a build: this process, or actors of a Ray cluster."""

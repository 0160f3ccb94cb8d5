"""CT volumes from files of any common kind, as HU in one orientation."""

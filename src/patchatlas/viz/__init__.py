"""Arrays in, pictures out: heatmaps, marks, panels. Nothing here reads or writes files."""

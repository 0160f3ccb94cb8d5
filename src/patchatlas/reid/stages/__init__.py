"""What an engine does to a video, one stage a module; each begins where the files of an earlier run end."""

"""Files in and out: pictures and mole-mark files."""

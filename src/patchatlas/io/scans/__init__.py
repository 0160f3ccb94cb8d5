"""Ptychographic scans from the files of other programs; `patchatlas.io.scans.read.read_scan` is the door."""

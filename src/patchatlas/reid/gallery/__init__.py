"""Identities that outlive an episode: who was seen in which videos, decided openly, corrected by people, remembered."""

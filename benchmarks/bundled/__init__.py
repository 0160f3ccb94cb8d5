"""How good the bundled encoder is, beside what else there is on a machine without a hub; see __main__.py."""

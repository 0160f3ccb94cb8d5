"""Pictures that the bundled encoder is judged on, and so is never trained on: their names, the hashes of their bytes.

From Debian's opencv-doc 4.6.0 (of which nothing is used at all) and the wheel of scikit-image 0.26.0.
"""

NAMES = ("graf", "aloe", "motorcycle", "box.png", "box_in_scene")
"""A file whose name begins with one of these is not used, whatever package it is from."""

SHA256 = {
    "graf1.png": "1504b769303c7bde00fa578eeaad3c68e02aceabeb1242e556f1f8d19e4bdea5",
    "graf3.png": "492e0e96f21748d093e1a29f4dbfd46528bd75966937e85ce7c8abc0f361fc15",
    "aloeL.jpg": "cce5736808efe80d9f04b118dbb978c344d4345672b332718c3e039a3eeb8eee",
    "aloeR.jpg": "9b23100df31a846bc6e6a6545563b2b4120b948c9835c7d36cde00af77f4503e",
    "aloeGT.png": "39ce4f3cb48d797d1091c5152f93361d8104298c337f8a1c134d87dda3442c04",
    "box.png": "1094629c1e2ebbc8a9ae2c9c63e18c1dff0f5f1481146e02f3b11a3d30feb20a",
    "box_in_scene.png": "8b0225ff76244a42bd1400c0904f8b7afea7d97b7d8115495e42e98ad347bd51",
    "motorcycle_left.png": "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    "motorcycle_right.png": "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797",
    "motorcycle_disp.npz": "2e49c8cebff3fa20359a0cc6880c82e1c03bbb106da81a177218281bc2f113d7",
}
"""By file name."""

TEXTURE_FAMILY = "netted"
"""The family of drawn skin that the locate harness keeps for its test: cells parted by furrows (Worley's noise). No
texture made for training has cells."""


def held_out(name: str, sha256: str) -> bool:
    """Whether a picture is kept for judging."""
    return name.lower().startswith(NAMES) or sha256 in SHA256.values()

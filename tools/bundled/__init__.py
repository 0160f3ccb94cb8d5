"""What the bundled encoder is made from and with: pictures whose licence allows it, drawn textures, and the packing."""

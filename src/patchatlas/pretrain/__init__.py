"""Self-supervised pretraining: volumes or pictures in, an encoder that `load_encoder` opens out."""

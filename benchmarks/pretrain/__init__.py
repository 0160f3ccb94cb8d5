"""What pretraining on volumes is measured with: phantoms, readers."""

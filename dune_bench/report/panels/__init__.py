"""Pictures of single samples: image, truth, prediction, error.  One file per probe; no torch."""

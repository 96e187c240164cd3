"""Training on mmengine's Runner: a protocol is a function of (module, loss, data, recipe)."""

"""Parametric models that probes need: human bodies behind one interface."""

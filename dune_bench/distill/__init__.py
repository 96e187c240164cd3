"""Distilling one student from several unlike teachers: DUNE's training and options beyond it."""

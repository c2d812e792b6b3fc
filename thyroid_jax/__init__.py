"""Multitask ultrasound in functional JAX: outline a nodule and grade its risk."""

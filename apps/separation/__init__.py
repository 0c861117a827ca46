"""Speech separation: the live voice picker, its overlay, evaluation."""

"""Accuracy checks: runners, metrics, bisection and reports."""

"""Hooks: functions of a Python file of the user's that are called on frames and settings."""

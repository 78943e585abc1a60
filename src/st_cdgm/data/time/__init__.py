"""Calendars, days, splits and windows."""

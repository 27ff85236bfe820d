"""Measurements on loaded engines. Each module measures one thing and returns a frozen report; none renders it."""

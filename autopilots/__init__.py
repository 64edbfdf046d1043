"""Autopilots that ship with the router. Each offers capabilities through `kit.Pilot`."""

"""The front door: a registry of autopilots, a decision which one does a task, and a forward to it.

`model` and `errors` are the words everything speaks. `registry`, `catalogue`, `health` and `forward`
answer one question each, `planner` puts them together, `api` and `app` speak HTTP, and `wiring` alone
knows which concrete parts a process is made of.
"""

__version__ = "0.1.0"

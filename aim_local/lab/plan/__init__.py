"""What a prompt will count, take and cost, told before anything is loaded in full: counts, memory, time, what fits."""

from .report import Forecast, make_plan
from .request import Request

__all__ = ["Forecast", "Request", "make_plan"]

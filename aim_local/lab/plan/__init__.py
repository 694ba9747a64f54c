"""What a prompt will count, take and cost, told before anything is loaded in full: counts, memory, time, what fits."""

from .report import Forecast, make_plan
from .request import Request
from .ttft import TtftChoice, choose_ttft

__all__ = ["Forecast", "Request", "TtftChoice", "choose_ttft", "make_plan"]

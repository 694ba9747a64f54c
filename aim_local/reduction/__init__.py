"""Which visual tokens stay, and what that costs: token merging, schedules, counts, FLOPs, budgets."""

"""Models x visual-token settings over a suite of questions, against one reference cell: what is lost, what is gained.

suite.py reads and draws questions, metrics.py has the statistics, cell.py answers one cell in a process of its own,
runner.py starts and resumes cells, summary.py makes a report of their rows, verdict.py says what may be concluded,
page.py, markdown.py print it.
"""

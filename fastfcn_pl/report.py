"""Write a page about runs, finished or not: `python -m fastfcn_pl.report <run or sweep>... output=<dir>`.

The page is made from the runs' folders. Only the section `What was learned` of its Markdown is written by a person, and
stays as it is when the page is written again.
"""

import sys

from fastfcn_pl.tools.report.command import report

if __name__ == "__main__":
    report(sys.argv[1:])

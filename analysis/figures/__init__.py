"""Figures, one a file; the file's name is the name in a sweep's `figures:` list.

Nothing is registered: `analysis.catalogue` finds them on disk. Each file holds

```
class Options(FigureOptions)     frozen; every option has a default; unknown ones are refused
def needs(options)               the row columns that it takes, as a list
def uses(options)                optional: the row columns that it uses besides, where there are any
def compute(results, options)    the numbers that are drawn: a tidy data frame, with mean, low, high
                                 and n
def draw(frame, options)         a Matplotlib figure of that frame and nothing else
why_not_rows(columns)            optional: why rows with these columns are not meant, though they
                                 have what it needs, or None
why_not_sweep(sweep, options)    optional: why a sweep cannot be drawn, by what it says of itself
                                 (`search`, ...), or None
INSTEAD = True                   optional: drawn by default where no other figure takes the rows
```

`compute` keeps the order in which things are to be drawn. It leaves the words in `frame.attrs`:
`caption` (what is shown, n, what the intervals are over, their level) and the axis labels. An
option that names a setting, an objective or an epoch's metric carries
`json_schema_extra=SETTING`, `OBJECTIVE` or `METRIC`, so that it can be checked before any work
starts. `draw` imports Matplotlib itself, through `analysis.style`, never pyplot. Both raise
`ReportError` with one line for what the reader can mend. Rows have the columns of
`arrays.CHOSEN_BY` where there are any, whatever a figure needs.
"""

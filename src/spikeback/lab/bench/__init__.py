"""How fast things run on this machine: named ways of doing the same work, in turn, each in a process of its own.

Top to bottom: `plans` says which arms a bench has, `race` runs them, `worker` is the process of one arm (its work is in
`steps`, `nets`, `neurons`), `numbers` makes medians and ratios, `show` and `plot` draw them. `gate` keeps figures back
while the tests are red. docs/bench.md says what is measured and how.
"""

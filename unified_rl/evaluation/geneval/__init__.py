"""GenEval: its verdicts over any detector, its folders, and the suite that draws and judges."""

"""How good the predictions are: streaming figures over scores, maps and verdicts.

Every class has four verbs: `update` takes a batch, `merge` takes another instance's state (of another process, say),
`compute` gives the figure or the reason why there is none, `reset` starts afresh. The formulas are in
`blemish.functional.curves`.
"""

from blemish.metrics.decisions import DecisionFigures, Decisions, DefectRow, PerDefect
from blemish.metrics.evaluation import EvaluationResult, Evaluator
from blemish.metrics.figure import Figure
from blemish.metrics.overlap import AUPIMO, AUPRO
from blemish.metrics.ranking import AUROC, AveragePrecision, F1Max

__all__ = [
    "AUPIMO",
    "AUPRO",
    "AUROC",
    "AveragePrecision",
    "DecisionFigures",
    "Decisions",
    "DefectRow",
    "EvaluationResult",
    "Evaluator",
    "F1Max",
    "Figure",
    "PerDefect",
]

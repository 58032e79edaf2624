"""Proposals of an optimizer that others wrote, beside :func:`~fq_tvm.tuning.experiment.nearest`.

Knows optuna's interface, and that a candidate is a set of knobs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import FqError
from .experiment import History, Propose


def tpe(space: Iterable[Any], seed: int = 0) -> Propose:
    """Propose what optuna's tree-structured Parzen estimator samples.

    The estimator is that of Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011.  It is told the gain of
    each candidate over the first schedule, and samples each knob's value from those of better candidates rather than
    worse ones.  Of what was not tried yet, the candidate is proposed that has the most of these values: a space leaves
    out what does the same as another.

    Parameters
    ----------
    space : iterable of Schedule
        The candidates.
    seed : int
        Of the samples.

    Returns
    -------
    callable
        To propose with, see :mod:`fq_tvm.tuning.experiment`.

    Raises
    ------
    FqError
        If optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise FqError('the search "tpe" needs optuna; `pip install "fq_tvm[search]"`') from error
    candidates = list(space)
    knobs = [candidate.to_json() for candidate in candidates]
    values = {name: sorted({knob[name] for knob in knobs}) for name in (knobs[0] if knobs else {})}
    categorical = optuna.distributions.CategoricalDistribution
    choices: dict[str, Any] = {name: categorical(some) for name, some in values.items() if len(some) > 1}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would say that there is a study
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    finally:
        optuna.logging.set_verbosity(verbosity)
    failed = optuna.trial.TrialState.FAIL
    told = 0

    def propose(history: History) -> Any:
        nonlocal told
        for trial in history.trials[told:]:
            gain = history.gains.get(trial.candidate)
            if gain is not None and not trial.check:
                knobs = trial.candidate.to_json()
                params = {name: knobs[name] for name in choices}
                study.add_trial(optuna.trial.create_trial(params=params, distributions=choices, value=gain))
        told = len(history.trials)
        tried = history.tried
        left = [candidate for candidate in candidates if candidate not in tried]
        if not left:
            return None
        asked = study.ask(choices)
        study.tell(asked, state=failed)  # what is proposed may differ, so what was sampled has no value
        wanted = asked.params.items()
        return max(left, key=lambda candidate: len(wanted & candidate.to_json().items()))

    return propose

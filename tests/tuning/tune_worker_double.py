"""The tuner's worker, in which some schedules misbehave: for tests of what the tuner makes of that."""

from __future__ import annotations

import os
import signal
import time

from fq_tvm.tuning import trial

CRASHES, HANGS, WRONG, LUCKY = 4096, 65536, 1024, 262144
"""Tiles of the schedules that crash, hang, give another result, and are twice as fast as the default."""

NAP = 0.3
"""Seconds that a measurement takes of a server that sleeps."""


class Misbehaving(trial.Local):
    def prepare(self, at, contender):
        tile = contender.schedule.tile
        if tile == CRASHES:
            os.kill(os.getpid(), signal.SIGSEGV)
        if tile == HANGS:
            time.sleep(600)
        call = super().prepare(at, contender)
        if tile == WRONG:
            at.outputs[0].reshape(-1)[0] += 1
            at.check(contender.spec)
        return call

    def time(self, at, contenders, turns):
        for contender in contenders:
            self.prepare(at, contender)
        fast = [0.5 if c.schedule.tile == LUCKY else 1.0 for c in contenders]
        times = {str(i): [f, f * 1.001, f * 0.999, f, f] for i, f in enumerate(fast)}
        return {**times, "copy": [0.4] * 5} if turns.copy else times


class Sleeping(trial.Remote):
    """A server of a lab that sleeps instead of running kernels, all of which take the same time."""

    def time(self, at, contenders, turns):
        self.session.get_function("lab.sleep")(NAP)
        return {str(i): [1.0 + (i + r) % 2 / 1000 for r in range(40)] for i, _ in enumerate(contenders)}


if __name__ == "__main__":
    trial.Local, trial.Remote = Misbehaving, Sleeping
    trial.main()

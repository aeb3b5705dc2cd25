"""What a person sees while models train: a live line in a terminal, plain lines elsewhere."""

import sys
import time

from scaling_jax.parallel import cost

_PLAIN_EVERY = 10.0  # seconds between plain lines
_TRUST = 30.0  # seconds after which the pace seen outweighs the pace expected
_BARS = "▁▂▃▄▅▆▇█"


class Progress:
    """Counts the work of a study (or run) and shows loss, tokens/s, MFU and time left.

    Work is counted in expected seconds, and the time left is what remains of them at the pace seen so far;
    `total` may grow while an adaptive stage asks for more.
    """

    def __init__(self, total=0.0, console=None, quiet=False):
        from rich.console import Console

        self.console = console or Console(highlight=False)
        self.total, self.done, self.begun, self.quiet = total, 0.0, time.perf_counter(), quiet
        self.live, self.shown = None, 0.0

    def __enter__(self):
        if self.console.is_terminal and not self.quiet:
            from rich.live import Live

            self.live = Live(console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(self, *error):
        if self.live:
            self.live.stop()
            self.live = None

    def advance(self, name, work, flops, tokens, seconds, step, steps, loss):
        """Reports progress since the last call: expected seconds of work, FLOPs and tokens done in `seconds`, and where the cohort stands."""
        self.done += work
        now = time.perf_counter()
        if not self._due(now):
            return
        rate = (self.done + _TRUST) / (now - self.begun + _TRUST)
        left = cost.duration(max(self.total - self.done, 0.0) / rate)
        peak, _ = cost.peak()
        share = min(1.0, self.done / self.total) if self.total else 1.0
        text = f"{share:4.0%}  {name}  step {step}/{steps}  loss {loss:.3f}  {cost.people(tokens / max(seconds, 1e-9))} tokens/s  MFU {flops / max(seconds, 1e-9) / peak:.0%}  {left} left"
        self._say(text, now)

    def say(self, text):
        """A line for now: the next one takes its place in a terminal; elsewhere at most one every 10 seconds is printed."""
        now = time.perf_counter()
        if self._due(now):
            self._say(text, now)

    def _due(self, now):
        return not self.quiet and (self.live is not None or now - self.shown >= _PLAIN_EVERY)

    def _say(self, text, now):
        self.shown = now
        if self.live:
            self.live.update(text)
        else:
            self.print(text)

    def print(self, text, style=None):
        """A line that stays."""
        if not self.quiet:
            self.console.print(text, style=style, soft_wrap=True)
            if not self.console.is_terminal:
                sys.stdout.flush()


def sparkline(values, width=24):
    """A curve in one line of text, high values high."""
    values = [v for v in values if v == v]
    if len(values) < 2:
        return ""
    picked = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)] if len(values) > width else values
    low, high = min(picked), max(picked)
    return "".join(_BARS[int((v - low) / (high - low or 1.0) * (len(_BARS) - 1))] for v in picked)

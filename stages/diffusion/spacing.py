"""The timesteps of a checkpoint's own sampler, extended to fractional numbers of steps."""

from dataclasses import dataclass

SPACINGS = ("leading", "trailing", "linspace", "lcm")


@dataclass(frozen=True, slots=True)
class Spacing:
    """The rule by which a sampler spaces timesteps (the names of Lin et al. 2024, table 2).

    leading   j floor(T / N) + offset: Stable Diffusion 1, 2 and XL, with offset 1. Never reaches the top
    trailing  round((j + 1) T / N) - 1: starts at T - 1. Turbo, and checkpoints with zero terminal SNR
    linspace  j (T - 1) / (N - 1), not rounded: from T - 1 to 0
    lcm       i T / O - 1, i = n - floor(k n / K), k = 0 .. K - 1: every (n / K)th of the O distilled timesteps

    T         train_timesteps;  O: original_steps, for lcm only;  offset: for leading only
    N, j      number of steps of the sampler, and number of a step, counted from the lowest, j = 0

    Note: strength. Samplers that start from a picture skip steps: of N they make the last int(N strength). Here the
    number of calls K is given, the same at every strength (a stream batch has K rows). So N = K / strength, and the K
    lowest steps are made. If K / strength is an integer, these are the sampler's, and in between they change
    continuously. lcm counts in this way itself: K calls, from n = int(O strength).

    Raises ValueError: an unknown spacing, numbers out of range.
    """

    name: str
    train_timesteps: int = 1000
    offset: int = 0
    original_steps: int = 50

    def __post_init__(self) -> None:
        if self.name not in SPACINGS:
            raise ValueError(f"unknown spacing {self.name!r}: one of {', '.join(SPACINGS)}")
        if self.name == "lcm" and not 1 <= self.original_steps <= self.train_timesteps:
            raise ValueError(f"original_steps must be in [1, {self.train_timesteps}], got {self.original_steps}")
        if not 0 <= self.offset < self.train_timesteps:
            raise ValueError(f"offset must be in [0, {self.train_timesteps - 1}], got {self.offset}")

    def timesteps(self, steps: int, strength: float = 1.0) -> tuple[float, ...]:
        """The `steps` timesteps of a frame, highest first. strength in [0, 1].

        Raises ValueError: numbers out of range, or an offset that gives timesteps above the highest.
        """
        n = self.own_steps(steps, strength)
        found = self._of_distillation(steps, strength) if self.name == "lcm" else [self._at(j, n) for j in range(steps)]
        if max(found) > self.train_timesteps - 1:
            raise ValueError(
                f"offset {self.offset} leads outside the {self.train_timesteps} timesteps: {', '.join(map(str, found))}"
            )
        return tuple(float(t) for t in sorted(found, reverse=True))

    @property
    def one_step_is_idle(self) -> bool:
        """A single step is at the lowest timestep at every strength, where there is no noise to sample from."""
        return self.name in ("leading", "linspace")

    def ends(self, steps: int, strength: float = 1.0) -> tuple[float, float]:
        """Highest and lowest of all N timesteps, including skipped ones. Not for lcm."""
        n = self.own_steps(steps, strength)
        return float(min(self._at(n - 1, n), self.train_timesteps - 1)), float(self._at(0, n))

    def own_steps(self, steps: int, strength: float) -> float:
        """N, at most T. It is made an integer if steps / strength is one but for rounding errors."""
        most = self.original_steps if self.name == "lcm" else self.train_timesteps
        if not 1 <= steps <= most or not 0 <= strength <= 1:
            raise ValueError(f"steps must be in [1, {most}] and strength in [0, 1], got {steps} and {strength}")
        n = steps / strength if strength > steps / most else float(most)
        return round(n) if abs(n - round(n)) < 1e-9 * n else n

    def _at(self, j: float, n: float) -> float:
        """The j-th lowest of n timesteps."""
        match self.name:
            case "leading":
                return j * (self.train_timesteps // n) + self.offset
            case "trailing":
                return round((j + 1) * self.train_timesteps / n) - 1
            case _:
                return j * (self.train_timesteps - 1) / (n - 1) if j else 0.0

    def _of_distillation(self, steps: int, strength: float) -> list[float]:
        apart = self.train_timesteps // self.original_steps
        n = max(steps, int(self.original_steps * strength))
        return [(n - k * n // steps) * apart - 1 for k in range(steps)]

"""Noise levels: those of a training schedule, and those at which a stream runs the network."""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

SCHEDULES = ("scaled_linear", "linear", "cosine")


@dataclass(frozen=True, slots=True)
class Level:
    """One noise level: `x = alpha x0 + sigma n`.

    alpha     factor of the clean latent, >= 0
    sigma     factor of the unit-variance noise, >= 0; not both 0
    timestep  the network's input for this level, in its own unit; finite

    Raises ValueError when a number is out of range.
    """

    alpha: float
    sigma: float
    timestep: float

    def __post_init__(self) -> None:
        for name in ("alpha", "sigma", "timestep"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"a level's {name} must be finite, got {getattr(self, name)}")
        if self.alpha < 0 or self.sigma < 0 or self.alpha == self.sigma == 0:
            raise ValueError(f"a level needs alpha >= 0 and sigma >= 0, not both 0; got {self.alpha} and {self.sigma}")


CLEAN = Level(1.0, 0.0, 0.0)  # the end of the last solver step


LevelTable = tuple[Level, ...]  # entry t is the level of integer timestep t


def levels(
    schedule: str = "scaled_linear",
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    train_timesteps: int = 1000,
) -> LevelTable:
    """The variance-preserving levels of the training timesteps 0 .. train_timesteps - 1, with rising noise.

        alpha_t = sqrt(abar_t),   sigma_t = sqrt(1 - abar_t),   abar_t = prod_{s <= t} (1 - beta_s)

    scaled_linear  beta = (sqrt(start) .. sqrt(end))^2, evenly spaced roots: Stable Diffusion
    linear         beta = start .. end, evenly spaced: DDPM
    cosine         abar_t = f(t + 1) / f(0), f(t) = cos^2(((t / T) + 0.008) / 1.008 * pi / 2), beta <= 0.999
                   (Nichol and Dhariwal 2021, eq. 17); the two betas are not used

    Raises ValueError for an unknown schedule or betas outside 0 < start <= end < 1.
    """
    last = train_timesteps - 1
    if last < 1 or not 0 < beta_start <= beta_end < 1:
        raise ValueError(
            f"a schedule needs 0 < beta_start <= beta_end < 1 and 2 timesteps or more, "
            f"got {beta_start}, {beta_end}, {train_timesteps}"
        )
    match schedule:
        case "scaled_linear":
            a, b = math.sqrt(beta_start), math.sqrt(beta_end)
            betas = [(a + (b - a) * t / last) ** 2 for t in range(train_timesteps)]
        case "linear":
            betas = [beta_start + (beta_end - beta_start) * t / last for t in range(train_timesteps)]
        case "cosine":
            f = [math.cos((t / train_timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(train_timesteps + 1)]
            betas = [min(1 - f[t + 1] / f[t], 0.999) for t in range(train_timesteps)]
        case _:
            raise ValueError(f"unknown schedule {schedule!r}: one of {', '.join(SCHEDULES)}")
    table, log_abar = [], 0.0
    for t, beta in enumerate(betas):
        log_abar += math.log1p(-beta)
        table.append(Level(math.exp(log_abar / 2), math.sqrt(-math.expm1(log_abar)), float(t)))
    return tuple(table)


def level_at(table: LevelTable, timestep: float) -> Level:
    """The level of a timestep in [0, len(table) - 1]. Between integers the log-SNR is interpolated linearly.

    log-SNR = 2 log(alpha / sigma), and abar = 1 / (1 + exp(-log-SNR)). An integer gives the table's entry itself.
    Raises ValueError outside of the table, and between its last two entries if the last has no signal.
    """
    last = len(table) - 1
    if not 0 <= timestep <= last:
        raise ValueError(f"timestep must be in [0, {last}], got {timestep}")
    low = table[math.floor(timestep)]
    part = timestep - math.floor(timestep)
    if part == 0:
        return low
    high = table[math.floor(timestep) + 1]
    if high.alpha == 0:
        raise ValueError(f"timestep {timestep}: next to a zero terminal SNR only whole timesteps have a level")
    half = (1 - part) * math.log(low.alpha / low.sigma) + part * math.log(high.alpha / high.sigma)
    return Level(1 / math.hypot(1, math.exp(-half)), 1 / math.hypot(1, math.exp(half)), float(timestep))


def timestep_at(table: LevelTable, s: float) -> float:
    """The timestep of a noise-to-signal ratio s = sigma / alpha: the inverse of `level_at`.

    Between integers log s is interpolated linearly. A ratio outside of the table gets the nearest end.
    """
    if s <= table[0].sigma / table[0].alpha:
        return 0.0
    index = bisect_right(table, s, key=_ratio)
    if index == len(table):
        return float(len(table) - 1)
    low, high = _ratio(table[index - 1]), _ratio(table[index])
    part = 0.0 if math.isinf(high) else math.log(s / low) / math.log(high / low)
    return index - 1 + part


def zero_terminal(table: LevelTable) -> LevelTable:
    """Shift and scale a table so that its last level is pure noise (Lin et al. 2024, algorithm 1).

        alpha_t <- (alpha_t - alpha_T) alpha_0 / (alpha_0 - alpha_T)

    For networks trained with such a table, which predict "v" or "sample": at alpha = 0, "epsilon" does not define x0.
    """
    first, last = table[0].alpha, table[-1].alpha
    alphas = [(level.alpha - last) * first / (first - last) for level in table]
    return tuple(
        Level(alpha, math.sqrt(1 - alpha * alpha), level.timestep) for alpha, level in zip(alphas, table, strict=True)
    )


def variance_exploding(level: Level) -> Level:
    """A level in sigma space: alpha = 1, s = sigma / alpha. Then x_VE = x / alpha, and the pair (x0, n) is the same.

    For a table of betas, s = sqrt((1 - abar) / abar). Raises ValueError for a level without signal (zero terminal SNR).
    """
    if level.alpha == 0:
        raise ValueError(f"a level needs alpha > 0 to be had in sigma space, got {level}")
    return Level(1.0, level.sigma / level.alpha, level.timestep)


def variance_preserving(level: Level) -> Level:
    """A level scaled to alpha^2 + sigma^2 = 1. Then x_VP = x / sqrt(alpha^2 + sigma^2), and (x0, n) is the same."""
    norm = math.hypot(level.alpha, level.sigma)
    return Level(level.alpha / norm, level.sigma / norm, level.timestep)


def karras_levels(
    table: LevelTable, steps: int, top: float = 999.0, bottom: float = 0.0, rho: float = 7.0, of: float | None = None
) -> tuple[Level, ...]:
    """Sigma-space levels that are dense at low noise (Karras et al. 2022, eq. 5), noisiest first.

        s_k = (s_top^(1/rho) + k / (n - 1) (s_bottom^(1/rho) - s_top^(1/rho)))^rho,     k = n - steps .. n - 1

    top, bottom  timesteps of the first and the last of the n levels. If n is 1, the only level is the first
    of           n, which need not be an integer; the last `steps` of the levels are returned (`spacing.Spacing`).
                 None: n = steps

    The timestep of each level is `timestep_at` of its s. Raises ValueError for numbers out of range.
    """
    n = steps if of is None else of
    if not 1 <= steps <= n or not 0 <= bottom <= top or not rho > 0:
        raise ValueError(
            f"karras_levels needs 1 <= steps <= n, 0 <= bottom <= top and rho > 0, "
            f"got {steps}, {n}, {bottom}, {top} and {rho}"
        )
    lowest = variance_exploding(level_at(table, bottom)).sigma
    first, last = variance_exploding(level_at(table, top)).sigma ** (1 / rho), lowest ** (1 / rho)
    parts = [(n - steps + k) / (n - 1) if n > 1 else 0.0 for k in range(steps)]
    sigmas = [max((first + part * (last - first)) ** rho, lowest) for part in parts]  # rounding may go below lowest
    return tuple(Level(1.0, s, timestep_at(table, s)) for s in sigmas)


def flow_level(timestep: float, train_timesteps: int = 1000, shift: float = 1.0) -> Level:
    """The rectified-flow level of a timestep in [0, train_timesteps]: alpha = 1 - t, sigma = t.

        t = shift s / (1 + (shift - 1) s),   s = timestep / train_timesteps

    shift > 1 puts more levels at high noise, as large pictures need (Stable Diffusion 3, eq. 23). The level's timestep
    is the shifted one, train_timesteps t, as such networks expect. Raises ValueError for numbers out of range.
    """
    if not (0 <= timestep <= train_timesteps and shift > 0):
        raise ValueError(
            f"a flow level needs 0 <= timestep <= {train_timesteps} and shift > 0, got {timestep} and {shift}"
        )
    s = timestep / train_timesteps
    t = shift * s / (1 + (shift - 1) * s)
    return Level(1 - t, t, train_timesteps * t)


def steps_for(
    level_of: Callable[[float], Level],
    strength: float,
    steps: int,
    top: float = 999.0,
    floor: float = 0.0,
) -> tuple[Level, ...]:
    """The levels of the network calls, noisiest first. The solver steps from each to the next, and then to CLEAN.

        timestep_k = floor + (top - floor) strength (steps - k) / steps,     k = 0 .. steps - 1

    level_of   timestep -> level: `partial(level_at, table)`, or `flow_level`
    strength   in [0, 1]: how far the picture may differ from the source. 1 starts at `top`; at 0 every level is `floor`
    top        timestep of the noisiest level
    floor      timestep to which the even spacing leads, without reaching it (unless strength is 0), since a call at
               nearly no noise adds nothing. SD-Turbo and LCM with four steps: 999, 749.25, 499.5, 249.75

    Raises ValueError for numbers out of range.
    """
    if steps < 1 or not 0 <= strength <= 1 or not 0 <= floor <= top:
        raise ValueError(
            f"steps_for needs steps >= 1, strength in [0, 1] and 0 <= floor <= top, "
            f"got {steps}, {strength}, {floor} and {top}"
        )
    span = (top - floor) * strength
    return tuple(level_of(floor + span * (steps - k) / steps) for k in range(steps))


def _ratio(level: Level) -> float:
    """sigma / alpha; infinity for alpha = 0."""
    return level.sigma / level.alpha if level.alpha > 0 else math.inf

"""Owns the reference of `make bench-fit`: the parametric law by SciPy, at settings that converge.

Reads the points that the Rust side wrote, so that both fit the same numbers. Prints one JSON object.
The objective is multiplied by 10^4 and the tolerances are tight: at SciPy's defaults on the plain sum L-BFGS-B
stops at its starting point, and every interval is silently too narrow.
"""

import json
import os
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402  (threads are set before it loads)
from scipy.optimize import minimize  # noqa: E402

DELTA = 1e-3
SCALE = 1e4
OPTIONS = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 2000, "maxfun": 4000, "maxcor": 10}
HOFFMANN = np.array([6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083])


def objective(theta, x, y, t, weights):
    """The sum of Huber losses of log residuals and its gradient."""
    logs = np.stack([theta[0] - theta[3] * x, theta[1] - theta[4] * y, np.full_like(x, theta[2])])
    largest = logs.max(axis=0)
    parts = np.exp(logs - largest)
    total = parts.sum(axis=0)
    shares = parts / total
    residual = largest + np.log(total) - t
    clipped = np.clip(residual, -DELTA, DELTA)
    pull = weights * clipped
    gradient = np.array(
        [
            pull @ shares[0],
            pull @ shares[1],
            pull @ shares[2],
            -(pull @ (shares[0] * x)),
            -(pull @ (shares[1] * y)),
        ]
    )
    return SCALE * (pull @ (residual - 0.5 * clipped)), SCALE * gradient


def value(theta, x, y, t, weights):
    """The objective alone, whose gradient SciPy then takes from differences, as the published notebooks do."""
    return objective(theta, x, y, t, weights)[0]


def follow(start, data, weights, is_numeric=False):
    """The minimum that L-BFGS-B reaches."""
    arguments = (*data, weights)
    function, jac = (value, None) if is_numeric else (objective, True)
    found = minimize(function, start, args=arguments, jac=jac, method="L-BFGS-B", options=OPTIONS)
    return found.fun / SCALE, found.x, found.nfev


def classic_grid():
    """The 4,500 starting points of Hoffmann et al. 2022, section D.2."""
    grids = (np.arange(0, 26, 5), np.arange(0, 26, 5), (-1, -0.5, 0, 0.5, 1), *[np.arange(0, 2.5, 0.5)] * 2)
    return np.array(np.meshgrid(*grids, indexing="ij"), dtype=float).reshape(5, -1).T


def main():
    points, n_starts, n_draws = np.loadtxt(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    data = (np.log(points[:, 0]), np.log(points[:, 1]), np.log(points[:, 2]))
    ones = np.ones(len(points))
    grid = classic_grid()
    starts = grid[np.linspace(0, len(grid) - 1, n_starts).astype(int)]
    begin = time.process_time()
    found = [follow(start, data, ones) for start in starts]
    seconds_starts = (time.process_time() - begin) * len(grid) / n_starts
    best = min(found, key=lambda one: one[0])
    generator = np.random.RandomState(42)
    begin = time.process_time()
    draws = []
    for _ in range(n_draws):
        counts = np.bincount(generator.choice(len(points), len(points)), minlength=len(points))
        draws.append(follow(HOFFMANN, data, counts.astype(float)))
    seconds_draws = (time.process_time() - begin) * 4000 / n_draws
    # A tenth of both with numeric gradients, which take several times as long.
    few_starts, few_draws = max(n_starts // 10, 1), max(n_draws // 10, 1)
    begin = time.process_time()
    for start in starts[:: len(starts) // few_starts][:few_starts]:
        follow(start, data, ones, is_numeric=True)
    seconds_numeric = (time.process_time() - begin) * len(grid) / few_starts
    begin = time.process_time()
    for _ in range(few_draws):
        counts = np.bincount(generator.choice(len(points), len(points)), minlength=len(points))
        follow(HOFFMANN, data, counts.astype(float), is_numeric=True)
    seconds_numeric += (time.process_time() - begin) * 4000 / few_draws
    thetas = np.array([one[1] for one in draws])
    print(
        json.dumps(
            {
                "seconds_starts": seconds_starts,
                "seconds_draws": seconds_draws,
                "seconds_numeric": seconds_numeric,
                "objective": best[0],
                "share_at_best": float(np.mean([one[0] < best[0] * 1.000001 for one in found])),
                "evaluations_a_start": float(np.mean([one[2] for one in found])),
                "evaluations_a_draw": float(np.mean([one[2] for one in draws])),
                "standard_error_alpha": float(thetas[:, 3].std(ddof=1)),
                "standard_error_beta": float(thetas[:, 4].std(ddof=1)),
            }
        )
    )


if __name__ == "__main__":
    main()

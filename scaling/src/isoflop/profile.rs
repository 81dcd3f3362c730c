//! Owns the minimum of one profile: a parabola in a window that is centred on it, and the check by
//! an interpolant. Does not know other budgets.

use super::akima::Akima;
use super::{
    AkimaCheck, IsoflopOptions, MIN_CURVATURE_T, MIN_SIZES_IN_WINDOW, MIN_SIZES_PER_BUDGET, Member,
    ProfileMinimum,
};
use crate::algebra::{cholesky, inverse, multiply};
use crate::random::Stream;

/// Sizes whose ln N differ by less are one.
const SAME_SIZE: f64 = 1e-6;
/// Turns of centring the window; it usually stays after two.
const MAX_TURNS: usize = 12;
/// Noisy copies of the parabola that say how far apart vertex and interpolant may be.
const COPIES: usize = 400;

/// ln N, ln L, ln D and weight of a point.
type Logs = (f64, f64, f64, f64);

/// What scatters around a parabola, from which the error of its vertex follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scatter {
    /// Weighted sum of squared residuals of ln L.
    pub(super) squares: f64,
    /// Points more than coefficients.
    pub(super) freedom: f64,
    /// Variance of ln N at the vertex, for a point of weight one with variance one of ln L.
    pub(super) leverage: f64,
}

/// In the order of sizes.
fn logs(members: &[Member<'_>]) -> Vec<Logs> {
    let of = |Member { point, weight }: &Member<'_>| {
        (point.parameters.ln(), point.loss_nats.ln(), point.tokens.ln(), *weight)
    };
    let mut logs: Vec<Logs> = members.iter().map(of).collect();
    logs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    logs
}

/// The minimum, whose error the noise of all profiles gives.
pub(super) fn profile(
    flops: f64,
    members: &[Member<'_>],
    options: &IsoflopOptions,
) -> Result<(ProfileMinimum, Scatter), String> {
    let logs = logs(members);
    let sizes = sizes(&logs);
    if sizes.len() < MIN_SIZES_PER_BUDGET {
        return Err(format!(
            "{} sizes; a profile needs at least {MIN_SIZES_PER_BUDGET}",
            sizes.len()
        ));
    }
    let (low, high) = (sizes[0], sizes[sizes.len() - 1]);
    let all = vertex(&logs)?;
    if !(low < all.ln_parameters && all.ln_parameters < high) {
        let (at, from, to) = (all.ln_parameters.exp(), low.exp(), high.exp());
        return Err(format!(
            "its minimum, N = {at:.3e}, is not inside the sampled sizes, {from:.3e} to {to:.3e}"
        ));
    }
    let (kept, found) = centred(&logs, &sizes, all, options.window);
    let n_sizes = sizes.len();
    let is_at_edge = found.ln_parameters < sizes[1] || found.ln_parameters > sizes[n_sizes - 2];
    let minimum = ProfileMinimum {
        flops,
        parameters: found.ln_parameters.exp(),
        tokens: interpolate(&logs, found.ln_parameters).exp(),
        loss_nats: found.ln_loss.exp(),
        curvature: found.curvature,
        error_log: f64::NAN,
        is_at_edge,
        n_points: members.len(),
        n_in_window: kept.len(),
        window: (kept[0].0.exp(), kept[kept.len() - 1].0.exp()),
        check: check(&kept, &found, options.level),
    };
    Ok((minimum, found.scatter))
}

/// ln N at the vertex of the parabola through the points whose N lies in a window.
pub(super) fn vertex_within(members: &[Member<'_>], (low, high): (f64, f64)) -> Option<f64> {
    let mut logs = logs(members);
    logs.retain(|one| low.ln() - SAME_SIZE <= one.0 && one.0 <= high.ln() + SAME_SIZE);
    (sizes(&logs).len() >= MIN_SIZES_PER_BUDGET)
        .then(|| vertex(&logs).ok().map(|found| found.ln_parameters))
        .flatten()
}

/// The points within the window around their own vertex, and that vertex; the last window that had
/// one where the next has none, as when the profile is flat there.
fn centred(logs: &[Logs], sizes: &[f64], all: Vertex, window: f64) -> (Vec<Logs>, Vertex) {
    let half = window.ln();
    let within = |centre: f64| -> Vec<Logs> {
        // At least so many sizes, the nearest to the centre in both directions.
        let mut distances: Vec<f64> = sizes.iter().map(|size| (size - centre).abs()).collect();
        distances.sort_unstable_by(f64::total_cmp);
        let least = distances[MIN_SIZES_IN_WINDOW.min(distances.len()) - 1];
        let reach = half.max(least + SAME_SIZE);
        logs.iter().filter(|point| (point.0 - centre).abs() <= reach).copied().collect()
    };
    let mut kept = logs.to_vec();
    let mut found = all;
    for _ in 0..MAX_TURNS {
        let next = within(found.ln_parameters);
        if next == kept {
            return (kept, found);
        }
        let Ok(vertex) = vertex(&next) else { break };
        let (low, high) = (next[0].0, next[next.len() - 1].0);
        if !(low < vertex.ln_parameters && vertex.ln_parameters < high) {
            break;
        }
        (kept, found) = (next, vertex);
    }
    (kept, found)
}

/// The least place of a parabola, and what it was fitted with.
#[derive(Debug, Clone, Copy)]
struct Vertex {
    ln_parameters: f64,
    ln_loss: f64,
    /// Second derivative of ln L with respect to ln N.
    curvature: f64,
    /// Standard deviation of ln L around the parabola, for a point of weight one.
    noise: f64,
    scatter: Scatter,
}

/// The vertex of the parabola through points, if it curves upward beyond its noise.
fn vertex(logs: &[Logs]) -> Result<Vertex, String> {
    let (low, high) = (logs[0].0, logs[logs.len() - 1].0);
    let (centre, half) = (0.5 * (low + high), 0.5 * (high - low));
    let Parabola { coefficients: [c0, c1, c2], covariance, squares } =
        parabola(logs, centre, half)?;
    let freedom = (logs.len() - 3) as f64;
    let noise = (squares / freedom).sqrt();
    let error = noise * covariance[8].sqrt();
    if c2 <= 0.0 {
        return Err("the profile has no minimum: it does not curve upward".to_owned());
    }
    if c2 < MIN_CURVATURE_T * error {
        return Err(format!("the profile is flat: its curvature has t = {:.1}", c2 / error));
    }
    let at = -c1 / (2.0 * c2);
    // The vertex is a ratio of coefficients: its variance to first order.
    let slopes = [0.0, -0.5 / c2, -at / c2];
    let variance = crate::algebra::dot(&slopes, &multiply(&covariance, &slopes));
    Ok(Vertex {
        ln_parameters: centre + half * at,
        ln_loss: c0 + at * (c1 + at * c2),
        curvature: 2.0 * c2 / (half * half),
        noise,
        scatter: Scatter { squares, freedom, leverage: half * half * variance },
    })
}

fn sizes(logs: &[Logs]) -> Vec<f64> {
    let mut sizes: Vec<f64> = logs.iter().map(|point| point.0).collect();
    sizes.dedup_by(|later, earlier| *later - *earlier < SAME_SIZE);
    sizes
}

/// One point a size, its ln L the weighted mean; `logs` are in the order of sizes.
fn means(logs: &[Logs]) -> Vec<(f64, f64)> {
    let is_same = |a: &Logs, b: &Logs| b.0 - a.0 < SAME_SIZE;
    let of_size = |own: &[Logs]| {
        let total: f64 = own.iter().map(|point| point.3).sum();
        (own[0].0, own.iter().map(|point| point.3 * point.1).sum::<f64>() / total)
    };
    logs.chunk_by(is_same).map(of_size).collect()
}

/// The interpolant's minimum, and where it would be on the parabola with its noise: both are moved
/// by the same noise, so their distance is drawn and not each by itself.
fn check(logs: &[Logs], found: &Vertex, level: f64) -> Option<AkimaCheck> {
    let minimum = Akima::through(&means(logs))?.minimum();
    let curve = |x: f64| found.ln_loss + 0.5 * found.curvature * (x - found.ln_parameters).powi(2);
    let mut distances: Vec<f64> = (0..COPIES as u64)
        .filter_map(|copy| {
            let mut stream = Stream::new(0, copy);
            let noisy = |(x, _, d, weight): &Logs| {
                (*x, curve(*x) + found.noise / weight.sqrt() * stream.normal(), *d, *weight)
            };
            let copy: Vec<Logs> = logs.iter().map(noisy).collect();
            Some(Akima::through(&means(&copy))?.minimum() - vertex(&copy).ok()?.ln_parameters)
        })
        .collect();
    distances.sort_unstable_by(f64::total_cmp);
    let tail = 0.5 - 0.5 * level;
    let (low, high) = (
        crate::interval::percentile(&distances, tail),
        crate::interval::percentile(&distances, 1.0 - tail),
    );
    // A parabola without any scatter still rounds.
    let (low, high) = (low.min(-SAME_SIZE), high.max(SAME_SIZE));
    let place = |distance: f64| (found.ln_parameters + distance).exp();
    Some(AkimaCheck { parameters: minimum.exp(), interval: (place(low), place(high)) })
}

struct Parabola {
    /// Of 1, u and u².
    coefficients: [f64; 3],
    /// Of these, for points whose variance is the inverse of their weight; row-major.
    covariance: Vec<f64>,
    /// Weighted sum of squared residuals.
    squares: f64,
}

/// `c0 + c1 u + c2 u²` with u = (ln N - centre) / half, by weighted least squares.
fn parabola(logs: &[Logs], centre: f64, half: f64) -> Result<Parabola, String> {
    let rows = logs.iter().map(|(x, y, _, weight)| {
        let u = (x - centre) / half;
        ([1.0, u, u * u], *y, *weight)
    });
    let (mut gram, mut target) = ([0.0; 9], [0.0; 3]);
    for (row, y, weight) in rows.clone() {
        for i in 0..3 {
            target[i] += weight * row[i] * y;
            for j in 0..3 {
                gram[i * 3 + j] += weight * row[i] * row[j];
            }
        }
    }
    let lower = cholesky(&gram, 3).ok_or("the sizes determine no parabola")?;
    let covariance = inverse(&lower, 3);
    let found = multiply(&covariance, &target);
    let residual = |(row, y, weight): ([f64; 3], f64, f64)| {
        weight * (y - crate::algebra::dot(&row, &found)).powi(2)
    };
    let squares: f64 = rows.map(residual).sum();
    Ok(Parabola { coefficients: [found[0], found[1], found[2]], covariance, squares })
}

/// ln D at ln N, linear between the neighbouring runs of the budget.
fn interpolate(logs: &[Logs], ln_parameters: f64) -> f64 {
    let after = logs.partition_point(|point| point.0 <= ln_parameters).clamp(1, logs.len() - 1);
    let (left, right) = (logs[after - 1], logs[after]);
    left.2 + (ln_parameters - left.0) / (right.0 - left.0) * (right.2 - left.2)
}

//! Owns Akima's interpolant of a profile and its minimum: what the points say without a parabola.
//! Does not smooth; it goes through every point, so its minimum follows their noise.

/// Akima's piecewise cubic (Akima 1970, Journal of the ACM 17, section 2).
#[derive(Debug, Clone)]
pub(super) struct Akima {
    points: Vec<(f64, f64)>,
    slopes: Vec<f64>,
}

impl Akima {
    /// Through points with ascending x, at least three; `None` for fewer.
    pub(super) fn through(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len();
        if n < 3 {
            return None;
        }
        let chord = |i: usize| (points[i + 1].1 - points[i].1) / (points[i + 1].0 - points[i].0);
        // Two chords more on either side, as a parabola through the last three points would go on.
        let inner: Vec<f64> = (0..n - 1).map(chord).collect();
        let (first, last) = (inner[0], inner[n - 2]);
        let (before, after) = (2.0 * first - inner[1], 2.0 * last - inner[n - 3]);
        let outer = |near: f64, far: f64| 2.0 * near - far;
        let mut chords = vec![outer(before, first), before];
        chords.extend(inner);
        chords.extend([after, outer(after, last)]);
        let slope = |around: &[f64]| {
            let (left, right) = ((around[1] - around[0]).abs(), (around[3] - around[2]).abs());
            if left + right > 0.0 {
                (right * around[1] + left * around[2]) / (left + right)
            } else {
                0.5 * (around[1] + around[2])
            }
        };
        Some(Self { points: points.to_vec(), slopes: chords.windows(4).map(slope).collect() })
    }

    /// The x of the least value between the first and the last point.
    pub(super) fn minimum(&self) -> f64 {
        let mut best = (f64::INFINITY, f64::NAN);
        let mut look = |x: f64, value: f64| {
            if value < best.0 {
                best = (value, x);
            }
        };
        for (x, y) in &self.points {
            look(*x, *y);
        }
        for at in 0..self.points.len() - 1 {
            let [y, b, c, d] = self.cubic(at);
            let width = self.points[at + 1].0 - self.points[at].0;
            for t in roots(3.0 * d, 2.0 * c, b).into_iter().flatten() {
                if t > 0.0 && t < width {
                    look(self.points[at].0 + t, y + t * (b + t * (c + t * d)));
                }
            }
        }
        best.1
    }

    /// Coefficients of the piece after a point, in powers of the distance from it.
    fn cubic(&self, at: usize) -> [f64; 4] {
        let ((x0, y0), (x1, y1)) = (self.points[at], self.points[at + 1]);
        let (left, right, width) = (self.slopes[at], self.slopes[at + 1], x1 - x0);
        let chord = (y1 - y0) / width;
        let c = (3.0 * chord - 2.0 * left - right) / width;
        let d = (left + right - 2.0 * chord) / (width * width);
        [y0, left, c, d]
    }
}

/// Real roots of a x² + b x + c, without cancellation.
fn roots(a: f64, b: f64, c: f64) -> [Option<f64>; 2] {
    let square = b * b - 4.0 * a * c;
    if square.is_nan() || square < 0.0 {
        return [None, None];
    }
    let q = -0.5 * (b + square.sqrt().copysign(b));
    let finite = |value: f64| Some(value).filter(|value| value.is_finite());
    [finite(q / a), finite(c / q)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equally_spaced_points_of_a_parabola_have_its_minimum() {
        for vertex in [-0.9, -0.31, 0.0, 0.2, 0.77, 1.4] {
            let points: Vec<(f64, f64)> = (-4..=4)
                .map(|i| (0.5 * f64::from(i), 2.0 + 0.3 * (0.5 * f64::from(i) - vertex).powi(2)))
                .collect();
            let found = Akima::through(&points).unwrap().minimum();
            assert!((found - vertex).abs() < 1e-12, "{found} for {vertex}");
        }
    }

    /// Aim: one stray point far from the minimum does not move it, which is what Akima made his
    /// slopes for.
    #[test]
    fn a_stray_point_moves_the_curve_beside_it_only() {
        let y = |x: f64| 2.0 + 0.3 * (x - 0.2) * (x - 0.2);
        let points = |stray: f64| -> Vec<(f64, f64)> {
            (-6..=6)
                .map(|i| {
                    let x = 0.5 * f64::from(i);
                    (x, y(x) + if i == 5 { stray } else { 0.0 })
                })
                .collect()
        };
        let minimum = |stray: f64| Akima::through(&points(stray)).unwrap().minimum();
        assert_eq!(minimum(0.0), minimum(0.4));
        assert!(Akima::through(&points(0.0)[..2]).is_none());
    }

    #[test]
    fn a_falling_profile_has_its_minimum_at_the_end() {
        let points: Vec<(f64, f64)> = (0..6).map(|i| (f64::from(i), -f64::from(i))).collect();
        assert_eq!(Akima::through(&points).unwrap().minimum(), 5.0);
    }
}

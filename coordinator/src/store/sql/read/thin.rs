//! Thinning of a curve: buckets in step that keep their exact minimum, maximum and last point.
//! It reads nothing; points come in one by one, in the order of their steps.

/// One point: the step and the value, absent where it was not finite.
pub(super) type Point = (u64, Option<f64>);

/// The points of neighbouring steps.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// The step divided by the thinner's width.
    index: u64,
    least: Option<(u64, f64)>,
    greatest: Option<(u64, f64)>,
    last: Point,
}

impl Bucket {
    fn of(index: u64, point: Point) -> Self {
        let finite = point.1.map(|value| (point.0, value));
        Self { index, least: finite, greatest: finite, last: point }
    }

    /// Takes in the bucket of the steps after this one's.
    fn absorb(&mut self, later: Self) {
        self.least = match (self.least, later.least) {
            (Some(a), Some(b)) => Some(if b.1 < a.1 { b } else { a }),
            (a, b) => a.or(b),
        };
        self.greatest = match (self.greatest, later.greatest) {
            (Some(a), Some(b)) => Some(if b.1 > a.1 { b } else { a }),
            (a, b) => a.or(b),
        };
        self.last = later.last;
    }

    /// The distinct points it keeps, by step.
    fn points(&self) -> impl Iterator<Item = Point> + use<> {
        let least = self.least.map(|(step, value)| (step, Some(value)));
        let greatest = self.greatest.map(|(step, value)| (step, Some(value)));
        let mut points = [least, greatest, Some(self.last)];
        points.sort_by_key(|point| point.map(|(step, _)| step));
        let mut previous = None;
        points.into_iter().flatten().filter(move |(step, _)| previous.replace(*step) != Some(*step))
    }
}

/// Keeps at most so many points of a curve of any length, in one pass and in bounded memory: the
/// buckets' width doubles whenever they hold too much.
#[derive(Debug)]
pub(super) struct Thinner {
    max_points: usize,
    width: u64,
    n_kept: usize,
    buckets: Vec<Bucket>,
}

impl Thinner {
    /// An empty one. A bucket keeps up to three points, so fewer than three cannot be promised.
    pub(super) fn new(max_points: usize) -> Self {
        Self { max_points: max_points.max(3), width: 1, n_kept: 0, buckets: Vec::new() }
    }

    /// Takes the next point; its step is above all before it.
    pub(super) fn push(&mut self, point: Point) {
        self.put(Bucket::of(point.0 / self.width, point));
        while self.n_kept > self.max_points {
            self.double();
        }
    }

    /// What is kept, by step.
    pub(super) fn finish(self) -> Vec<Point> {
        self.buckets.iter().flat_map(Bucket::points).collect()
    }

    fn put(&mut self, bucket: Bucket) {
        match self.buckets.last_mut() {
            Some(last) if last.index == bucket.index => {
                self.n_kept -= last.points().count();
                last.absorb(bucket);
                self.n_kept += last.points().count();
            }
            _ => {
                self.n_kept += bucket.points().count();
                self.buckets.push(bucket);
            }
        }
    }

    fn double(&mut self) {
        self.width *= 2;
        self.n_kept = 0;
        for mut bucket in std::mem::take(&mut self.buckets) {
            bucket.index /= 2;
            self.put(bucket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thinned(points: &[Point], max_points: usize) -> Vec<Point> {
        let mut thinner = Thinner::new(max_points);
        for point in points {
            thinner.push(*point);
        }
        thinner.finish()
    }

    #[test]
    fn a_curve_that_fits_is_kept_whole() {
        let points: Vec<Point> = (1..=100).map(|step| (step, Some(1.0 / step as f64))).collect();
        assert_eq!(thinned(&points, 100), points);
    }

    #[test]
    fn a_long_curve_keeps_its_extremes_and_its_last_point() {
        let mut points: Vec<Point> =
            (1..=10_000).map(|step| (step, Some((step as f64 / 50.0).sin()))).collect();
        points[4_321].1 = Some(-7.0);
        points[6_789].1 = Some(9.0);
        let kept = thinned(&points, 100);
        assert!(kept.len() <= 100 && kept.len() >= 30, "{}", kept.len());
        assert!(kept.contains(&(4_322, Some(-7.0))));
        assert!(kept.contains(&(6_790, Some(9.0))));
        assert_eq!(kept.last(), points.last());
        assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0), "steps grow");
    }

    #[test]
    fn a_last_point_that_is_not_finite_stays() {
        let mut points: Vec<Point> = (1..=1_000).map(|step| (step, Some(1.0))).collect();
        points.push((1_001, None));
        assert_eq!(thinned(&points, 10).last(), Some(&(1_001, None)));
    }

    #[test]
    fn a_curve_without_a_finite_point_is_still_there() {
        assert_eq!(thinned(&[(5, None), (6, None)], 3), [(5, None), (6, None)]);
    }
}

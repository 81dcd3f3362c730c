//! The panel of residuals: its range is that of the fitted rows, and what lies beyond is drawn at its
//! edge and said.

use super::{Dot, Scene, drawn};
use crate::figure::{Axis, Layer, Panel, Scale};

/// A residual counts as usual up to this many times the one that nine of ten fitted rows stay below.
const USUAL: f64 = 2.5;
/// The panel reaches this many times as far as the usual residuals.
const REACH: f64 = 2.0;
/// It reaches at least so far, in per cent: below lies the rounding of exact losses.
const LEAST_REACH: f64 = 0.001;

/// Predicted over measured, less one, as the errors of held-out rows are, over the same axis as the
/// first panel.
pub(super) fn panel(scenes: &[Scene], x: Axis) -> Panel {
    let all = || scenes.iter().flat_map(|scene| scene.fitted.iter().chain(&scene.held_out));
    let low = all().map(|dot| dot.x).fold(f64::INFINITY, f64::min);
    let high = all().map(|dot| dot.x).fold(f64::NEG_INFINITY, f64::max);
    let mut layers = vec![Layer::Line {
        series: None,
        points: vec![(low, 0.0), (high, 0.0)],
        is_dashed: false,
        label: String::new(),
    }];
    let reach = reach(scenes);
    let mut beyond: Vec<f64> = Vec::new();
    for (series, scene) in scenes.iter().enumerate() {
        let mut layer = |dots: Vec<&Dot>, is_filled: bool| {
            let dots = dots.into_iter().filter(|dot| dot.residual.is_finite());
            let (inside, outside): (Vec<&Dot>, Vec<&Dot>) =
                dots.partition(|dot| dot.residual.abs() <= reach);
            let points = inside.iter().map(|dot| (dot.x, dot.residual)).collect();
            layers.push(Layer::Marks { series, points, is_filled });
            if !outside.is_empty() {
                let at_edge = |dot: &&Dot| (dot.x, reach.copysign(dot.residual));
                let points = outside.iter().map(at_edge).collect();
                layers.push(Layer::Beyond { series, points, is_filled });
                beyond.extend(outside.iter().map(|dot| dot.residual));
            }
        };
        layer(drawn(&scene.fitted).collect(), false);
        layer(scene.held_out.iter().collect(), true);
    }
    Panel {
        title: title(&beyond),
        x,
        y: Axis { label: "predicted / measured − 1, %".to_owned(), scale: Scale::Linear },
        height: 150.0,
        layers,
    }
}

/// The largest residual that is drawn at its place, by those of the fitted rows; by all where none
/// is fitted.
fn reach(scenes: &[Scene]) -> f64 {
    let sizes = scenes.iter().flat_map(|scene| &scene.fitted).map(|dot| dot.residual.abs());
    let mut sizes: Vec<f64> = sizes.filter(|size| size.is_finite()).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    let Some(largest) = sizes.last() else { return f64::INFINITY };
    let nine_of_ten = sizes[(9 * sizes.len() / 10).min(sizes.len() - 1)];
    (REACH * largest.min(USUAL * nine_of_ten)).max(LEAST_REACH)
}

fn title(beyond: &[f64]) -> String {
    let title = "Residuals: predicted over measured, less one";
    let low = beyond.iter().copied().fold(f64::INFINITY, f64::min);
    let high = beyond.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shown = |value: f64| format!("{value:.3}").replace('-', "−");
    match beyond.len() {
        0 => title.to_owned(),
        1 => format!("{title}; at the edge, with an arrow: one of {} per cent", shown(low)),
        n => format!(
            "{title}; at the edge, with arrows: {n} from {} to {} per cent",
            shown(low),
            shown(high)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(fitted: &[f64], held_out: &[f64]) -> Scene {
        let dots = |residuals: &[f64]| -> Vec<Dot> {
            let places = (0..).zip(residuals);
            places.map(|(at, one)| Dot { x: f64::from(at + 1), y: 3.0, residual: *one }).collect()
        };
        Scene {
            name: "rows".to_owned(),
            fitted: dots(fitted),
            held_out: dots(held_out),
            curve: Vec::new(),
            fitted_x: (1.0, 1.0),
            profiles: Vec::new(),
        }
    }

    fn drawn_panel(fitted: &[f64], held_out: &[f64]) -> (Panel, usize, Vec<(f64, f64)>) {
        let x = Axis { label: "C".to_owned(), scale: Scale::Log };
        let panel = panel(&[scene(fitted, held_out)], x);
        let mut n_inside = 0;
        let mut at_edge = Vec::new();
        for layer in &panel.layers {
            match layer {
                Layer::Marks { points, .. } => n_inside += points.len(),
                Layer::Beyond { points, .. } => at_edge.extend(points.clone()),
                _ => {}
            }
        }
        (panel, n_inside, at_edge)
    }

    const FITTED: [f64; 6] = [0.1, -0.2, 0.15, -0.1, 0.05, 0.2];

    #[test]
    fn held_out_rows_far_off_stand_at_the_edge_and_are_said() {
        let (panel, n_inside, at_edge) = drawn_panel(&FITTED, &[0.3, 35.0, -12.5]);
        assert_eq!(n_inside, 7);
        assert_eq!(at_edge, [(2.0, 0.4), (3.0, -0.4)], "twice the largest fitted residual");
        assert!(panel.title.ends_with("with arrows: 2 from −12.500 to 35.000 per cent"));
        let (panel, n_inside, at_edge) = drawn_panel(&FITTED, &[0.39]);
        assert_eq!((n_inside, at_edge.len()), (7, 0), "{}", panel.title);
        assert!(panel.title.ends_with("less one"));
    }

    #[test]
    fn a_fitted_row_that_the_law_leaves_aside_does_not_hide_the_others() {
        let fitted: Vec<f64> = (0..30).map(|at| if at == 7 { 60.0 } else { 0.2 }).collect();
        let (panel, n_inside, at_edge) = drawn_panel(&fitted, &[]);
        assert_eq!((n_inside, &at_edge[..]), (29, &[(8.0, 1.0)][..]), "{}", panel.title);
        assert!(panel.title.ends_with("one of 60.000 per cent"), "{}", panel.title);
        // Exact losses have residuals of rounding, and none is far off.
        let (_, n_inside, at_edge) = drawn_panel(&[1e-12, -1e-12, 1e-13], &[1e-10]);
        assert_eq!((n_inside, at_edge.len()), (4, 0));
    }
}
